//! Open-loop pacing: sends are due at fixed times, whatever the server does.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::clock::monotonic_ns;

const NS_PER_S: u64 = 1_000_000_000;

/// The nearest whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "never negative, and far below 2^53"
)]
pub fn whole(number: f64) -> u64 {
    number.round() as u64
}

/// How many things are due in a duration at a rate.
pub fn due_in(per_second: f64, duration: Duration) -> u64 {
    whole(per_second * duration.as_secs_f64())
}

/// Evenly spaced moments on the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    start_ns: u64,
    per_second: f64,
    total: u64,
}

impl Schedule {
    /// `total` moments, `per_second` of them a second, the first at `start_ns`.
    pub fn new(start_ns: u64, per_second: f64, total: u64) -> Self {
        Self {
            start_ns,
            per_second,
            total,
        }
    }

    /// How many moments there are.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// When moment `index` (from 0) is, in nanoseconds.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "runs are short enough for a float to hold their nanoseconds"
    )]
    pub fn at(&self, index: u64) -> u64 {
        self.start_ns + (index as f64 * NS_PER_S as f64 / self.per_second) as u64
    }

    /// How many moments are at or before `now_ns`.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the estimate is put right below"
    )]
    pub fn due(&self, now_ns: u64) -> u64 {
        let Some(elapsed_ns) = now_ns.checked_sub(self.start_ns) else {
            return 0;
        };
        let mut due = (elapsed_ns as f64 * self.per_second / NS_PER_S as f64) as u64;
        while due < self.total && self.at(due) <= now_ns {
            due += 1;
        }
        while due > 0 && self.at(due - 1) > now_ns {
            due -= 1;
        }
        due.min(self.total)
    }
}

/// A timer of the kernel's: tokio's own rounds up to whole milliseconds, which is longer than a
/// push takes.
pub struct PreciseTimer(AsyncFd<OwnedFd>);

impl PreciseTimer {
    /// A timer for this runtime.
    ///
    /// # Errors
    /// When the kernel has none to give.
    #[expect(
        deprecated,
        reason = "its successor is unsafe for the sake of types that may lie about their \
                  descriptor; an OwnedFd cannot"
    )]
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self(AsyncFd::new(timer)?))
    }

    /// Waits until a moment of the monotonic clock, in nanoseconds.
    ///
    /// # Errors
    /// When the kernel refuses the timer.
    pub async fn until(&self, at_ns: u64) -> io::Result<()> {
        while monotonic_ns() < at_ns {
            self.set(at_ns)?;
            let mut ready = self.0.readable().await?;
            let mut expirations = [0; 8];
            match rustix::io::read(self.0.get_ref(), &mut expirations) {
                Ok(_) => ready.retain_ready(),
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn set(&self, at_ns: u64) -> io::Result<()> {
        let moment = |ns: u64| Timespec {
            tv_sec: i64::try_from(ns / NS_PER_S).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(ns % NS_PER_S).unwrap_or(0),
        };
        let once = Itimerspec {
            it_interval: moment(0),
            it_value: moment(at_ns),
        };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME, &once)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_even_and_due_agrees_with_at() {
        for per_second in [0.7, 3.0, 1_000.0, 19_999.0] {
            let schedule = Schedule::new(5_000, per_second, 2_000);
            assert_eq!(schedule.due(4_999), 0);
            assert_eq!(schedule.at(0), 5_000);
            for index in 0..2_000 {
                let at = schedule.at(index);
                assert_eq!(schedule.due(at), index + 1, "at {per_second}/s");
                assert_eq!(schedule.due(at - 1), index, "at {per_second}/s");
            }
            assert_eq!(schedule.due(u64::MAX), 2_000);
        }
        assert_eq!(Schedule::new(0, 4.0, 9).at(8), 2 * NS_PER_S);
    }

    #[tokio::test]
    async fn the_timer_never_rings_early() {
        let timer = PreciseTimer::new().expect("the kernel has timers");
        for delay_ns in [0, 50_000, 300_000, 2_000_000] {
            let at = monotonic_ns() + delay_ns;
            timer.until(at).await.expect("waits");
            assert!(monotonic_ns() >= at);
        }
    }
}
