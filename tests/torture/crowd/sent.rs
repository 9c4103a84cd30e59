//! One send: what was asked for, and what is known of it.

use std::time::{Duration, Instant};

/// How a send was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 200, with the message's name.
    Accepted(String),
    /// Certainly not accepted.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// What a sender asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish {
    /// How long it lives, if not until it is acknowledged or replaced.
    pub ttl: Option<Duration>,
    /// Its collapse key.
    pub key: Option<u8>,
    /// It was sent to many, so it comes after its answer.
    pub is_copy: bool,
}

/// One send, over all its repeats.
#[derive(Debug)]
pub struct Sent {
    pub begun: Instant,
    pub answered: Option<Instant>,
    pub answer: Option<Answer>,
    /// Tries that have no answer yet: each may be the one that is stored.
    pub under_way: usize,
    pub wish: Wish,
    /// The clock was moved while it was on its way or waiting.
    pub is_clock_moved: bool,
    /// An ack of everything may have met it.
    pub is_given_up: bool,
    /// It was shown or has an excuse, which stands.
    pub is_settled: bool,
}

impl Sent {
    /// A reader may find that it is gone, though it was shown before and is not acknowledged.
    pub fn may_be_skipped(&self) -> bool {
        self.wish.ttl.is_some() || self.wish.key.is_some() || self.is_given_up
    }
}
