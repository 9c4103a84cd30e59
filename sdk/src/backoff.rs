//! How long to stay away after a failure: full jitter, so that a million devices that lost the
//! same node do not come back in waves.

use std::time::Duration;

/// Ceiling of the first delay (contract: 1 s).
pub const BACKOFF_MIN: Duration = Duration::from_secs(1);

/// Ceiling of every later delay (contract: 5 min).
pub const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// Doublings after which the ceiling stays at [`BACKOFF_MAX`] anyway.
const DOUBLINGS_MAX: u32 = 9;

/// Counts failures in a row and turns them into delays.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The delay after one more failure: `random` (0 to 1) times a ceiling that doubles.
    pub fn next_delay(&mut self, random: f64) -> Duration {
        let ceiling = BACKOFF_MIN
            .saturating_mul(1 << self.failures.min(DOUBLINGS_MAX))
            .min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(random.clamp(0.0, 1.0))
    }

    /// Things went well: the next failure starts at [`BACKOFF_MIN`] again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_double_up_to_five_minutes() {
        let mut backoff = Backoff::default();
        let ceilings: Vec<u64> = (0..12).map(|_| backoff.next_delay(1.0).as_secs()).collect();
        assert_eq!(ceilings, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        backoff.reset();
        assert_eq!(backoff.next_delay(1.0), BACKOFF_MIN);
    }

    #[test]
    fn the_jitter_reaches_down_to_nothing() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next_delay(0.0), Duration::ZERO);
        assert_eq!(backoff.next_delay(0.25), Duration::from_millis(500));
        assert_eq!(backoff.next_delay(7.0), Duration::from_secs(4));
    }
}
