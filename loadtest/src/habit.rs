//! What a device is like: most are good, some come and go, read slowly, never acknowledge, or poll.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a device is like until everybody is told to be good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "habit", rename_all = "snake_case")]
pub enum Habit {
    /// Stays connected, reads at once, acknowledges at once.
    #[default]
    Good,
    /// Stays for a while, goes for a while; both are averages.
    Restless {
        /// How long it stays.
        stays_ms: u64,
        /// How long it is away.
        away_ms: u64,
    },
    /// Reads a few bytes, then none for a while.
    Slow {
        /// How many.
        bytes: u32,
        /// How long it then reads nothing.
        pause_ms: u64,
    },
    /// Reads everything and acknowledges nothing; comes anew now and then, and gets it all again.
    Silent {
        /// How long it stays, on average.
        stays_ms: u64,
    },
    /// Has no socket and asks now and then.
    Polling {
        /// How often.
        every_ms: u64,
    },
}

impl Habit {
    /// Whether its devices hold a socket.
    pub fn has_socket(self) -> bool {
        !matches!(self, Self::Polling { .. })
    }
}

/// A random time around an average, as of things that happen independently of each other; never
/// longer than eight times the average.
pub fn around(average_ms: u64) -> Duration {
    let uniform: f64 = rand::random();
    // 1 - uniform is above 0, so its logarithm is a number.
    let factor = (-(1.0 - uniform).ln()).min(8.0);
    Duration::from_millis(average_ms).mul_f64(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_times_keep_to_their_average() {
        let drawn = 20_000;
        let sum: Duration = (0..drawn).map(|_| around(1_000)).sum();
        let average = sum / drawn;
        assert!(
            (900..1_100).contains(&average.as_millis()),
            "the average is {average:?}"
        );
        assert_eq!(around(0), Duration::ZERO);
    }
}
