//! Which sends of a token are on their way into the store, which wait, and which are refused.
//! The pure half of Storage: no clock, no I/O.
//!
//! A store settles a bounded number of pushes of one token at a time. Further ones wait here, in
//! the order they came, and past that bound the sender hears "too many".

use std::collections::VecDeque;
use std::collections::hash_map::Entry;

use crate::actors::FastMap;
use crate::token::TokenId;

/// Names one send within its Storage actor.
pub type Ticket = u64;

/// Bounds of one [`Admission`].
#[derive(Debug, Clone, Copy)]
pub struct AdmissionLimits {
    /// Sends of one token that the store may work on at once.
    pub in_flight_per_token: usize,
    /// Sends of one token that may wait for those.
    pub queued_per_token: usize,
    /// Sends of all tokens that may be in flight or waiting.
    pub total: usize,
}

/// What to do with a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// Hand it to the store now.
    Start,
    /// Keep it; a later [`Admission::finish`] names it.
    Wait,
    /// This token has too many already: 429.
    TokenFull,
    /// The node has too many already: 503.
    NodeFull,
}

#[derive(Debug, Default)]
struct Lane {
    in_flight: usize,
    waiting: VecDeque<Ticket>,
}

/// The sends of one shard that have not ended yet.
#[derive(Debug)]
pub struct Admission {
    limits: AdmissionLimits,
    lanes: FastMap<TokenId, Lane>,
    total: usize,
}

impl Admission {
    /// With nothing on its way.
    #[must_use]
    pub fn new(limits: AdmissionLimits) -> Self {
        Self {
            limits,
            lanes: FastMap::default(),
            total: 0,
        }
    }

    /// Decides on a new send.
    pub fn admit(&mut self, token: TokenId, ticket: Ticket) -> Admitted {
        if self.total >= self.limits.total {
            return Admitted::NodeFull;
        }
        let lane = self.lanes.entry(token).or_default();
        if lane.in_flight < self.limits.in_flight_per_token {
            lane.in_flight += 1;
            self.total += 1;
            Admitted::Start
        } else if lane.waiting.len() < self.limits.queued_per_token {
            lane.waiting.push_back(ticket);
            self.total += 1;
            Admitted::Wait
        } else {
            Admitted::TokenFull
        }
    }

    /// One send of `token` ended in the store; returns the one that may start in its place.
    pub fn finish(&mut self, token: TokenId) -> Option<Ticket> {
        let Entry::Occupied(mut entry) = self.lanes.entry(token) else {
            return None;
        };
        self.total = self.total.saturating_sub(1);
        let lane = entry.get_mut();
        if let Some(next) = lane.waiting.pop_front() {
            return Some(next);
        }
        lane.in_flight = lane.in_flight.saturating_sub(1);
        if lane.in_flight == 0 {
            entry.remove();
        }
        None
    }

    /// Sends that have not ended.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: TokenId = TokenId([1; 16]);
    const OTHER: TokenId = TokenId([2; 16]);

    fn admission(in_flight_per_token: usize, queued_per_token: usize, total: usize) -> Admission {
        Admission::new(AdmissionLimits {
            in_flight_per_token,
            queued_per_token,
            total,
        })
    }

    #[test]
    fn sends_start_then_wait_then_are_refused() {
        let mut admission = admission(2, 1, 100);
        assert_eq!(admission.admit(TOKEN, 1), Admitted::Start);
        assert_eq!(admission.admit(TOKEN, 2), Admitted::Start);
        assert_eq!(admission.admit(TOKEN, 3), Admitted::Wait);
        assert_eq!(admission.admit(TOKEN, 4), Admitted::TokenFull);
        assert_eq!(
            admission.admit(OTHER, 5),
            Admitted::Start,
            "tokens do not share lanes"
        );
    }

    #[test]
    fn waiting_sends_start_in_the_order_they_came() {
        let mut admission = admission(1, 8, 100);
        for ticket in 1..=4 {
            admission.admit(TOKEN, ticket);
        }
        let started: Vec<_> = std::iter::from_fn(|| admission.finish(TOKEN)).collect();
        assert_eq!(started, [2, 3, 4]);
        assert_eq!(admission.total(), 0);
        assert!(admission.lanes.is_empty(), "an idle token costs nothing");
    }

    #[test]
    fn the_node_as_a_whole_is_bounded() {
        let mut admission = admission(8, 8, 2);
        assert_eq!(admission.admit(TOKEN, 1), Admitted::Start);
        assert_eq!(admission.admit(OTHER, 2), Admitted::Start);
        assert_eq!(admission.admit(OTHER, 3), Admitted::NodeFull);
        admission.finish(TOKEN);
        assert_eq!(admission.admit(OTHER, 4), Admitted::Start);
    }
}
