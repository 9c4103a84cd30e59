//! The one door to the actors: what senders, devices and operators may ask of a node. No actor
//! stands in a signature here.

mod neighbours;
pub mod settings;
mod topics;
mod within;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::prelude::*;
use thiserror::Error;
use tokio::sync::oneshot;

use crate::actors::action::Attached;
use crate::actors::depths::Depths;
use crate::actors::fan_out::FanOuts;
use crate::actors::messages::{Append, Beat, CloseAll, EndProject, EndToken, Notify};
use crate::actors::node::settings::NodeSettings;
use crate::actors::once::{Once, Outgoing};
use crate::actors::router::Router;
use crate::actors::storage::Storage;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::push::{MessageId, NewPush, Syn};
use crate::store::region::{Epoch, MaybeRegion};
use crate::store::{Appended, Contact, Page, PageLimit, Store, StoreError};
use crate::token::{Keyring, ProjectHash, TokenAddress};

/// A worker that has not answered for so long is dead.
const BEAT_PATIENCE: Duration = Duration::from_secs(10);

/// Why a push was not appended.
#[derive(Debug, Clone, Error)]
pub enum AppendError {
    /// Its token has too many sends waiting.
    #[error("too many sends of this token are waiting")]
    TokenBusy,
    /// The node has too many sends waiting.
    #[error("too many sends are waiting")]
    NodeBusy,
    /// Its project has too many pushes to many on their way.
    #[error("too many fan-outs of this project are not finished")]
    FanOutsBusy,
    /// No outcome in time: it may still come.
    #[error("no outcome in time")]
    TimedOut,
    /// The store's own answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How a send ended, if it was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Durable, now or by an earlier send with the same idempotency key.
    Stored(MessageId),
    /// The token is dead.
    Unregistered,
}

/// Everything a running node shares. Cheap to clone.
#[derive(Clone)]
pub struct Node(Arc<Shared>);

struct Shared {
    settings: NodeSettings,
    store: Arc<dyn Store>,
    clock: Clock,
    keys: Arc<Keyring>,
    metrics: Arc<Metrics>,
    is_live_project: LiveProject,
    workers: Vec<OnceLock<Worker>>,
    sessions: AtomicUsize,
    sends: AtomicUsize,
    depths: Arc<Depths>,
    draining: AtomicBool,
    once: Once,
    fan_outs: FanOuts,
    region: MaybeRegion,
    last_epoch: AtomicU64,
}

/// Whether a project exists and was not deleted.
pub type LiveProject = Arc<dyn Fn(ProjectHash) -> bool + Send + Sync>;

/// The actors of one worker, once it has started.
pub(in crate::actors) struct Worker {
    pub storage: Addr<Storage>,
    pub router: Addr<Router>,
    pub notify: Recipient<Notify>,
    pub end_project: Recipient<EndProject>,
    pub close_all: Recipient<CloseAll>,
    pub beat: Recipient<Beat>,
}

impl Node {
    /// A node whose workers are still to be started, see [`crate::actors::worker::start`].
    #[must_use]
    pub fn new(
        settings: NodeSettings,
        store: Arc<dyn Store>,
        clock: Clock,
        keys: Arc<Keyring>,
        metrics: Arc<Metrics>,
        is_live_project: LiveProject,
        region: MaybeRegion,
    ) -> Self {
        let depths = Arc::<Depths>::default();
        depths.show_on(&metrics);
        let fan_outs = FanOuts::new(settings.fan_out_copies_per_second);
        let workers = (0..settings.workers).map(|_| OnceLock::new()).collect();
        Self(Arc::new(Shared {
            settings,
            store,
            clock,
            keys,
            metrics,
            is_live_project,
            workers,
            sessions: AtomicUsize::new(0),
            sends: AtomicUsize::new(0),
            depths,
            draining: AtomicBool::new(false),
            once: Once::default(),
            fan_outs,
            region,
            last_epoch: AtomicU64::new(0),
        }))
    }

    /// The settings that actors follow.
    #[must_use]
    pub fn settings(&self) -> &NodeSettings {
        &self.0.settings
    }

    /// The node's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// What seals and opens tokens.
    #[must_use]
    pub fn keys(&self) -> &Keyring {
        &self.0.keys
    }

    /// The node's metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(in crate::actors) fn depths(&self) -> &Depths {
        &self.0.depths
    }

    pub(in crate::actors) fn store(&self) -> &dyn Store {
        &*self.0.store
    }

    pub(in crate::actors) fn workers(&self) -> usize {
        self.0.workers.len()
    }

    fn worker_of(&self, shard_hash: u64) -> Option<&Worker> {
        self.0.workers.get(self.worker_index(shard_hash))?.get()
    }

    fn worker_index(&self, shard_hash: u64) -> usize {
        let count = self.0.workers.len() as u64;
        usize::try_from(shard_hash % count.max(1)).unwrap_or(0)
    }

    // --- For senders -------------------------------------------------------------------------

    /// Numbers a push, makes it durable and starts its delivery, or durably accepts one to many;
    /// at most once for one idempotency key: a repeat waits for the first and gets its answer.
    ///
    /// # Errors
    /// [`AppendError`]: refused for certain, or the outcome is unknown.
    pub async fn send(&self, outgoing: Outgoing) -> Result<Sent, AppendError> {
        let _running = Running::count(&self.0.sends);
        let patience = Duration::from_millis(self.0.settings.append_timeout_ms);
        let sent = async {
            match outgoing.idempotency() {
                Some(key) => self.0.once.run(self, key, outgoing).await,
                None => self.take_on(outgoing).await,
            }
        };
        tokio::time::timeout(patience, sent)
            .await
            .unwrap_or(Err(AppendError::TimedOut))
    }

    pub(in crate::actors) async fn take_on(&self, outgoing: Outgoing) -> Result<Sent, AppendError> {
        let push = match outgoing {
            Outgoing::ToOne(push) => push,
            Outgoing::ToMany(fan_out) => return self.accept(fan_out).await,
        };
        let message_id = push.message_id;
        Ok(match self.append_one(push).await? {
            Appended::Stored { .. } | Appended::Repeated => Sent::Stored(message_id),
            Appended::Unregistered => Sent::Unregistered,
        })
    }

    pub(in crate::actors) async fn append_one(
        &self,
        push: NewPush,
    ) -> Result<Appended, AppendError> {
        let (reply, answer) = oneshot::channel();
        let worker = self
            .worker_of(push.address.id.shard_hash())
            .ok_or(AppendError::NodeBusy)?;
        self.0.depths.storage.add(1);
        if worker.storage.try_send(Append { push, reply }).is_err() {
            self.0.depths.storage.take(1);
            return Err(AppendError::NodeBusy);
        }
        // The actor is gone without a word: the process is ending.
        let gone = StoreError::OutcomeUnknown("the storage actor stopped");
        answer.await.unwrap_or(Err(gone.into()))
    }

    pub(in crate::actors) fn fan_outs(&self) -> &FanOuts {
        &self.0.fan_outs
    }

    // --- For devices -------------------------------------------------------------------------

    /// A device has shown up for a token.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn contact(&self, address: &TokenAddress, min_syn: Syn) -> Attached {
        self.contact_of(address, min_syn, None).await
    }

    pub(in crate::actors) async fn contact_of(
        &self,
        address: &TokenAddress,
        min_syn: Syn,
        held: Option<Epoch>,
    ) -> Attached {
        if !(self.0.is_live_project)(address.project) {
            return Ok(Contact::Unregistered);
        }
        let now = self.0.clock.now();
        self.store()
            .contact(address, min_syn.max(1), held, now)
            .await
    }

    /// Whether a push for this token would be taken now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_registered(&self, address: &TokenAddress) -> Result<bool, StoreError> {
        self.store()
            .is_registered(address, self.0.clock.now())
            .await
    }

    /// Reads a page of a token's log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read(
        &self,
        address: &TokenAddress,
        after: Syn,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        self.store()
            .read(address, after, limit, self.0.clock.now())
            .await
    }

    /// Ends a token for ever, and tells the session that holds it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_token(&self, address: &TokenAddress) -> Result<(), StoreError> {
        self.store()
            .delete_token(address, self.0.clock.now())
            .await?;
        if let Some(worker) = self.worker_of(address.id.shard_hash()) {
            // Waits for room: an end must be heard.
            let _ = worker.router.send(EndToken(address.id)).await;
        }
        Ok(())
    }

    // --- For operators and the composition root ----------------------------------------------

    /// Ends all tokens of a project.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_project(&self, project: ProjectHash) -> Result<(), StoreError> {
        for worker in self.0.workers.iter().filter_map(OnceLock::get) {
            let _ = worker.end_project.send(EndProject(project)).await;
        }
        self.store()
            .delete_tokens_of(project, self.0.clock.now())
            .await
    }

    /// Closes every socket with 1012, evenly over the window.
    pub async fn close_all(&self, window_ms: u64) {
        for worker in self.0.workers.iter().filter_map(OnceLock::get) {
            let _ = worker.close_all.send(CloseAll { window_ms }).await;
        }
    }

    /// Waits until every worker has started its actors.
    pub async fn started(&self) {
        while self.0.workers.iter().any(|worker| worker.get().is_none()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Whether every worker answers in time. On a machine with more to do than it can, a thread may be
    /// without a processor for a second; who is restarted for that has more to do afterwards.
    pub async fn beats(&self) -> bool {
        for worker in self.0.workers.iter().filter_map(OnceLock::get) {
            let beat = tokio::time::timeout(BEAT_PATIENCE, worker.beat.send(Beat));
            if !matches!(beat.await, Ok(Ok(()))) {
                return false;
            }
        }
        true
    }

    /// From now on no new session is taken.
    pub fn start_draining(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Whether [`Self::start_draining`] was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// Sessions open now, awake and parked.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.0.sessions.load(Ordering::Relaxed)
    }

    /// Sends that have no answer yet, and copies of pushes to many that are being stored.
    #[must_use]
    pub fn running_sends(&self) -> usize {
        self.0.sends.load(Ordering::Relaxed) + self.0.fan_outs.copies_under_way()
    }

    /// Whether one more session may enter.
    #[must_use]
    pub fn has_seat(&self) -> bool {
        self.sessions() < self.0.settings.sessions_max
    }
}

/// Counts something for as long as it lives.
struct Running<'a>(&'a AtomicUsize);

impl<'a> Running<'a> {
    fn count(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
