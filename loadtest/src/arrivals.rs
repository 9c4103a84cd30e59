//! Judges what arrives at the devices of one process: which sends came, and whether any came
//! twice or out of order.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};

const BITS: u64 = 64;

/// A set of sends, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SendSet(Vec<u64>);

impl SendSet {
    /// Adds a number; false when it was in already.
    pub fn insert(&mut self, number: u64) -> bool {
        let Ok(place) = usize::try_from(number / BITS) else {
            return false;
        };
        if place >= self.0.len() {
            self.0.resize(place + 1, 0);
        }
        let Some(word) = self.0.get_mut(place) else {
            return false;
        };
        let bit = 1 << (number % BITS);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// How many numbers are in.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Adds all of another set, and says how many were in already.
    pub fn merge(&mut self, other: &Self) -> u64 {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        let mut common = 0;
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            common += u64::from((*mine & theirs).count_ones());
            *mine |= theirs;
        }
        common
    }

    /// For the pipe between processes.
    pub fn to_text(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
        STANDARD_NO_PAD.encode(bytes)
    }

    /// The inverse of [`Self::to_text`].
    ///
    /// # Errors
    /// When the text is not base64.
    pub fn from_text(text: &str) -> Result<Self, base64::DecodeError> {
        let bytes = STANDARD_NO_PAD.decode(text)?;
        let (words, _) = bytes.as_chunks::<8>();
        Ok(Self(
            words.iter().map(|word| u64::from_le_bytes(*word)).collect(),
        ))
    }
}

/// Where one token stands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place {
    /// Largest syn on this connection.
    latest: u64,
    /// Largest syn on any connection.
    shown: u64,
    /// Largest syn that the device has acknowledged.
    acked: u64,
    /// `min_syn` of this connection's hello, less one.
    acked_at_hello: u64,
    /// Largest syn on earlier connections.
    shown_earlier: u64,
}

impl Place {
    /// A new connection begins; returns its `min_syn`.
    pub fn reconnect(&mut self) -> u64 {
        self.shown_earlier = self.shown;
        self.acked_at_hello = self.acked;
        self.latest = 0;
        self.acked + 1
    }

    /// The device acknowledges everything that it was shown; returns up to where.
    pub fn acknowledge(&mut self) -> u64 {
        self.acked = self.shown;
        self.acked
    }

    /// Largest syn that the device was ever shown.
    pub fn shown(&self) -> u64 {
        self.shown
    }

    /// Whether the device was shown something that it has not acknowledged.
    pub fn owes(&self) -> bool {
        self.acked < self.shown
    }
}

/// Counts of what arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrivalCounts {
    /// Sends that arrived, each counted once.
    pub delivered: u64,
    /// Arrivals that had arrived before, and that at-least-once does not excuse.
    pub duplicated: u64,
    /// Arrivals under a syn not above its forerunners.
    pub out_of_order: u64,
    /// Arrivals that had arrived before and were not acknowledged: at-least-once wants them.
    pub redelivered: u64,
}

impl ArrivalCounts {
    /// Adds those of another process.
    pub fn add(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.redelivered += other.redelivered;
    }
}

/// All arrivals of one process.
#[derive(Debug, Default)]
pub struct Arrivals {
    seen: SendSet,
    counts: ArrivalCounts,
}

impl Arrivals {
    /// Send number `send` came to the token at `place` under `syn`.
    ///
    /// Nothing may come twice on one connection, nor again once it was acknowledged when the
    /// connection began. What is new may not come under a syn below one that was shown. The same
    /// send under a *higher* syn than all shown ones is excused: the server may have had to repeat
    /// it. And what was shown but not acknowledged has to come again on the next connection.
    pub fn arrive(&mut self, place: &mut Place, send: u64, syn: u64) {
        let is_new = self.seen.insert(send);
        let counts = &mut self.counts;
        counts.delivered += u64::from(is_new);
        if syn == place.latest || (!is_new && syn <= place.acked_at_hello) {
            counts.duplicated += 1;
        } else if syn < place.latest || (is_new && syn <= place.shown_earlier) {
            counts.out_of_order += 1;
        } else if !is_new {
            counts.redelivered += 1;
        }
        place.latest = place.latest.max(syn);
        place.shown = place.shown.max(syn);
    }

    /// The counts so far.
    pub fn counts(&self) -> ArrivalCounts {
        self.counts
    }

    /// Which sends have arrived.
    pub fn seen(&self) -> &SendSet {
        &self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(arrivals: &Arrivals) -> (u64, u64, u64) {
        let counts = arrivals.counts();
        (counts.delivered, counts.duplicated, counts.out_of_order)
    }

    #[test]
    fn a_clean_run_has_no_faults_even_with_gaps_and_reconnects() {
        let (mut arrivals, mut place) = (Arrivals::default(), Place::default());
        assert_eq!(place.reconnect(), 1);
        arrivals.arrive(&mut place, 10, 1);
        arrivals.arrive(&mut place, 7, 2);
        arrivals.arrive(&mut place, 8, 50);
        assert!(place.owes());
        assert_eq!(place.acknowledge(), 50);
        assert!(!place.owes());
        assert_eq!(place.reconnect(), 51);
        arrivals.arrive(&mut place, 11, 51);
        assert_eq!(counts(&arrivals), (4, 0, 0));
    }

    #[test]
    fn duplicates_and_inversions_are_seen() {
        let (mut arrivals, mut place) = (Arrivals::default(), Place::default());
        place.reconnect();
        arrivals.arrive(&mut place, 1, 5);
        arrivals.arrive(&mut place, 1, 5);
        assert_eq!(counts(&arrivals), (1, 1, 0));
        arrivals.arrive(&mut place, 2, 4);
        assert_eq!(counts(&arrivals), (2, 1, 1));
        place.acknowledge();
        place.reconnect();
        arrivals.arrive(&mut place, 1, 5);
        assert_eq!(counts(&arrivals), (2, 2, 1));
        arrivals.arrive(&mut place, 3, 3);
        assert_eq!(counts(&arrivals), (3, 2, 2));
    }

    #[test]
    fn a_repeated_send_under_a_higher_syn_is_excused() {
        let (mut arrivals, mut place) = (Arrivals::default(), Place::default());
        place.reconnect();
        arrivals.arrive(&mut place, 1, 5);
        arrivals.arrive(&mut place, 1, 6);
        assert_eq!(counts(&arrivals), (1, 0, 0));
        assert_eq!(arrivals.counts().redelivered, 1);
    }

    #[test]
    fn what_was_not_acknowledged_comes_again_and_nothing_new_comes_below_it() {
        let (mut arrivals, mut place) = (Arrivals::default(), Place::default());
        place.reconnect();
        arrivals.arrive(&mut place, 1, 1);
        place.acknowledge();
        arrivals.arrive(&mut place, 2, 2);
        arrivals.arrive(&mut place, 3, 4);
        assert_eq!(place.reconnect(), 2);
        arrivals.arrive(&mut place, 2, 2);
        assert_eq!(counts(&arrivals), (3, 0, 0));
        assert_eq!(arrivals.counts().redelivered, 1);
        arrivals.arrive(&mut place, 9, 3);
        assert_eq!(counts(&arrivals), (4, 0, 1), "a hole was filled late");
        arrivals.arrive(&mut place, 3, 4);
        assert_eq!(arrivals.counts().redelivered, 2);
        place.reconnect();
        arrivals.arrive(&mut place, 1, 1);
        assert_eq!(counts(&arrivals), (4, 1, 1));
    }

    #[test]
    fn sets_survive_the_pipe_and_merge() {
        let mut left = SendSet::default();
        for number in [0, 63, 64, 1_000] {
            assert!(left.insert(number));
            assert!(!left.insert(number));
        }
        assert_eq!(left.len(), 4);
        let mut right = SendSet::from_text(&left.to_text()).expect("is base64");
        assert_eq!(right, left);
        right.insert(5_000);
        assert_eq!(left.merge(&right), 4);
        assert_eq!(left.len(), 5);
    }
}
