//! Buckets for keys that strangers choose: as many cells as there will ever be, so that no flood
//! makes them grow, whatever number of addresses it comes from.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

/// Cells of a table, 8 bytes each: half a MiB. Callers that are within their limits by far do not
/// notice that they share their cells with others; a flood that heats them all is one for the
/// limits that know no caller.
const CELLS: usize = 1 << 16;

type Limiter = RateLimiter<[usize; 2], Cells, DefaultClock>;

/// Buckets by key, which never take more memory than at the beginning. Each key has two cells,
/// found by a hash that nobody outside can foresee, and is refused when both are empty: so it takes
/// two who ask for too much to starve a third who does not.
pub struct SharedBuckets<K> {
    limiter: Option<Limiter>,
    hasher: RandomState,
    clock: DefaultClock,
    key: PhantomData<fn(&K)>,
}

impl<K: Hash> SharedBuckets<K> {
    /// Each key may have `per_minute`, all at once or spread; 0 switches the limit off.
    #[must_use]
    pub fn per_minute(per_minute: u32) -> Self {
        let clock = DefaultClock::default();
        let limiter = NonZeroU32::new(per_minute)
            .map(|limit| RateLimiter::new(Quota::per_minute(limit), Cells::new(), clock.clone()));
        Self {
            limiter,
            hasher: RandomState::new(),
            clock,
            key: PhantomData,
        }
    }

    /// Takes one from the key's bucket.
    ///
    /// # Errors
    /// How long until there is one again.
    pub fn take(&self, key: &K) -> Result<(), Duration> {
        let Some(limiter) = &self.limiter else {
            return Ok(());
        };
        let cells = cells_of(self.hasher.hash_one(key));
        let taken = limiter.check_key(&cells);
        taken.map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

/// Two cells that are never the same one.
fn cells_of(hash: u64) -> [usize; 2] {
    let half = CELLS / 2;
    // Each remainder is below a table's length, so the casts lose nothing.
    let pick = |bits: u64| (bits % half as u64) as usize;
    [pick(hash), half + pick(hash >> 32)]
}

struct Cells(Box<[InMemoryState]>);

impl Cells {
    fn new() -> Self {
        Self((0..CELLS).map(|_| InMemoryState::default()).collect())
    }
}

impl StateStore for Cells {
    type Key = [usize; 2];

    fn measure_and_replace<T, F, E>(&self, key: &Self::Key, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let [first, second] = key.map(|cell| &self.0[cell]);
        let first = first.measure_and_replace(&NotKeyed::NonKey, &decide);
        let second = second.measure_and_replace(&NotKeyed::NonKey, &decide);
        first.or(second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_what_it_may_and_no_more() {
        let buckets = SharedBuckets::per_minute(3);
        for _ in 0..3 {
            assert_eq!(buckets.take(&"a"), Ok(()));
        }
        let wait = buckets.take(&"a").expect_err("the fourth is too many");
        assert!(
            wait > Duration::from_secs(10) && wait <= Duration::from_secs(20),
            "{wait:?}"
        );
        assert_eq!(buckets.take(&"b"), Ok(()));
    }

    #[test]
    fn one_cell_that_another_key_has_emptied_does_not_starve() {
        let quota = Quota::per_minute(NonZeroU32::MIN);
        let limiter: Limiter = RateLimiter::new(quota, Cells::new(), DefaultClock::default());
        assert!(limiter.check_key(&[1, CELLS - 1]).is_ok());
        assert!(
            limiter.check_key(&[1, CELLS - 2]).is_ok(),
            "its other cell is full"
        );
        assert!(limiter.check_key(&[1, CELLS - 1]).is_err());
    }

    #[test]
    fn the_cells_of_a_key_are_two_and_within_the_table() {
        for hash in [
            0,
            1,
            u64::MAX,
            u64::MAX << 32,
            0xffff_ffff,
            0x1234_5678_9abc_def0,
        ] {
            let [first, second] = cells_of(hash);
            assert!(
                first < CELLS / 2 && (CELLS / 2..CELLS).contains(&second),
                "{hash:x}"
            );
        }
    }

    #[test]
    fn a_thousand_who_ask_for_too_much_starve_hardly_anybody_else() {
        let buckets = SharedBuckets::per_minute(2);
        for key in 0..1_000_u32 {
            while buckets.take(&key).is_ok() {}
        }
        let others = 1_000..11_000_u32;
        let starved = others.filter(|key| buckets.take(key).is_err()).count();
        assert!(starved < 200, "{starved} of 10,000");
    }

    #[test]
    fn zero_switches_a_limit_off() {
        let buckets = SharedBuckets::per_minute(0);
        assert!((0..10_000).all(|_| buckets.take(&1).is_ok()));
    }
}
