//! What is staged and waits for the committer: one round at a time, in the order it was staged.
//!
//! While the committer writes one round the next one fills. The queue is bounded by bytes; whoever
//! stages asks for room first.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::engine::Op;
use crate::push::Syn;
use crate::store::{SettledSink, StoreError};
use crate::token::TokenId;

/// Acknowledgements and refreshed contacts wait this long for a batch that is synced anyway, and
/// are then written without a sync.
const LAZY_WRITE_DELAY: Duration = Duration::from_millis(50);

/// What was written without a sync is synced after this long at most.
const UNSYNCED_MAX: Duration = Duration::from_secs(1);

/// Senders that were just answered come back at once if they come back at all, so the next round
/// waits for them: for this part of the time that the last commit took. One sync for all of them
/// instead of two for a half each is what keeps a slow disk fast.
const GATHER_SHARE: u32 = 2;

/// After a commit faster than this nobody is waited for: the processors are the limit then and not
/// the disk, and waiting would idle them.
const GATHER_FROM: Duration = Duration::from_millis(1);

/// Never longer than this, however slow the disk is.
const GATHER_MAX: Duration = Duration::from_millis(2);

/// The answer when a commit has failed.
pub(super) const HAS_FAILED: StoreError = StoreError::Unavailable("a commit has failed");

/// A numbered push whose sender waits for its round.
pub(super) struct Numbered {
    pub(super) token: TokenId,
    pub(super) syn: Syn,
    pub(super) is_now_or_never: bool,
    pub(super) ticket: u64,
    pub(super) sink: SettledSink,
}

/// Everything that is committed together.
#[derive(Default)]
pub(super) struct Round {
    pub(super) number: u64,
    pub(super) ops: Vec<Op>,
    pub(super) numbered: Vec<Numbered>,
    pub(super) waiting: Vec<oneshot::Sender<()>>,
    /// What the round changes in the number of living tokens and of pending rows.
    pub(super) tokens: i64,
    pub(super) pending: i64,
    weight: usize,
    opened_at: Option<Instant>,
}

impl Round {
    /// Adds one write.
    pub(super) fn stage(&mut self, op: Op) {
        self.weight += op.weight();
        self.ops.push(op);
    }

    /// Whether somebody waits for it to be durable.
    pub(super) fn must_sync(&self) -> bool {
        !self.numbered.is_empty() || !self.waiting.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.ops.is_empty() && !self.must_sync()
    }
}

/// How the last commit that somebody waited for went.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastCommit {
    pub(super) ended_at: Instant,
    pub(super) took: Duration,
    pub(super) pushes: usize,
}

/// A round that is held open for senders who may come back.
#[derive(Debug, Clone, Copy)]
struct Gathering {
    until: Instant,
    enough: usize,
}

impl Gathering {
    /// After `last`, with `staged` pushes that came while it was on its way.
    fn after(last: LastCommit, staged: usize) -> Self {
        let patience = if last.took < GATHER_FROM {
            Duration::ZERO
        } else {
            (last.took / GATHER_SHARE).min(GATHER_MAX)
        };
        Self {
            until: last.ended_at + patience,
            enough: staged + last.pushes,
        }
    }

    fn is_satisfied(self, round: &Round) -> bool {
        round.numbered.len() >= self.enough || !round.waiting.is_empty()
    }
}

/// What the committer is to do next.
pub(super) enum Order {
    Commit(Round),
    Sync,
    Stop,
}

/// The committer's inbox.
pub(super) struct Queue {
    intake: Mutex<Intake>,
    work: Condvar,
    weight: AtomicUsize,
    weight_max: usize,
    committed: AtomicU64,
    /// Pushes in the commit that runs.
    committing: AtomicUsize,
    has_failed: AtomicBool,
}

struct Intake {
    round: Round,
    is_committer_waiting: bool,
    gathering: Option<Gathering>,
    is_stopping: bool,
}

impl Intake {
    fn is_worth_waking_for(&self, is_first: bool) -> bool {
        match self.gathering {
            Some(gathering) => gathering.is_satisfied(&self.round),
            None => is_first || self.round.must_sync(),
        }
    }

    /// Ends the gathering if it is over, and says until when it goes on otherwise.
    fn gathers_until(&mut self, now: Instant) -> Option<Instant> {
        let is_on = |gathering: &Gathering| {
            !self.is_stopping && now < gathering.until && !gathering.is_satisfied(&self.round)
        };
        self.gathering = self.gathering.filter(is_on);
        self.gathering.map(|gathering| gathering.until)
    }
}

impl Queue {
    /// An empty queue that holds about `weight_max` bytes.
    pub(super) fn new(weight_max: usize) -> Self {
        let round = Round {
            number: 1,
            ..Round::default()
        };
        Self {
            intake: Mutex::new(Intake {
                round,
                is_committer_waiting: false,
                gathering: None,
                is_stopping: false,
            }),
            work: Condvar::new(),
            weight: AtomicUsize::new(0),
            weight_max,
            committed: AtomicU64::new(0),
            committing: AtomicUsize::new(0),
            has_failed: AtomicBool::new(false),
        }
    }

    /// Whether something may be staged now. Asked before a ledger is touched; threads that ask at
    /// the same time may pass the limit by one push each.
    pub(super) fn check_room(&self) -> Result<(), StoreError> {
        if self.has_failed() {
            return Err(HAS_FAILED);
        }
        if self.weight.load(Ordering::Relaxed) >= self.weight_max {
            return Err(StoreError::Full);
        }
        Ok(())
    }

    /// Stages writes in the open round and answers with its number. Whoever stages for a token
    /// holds that token's stripe, so that its writes stay in order.
    pub(super) fn stage(&self, write: impl FnOnce(&mut Round)) -> Result<u64, StoreError> {
        let mut intake = self.intake();
        if self.has_failed() {
            return Err(HAS_FAILED);
        }
        let round = &mut intake.round;
        write(round);
        let number = round.number;
        self.weight.store(round.weight, Ordering::Relaxed);
        let is_first = round.opened_at.is_none();
        round.opened_at.get_or_insert_with(Instant::now);
        if intake.is_committer_waiting && intake.is_worth_waking_for(is_first) {
            intake.is_committer_waiting = false;
            self.work.notify_one();
        }
        Ok(number)
    }

    /// Asks for a sync; the receiver hears when everything staged before is durable. It is dropped
    /// unanswered when the commit fails.
    pub(super) fn flush(&self) -> Result<oneshot::Receiver<()>, StoreError> {
        let (sender, receiver) = oneshot::channel();
        self.stage(|round| round.waiting.push(sender))?;
        Ok(receiver)
    }

    /// Pushes that are not durable yet: staged, or in the commit that runs.
    pub(super) fn depth(&self) -> usize {
        let intake = self.intake();
        intake.round.numbered.len() + self.committing.load(Ordering::Relaxed)
    }

    /// Whether everything ever staged is committed.
    pub(super) fn is_idle(&self) -> bool {
        let round = &self.intake().round;
        round.is_empty() && self.committed() + 1 == round.number
    }

    /// The last round that was committed.
    pub(super) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// The committer is done with a round.
    pub(super) fn note_committed(&self, round: u64) {
        self.committed.store(round, Ordering::Release);
        self.committing.store(0, Ordering::Relaxed);
    }

    /// From now on nothing is taken.
    pub(super) fn fail(&self) {
        self.has_failed.store(true, Ordering::Release);
    }

    /// Whether a commit has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    /// Has the committer stop once all is written.
    pub(super) fn stop(&self) {
        self.intake().is_stopping = true;
        self.work.notify_one();
    }

    /// What is left in the queue after a failure.
    pub(super) fn abandon(&self) -> Round {
        std::mem::take(&mut self.intake().round)
    }

    /// Waits for work. `unsynced_since` is when the oldest write was made that no sync covers yet;
    /// `last` is the commit that has just ended, if one has.
    pub(super) fn next(&self, unsynced_since: Option<Instant>, last: Option<LastCommit>) -> Order {
        let mut intake = self.intake();
        let staged = intake.round.numbered.len();
        intake.gathering = last.map(|last| Gathering::after(last, staged));
        loop {
            let now = Instant::now();
            let gathers_until = intake.gathers_until(now);
            let is_due = gathers_until.is_none() && intake.round.must_sync();
            if is_due || (intake.is_stopping && !intake.round.is_empty()) {
                return Order::Commit(self.take(&mut intake));
            }
            if intake.is_stopping {
                return Order::Stop;
            }
            let write_at = intake.round.opened_at.map(|at| at + LAZY_WRITE_DELAY);
            let sync_at = unsynced_since.map(|at| at + UNSYNCED_MAX);
            if write_at.is_some_and(|at| at <= now) {
                return Order::Commit(self.take(&mut intake));
            }
            if sync_at.is_some_and(|at| at <= now) {
                return Order::Sync;
            }
            let wake_at = gathers_until.into_iter().chain(write_at).chain(sync_at);
            intake = self.wait(intake, wake_at.min().map(|at| at - now));
        }
    }

    fn take(&self, intake: &mut MutexGuard<'_, Intake>) -> Round {
        let next = Round {
            number: intake.round.number + 1,
            ..Round::default()
        };
        self.weight.store(0, Ordering::Relaxed);
        let pushes = intake.round.numbered.len();
        self.committing.store(pushes, Ordering::Relaxed);
        std::mem::replace(&mut intake.round, next)
    }

    fn wait<'a>(
        &self,
        mut intake: MutexGuard<'a, Intake>,
        timeout: Option<Duration>,
    ) -> MutexGuard<'a, Intake> {
        intake.is_committer_waiting = true;
        let mut intake = match timeout {
            Some(timeout) => {
                let waited = self.work.wait_timeout(intake, timeout);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self
                .work
                .wait(intake)
                .unwrap_or_else(PoisonError::into_inner),
        };
        intake.is_committer_waiting = false;
        intake
    }

    fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::token_of;

    const TOOK: Duration = Duration::from_millis(3);

    fn intake_after(pushes: usize, staged: usize, now: Instant) -> Intake {
        let last = LastCommit {
            ended_at: now,
            took: TOOK,
            pushes,
        };
        let mut intake = Queue::new(1_024).intake.into_inner().expect("not poisoned");
        intake.round.numbered.extend((0..staged).map(numbered));
        intake.gathering = Some(Gathering::after(last, staged));
        intake
    }

    fn numbered(ticket: usize) -> Numbered {
        Numbered {
            token: token_of("p").id,
            syn: 1,
            is_now_or_never: false,
            ticket: ticket as u64,
            sink: std::sync::Arc::new(|_| ()),
        }
    }

    #[test]
    fn a_round_waits_for_those_who_were_just_answered_but_only_for_a_part_of_a_commit() {
        let now = Instant::now();
        let mut intake = intake_after(2, 1, now);
        assert_eq!(intake.gathers_until(now), Some(now + TOOK / GATHER_SHARE));
        assert!(!intake.is_worth_waking_for(false), "two are still missing");
        assert_eq!(intake.gathers_until(now + TOOK / GATHER_SHARE), None);
        assert!(intake.is_worth_waking_for(false), "nobody is waited for");
    }

    #[test]
    fn nobody_is_waited_for_after_a_fast_commit() {
        let now = Instant::now();
        let mut intake = intake_after(2, 1, now);
        let last = LastCommit {
            ended_at: now,
            took: GATHER_FROM / 2,
            pushes: 2,
        };
        intake.gathering = Some(Gathering::after(last, 1));
        assert_eq!(intake.gathers_until(now), None);
    }

    #[test]
    fn a_round_goes_as_soon_as_everybody_is_back() {
        let now = Instant::now();
        let mut intake = intake_after(2, 1, now);
        intake.round.numbered.extend((1..3).map(numbered));
        assert!(intake.is_worth_waking_for(false));
        assert_eq!(intake.gathers_until(now), None);
    }

    #[test]
    fn whoever_flushes_and_whoever_stops_does_not_wait_for_senders() {
        let now = Instant::now();
        let mut flushed = intake_after(2, 1, now);
        flushed.round.waiting.push(oneshot::channel().0);
        assert_eq!(flushed.gathers_until(now), None);
        let mut stopping = intake_after(2, 1, now);
        stopping.is_stopping = true;
        assert_eq!(stopping.gathers_until(now), None);
    }
}
