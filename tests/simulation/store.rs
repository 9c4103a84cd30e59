//! A store with a disk that takes its time: pushes become durable in groups of any size, some are
//! refused, of some nobody knows, and a crash takes everything that was not synced.
//!
//! What it holds is a [`MemoryStore`]; beside it stands the journal of what was done to that. After a
//! crash the store is what the journal makes of an empty one, and the journal has lost some of what
//! came after the last sync. Acknowledgements are not synced by themselves, as the contract allows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use herald::push::{MessageId, NewPush, Syn};
use herald::store::counters::PushCounters;
use herald::store::memory::MemoryStore;
use herald::store::{Appended, Audience, Settled, SettledSink, StoreError, StoreLimits};
use herald::token::{ProjectHash, TokenAddress};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::journal::{Fate, Step, UNKNOWN, append_now};
use crate::ledger::Ledger;

/// How many pushes of a token are kept, by the seed: so few that devices feel it, or enough for all.
const PENDING_MAX: [usize; 3] = [3, 12, 1_000];

/// Tokens of a topic that are looked at together: fewer than are asked for, as there are few.
const STRETCH: usize = 3;

fn limits(pending_per_token: usize) -> StoreLimits {
    StoreLimits {
        pending_per_token,
        token_ttl_ms: 30 * 24 * 60 * 60 * 1_000,
        topics_per_token: 10,
    }
}

/// The store.
pub struct FaultyStore {
    state: Mutex<State>,
    /// Locked after the state, if both are.
    ledger: Arc<Mutex<Ledger>>,
    staged: Notify,
}

struct State {
    memory: Arc<MemoryStore>,
    journal: Vec<Step>,
    /// So much of the journal survives a crash.
    synced: usize,
    waiting: VecDeque<Waiting>,
    random: SmallRng,
    is_faulty: bool,
    stretch: usize,
    limits: StoreLimits,
    ledger: Arc<Mutex<Ledger>>,
    /// Pushes to many that are accepted and not finished.
    unfinished: BTreeMap<MessageId, ProjectHash>,
    faults: u64,
}

/// Since when a step survives a crash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lasts {
    /// When it is answered.
    AtOnce,
    /// When something after it is synced.
    WithTheNext,
}

struct Waiting {
    push: NewPush,
    ticket: u64,
    sink: SettledSink,
}

/// How an append has ended, and nobody knows yet.
type Ended = (Waiting, Result<Appended, StoreError>);

fn empty(limits: StoreLimits) -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(limits, Arc::new(PushCounters::default())))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FaultyStore {
    pub fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let limits = limits(PENDING_MAX[random.random_range(0..PENDING_MAX.len())]);
        let ledger = Arc::<Mutex<Ledger>>::default();
        let state = State {
            memory: empty(limits),
            journal: Vec::new(),
            synced: 0,
            waiting: VecDeque::new(),
            random,
            is_faulty: true,
            stretch: STRETCH,
            limits,
            ledger: Arc::clone(&ledger),
            unfinished: BTreeMap::new(),
            faults: 0,
        };
        Self {
            state: Mutex::new(state),
            ledger,
            staged: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// What is durable.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    pub fn memory(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.state().memory)
    }

    /// So many tokens are looked at together when those of a topic are walked.
    pub fn looks_at(&self, tokens: usize) {
        self.state().stretch = tokens;
    }

    pub fn stretch(&self) -> usize {
        self.state().stretch
    }

    /// Appends that are not durable yet.
    pub fn staged(&self) -> usize {
        self.state().waiting.len()
    }

    /// Makes all of them durable, and says so.
    pub fn commit_staged(&self) {
        let staged = self.staged();
        let group = self.state().commit(staged);
        self.tell(group);
    }

    /// From now on it only takes its time.
    pub fn be_well(&self) {
        self.state().is_faulty = false;
    }

    pub fn faults(&self) -> u64 {
        self.state().faults
    }

    // --- The disk ----------------------------------------------------------------------------

    /// Makes durable what waits, a group at a time, for as long as the node lives.
    pub async fn commit(&self) {
        loop {
            if self.state().waiting.is_empty() {
                self.staged.notified().await;
            }
            let pause = self.state().pause();
            sleep(pause).await;
            let group = self.state().commit_some();
            // Durable, and nobody knows yet.
            let pause = self.state().pause();
            sleep(pause).await;
            self.tell(group);
        }
    }

    fn tell(&self, group: Vec<Ended>) {
        // One by one they fill the mailboxes of whoever hears of them.
        let is_single = self.state().random.random_range(0..2) == 0;
        let mut told: Vec<(SettledSink, Vec<Settled>)> = Vec::new();
        for (waiting, outcome) in group {
            let outcome = outcome.map(|appended| self.as_seen_now(&waiting.push, appended));
            let (ticket, sink) = (waiting.ticket, waiting.sink);
            let settled = Settled { ticket, outcome };
            let known = told.iter_mut();
            match known
                .filter(|_| !is_single)
                .find(|(it, _)| Arc::ptr_eq(it, &sink))
            {
                Some((_, group)) => group.push(settled),
                None => told.push((sink, vec![settled])),
            }
        }
        told.into_iter().for_each(|(sink, group)| sink(group));
    }

    /// Nobody may see any more what was replaced before anybody was told of it.
    fn as_seen_now(&self, push: &NewPush, mut appended: Appended) -> Appended {
        if let Appended::Stored { syn, audience, .. } = &mut appended {
            let ledger = self.ledger();
            let row = ledger.log(push.address.id).and_then(|it| it.rows.get(syn));
            if row.is_some_and(|row| row.replaced_at.is_some()) {
                *audience = Audience::Nobody;
            }
        }
        appended
    }

    pub fn stage(&self, push: NewPush, ticket: u64, sink: &SettledSink) {
        let mut state = self.state();
        if let Some(refusal) = state.refusal() {
            drop(state);
            let outcome = Err(refusal);
            return sink(vec![Settled { ticket, outcome }]);
        }
        let sink = Arc::clone(sink);
        state.waiting.push_back(Waiting { push, ticket, sink });
        self.staged.notify_one();
    }

    /// The machine has stopped: what was not synced is gone, or some of it.
    pub fn crash(&self) {
        let mut state = self.state();
        state.waiting.clear();
        let (synced, written) = (state.synced, state.journal.len());
        let kept = state.random.random_range(synced..=written);
        state.journal.truncate(kept);
        state.memory = empty(state.limits);
        state.unfinished.clear();
        for step in state.journal.clone() {
            state.replay(step);
        }
        state.synced = kept;
    }

    // --- For readers -------------------------------------------------------------------------

    /// A call to the store begins or ends; it may fail if it begins.
    pub async fn hop(&self, may_fail: bool) -> Result<(), StoreError> {
        let (pause, refusal) = {
            let mut state = self.state();
            let refusal = if may_fail { state.refusal() } else { None };
            (state.pause(), refusal)
        };
        sleep(pause).await;
        refusal.map_or(Ok(()), Err)
    }

    pub fn note_ack(&self, address: &TokenAddress, acked: Syn, step: Step) {
        self.state().journal.push(step);
        self.ledger().acks(address.id, acked);
    }

    /// Pushes to many that are accepted and not finished.
    pub fn unfinished(&self) -> Vec<(MessageId, ProjectHash)> {
        let state = self.state();
        let unfinished = state.unfinished.iter();
        unfinished.map(|(id, project)| (*id, *project)).collect()
    }

    /// A write that takes its time. It may fail, and then nobody knows at times whether it was done.
    pub async fn keep<T>(
        &self,
        step: Step,
        lasts: Lasts,
        write: impl FnOnce(&Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.hop(true).await?;
        let fate = self.state().fate();
        if fate == Fate::Lost {
            return Err(UNKNOWN);
        }
        let written = write(self);
        let length = {
            let mut state = self.state();
            state.note_fan_out(&step);
            state.journal.push(step);
            state.journal.len()
        };
        self.hop(false).await?;
        if lasts == Lasts::AtOnce {
            let mut state = self.state();
            state.synced = state.synced.max(length);
        }
        if fate == Fate::DoneInSilence {
            return Err(UNKNOWN);
        }
        written
    }
}

impl State {
    fn one_in(&mut self, chance: u32) -> bool {
        self.is_faulty && self.random.random_range(0..chance) == 0
    }

    fn pause(&mut self) -> Duration {
        let longest = match (self.one_in(25), self.random.random_range(0..3)) {
            (true, _) => 3_000,
            (false, 0) => 1,
            (false, _) => 40,
        };
        Duration::from_millis(self.random.random_range(0..longest))
    }

    fn refusal(&mut self) -> Option<StoreError> {
        let is_refused = self.one_in(25);
        self.faults += u64::from(is_refused);
        is_refused.then(|| match self.random.random() {
            true => StoreError::Unavailable("as it likes"),
            false => StoreError::Full,
        })
    }

    fn commit_some(&mut self) -> Vec<Ended> {
        let waiting = self.waiting.len();
        let is_all = self.random.random_range(0..3) == 0;
        let count = if is_all {
            waiting
        } else {
            self.random.random_range(0..=waiting)
        };
        self.commit(count)
    }

    fn commit(&mut self, count: usize) -> Vec<Ended> {
        let group: Vec<Waiting> = self.waiting.drain(..count).collect();
        lock(&self.ledger).begins_group();
        let ended = group.into_iter().map(|waiting| {
            let outcome = self.commit_one(waiting.push.clone());
            (waiting, outcome)
        });
        let ended = ended.collect();
        self.synced = self.journal.len();
        ended
    }

    fn commit_one(&mut self, push: NewPush) -> Result<Appended, StoreError> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        let fate = self.fate();
        if fate == Fate::Lost {
            return Err(UNKNOWN);
        }
        let appended = self.write(push.clone());
        self.journal.push(Step::Append(push));
        match fate {
            Fate::DoneInSilence => Err(UNKNOWN),
            _ => Ok(appended),
        }
    }

    fn fate(&mut self) -> Fate {
        if !self.one_in(25) {
            return Fate::Done;
        }
        self.faults += 1;
        match self.random.random() {
            true => Fate::Lost,
            false => Fate::DoneInSilence,
        }
    }

    fn note_fan_out(&mut self, step: &Step) {
        match step {
            Step::Accept(fan_out) => {
                let (id, project) = (fan_out.message_id, fan_out.project);
                self.unfinished.insert(id, project);
            }
            Step::Finish(id) => drop(self.unfinished.remove(id)),
            _ => {}
        }
    }

    fn write(&mut self, push: NewPush) -> Appended {
        let appended = append_now(&self.memory, push.clone());
        if let Appended::Stored {
            syn, deleted_up_to, ..
        } = appended
        {
            // What was durable before a crash is the same after it.
            lock(&self.ledger).stores(&push, syn, deleted_up_to);
        }
        appended
    }

    fn replay(&mut self, step: Step) {
        self.note_fan_out(&step);
        match step {
            Step::Append(push) => drop(self.write(push)),
            other => other.redo(&self.memory),
        }
    }
}
