//! Deadlines of all sessions of a worker, in eight bytes each instead of a timer each. Pure: the
//! caller brings the time.
//!
//! A deadline is a note "look at this session then". Notes are cheap and may be stale; whoever
//! looks decides anew. A deadline beyond the wheel is looked at early, once a turn.

/// How fine the wheel is. A deadline is met at most this late.
pub const TICK_MS: u64 = 100;

/// Slots of the wheel: one turn takes 102 seconds.
const SLOTS: u64 = 1024;

/// A wheel of notes.
#[derive(Debug)]
pub struct TimingWheel<T> {
    slots: Vec<Vec<T>>,
    next_tick: u64,
}

impl<T> TimingWheel<T> {
    /// An empty wheel that starts at `now_ms` on the caller's monotonic clock.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            next_tick: now_ms / TICK_MS,
        }
    }

    /// Notes that `item` wants a look at `at_ms`; answers with when it will have it.
    pub fn insert(&mut self, at_ms: u64, item: T) -> u64 {
        let tick = at_ms.div_ceil(TICK_MS);
        let tick = tick.clamp(self.next_tick, self.next_tick + SLOTS - 1);
        let slot = usize::try_from(tick % SLOTS).unwrap_or(0);
        self.slots[slot].push(item);
        tick * TICK_MS
    }

    /// Takes every item whose time has come.
    pub fn advance(&mut self, now_ms: u64) -> Vec<T> {
        let now_tick = now_ms / TICK_MS;
        let mut due = Vec::new();
        // After a long pause one full turn visits every slot.
        let first = self.next_tick.max(now_tick.saturating_sub(SLOTS - 1));
        for tick in first..=now_tick {
            let slot = usize::try_from(tick % SLOTS).unwrap_or(0);
            due.append(&mut self.slots[slot]);
            // A slot that a burst has blown up gives its memory back.
            self.slots[slot] = Vec::new();
        }
        self.next_tick = self.next_tick.max(now_tick + 1);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_when_they_are_due_and_not_before() {
        let mut wheel = TimingWheel::new(1_000);
        wheel.insert(1_500, "a");
        wheel.insert(1_501, "b");
        assert_eq!(wheel.advance(1_499), Vec::<&str>::new());
        assert_eq!(wheel.advance(1_500), ["a"]);
        assert_eq!(wheel.advance(1_600), ["b"]);
        assert_eq!(wheel.advance(9_999), Vec::<&str>::new());
    }

    #[test]
    fn a_deadline_in_the_past_is_due_at_the_next_tick() {
        let mut wheel = TimingWheel::new(1_000);
        wheel.advance(5_000);
        wheel.insert(10, "late");
        assert_eq!(wheel.advance(5_100), ["late"]);
    }

    #[test]
    fn a_deadline_beyond_the_wheel_is_looked_at_within_one_turn() {
        let mut wheel = TimingWheel::new(0);
        wheel.insert(10_000_000, "far");
        assert!(wheel.advance(TICK_MS * (SLOTS - 2)).is_empty());
        assert_eq!(wheel.advance(TICK_MS * (SLOTS - 1)), ["far"]);
    }

    #[test]
    fn a_pause_longer_than_a_turn_loses_nothing() {
        let mut wheel = TimingWheel::new(0);
        for at in 0..500 {
            wheel.insert(at * 300, at);
        }
        let mut due = wheel.advance(TICK_MS * SLOTS * 10);
        due.sort_unstable();
        assert_eq!(due, (0..500).collect::<Vec<_>>());
    }
}
