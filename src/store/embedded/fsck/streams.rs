//! Two kinds of keys held against each other by one walk over each, in bounded memory: side by side
//! where both go in the same order, by sums where they do not.

use std::iter::Peekable;

use ahash::RandomState;
use fjall::UserValue;

use super::Entry;
use crate::store::StoreError;

/// Whether two walks meet the same keys, each in its own order. The keys of one are added, as
/// hashes, and those of the other taken away: nothing is left if they are the same. That it is so
/// by chance has a probability of 2^-128.
pub(super) struct Balance {
    hashers: [RandomState; 2],
    sums: [u64; 2],
}

impl Balance {
    pub(super) fn new() -> Self {
        Self {
            hashers: [RandomState::new(), RandomState::new()],
            sums: [0; 2],
        }
    }

    /// A key that the other walk has to meet.
    pub(super) fn expect(&mut self, key: &[u8]) {
        for (sum, hasher) in self.sums.iter_mut().zip(&self.hashers) {
            *sum = sum.wrapping_add(hasher.hash_one(key));
        }
    }

    /// A key that the other walk has met.
    pub(super) fn meet(&mut self, key: &[u8]) {
        for (sum, hasher) in self.sums.iter_mut().zip(&self.hashers) {
            *sum = sum.wrapping_sub(hasher.hash_one(key));
        }
    }

    /// Whether exactly what was expected was met.
    pub(super) fn is_even(&self) -> bool {
        self.sums == [0; 2]
    }
}

/// A walk that is moved forward to one key after the other.
pub(super) struct Follower<I: Iterator>(Peekable<I>);

impl<I: Iterator<Item = Entry>> Follower<I> {
    pub(super) fn new(walk: I) -> Self {
        Self(walk.peekable())
    }

    /// The value under `key`, which must be no less than the keys asked for before.
    pub(super) fn at(&mut self, key: &[u8]) -> Result<Option<&UserValue>, StoreError> {
        let is_before = |entry: &Entry| entry.as_ref().map_or(true, |(it, _)| **it < *key);
        while let Some(passed) = self.0.next_if(is_before) {
            passed?;
        }
        let found = self.0.peek().and_then(|entry| entry.as_ref().ok());
        Ok(found.filter(|(it, _)| **it == *key).map(|(_, value)| value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balance_sees_what_counts_would_not() {
        let mut balance = Balance::new();
        for key in [b"one", b"two"] {
            balance.expect(key);
        }
        balance.meet(b"two");
        assert!(!balance.is_even(), "one is missing");
        balance.meet(b"six");
        assert!(!balance.is_even(), "another stands in its place");
        balance.expect(b"six");
        balance.meet(b"one");
        assert!(balance.is_even());
    }

    #[test]
    fn a_follower_finds_what_is_there_and_passes_over_the_rest() {
        let entry = |key: &[u8]| Ok((key.into(), UserValue::from(key)));
        let walk = [entry(b"b"), entry(b"d"), entry(b"e")];
        let mut follower = Follower::new(walk.into_iter());
        let asked: [&[u8]; 6] = [b"a", b"b", b"b", b"c", b"e", b"f"];
        let found: Vec<_> = asked
            .into_iter()
            .map(|key| follower.at(key).expect("read").is_some())
            .collect();
        assert_eq!(found, [false, true, true, false, true, false]);
    }

    #[test]
    fn a_follower_tells_of_what_cannot_be_read() {
        let failure = Err(StoreError::Unavailable("the engine could not read"));
        let mut follower = Follower::new(std::iter::once(failure));
        assert!(follower.at(b"a").is_err());
    }
}
