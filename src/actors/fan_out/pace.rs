//! So many a second and no more, in portions.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A rate that several share. A portion is let go at once if those before it have had their time.
pub struct Pace {
    per_second: u32,
    free_at: Mutex<Instant>,
}

impl Pace {
    /// 0 is no limit.
    pub fn new(per_second: u32) -> Self {
        Self {
            per_second,
            free_at: Mutex::new(Instant::now()),
        }
    }

    /// Waits until a portion may go.
    pub async fn wait_for(&self, portion: u32) {
        if let Some(at) = self.reserve(portion, Instant::now()) {
            tokio::time::sleep_until(at).await;
        }
    }

    /// When a portion may go; `None` for at once.
    fn reserve(&self, portion: u32, now: Instant) -> Option<Instant> {
        if self.per_second == 0 || portion == 0 {
            return None;
        }
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let at = (*free_at).max(now);
        *free_at = at + Duration::from_secs(1) * portion / self.per_second;
        (at > now).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_go_one_after_another_at_the_pace() {
        let pace = Pace::new(1_000);
        let start = Instant::now();
        let after = |millis| Some(start + Duration::from_millis(millis));
        assert_eq!(pace.reserve(100, start), None);
        assert_eq!(pace.reserve(100, start), after(100));
        assert_eq!(pace.reserve(50, start), after(200));
        let later = start + Duration::from_secs(1);
        assert_eq!(pace.reserve(100, later), None, "what was not used is gone");
        assert_eq!(pace.reserve(0, later), None);
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let pace = Pace::new(0);
        assert_eq!(pace.reserve(u32::MAX, Instant::now()), None);
        assert_eq!(pace.reserve(1, Instant::now()), None);
    }
}
