//! How much one project or one token may ask for: token buckets that hold one period.

pub mod bucket;
pub mod shared_buckets;

use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::config::Config;
use crate::token::{ProjectHash, TokenId};

/// Buckets by key; `None` lets everything pass.
pub struct Buckets<K: Hash + Eq + Clone> {
    limiter: Option<RateLimiter<K, DashMapStateStore<K>, DefaultClock>>,
    size: NonZeroU32,
    clock: DefaultClock,
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    /// Each key may have `per_minute`, all at once or spread; 0 switches the limit off.
    #[must_use]
    pub fn per_minute(per_minute: u32) -> Self {
        Self::per_period(per_minute, Quota::per_minute)
    }

    /// The same, for a second.
    #[must_use]
    pub fn per_second(per_second: u32) -> Self {
        Self::per_period(per_second, Quota::per_second)
    }

    fn per_period(limit: u32, quota: fn(NonZeroU32) -> Quota) -> Self {
        let size = NonZeroU32::new(limit);
        Self {
            limiter: size.map(|size| RateLimiter::dashmap(quota(size))),
            size: size.unwrap_or(NonZeroU32::MIN),
            clock: DefaultClock::default(),
        }
    }

    /// Takes one from the key's bucket.
    ///
    /// # Errors
    /// How long until there is one again.
    pub fn take(&self, key: &K) -> Result<(), Duration> {
        self.take_many(key, NonZeroU32::MIN)
    }

    /// Takes several from the key's bucket: what one call costs where as many nodes share a limit.
    ///
    /// # Errors
    /// How long until there are as many again.
    pub fn take_many(&self, key: &K, count: NonZeroU32) -> Result<(), Duration> {
        let Some(limiter) = &self.limiter else {
            return Ok(());
        };
        match limiter.check_key_n(key, count) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => Err(not_until.wait_time_from(self.clock.now())),
            // More nodes than the limit has cells: a call costs all of them.
            Err(_) => match limiter.check_key_n(key, self.size) {
                Ok(Err(not_until)) => Err(not_until.wait_time_from(self.clock.now())),
                Ok(Ok(())) | Err(_) => Ok(()),
            },
        }
    }

    /// Forgets keys whose buckets are full again.
    fn forget_full(&self) {
        if let Some(limiter) = &self.limiter {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

/// All buckets of the public listener.
pub struct Quotas {
    /// Sends, by project.
    pub project_sends: Buckets<ProjectHash>,
    /// Sends, by token.
    pub token_sends: Buckets<TokenId>,
    /// Tokens that join or leave topics, by project.
    pub project_topic_changes: Buckets<ProjectHash>,
}

impl Quotas {
    /// As the settings say.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            project_sends: Buckets::per_minute(config.quota.sends_per_minute_per_project),
            token_sends: Buckets::per_minute(config.quota.sends_per_minute_per_token),
            project_topic_changes: Buckets::per_second(
                config.quota.topic_changes_per_second_per_project,
            ),
        }
    }

    /// Forgets what is no longer limited, so that memory follows the load of the last minute.
    pub fn forget_full(&self) {
        self.project_sends.forget_full();
        self.token_sends.forget_full();
        self.project_topic_changes.forget_full();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_one_period_and_says_when_to_come_back() {
        let buckets = Buckets::per_minute(3);
        for _ in 0..3 {
            assert_eq!(buckets.take(&"a"), Ok(()));
        }
        let wait = buckets.take(&"a").expect_err("the fourth is too many");
        assert!(
            wait > Duration::from_secs(10) && wait <= Duration::from_secs(20),
            "{wait:?}"
        );
        assert_eq!(buckets.take(&"b"), Ok(()), "keys do not share a bucket");
    }

    #[test]
    fn a_limit_that_nodes_share_is_divided_by_their_number() {
        let count = |nodes| NonZeroU32::new(nodes).expect("not zero");
        let shared = Buckets::per_minute(6);
        assert_eq!(shared.take_many(&"a", count(3)), Ok(()));
        assert_eq!(shared.take_many(&"a", count(3)), Ok(()));
        assert!(shared.take_many(&"a", count(3)).is_err(), "two of six");
        let crowded = Buckets::per_minute(2);
        assert_eq!(crowded.take_many(&"a", count(9)), Ok(()));
        assert!(crowded.take_many(&"a", count(9)).is_err());
    }

    #[test]
    fn zero_switches_a_limit_off() {
        let buckets = Buckets::per_minute(0);
        assert!((0..10_000).all(|_| buckets.take(&1).is_ok()));
    }
}
