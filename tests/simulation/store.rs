//! A store with a disk that takes its time: pushes become durable in groups of any size, some are
//! refused, of some nobody knows, and a crash takes everything that was not synced.
//!
//! What it holds is a [`MemoryStore`]; beside it stands the journal of what was done to that. After a
//! crash the store is what the journal makes of an empty one, and the journal has lost some of what
//! came after the last sync. Acknowledgements are not synced by themselves, as the contract allows.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use herald::clock::Millis;
use herald::push::{MessageId, NewPush, Syn};
use herald::store::counters::PushCounters;
use herald::store::memory::MemoryStore;
use herald::store::{Appended, Settled, SettledSink, Store, StoreError, StoreLimits};
use herald::token::{TokenAddress, TokenId};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::Notify;
use tokio::time::sleep;

const LIMITS: StoreLimits = StoreLimits {
    pending_per_token: 1_000,
    token_ttl_ms: 30 * 24 * 60 * 60 * 1_000,
    topics_per_token: 10,
};

/// The store.
pub struct FaultyStore {
    state: Mutex<State>,
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
    /// The number of each push that is durable.
    durable: HashMap<MessageId, (TokenId, Syn)>,
    /// The highest number that each token's own device has acknowledged.
    may_ack: HashMap<TokenId, Syn>,
    acked: HashMap<TokenId, Syn>,
    pub faults: u64,
}

#[derive(Clone)]
enum Step {
    Append(NewPush),
    Contact(TokenAddress, Syn, Millis),
    Ack(TokenAddress, Syn, Millis),
}

struct Waiting {
    push: NewPush,
    ticket: u64,
    sink: SettledSink,
}

fn empty() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(LIMITS, Arc::new(PushCounters::default())))
}

/// Appends that are durable when this returns: so is the memory store's nature.
fn append_now(memory: &MemoryStore, push: NewPush) -> Appended {
    let outcome = Arc::new(Mutex::new(None));
    let told = Arc::clone(&outcome);
    let sink: SettledSink = Arc::new(move |group: Vec<Settled>| {
        let settled = group.into_iter().next().map(|it| it.outcome);
        *told.lock().expect("whole") = settled;
    });
    memory.append(push, 0, &sink);
    let settled = outcome.lock().expect("whole").take();
    settled.expect("told at once").expect("memory takes all")
}

impl FaultyStore {
    pub fn new(seed: u64) -> Self {
        let state = State {
            memory: empty(),
            journal: Vec::new(),
            synced: 0,
            waiting: VecDeque::new(),
            random: SmallRng::seed_from_u64(seed),
            is_faulty: true,
            durable: HashMap::new(),
            may_ack: HashMap::new(),
            acked: HashMap::new(),
            faults: 0,
        };
        Self {
            state: Mutex::new(state),
            staged: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn memory(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.state().memory)
    }

    /// From now on it only takes its time.
    pub fn be_well(&self) {
        self.state().is_faulty = false;
    }

    pub fn faults(&self) -> u64 {
        self.state().faults
    }

    /// The number of a push that is durable.
    pub fn syn_of(&self, id: MessageId) -> Option<Syn> {
        self.state().durable.get(&id).map(|(_, syn)| *syn)
    }

    /// How far the token of a push is acknowledged.
    pub fn acked(&self, id: MessageId) -> Syn {
        let state = self.state();
        let token = state.durable.get(&id).map(|(token, _)| token);
        let acked = token.and_then(|token| state.acked.get(token));
        acked.copied().unwrap_or(0)
    }

    /// Everything durable that was not acknowledged.
    pub fn pending(&self) -> Vec<(MessageId, Syn)> {
        let state = self.state();
        let pending = state.durable.iter().filter(|(_, (token, syn))| {
            let acked = state.acked.get(token).copied().unwrap_or(0);
            *syn > acked
        });
        pending.map(|(id, (_, syn))| (*id, *syn)).collect()
    }

    /// A token's own device is about to acknowledge.
    pub fn device_acks(&self, token: TokenId, syn: Syn) {
        let mut state = self.state();
        let known = state.may_ack.entry(token).or_insert(0);
        *known = (*known).max(syn);
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
            let is_single = self.state().random.random_range(0..2) == 0;
            for (sink, settled) in group {
                // One by one they fill the mailboxes of whoever hears of them.
                match is_single {
                    true => settled.into_iter().for_each(|it| sink(vec![it])),
                    false => sink(settled),
                }
            }
        }
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
        state.memory = empty();
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

    pub fn note_contact(&self, address: &TokenAddress, min_syn: Syn, now: Millis) {
        let step = Step::Contact(*address, min_syn, now);
        self.state().journal.push(step);
        self.note_acked(address.id, min_syn.saturating_sub(1));
    }

    pub fn note_ack(&self, address: &TokenAddress, up_to: Syn, acked: Syn, now: Millis) {
        let step = Step::Ack(*address, up_to, now);
        self.state().journal.push(step);
        self.note_acked(address.id, acked);
    }

    fn note_acked(&self, token: TokenId, acked: Syn) {
        let allowed = {
            let mut state = self.state();
            let known = state.acked.entry(token).or_insert(0);
            *known = (*known).max(acked);
            state.may_ack.get(&token).copied().unwrap_or(0)
        };
        assert!(
            acked <= allowed,
            "promise 7: acknowledged up to {acked}, its device only up to {allowed}"
        );
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

    fn commit_some(&mut self) -> Vec<(SettledSink, Vec<Settled>)> {
        let waiting = self.waiting.len();
        let is_all = self.random.random_range(0..3) == 0;
        let count = if is_all {
            waiting
        } else {
            self.random.random_range(0..=waiting)
        };
        let group: Vec<Waiting> = self.waiting.drain(..count).collect();
        let mut told: Vec<(SettledSink, Vec<Settled>)> = Vec::new();
        for Waiting { push, ticket, sink } in group {
            let outcome = self.commit_one(push);
            let settled = Settled { ticket, outcome };
            match told.iter_mut().find(|(other, _)| Arc::ptr_eq(other, &sink)) {
                Some((_, group)) => group.push(settled),
                None => told.push((sink, vec![settled])),
            }
        }
        self.synced = self.journal.len();
        told
    }

    fn commit_one(&mut self, push: NewPush) -> Result<Appended, StoreError> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        let is_unknown = self.one_in(25);
        self.faults += u64::from(is_unknown);
        let unknown = Err(StoreError::OutcomeUnknown("as it likes"));
        if is_unknown && self.random.random() {
            return unknown;
        }
        let appended = self.write(push.clone());
        self.journal.push(Step::Append(push));
        if is_unknown { unknown } else { Ok(appended) }
    }

    fn write(&mut self, push: NewPush) -> Appended {
        let (id, token) = (push.message_id, push.address.id);
        let appended = append_now(&self.memory, push);
        if let Appended::Stored { syn, .. } = appended {
            let known = self.durable.insert(id, (token, syn));
            // What was durable before a crash is the same after it.
            assert!(known.is_none_or(|known| known == (token, syn)));
        }
        appended
    }

    /// The memory store answers at once: polling its futures once is enough.
    fn replay(&mut self, step: Step) {
        use futures_util::FutureExt as _;
        match step {
            Step::Append(push) => drop(self.write(push)),
            Step::Contact(address, min_syn, now) => {
                let contact = self.memory.contact(&address, min_syn, None, now);
                contact.now_or_never().expect("at once").expect("taken");
            }
            Step::Ack(address, up_to, now) => {
                let acked = self.memory.ack(&address, up_to, now);
                acked.now_or_never().expect("at once").expect("taken");
            }
        }
    }
}
