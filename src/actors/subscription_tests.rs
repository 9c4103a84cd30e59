//! The hand-over from catch-up to live, driven by a random interleaving of everything that can
//! happen to one token.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::push::MessageId;
use crate::token::{DeviceId, Key, Keyring, ProjectHash};

const NOW: Millis = 1_000_000;

fn subscription() -> Subscription {
    let key = || Key::new(1, &[1; 32]).expect("32 bytes");
    let ring = Keyring::new(&[key()], vec![key()]).expect("keys");
    let address = TokenAddress::mint(DeviceId([1; 16]), ProjectHash::of("demo"), NOW);
    let opened = ring.open_text(&ring.seal(address).to_text());
    let (address, seal) = opened.expect("a token of this ring");
    Subscription::new(address, seal)
}

fn push(syn: Syn) -> Push {
    Push {
        syn,
        message_id: MessageId::from_bytes([0; 16]),
        accepted_at: NOW,
        expires_at: NOW + 60_000,
        message: Bytes::from_static(b"{}"),
    }
}

fn delivery(subscription: &Subscription, prev_syn: Syn, syn: Syn) -> Delivery {
    Delivery {
        address: subscription.address,
        prev_syn,
        syn_stored: syn,
        deleted_up_to: None,
        push: Arc::new(push(syn)),
    }
}

fn syns(shown: &[Shown]) -> Vec<Syn> {
    shown
        .iter()
        .filter_map(|shown| match shown {
            Shown::Push(push) => Some(push.syn),
            Shown::Deleted(_) => None,
        })
        .collect()
}

#[test]
fn a_delivery_next_in_line_is_shown_at_once() {
    let mut subscription = subscription();
    subscription.attached(4, 4, None);
    let delivery = delivery(&subscription, 4, 5);
    assert_eq!(syns(&subscription.deliver(&delivery, true, NOW)), [5]);
    assert!(
        syns(&subscription.deliver(&delivery, true, NOW)).is_empty(),
        "never twice"
    );
    assert!(subscription.is_quiet());
}

#[test]
fn a_delivery_behind_a_gap_makes_the_store_be_read() {
    let mut subscription = subscription();
    subscription.attached(4, 2, None);
    let delivery = delivery(&subscription, 4, 5);
    assert!(subscription.deliver(&delivery, true, NOW).is_empty());
    assert_eq!(subscription.start_reading(), Some((2, WINDOW)));
    let page = Page {
        pushes: vec![push(3), push(5)],
        read_up_to: 5,
        syn_stored: 5,
        deleted_up_to: None,
        more: false,
    };
    assert_eq!(syns(&subscription.page(page, NOW)), [3, 5]);
    assert_eq!(subscription.start_reading(), None);
}

#[test]
fn the_window_closes_and_follows_the_acks() {
    let mut subscription = subscription();
    subscription.attached(0, 0, None);
    for syn in 1..=100 {
        let delivery = delivery(&subscription, syn - 1, syn);
        let expected: &[Syn] = if syn <= 64 { &[syn] } else { &[] };
        assert_eq!(syns(&subscription.deliver(&delivery, true, NOW)), expected);
    }
    assert_eq!(subscription.start_reading(), None, "no room before an ack");
    assert!(
        subscription.is_quiet(),
        "waiting for acks does not forbid parking"
    );
    subscription.acked(10);
    assert_eq!(subscription.start_reading(), Some((64, 10)));
}

#[test]
fn a_full_outbox_leaves_the_push_in_the_store() {
    let mut subscription = subscription();
    subscription.attached(0, 0, None);
    let delivery = delivery(&subscription, 0, 1);
    assert!(subscription.deliver(&delivery, false, NOW).is_empty());
    assert_eq!(subscription.start_reading(), Some((0, WINDOW)));
}

#[test]
fn an_expired_push_is_passed_over() {
    let mut subscription = subscription();
    subscription.attached(0, 0, None);
    let delivery = delivery(&subscription, 0, 1);
    assert!(
        subscription
            .deliver(&delivery, true, NOW + 60_000)
            .is_empty()
    );
    assert_eq!(subscription.start_reading(), None);
}

#[test]
fn drops_are_told_once_and_again_only_when_there_are_more() {
    let mut subscription = subscription();
    assert_eq!(
        subscription.attached(9, 5, Some(5)),
        Some(Shown::Deleted(5))
    );
    assert_eq!(subscription.show_deleted(Some(5)), None);
    assert_eq!(subscription.show_deleted(Some(6)), Some(Shown::Deleted(6)));
}

#[derive(Debug, Clone)]
enum Event {
    Settle,
    HearLate,
    LoseHint,
    Read,
    AckSome(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Settle),
        2 => Just(Event::HearLate),
        1 => Just(Event::LoseHint),
        4 => Just(Event::Read),
        2 => (0_usize..80).prop_map(Event::AckSome),
    ]
}

proptest! {
    /// Whatever is settled, delivered late, lost on the short way, read or acknowledged: what the
    /// device sees strictly grows and, in the end, nothing is missing.
    #[test]
    fn the_device_sees_everything_once_in_order(
        already in 0_u64..5,
        attach_after in 0_usize..20,
        events in proptest::collection::vec(event(), 1..200),
    ) {
        let mut subscription = subscription();
        let mut stored = already;
        let mut hints: Vec<Delivery> = Vec::new();
        let mut page: Option<(Syn, Page)> = None;
        let mut seen: Vec<Syn> = Vec::new();
        let mut acked = 0;
        for (step, event) in events.into_iter().enumerate() {
            if step == attach_after {
                subscription.attached(stored, 0, None);
            }
            match event {
                Event::Settle => {
                    stored += 1;
                    hints.push(delivery(&subscription, stored - 1, stored));
                }
                Event::HearLate if !hints.is_empty() => {
                    let hint = hints.remove(0);
                    seen.extend(syns(&subscription.deliver(&hint, true, NOW)));
                }
                Event::LoseHint if !hints.is_empty() => {
                    hints.remove(0);
                }
                Event::Read => match page.take() {
                    Some((_, page)) => seen.extend(syns(&subscription.page(page, NOW))),
                    None => {
                        if let Some((after, limit)) = subscription.start_reading() {
                            page = Some((after, read(after, stored, acked, limit)));
                        }
                    }
                },
                Event::AckSome(count) => {
                    if let Some(syn) = seen.get(count.min(seen.len().saturating_sub(1))) {
                        acked = acked.max(*syn);
                        subscription.acked(*syn);
                    }
                }
                _ => {}
            }
        }
        // The network heals: the session attaches, hears of the watermark, and acknowledges.
        subscription.attached(stored, 0, None);
        if let Some((_, page)) = page.take() {
            seen.extend(syns(&subscription.page(page, NOW)));
        }
        for _ in 0..100 {
            subscription.acked(seen.last().copied().unwrap_or(0));
            if let Some((after, limit)) = subscription.start_reading() {
                let page = read(after, stored, 0, limit);
                seen.extend(syns(&subscription.page(page, NOW)));
            }
        }
        let expected: Vec<Syn> = (1..=stored).collect();
        prop_assert_eq!(seen, expected);
        prop_assert!(subscription.is_quiet());
    }
}

/// What a store that holds `(acked, stored]` answers.
fn read(after: Syn, stored: Syn, acked: Syn, limit: usize) -> Page {
    let pushes: Vec<Push> = (after.max(acked) + 1..=stored)
        .take(limit)
        .map(push)
        .collect();
    let more = pushes.last().is_some_and(|last| last.syn < stored);
    let read_up_to = if more {
        pushes.last().map_or(after, |last| last.syn)
    } else {
        stored
    };
    Page {
        pushes,
        read_up_to,
        syn_stored: stored,
        deleted_up_to: None,
        more,
    }
}
