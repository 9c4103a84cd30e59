//! The thread that walks: sweeps what has expired, ends the tokens of deleted projects, and makes
//! the store small again when most of it is garbage.
//!
//! It goes in steps and waits for each to be committed, so that a long walk neither fills the
//! queue nor holds anybody up.

use std::ops::{Bound, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use fjall::UserKey;
use tokio::sync::oneshot;

use super::committer::CommittedTotals;
use super::engine::{Engine, Op};
use super::queue::Queue;
use super::record::{
    ENDING_PREFIX, Record, all_of_kind, answer_key, decode_answer, decode_ending, ending_key, kind,
    time_index_between, timed_of, token_of,
};
use super::token_logs::TokenLogs;
use crate::clock::Millis;
use crate::push::IdempotencyKey;
use crate::store::{StoreError, Totals};
use crate::token::{ProjectHash, TokenId};

/// Entries that one step takes before it waits for the committer.
const STEP_ENTRIES: usize = 512;

/// How often it looks whether the store should be made smaller.
const TICK: Duration = Duration::from_secs(1);

/// Something is written this often at least, so that a store at rest notices a broken disk and
/// leaves no journal pinned.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// Below this many tombstones garbage is not worth a walk over the whole store.
const GARBAGE_MIN: u64 = 5_000;

/// A store that removes no more than this in a tick is idle enough to be compacted.
const IDLE_REMOVALS_MAX: u64 = 500;

/// A memtable that has hardly grown for so many ticks is written out, so that an idle node gives its
/// memory back.
const REST_TICKS: u32 = 3;

/// What a memtable at rest grows by in a tick at most: a few pushes.
const REST_GROWTH_MAX: u64 = 4 * 1024;

/// Less than this is not worth a table of its own. In memory it takes three times as much.
const REST_BYTES_MIN: u64 = 128 * 1024;

/// Orders that may wait; a further one is refused.
pub(super) const ORDERS_MAX: usize = 16;

/// What the thread is asked to do.
pub(super) enum Chore {
    Sweep {
        now: Millis,
        done: oneshot::Sender<Result<(), StoreError>>,
    },
    EndTokensOf {
        project: ProjectHash,
        now: Millis,
    },
}

/// Owns the walks over the whole store.
pub(super) struct Housekeeper {
    pub(super) engine: Arc<Engine>,
    pub(super) queue: Arc<Queue>,
    pub(super) logs: Arc<TokenLogs>,
    pub(super) totals: Arc<CommittedTotals>,
    pub(super) is_stopping: Arc<AtomicBool>,
    pub(super) tidiness: Tidiness,
}

/// How much garbage there is, and what is being done about it.
#[derive(Debug, Default)]
pub(super) struct Tidiness {
    removals_seen: u64,
    /// What the last compaction could not take away.
    tombstones_left: u64,
    is_writing_out: bool,
    memtable_seen: u64,
    /// Ticks for which the memtable has hardly grown.
    rested: u32,
    beat_at: Option<Instant>,
}

impl Housekeeper {
    /// Works until it is stopped or nobody can ask it any more.
    pub(super) fn run(mut self, chores: &Receiver<Chore>, unfinished: Vec<Ending>) {
        for (project, now) in unfinished {
            self.take_up(Chore::EndTokensOf { project, now });
        }
        while !self.is_stopping.load(Ordering::Relaxed) {
            match chores.recv_timeout(TICK) {
                Ok(chore) => self.take_up(chore),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if let Err(error) = self.tidy_up() {
                tracing::error!(%error, "the store could not be tidied up");
            }
        }
    }

    fn take_up(&self, chore: Chore) {
        match chore {
            Chore::Sweep { now, done } => {
                // The caller may have gone: the sweep is done all the same.
                let _ = done.send(self.sweep(now));
            }
            Chore::EndTokensOf { project, now } => {
                if let Err(error) = self.end_tokens_of(project, now) {
                    tracing::error!(%error, "a project's tokens are not all ended yet");
                }
            }
        }
    }

    /// What is found expired was not recovered, nor does it expire now: it goes before anything is
    /// counted.
    pub(super) fn begin(&self, now: Millis) -> Result<(), StoreError> {
        self.sweep(now)?;
        self.logs.counters.begin_with(self.totals.get().pending);
        Ok(())
    }

    fn sweep(&self, now: Millis) -> Result<(), StoreError> {
        if !self.queue.is_idle() {
            // The walk goes by what is on disk.
            self.wait_for_commit()?;
        }
        self.walk_due(kind::WAKE, now, |at, id, _| {
            self.logs.wake(TokenId(id), at, now)
        })?;
        self.walk_due(kind::ANSWER_END, now, |_, id, index_key| {
            self.forget_answer(IdempotencyKey(id), index_key, now)
        })
    }

    /// Visits what a time index has up to now and was not swept before. What is due later is not read: that may
    /// be everything there is.
    fn walk_due(
        &self,
        index: u8,
        now: Millis,
        visit: impl Fn(u32, [u8; 16], &UserKey) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let until = u32::try_from(now / 1_000 + 1).unwrap_or(u32::MAX);
        let from = self.engine.unswept.begin(index).min(until);
        let walked = self.walk(time_index_between(index, from, until), |key, _| {
            let (at, id) = timed_of(key).map_err(|fault| corrupt("a time index", fault))?;
            visit(at, id, key)
        });
        let left_from = if walked.is_ok() { until } else { from };
        self.engine.unswept.note(index, left_from);
        walked
    }

    fn forget_answer(
        &self,
        key: IdempotencyKey,
        index_key: &UserKey,
        now: Millis,
    ) -> Result<(), StoreError> {
        let answer_key = answer_key(key);
        let held = self.engine.get(&answer_key)?;
        let mut ops = vec![Op::Remove(index_key.clone())];
        if let Some(held) = held {
            let (_, ends_at) = decode_answer(&held).map_err(|fault| corrupt("an answer", fault))?;
            if ends_at <= now {
                ops.push(Op::RemoveUnchanged(answer_key, held));
            }
        }
        let stage_all = |round: &mut super::queue::Round| {
            for op in ops {
                round.stage(op);
            }
        };
        self.queue.stage(stage_all).map(drop)
    }

    fn end_tokens_of(&self, project: ProjectHash, now: Millis) -> Result<(), StoreError> {
        self.walk(all_of_kind(kind::TOKEN), |key, value| {
            let token = token_of(key).map_err(|fault| corrupt("a token's key", fault))?;
            let record = Record::decode(value).map_err(|fault| corrupt("a token", fault))?;
            if record.project == project && !record.is_ended {
                self.logs.end(&record.address(token), now)?;
            }
            Ok(())
        })?;
        if self.is_stopping.load(Ordering::Relaxed) {
            return Ok(());
        }
        let note = Op::Remove(ending_key(project));
        self.queue.stage(|round| round.stage(note)).map(drop)
    }

    /// Visits everything in a range in steps; each step is committed before the next begins.
    fn walk(
        &self,
        range: Range<UserKey>,
        visit: impl Fn(&UserKey, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut from = Bound::Included(range.start);
        while !self.is_stopping.load(Ordering::Relaxed) {
            let rest = (from, Bound::Excluded(range.end.clone()));
            let entries = self.engine.range(rest).take(STEP_ENTRIES);
            let step: Vec<_> = entries.collect::<Result<_, _>>()?;
            let Some((last, _)) = step.last() else {
                // A store with nothing to do writes nothing.
                return Ok(());
            };
            for (key, value) in &step {
                visit(key, value)?;
            }
            self.wait_for_commit()?;
            from = Bound::Excluded(last.clone());
        }
        Ok(())
    }

    fn wait_for_commit(&self) -> Result<(), StoreError> {
        let committed = self.queue.flush()?.blocking_recv();
        committed.map_err(|_| StoreError::OutcomeUnknown("the commit failed"))
    }

    /// Looks once a tick whether the store is idle and mostly garbage. Writing the memtable out
    /// comes first and takes a while; what it leaves behind is compacted at a later tick.
    fn tidy_up(&mut self) -> Result<(), StoreError> {
        self.beat()?;
        let removals = self.engine.removals();
        let is_idle = removals - self.tidiness.removals_seen <= IDLE_REMOVALS_MAX;
        self.tidiness.removals_seen = removals;
        if !is_idle {
            return Ok(());
        }
        if self.tidiness.is_writing_out {
            return self.finish_compaction();
        }
        if self.is_mostly_garbage() || self.engine.journals() > 1 || self.is_memtable_at_rest() {
            self.engine
                .write_memtable_out()
                .map_err(|error| failed(&error))?;
            self.tidiness.is_writing_out = true;
        }
        Ok(())
    }

    /// A walk costs as much as there is, garbage or not. Waiting until garbage is at least half of
    /// that keeps the cost of a removal constant, however many tokens the store knows.
    fn is_mostly_garbage(&self) -> bool {
        let tombstones = self.engine.tombstones();
        let garbage = tombstones.saturating_sub(self.tidiness.tombstones_left);
        let Totals { tokens, pending } = self.totals.get();
        garbage >= GARBAGE_MIN.max(tokens + pending)
    }

    /// Hardly anything was written for a while, and what was written before is still in memory, where each
    /// byte takes about two.
    fn is_memtable_at_rest(&mut self) -> bool {
        let bytes = self.engine.memtable_bytes();
        let growth = bytes.abs_diff(self.tidiness.memtable_seen);
        let rested = if growth <= REST_GROWTH_MAX {
            self.tidiness.rested.saturating_add(1)
        } else {
            0
        };
        (self.tidiness.memtable_seen, self.tidiness.rested) = (bytes, rested);
        rested >= REST_TICKS && bytes >= REST_BYTES_MIN
    }

    fn finish_compaction(&mut self) -> Result<(), StoreError> {
        if self.engine.is_writing_memtables_out() {
            return Ok(());
        }
        self.tidiness.is_writing_out = false;
        self.let_go_of_memtable()?;
        if !self.is_mostly_garbage() {
            return Ok(());
        }
        let started_at = Instant::now();
        self.engine.compact().map_err(|error| failed(&error))?;
        self.tidiness.tombstones_left = self.engine.tombstones();
        let elapsed_ms = started_at.elapsed().as_millis();
        let table_bytes = self.engine.table_bytes();
        tracing::info!(elapsed_ms, table_bytes, "the store was compacted");
        Ok(())
    }

    /// The engine keeps a memtable that was written out for readers of the past, and looks whether
    /// there can be any only when it begins the next one: an idle store would keep it for ever. So
    /// another is begun, after a write that makes the moment of the writing out a past one.
    fn let_go_of_memtable(&self) -> Result<(), StoreError> {
        self.wait_for_commit()?;
        self.engine
            .write_memtable_out()
            .map_err(|error| failed(&error))
    }

    /// An empty round still writes the totals.
    fn beat(&mut self) -> Result<(), StoreError> {
        let is_due = |beat_at: Instant| beat_at.elapsed() >= HEARTBEAT;
        if self.tidiness.beat_at.is_none_or(is_due) {
            self.tidiness.beat_at = Some(Instant::now());
            self.queue.stage(|_| ())?;
        }
        Ok(())
    }
}

/// A project whose tokens are being ended, and when that was asked.
pub(super) type Ending = (ProjectHash, Millis);

/// What was being ended when the store was last closed.
pub(super) fn unfinished_endings(engine: &Engine) -> Result<Vec<Ending>, StoreError> {
    let notes = engine.page(&ENDING_PREFIX, &ENDING_PREFIX, usize::MAX)?;
    let notes = notes.iter().map(|(key, value)| decode_ending(key, value));
    notes
        .collect::<Result<_, _>>()
        .map_err(|fault| corrupt("a note of an ending", fault))
}

fn corrupt(what: &str, fault: &str) -> StoreError {
    StoreError::Corrupt(format!("{what}: {fault}"))
}

fn failed(error: &fjall::Error) -> StoreError {
    tracing::error!(%error, "the engine failed at its upkeep");
    StoreError::Unavailable("the engine failed at its upkeep")
}
