//! One push as its sender knows it.

use std::collections::BTreeSet;

use herald::clock::Millis;
use herald::push::{EXPIRY_GRACE_MS, MessageId};
use herald::topic::Reach;
use tokio::time::Instant;

/// How a send ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Stored,
    Refused,
    Unknown,
}

/// Whom a push is for.
pub enum To {
    One(usize),
    Many(Reach),
}

/// A push.
pub struct Sent {
    pub to: To,
    pub id: MessageId,
    pub accepted_at: Millis,
    pub expires_at: Millis,
    pub sent_at: Instant,
    /// Of a push to many: the tokens that the store knew then.
    pub known: BTreeSet<usize>,
    pub answer: Option<Answer>,
    /// The tokens whose devices have seen it.
    pub shown_to: BTreeSet<usize>,
}

impl Sent {
    pub fn new(to: To, id: MessageId, accepted_at: Millis, expires_at: Millis) -> Self {
        Self {
            to,
            id,
            accepted_at,
            expires_at,
            sent_at: Instant::now(),
            known: BTreeSet::new(),
            answer: None,
            shown_to: BTreeSet::new(),
        }
    }

    /// Whether nobody may be given it any more. "Now or never" has a second.
    pub fn is_over(&self, now: Millis) -> bool {
        if self.expires_at == self.accepted_at {
            now > self.expires_at + EXPIRY_GRACE_MS
        } else {
            now >= self.expires_at
        }
    }

    /// Whether its device need not be shown it any more, or never had to be.
    pub fn is_excused(&self, now: Millis) -> bool {
        now >= self.expires_at
    }
}
