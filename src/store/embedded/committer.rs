//! The one thread that writes: takes everything staged, commits it as one batch with one sync, and
//! only then lets it be seen and tells the senders.
//!
//! A failed commit is final. The engine may or may not hold the batch, numbers in it may not be
//! given again, and no later sync can be trusted: the process has to end and recover.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ahash::RandomState;
use fjall::UserKey;

use super::engine::{Engine, Op};
use super::queue::{HAS_FAILED, LastCommit, Numbered, Order, Queue, Round};
use super::record::{TOTALS_KEY, encode_totals};
use super::token_logs::TokenLogs;
use crate::store::counters::CommitObserver;
use crate::store::{Settled, SettledSink, StoreError, Totals};

/// What is done when a commit has failed, with the reason. Should not return.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

/// The counts of the store as the last commit left it.
#[derive(Debug, Default)]
pub(super) struct CommittedTotals {
    tokens: AtomicU64,
    pending: AtomicU64,
}

impl CommittedTotals {
    pub(super) fn new(totals: Totals) -> Self {
        Self {
            tokens: AtomicU64::new(totals.tokens),
            pending: AtomicU64::new(totals.pending),
        }
    }

    pub(super) fn get(&self) -> Totals {
        Totals {
            tokens: self.tokens.load(Ordering::Relaxed),
            pending: self.pending.load(Ordering::Relaxed),
        }
    }

    fn set(&self, totals: Totals) {
        self.tokens.store(totals.tokens, Ordering::Relaxed);
        self.pending.store(totals.pending, Ordering::Relaxed);
    }
}

/// Owns every write to the engine.
pub(super) struct Committer {
    pub(super) engine: Arc<Engine>,
    pub(super) queue: Arc<Queue>,
    pub(super) logs: Arc<TokenLogs>,
    pub(super) totals: Arc<CommittedTotals>,
    pub(super) observer: CommitObserver,
    pub(super) fatal: Fatal,
}

impl Committer {
    /// Works until the queue is stopped and empty, or until a commit fails.
    pub(super) fn run(self) {
        let _guard = PanicGuard(&self);
        let mut unsynced_since = None;
        let mut last = None;
        loop {
            let outcome = match self.queue.next(unsynced_since, last) {
                Order::Stop if unsynced_since.is_none() => return,
                Order::Commit(round) if round.must_sync() => {
                    unsynced_since = None;
                    self.commit(round).map(Some)
                }
                Order::Commit(round) => {
                    unsynced_since.get_or_insert_with(Instant::now);
                    self.commit(round).map(|_| None)
                }
                Order::Sync | Order::Stop => {
                    unsynced_since = None;
                    self.engine.sync().map(|()| None)
                }
            };
            match outcome {
                Ok(commit) => last = commit,
                Err(error) => return self.fail(&error.to_string()),
            }
        }
    }

    fn commit(&self, mut round: Round) -> Result<LastCommit, fjall::Error> {
        let started_at = Instant::now();
        let must_sync = round.must_sync();
        let totals = self.totals_after(&round);
        round.stage(Op::Put(TOTALS_KEY.into(), encode_totals(totals).into()));
        let ops = std::mem::take(&mut round.ops);
        if let Err(error) = self.engine.commit(self.last_of_each_key(ops), must_sync) {
            self.queue.fail();
            (self.fatal)(&error.to_string());
            report(
                round.numbered,
                &StoreError::OutcomeUnknown("the commit failed"),
            );
            return Err(error);
        }
        self.totals.set(totals);
        let (took, pushes) = (started_at.elapsed(), round.numbered.len());
        (self.observer)(took, pushes);
        let groups = group_by_sink(round.numbered, |numbered| self.logs.settle(numbered));
        self.queue.note_committed(round.number);
        deliver(groups);
        for waiting in round.waiting {
            // Nobody listens any more: the caller went away, which changes nothing.
            let _ = waiting.send(());
        }
        Ok(LastCommit {
            ended_at: Instant::now(),
            took,
            pushes,
        })
    }

    fn totals_after(&self, round: &Round) -> Totals {
        let Totals { tokens, pending } = self.totals.get();
        Totals {
            tokens: tokens.saturating_add_signed(round.tokens),
            pending: pending.saturating_add_signed(round.pending),
        }
    }

    /// A batch has one moment, so of several writes to a key only the last may be in it.
    fn last_of_each_key(&self, ops: Vec<Op>) -> impl Iterator<Item = Op> + use<> {
        let mut last: HashMap<UserKey, usize, RandomState> =
            HashMap::with_capacity_and_hasher(ops.len(), RandomState::default());
        for (place, op) in ops.iter().enumerate() {
            if self.is_still_wanted(op, &last) {
                last.insert(op.key().clone(), place);
            }
        }
        let ops = ops.into_iter().enumerate();
        ops.filter_map(move |(place, op)| (last.get(op.key()) == Some(&place)).then_some(op))
    }

    fn is_still_wanted(&self, op: &Op, earlier: &HashMap<UserKey, usize, RandomState>) -> bool {
        match op {
            Op::Put(..) | Op::Remove(_) | Op::RemoveSingle(_) => true,
            Op::RemoveUnchanged(key, value) => {
                let held = self.engine.get(key);
                !earlier.contains_key(key) && held.is_ok_and(|held| held.as_ref() == Some(value))
            }
        }
    }

    fn fail(&self, reason: &str) {
        if !self.queue.has_failed() {
            self.queue.fail();
            (self.fatal)(reason);
        }
        let left = self.queue.abandon();
        report(left.numbered, &HAS_FAILED);
    }
}

/// A committer that panics must not leave senders waiting for ever.
struct PanicGuard<'a>(&'a Committer);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("the committer panicked");
        }
    }
}

type Group = (SettledSink, Vec<Settled>);

/// There are as many sinks as shards, so a walk over the groups is short; a run of pushes for one
/// shard does not even walk.
fn group_by_sink(
    numbered: Vec<Numbered>,
    outcome: impl Fn(&Numbered) -> Result<crate::store::Appended, StoreError>,
) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for numbered in numbered {
        let settled = Settled {
            ticket: numbered.ticket,
            outcome: outcome(&numbered),
        };
        let known = groups
            .iter_mut()
            .rev()
            .find(|(sink, _)| Arc::ptr_eq(sink, &numbered.sink));
        match known {
            Some((_, group)) => group.push(settled),
            None => groups.push((numbered.sink, vec![settled])),
        }
    }
    groups
}

fn deliver(groups: Vec<Group>) {
    for (sink, group) in groups {
        sink(group);
    }
}

fn report(numbered: Vec<Numbered>, error: &StoreError) {
    deliver(group_by_sink(numbered, |_| Err(error.clone())));
}
