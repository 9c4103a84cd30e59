//! What a subscription shows, as frames for the device.

use herald_protocol::ServerFrame;

use crate::actors::action::Action;
use crate::actors::subscription::{Shown, Subscription};
use crate::token::Keyring;

/// All of what a subscription shows. `live`: it came over the short way, not out of the store.
pub fn show_all(
    subscription: &Subscription,
    shown: &[Shown],
    live: bool,
    keys: &Keyring,
) -> Vec<Action> {
    let mut actions = Vec::with_capacity(shown.len() * 2);
    for shown in shown {
        actions.push(show(subscription, shown, keys));
        if let Shown::Push(push) = shown {
            actions.push(Action::Delivered {
                accepted_at: push.accepted_at,
                live,
            });
        }
    }
    actions
}

/// The frame of something that is shown.
pub fn show(subscription: &Subscription, shown: &Shown, keys: &Keyring) -> Action {
    let token = subscription.text(keys);
    Action::Send(match shown {
        Shown::Deleted(up_to_syn) => ServerFrame::Deleted {
            token,
            up_to_syn: *up_to_syn,
        }
        .to_text(),
        Shown::Push(push) => {
            // 128 bytes hold the frame's fixed part and its numbers.
            let mut text = String::with_capacity(push.message.len() + token.len() + 128);
            let message = std::str::from_utf8(&push.message).unwrap_or("null");
            let message_id = push.message_id.to_string();
            let (syn, time) = (push.syn, push.accepted_at);
            ServerFrame::write_push(&mut text, &token, syn, &message_id, time, message);
            text
        }
    })
}
