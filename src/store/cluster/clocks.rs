//! This node's clock beside those of the servers: what has ended, and above which number a healed record
//! goes on, may only be said by clocks that show the same.

/// Why nothing is done by a clock that is wrong.
pub(super) const ANOTHER_TIME: &str = "redis has another time than this node";

/// The clock of the server that numbers must not differ more from ours, in microseconds.
const SKEW_MAX_US: u64 = 1_000_000;

/// Whether a clock that showed `there` some time between two looks at ours is as far from it as it may
/// be, at most. An answer that took long says less, and harms nobody.
pub(super) fn is_of_one_time(before: u64, there: u64, after: u64) -> bool {
    before.saturating_sub(SKEW_MAX_US) <= there && there <= after.saturating_add(SKEW_MAX_US)
}

/// The wall clock in microseconds: what servers' clocks are compared with. Not the node's own
/// clock, which a test may set.
pub(super) fn clock_us() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_as_far_as_an_answer_tells() {
        let second = SKEW_MAX_US;
        let now = 1_000 * second;
        assert!(is_of_one_time(now, now - second, now));
        assert!(is_of_one_time(now, now + second, now));
        assert!(!is_of_one_time(now, now - second - 1, now));
        assert!(!is_of_one_time(now, now + second + 1, now));
        assert!(is_of_one_time(now, now + 3 * second, now + 2 * second));
    }
}
