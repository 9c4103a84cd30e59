//! A bucket that everybody draws from, and when those who found it empty may come back.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// One bucket; none lets everything pass.
pub struct Bucket {
    limiter: Option<DefaultDirectRateLimiter>,
    clock: DefaultClock,
}

impl Bucket {
    /// So many a minute, all at once or spread; 0 switches the limit off.
    #[must_use]
    pub fn per_minute(limit: u32) -> Self {
        Self::of(NonZeroU32::new(limit).map(Quota::per_minute))
    }

    /// So many a second; 0 switches the limit off.
    #[must_use]
    pub fn per_second(limit: u32) -> Self {
        Self::of(NonZeroU32::new(limit).map(Quota::per_second))
    }

    fn of(quota: Option<Quota>) -> Self {
        Self {
            limiter: quota.map(RateLimiter::direct),
            clock: DefaultClock::default(),
        }
    }

    /// Takes one.
    ///
    /// # Errors
    /// How long until there is one again.
    pub fn take(&self) -> Result<(), Duration> {
        let Some(limiter) = &self.limiter else {
            return Ok(());
        };
        let taken = limiter.check();
        taken.map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

/// Gives those who were turned away a time each, one after the other at the rate at which they can
/// be let in, so that they do not all come back at once.
pub struct Readmission {
    interval_ns: u64,
    /// The last time that was given, nanoseconds of the caller's clock.
    given: AtomicU64,
}

impl Readmission {
    /// Nobody is told to come back sooner.
    const SHORTEST: Duration = Duration::from_secs(1);

    /// Nor later than twice this: by then a device would come back of its own accord.
    const LONGEST: Duration = Duration::from_secs(150);

    /// For a limit of so many a second, at least one.
    #[must_use]
    pub fn per_second(limit: u32) -> Self {
        Self {
            interval_ns: 1_000_000_000 / u64::from(limit.max(1)),
            given: AtomicU64::new(0),
        }
    }

    /// How long the next one should wait, by a clock that never goes back.
    pub fn wait(&self, now: Duration) -> Duration {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let (soonest, latest) = (nanos(now + Self::SHORTEST), nanos(now + Self::LONGEST));
        let next = |given: u64| given.saturating_add(self.interval_ns).max(soonest);
        let queued = self
            .given
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |given| {
                Some(next(given)).filter(|time| *time <= latest)
            });
        match queued {
            Ok(given) => Duration::from_nanos(next(given)).saturating_sub(now),
            // The line is longer than can be foreseen: anywhere behind it.
            Err(_) => Self::LONGEST.mul_f64(1.0 + rand::random::<f64>()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_one_period() {
        let bucket = Bucket::per_minute(3);
        assert!((0..3).all(|_| bucket.take().is_ok()));
        let wait = bucket.take().expect_err("the fourth is too many");
        assert!(
            wait > Duration::from_secs(10) && wait <= Duration::from_secs(20),
            "{wait:?}"
        );
        let wait = {
            let bucket = Bucket::per_second(1);
            assert!(bucket.take().is_ok());
            bucket.take().expect_err("the second is too many")
        };
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        let off = Bucket::per_second(0);
        assert!((0..10_000).all(|_| off.take().is_ok()));
    }

    #[test]
    fn those_turned_away_come_back_one_after_the_other() {
        let readmission = Readmission::per_second(10);
        let now = Duration::from_secs(7);
        let millis = |wait: Duration| wait.as_millis();
        assert_eq!(millis(readmission.wait(now)), 1_000);
        assert_eq!(millis(readmission.wait(now)), 1_100);
        assert_eq!(
            millis(readmission.wait(now + Duration::from_millis(50))),
            1_150
        );
        let later = now + Duration::from_secs(60);
        assert_eq!(millis(readmission.wait(later)), 1_000, "the line has gone");
    }

    #[test]
    fn a_line_without_end_is_spread_too() {
        let readmission = Readmission::per_second(1);
        let now = Duration::from_secs(7);
        for _ in 0..150 {
            assert!(readmission.wait(now) <= Readmission::LONGEST);
        }
        let waits: Vec<Duration> = (0..100).map(|_| readmission.wait(now)).collect();
        assert!(
            waits
                .iter()
                .all(|wait| (150..=300).contains(&wait.as_secs()))
        );
        assert!(waits.windows(2).any(|pair| pair[0] != pair[1]));
    }
}
