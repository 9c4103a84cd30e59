//! The pure half of a token: which pushes are new, and how far the device may acknowledge.
//!
//! Acknowledgements are cumulative, so a syn may be acknowledged only when everything shown below
//! it is dealt with. A push that the app never sees again (a duplicate under another syn) is
//! acknowledged silently, in its turn.

use std::collections::{HashSet, VecDeque};

/// Message ids that each token remembers. A push comes again under another syn only from a send
/// that the server had to repeat, so its twin is never far away.
pub(crate) const RECENT_IDS: usize = 256;

/// A syn that came and is not acknowledged yet.
#[derive(Debug, Clone, Copy)]
struct Open {
    syn: u64,
    /// The app does not know of it, so nobody but the inbox will acknowledge it.
    silent: bool,
}

/// What came to one token, and what of it is done with.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    acked: u64,
    /// The server has been told of this acknowledgement.
    reported: u64,
    /// Largest syn that ever came.
    seen: u64,
    /// Ascending. The server sends at most 64 pushes beyond the acknowledged ones, and a poll
    /// page starts at the acknowledged one, so this stays small.
    open: VecDeque<Open>,
    recent: RecentIds,
}

impl Inbox {
    /// An inbox that has acknowledged up to `acked` in an earlier life.
    pub(crate) fn resume(acked: u64) -> Self {
        Self {
            acked,
            reported: acked,
            seen: acked,
            ..Self::default()
        }
    }

    /// Every syn up to here is done with.
    pub(crate) fn acked(&self) -> u64 {
        self.acked
    }

    /// The smallest syn wanted at the next hello or poll. Naming it acknowledges the rest.
    pub(crate) fn min_syn(&self) -> u64 {
        self.acked.saturating_add(1).min(herald_protocol::SYN_MAX)
    }

    /// The server was told [`Self::min_syn`].
    pub(crate) fn greeted(&mut self) {
        self.reported = self.acked;
    }

    /// Whether the app has dealt with all that came.
    pub(crate) fn is_clear(&self) -> bool {
        self.open.is_empty()
    }

    /// A push came; true when the app has not seen it.
    pub(crate) fn arrive(&mut self, syn: u64, message_id: &str) -> bool {
        if syn <= self.acked {
            // The server has not heard of the acknowledgement: say it again.
            self.reported = self.reported.min(syn.saturating_sub(1));
            return false;
        }
        let Err(place) = self.open.binary_search_by_key(&syn, |open| open.syn) else {
            return false;
        };
        let is_new = self.recent.remember(message_id);
        let silent = !is_new;
        self.open.insert(place, Open { syn, silent });
        self.seen = self.seen.max(syn);
        self.settle_silent();
        is_new
    }

    /// The server dropped unacknowledged pushes up to here; true when some were never shown.
    pub(crate) fn deleted(&mut self, up_to_syn: u64) -> bool {
        if up_to_syn <= self.acked {
            self.reported = self.reported.min(up_to_syn.saturating_sub(1));
            return false;
        }
        let was_seen = up_to_syn <= self.seen;
        self.seen = self.seen.max(up_to_syn);
        if let Err(place) = self.open.binary_search_by_key(&up_to_syn, |open| open.syn) {
            let silent = was_seen;
            self.open.insert(
                place,
                Open {
                    syn: up_to_syn,
                    silent,
                },
            );
        }
        self.settle_silent();
        !was_seen
    }

    /// The app has dealt with everything up to `syn`. A number beyond what came counts as the
    /// largest that came.
    pub(crate) fn ack(&mut self, syn: u64) {
        self.acked = self.acked.max(syn.min(self.seen));
        while self.open.front().is_some_and(|open| open.syn <= self.acked) {
            self.open.pop_front();
        }
        self.settle_silent();
    }

    /// The acknowledgement that the server has not heard of yet.
    pub(crate) fn ack_due(&self) -> Option<u64> {
        (self.acked > self.reported).then_some(self.acked)
    }

    /// The acknowledgement of `syn` is on its way.
    pub(crate) fn reported(&mut self, syn: u64) {
        self.reported = syn;
    }

    fn settle_silent(&mut self) {
        while let Some(open) = self.open.front().filter(|open| open.silent) {
            self.acked = open.syn;
            self.open.pop_front();
        }
    }
}

/// The newest message ids, oldest forgotten first.
#[derive(Debug, Default)]
struct RecentIds {
    known: HashSet<String>,
    order: VecDeque<String>,
}

impl RecentIds {
    /// True when the id is new.
    fn remember(&mut self, message_id: &str) -> bool {
        if !self.known.insert(message_id.to_owned()) {
            return false;
        }
        self.order.push_back(message_id.to_owned());
        if self.order.len() > RECENT_IDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_wait_for_what_came_before() {
        let mut inbox = Inbox::default();
        assert!(inbox.arrive(1, "a") && inbox.arrive(2, "b") && inbox.arrive(5, "c"));
        assert_eq!((inbox.ack_due(), inbox.min_syn()), (None, 1));
        inbox.ack(2);
        assert_eq!((inbox.ack_due(), inbox.min_syn()), (Some(2), 3));
        inbox.reported(2);
        assert_eq!(inbox.ack_due(), None);
        inbox.ack(1_000);
        assert_eq!((inbox.acked(), inbox.is_clear()), (5, true));
    }

    #[test]
    fn a_redelivered_syn_is_shown_once_and_acknowledged_again() {
        let mut inbox = Inbox::default();
        assert!(inbox.arrive(3, "a"));
        assert!(!inbox.arrive(3, "a"));
        inbox.ack(3);
        inbox.reported(3);
        assert!(!inbox.arrive(3, "a"));
        assert_eq!(inbox.ack_due(), Some(3));
    }

    #[test]
    fn a_twin_under_another_syn_is_acknowledged_in_its_turn() {
        let mut inbox = Inbox::default();
        assert!(inbox.arrive(1, "a"));
        assert!(!inbox.arrive(2, "a"));
        assert_eq!(inbox.acked(), 0);
        inbox.ack(1);
        assert_eq!((inbox.acked(), inbox.is_clear()), (2, true));
        assert!(!inbox.arrive(3, "a"));
        assert_eq!(inbox.ack_due(), Some(3));
    }

    #[test]
    fn dropped_pushes_are_reported_only_if_they_were_never_shown() {
        let mut inbox = Inbox::resume(10);
        assert!(inbox.deleted(40));
        assert!(!inbox.deleted(40));
        assert_eq!(inbox.acked(), 10);
        assert!(inbox.arrive(41, "a"));
        inbox.ack(40);
        assert_eq!(inbox.ack_due(), Some(40));
        assert!(!inbox.deleted(41));
        assert_eq!((inbox.acked(), inbox.is_clear()), (40, false));
        inbox.ack(41);
        assert!(inbox.is_clear());
    }

    #[test]
    fn the_memory_of_ids_is_bounded() {
        let mut inbox = Inbox::default();
        for syn in 1..=2 * RECENT_IDS as u64 {
            assert!(inbox.arrive(syn, &format!("m{syn}")));
            inbox.ack(syn);
        }
        assert_eq!(inbox.recent.known.len(), RECENT_IDS);
        assert_eq!(inbox.recent.order.len(), RECENT_IDS);
    }

    #[test]
    fn min_syn_stays_a_legal_number() {
        let mut inbox = Inbox::resume(u64::MAX);
        assert_eq!(inbox.min_syn(), herald_protocol::SYN_MAX);
        inbox.ack(7);
        assert_eq!(inbox.acked(), u64::MAX);
    }
}
