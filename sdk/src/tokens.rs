//! The pure half of a device: its tokens, what came to each, and what the server is yet to hear.

use std::time::Duration;

use herald_protocol::{DeviceFrame, TokenCursor};
use tokio::time::Instant;

use crate::api::{PollEntry, PollRequest};
use crate::event::{Event, Push};
use crate::inbox::Inbox;
use crate::state::TokenState;

/// Messages asked for per token and poll: what a push window on the socket holds, and some.
const POLL_LIMIT: u32 = 100;

/// A token that the server could not take into the session is tried again after this long, up to
/// twice as long.
const TOKEN_RETRY: Duration = Duration::from_secs(10);

/// Refusals of a token that pass by themselves; any other ends the token.
const PASSING_REFUSALS: [&str; 2] = ["UNAVAILABLE", "RESOURCE_EXHAUSTED"];

struct Token {
    project_id: String,
    token: String,
    inbox: Inbox,
    /// When the server is to be told of the token; `None` when it has been.
    subscribe_at: Option<Instant>,
}

/// All tokens of a device.
#[derive(Default)]
pub(crate) struct Tokens(Vec<Token>);

impl Tokens {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes a token in; the server is to hear of it at `now`.
    pub(crate) fn add(&mut self, kept: TokenState, now: Instant) {
        self.0.push(Token {
            inbox: Inbox::resume(kept.acked),
            project_id: kept.project_id,
            token: kept.token,
            subscribe_at: Some(now),
        });
    }

    pub(crate) fn project_of(&self, token: &str) -> Option<&str> {
        let known = self.0.iter().find(|known| known.token == token)?;
        Some(&known.project_id)
    }

    /// Forgets a token; false when it was not known.
    pub(crate) fn remove(&mut self, token: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|known| known.token != token);
        self.0.len() < before
    }

    /// Forgets all, and says what they were.
    pub(crate) fn take_all(&mut self) -> Vec<TokenState> {
        let states = self.to_states();
        self.0.clear();
        states
    }

    pub(crate) fn to_states(&self) -> Vec<TokenState> {
        let state = |token: &Token| TokenState {
            project_id: token.project_id.clone(),
            token: token.token.clone(),
            acked: token.inbox.acked(),
        };
        self.0.iter().map(state).collect()
    }

    /// What a hello says. It tells the server of every token and every acknowledgement.
    pub(crate) fn greet(&mut self) -> Vec<TokenCursor> {
        for token in &mut self.0 {
            token.subscribe_at = None;
            token.inbox.greeted();
        }
        self.0.iter().map(Token::cursor).collect()
    }

    pub(crate) fn poll_requests(&self) -> Vec<PollRequest> {
        let request = |token: &Token| PollRequest {
            project_id: token.project_id.clone(),
            token: token.token.clone(),
            min_syn: token.inbox.min_syn(),
            limit: POLL_LIMIT,
        };
        self.0.iter().map(request).collect()
    }

    /// Whether the app has dealt with all that came.
    pub(crate) fn is_clear(&self) -> bool {
        self.0.iter().all(|token| token.inbox.is_clear())
    }

    pub(crate) fn ack(&mut self, token: &str, syn: u64) {
        if let Some(known) = self.find(token) {
            known.inbox.ack(syn);
        }
    }

    /// The next frame the server should get. Call [`Self::told`] once it is sent.
    pub(crate) fn due(&self, now: Instant) -> Option<DeviceFrame> {
        self.0.iter().find_map(|token| {
            if token.subscribe_at.is_some_and(|at| at <= now) {
                return Some(DeviceFrame::Subscribe(token.cursor()));
            }
            token.inbox.ack_due().map(|syn| DeviceFrame::Ack {
                token: token.token.clone(),
                syn,
            })
        })
    }

    /// When a subscription falls due.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.0.iter().filter_map(|token| token.subscribe_at).min()
    }

    /// The frame that was due is sent.
    pub(crate) fn told(&mut self, frame: &DeviceFrame) {
        match frame {
            DeviceFrame::Subscribe(cursor) => {
                if let Some(token) = self.find(&cursor.token) {
                    token.subscribe_at = None;
                    token.inbox.greeted();
                }
            }
            DeviceFrame::Ack { token, syn } => {
                if let Some(token) = self.find(token) {
                    token.inbox.reported(*syn);
                }
            }
            _ => {}
        }
    }

    /// A push came, by socket or poll.
    pub(crate) fn arrived(&mut self, push: Push) -> Option<Event> {
        let token = self.find(&push.token)?;
        token
            .inbox
            .arrive(push.syn, &push.message_id)
            .then_some(Event::Push(push))
    }

    /// The server dropped what was waiting, up to `up_to_syn`.
    pub(crate) fn deleted(&mut self, token: String, up_to_syn: u64) -> Option<Event> {
        let known = self.find(&token)?;
        known
            .inbox
            .deleted(up_to_syn)
            .then_some(Event::Deleted { token, up_to_syn })
    }

    /// The server refused a token, for now or for ever.
    pub(crate) fn refused(&mut self, token: String, status: String, now: Instant) -> Option<Event> {
        if PASSING_REFUSALS.contains(&status.as_str()) {
            let wait = TOKEN_RETRY.mul_f64(1.0 + rand::random::<f64>());
            self.find(&token)?.subscribe_at = Some(now + wait);
            return None;
        }
        self.remove(&token)
            .then_some(Event::Unregistered { token, status })
    }

    /// One entry of a poll came.
    pub(crate) fn polled(&mut self, entry: PollEntry, now: Instant) -> Vec<Event> {
        if let Some(failure) = entry.error {
            let event = self.refused(entry.token, failure.status, now);
            return event.into_iter().collect();
        }
        let deleted = entry
            .deleted_up_to
            .and_then(|up_to_syn| self.deleted(entry.token.clone(), up_to_syn));
        let mut events: Vec<Event> = deleted.into_iter().collect();
        for message in entry.messages {
            events.extend(self.arrived(Push {
                token: entry.token.clone(),
                syn: message.syn,
                message_id: message.message_id,
                time: message.time,
                message: message.message,
            }));
        }
        events
    }

    fn find(&mut self, token: &str) -> Option<&mut Token> {
        self.0.iter_mut().find(|known| known.token == token)
    }
}

impl Token {
    fn cursor(&self) -> TokenCursor {
        TokenCursor {
            token: self.token.clone(),
            min_syn: self.inbox.min_syn(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passing_refusal_is_tried_again_and_others_end_the_token() {
        let now = Instant::now();
        let mut tokens = Tokens::default();
        tokens.add(
            TokenState {
                project_id: "demo".into(),
                token: "t".into(),
                acked: 4,
            },
            now,
        );
        assert_eq!(tokens.greet().first().map(|cursor| cursor.min_syn), Some(5));
        assert_eq!(tokens.due(now), None);

        assert!(
            tokens
                .refused("t".into(), "UNAVAILABLE".into(), now)
                .is_none()
        );
        assert_eq!(tokens.due(now), None);
        let later = tokens.wake_at().expect("is tried again");
        assert!(later >= now + TOKEN_RETRY);
        let frame = tokens.due(later).expect("is due");
        assert!(matches!(&frame, DeviceFrame::Subscribe(cursor) if cursor.min_syn == 5));
        tokens.told(&frame);
        assert_eq!((tokens.due(later), tokens.wake_at()), (None, None));

        let ended = tokens.refused("t".into(), "UNREGISTERED".into(), now);
        assert!(matches!(ended, Some(Event::Unregistered { .. })));
        assert_eq!(tokens.len(), 0);
    }
}
