//! 2. It finds its device: one Session actor an awake socket, Router and Storage actors by token.
//!
//! [`Node`] is the only door: what it offers has no actor in its signature. Each worker thread runs
//! one shard's Storage and Router and its own Registry of sessions, so that a push changes threads
//! once at the store and once at its session, and each time with its whole batch.

pub mod admission;
pub mod close_reason;
pub mod conversation;
mod frames;
mod messages;
mod once;
mod parking;
pub mod registry;
mod router;
mod routing_table;
mod session;
pub mod session_key;
mod storage;
pub mod stream;
pub mod subscription;
pub mod timing_wheel;
pub mod worker;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::prelude::*;
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::actors::close_reason::CloseReason;
use crate::actors::conversation::{Attached, Attachment, Conversation, Right};
use crate::actors::messages::{
    Append, Attach, Beat, Claim, CloseAll, Detach, EndProject, EndToken, Notify,
};
use crate::actors::once::Once;
use crate::actors::registry::SessionKey;
use crate::actors::router::Router;
use crate::actors::routing_table::Epoch;
use crate::actors::storage::Storage;
use crate::clock::{Clock, Millis};
use crate::metrics::{Metrics, Shed};
use crate::push::{MessageId, NewPush, Syn};
use crate::store::{Appended, Contact, Page, PageLimit, Store, StoreError};
use crate::token::{DeviceId, Keyring, ProjectHash, TokenAddress, TokenId};

/// A map for hot paths. Nothing may depend on its order.
pub type FastMap<K, V> = HashMap<K, V, ahash::RandomState>;

/// A set for hot paths. Nothing may depend on its order.
pub type FastSet<K> = HashSet<K, ahash::RandomState>;

/// How long a device that reads too slowly, or meets a full node, is asked to stay away.
pub const OVERLOAD_RETRY: Duration = Duration::from_secs(5);

/// The settings that actors follow.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// Worker threads, each with one shard.
    pub workers: usize,
    /// Messages that may wait for one Storage, Router or Registry.
    pub mailbox: usize,
    /// Messages that may wait for one Session.
    pub session_mailbox: usize,
    /// Sends of one token that the store works on at once.
    pub in_flight_per_token: usize,
    /// Sends of one token that may wait for those.
    pub queued_per_token: usize,
    /// A sender has its answer within this time.
    pub append_timeout_ms: u64,
    /// Sessions of the whole node.
    pub sessions_max: usize,
    /// From the upgrade to hello.
    pub hello_timeout_ms: u64,
    /// Asked of the device.
    pub ping_interval_ms: u64,
    /// How long a write may make no progress.
    pub write_timeout_ms: u64,
    /// Unsent bytes beyond which pushes wait in the store.
    pub outbox_bytes: usize,
    /// How long a session is idle before it parks.
    pub park_after_ms: u64,
    /// Devices told to come back after a restart are spread over this long.
    pub restart_spread_ms: u64,
}

impl NodeSettings {
    /// A device that was not heard for so long is given up: 1.5 times the interval, so that one
    /// ping may be lost.
    #[must_use]
    pub fn silent_after_ms(&self) -> u64 {
        self.ping_interval_ms + self.ping_interval_ms / 2
    }
}

/// Why a push was not appended.
#[derive(Debug, Clone, Error)]
pub enum AppendError {
    /// Its token has too many sends waiting.
    #[error("too many sends of this token are waiting")]
    TokenBusy,
    /// The node has too many sends waiting.
    #[error("too many sends are waiting")]
    NodeBusy,
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
    draining: AtomicBool,
    once: Once,
}

/// Whether a project exists and was not deleted.
pub type LiveProject = Arc<dyn Fn(ProjectHash) -> bool + Send + Sync>;

/// The actors of one worker, once it has started.
struct Worker {
    storage: Addr<Storage>,
    router: Addr<Router>,
    notify: Recipient<Notify>,
    end_project: Recipient<EndProject>,
    close_all: Recipient<CloseAll>,
    beat: Recipient<Beat>,
}

impl Node {
    /// A node whose workers are still to be started, see [`worker::start`].
    #[must_use]
    pub fn new(
        settings: NodeSettings,
        store: Arc<dyn Store>,
        clock: Clock,
        keys: Arc<Keyring>,
        metrics: Arc<Metrics>,
        is_live_project: LiveProject,
    ) -> Self {
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
            draining: AtomicBool::new(false),
            once: Once::default(),
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

    fn store(&self) -> &dyn Store {
        &*self.0.store
    }

    fn workers(&self) -> usize {
        self.0.workers.len()
    }

    fn worker_of(&self, shard_hash: u64) -> Option<&Worker> {
        let count = self.0.workers.len() as u64;
        let index = usize::try_from(shard_hash % count.max(1)).unwrap_or(0);
        self.0.workers.get(index)?.get()
    }

    // --- For senders -------------------------------------------------------------------------

    /// Numbers a push, makes it durable and starts its delivery; at most once for one idempotency
    /// key: a repeat waits for the first and gets its answer.
    ///
    /// # Errors
    /// [`AppendError`]: refused for certain, or the outcome is unknown.
    pub async fn send(&self, push: NewPush) -> Result<Sent, AppendError> {
        let _running = Running::count(&self.0.sends);
        let patience = Duration::from_millis(self.0.settings.append_timeout_ms);
        let sent = async {
            match push.idempotency {
                Some(key) => self.0.once.run(self, key, push).await,
                None => self.append(push).await,
            }
        };
        tokio::time::timeout(patience, sent)
            .await
            .unwrap_or(Err(AppendError::TimedOut))
    }

    async fn append(&self, push: NewPush) -> Result<Sent, AppendError> {
        let message_id = push.message_id;
        let (reply, answer) = oneshot::channel();
        let worker = self
            .worker_of(push.address.id.shard_hash())
            .ok_or(AppendError::NodeBusy)?;
        if worker.storage.try_send(Append { push, reply }).is_err() {
            return Err(AppendError::NodeBusy);
        }
        match answer.await {
            Ok(Ok(Appended::Stored { .. })) => Ok(Sent::Stored(message_id)),
            Ok(Ok(Appended::Unregistered)) => Ok(Sent::Unregistered),
            Ok(Err(error)) => Err(error),
            // The actor is gone without a word: the process is ending.
            Err(_) => Err(StoreError::OutcomeUnknown("the storage actor stopped").into()),
        }
    }

    // --- For devices -------------------------------------------------------------------------

    /// A device has shown up for a token.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn contact(&self, address: &TokenAddress, min_syn: Syn) -> Attached {
        if !(self.0.is_live_project)(address.project) {
            return Ok(Contact::Unregistered);
        }
        self.store()
            .contact(address, min_syn.max(1), self.0.clock.now())
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

    /// Whether every worker answers within a second.
    pub async fn beats(&self) -> bool {
        for worker in self.0.workers.iter().filter_map(OnceLock::get) {
            let beat = tokio::time::timeout(Duration::from_secs(1), worker.beat.send(Beat));
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

    /// Sends that have no answer yet.
    #[must_use]
    pub fn running_sends(&self) -> usize {
        self.0.sends.load(Ordering::Relaxed)
    }

    /// Whether one more session may enter.
    #[must_use]
    pub fn has_seat(&self) -> bool {
        self.sessions() < self.0.settings.sessions_max
    }

    // --- For sessions ------------------------------------------------------------------------

    /// Makes the session known to the routers first and asks the store second: a push settled
    /// between the two is delivered, one settled before is in the watermark.
    async fn attach(
        &self,
        session: SessionKey,
        right: Right,
        tokens: Vec<(TokenAddress, Syn)>,
    ) -> Attachment {
        let epoch = match right {
            Right::Claim(device) => self.claim(session, device).await,
            Right::Held(epoch) => epoch,
        };
        let ids = tokens.iter().map(|(address, _)| address.id);
        for (router, tokens) in self.by_router(ids) {
            let attach = Attach {
                session,
                epoch,
                tokens,
            };
            let _ = router.send(attach).await;
        }
        let mut answers = Vec::with_capacity(tokens.len());
        for (address, min_syn) in &tokens {
            answers.push(self.contact(address, *min_syn).await);
        }
        Attachment { epoch, answers }
    }

    async fn claim(&self, session: SessionKey, device: DeviceId) -> Epoch {
        let claimed = match self.worker_of(device.shard_hash()) {
            Some(worker) => worker.router.send(Claim { device, session }).await.ok(),
            None => None,
        };
        // No router answers only when the process ends.
        claimed.unwrap_or_default()
    }

    fn by_router(
        &self,
        tokens: impl Iterator<Item = TokenId>,
    ) -> Vec<(&Addr<Router>, Vec<TokenId>)> {
        let mut routers: Vec<(&Addr<Router>, Vec<TokenId>)> = Vec::new();
        for token in tokens {
            let Some(worker) = self.worker_of(token.shard_hash()) else {
                continue;
            };
            match routers
                .iter_mut()
                .find(|(router, _)| *router == &worker.router)
            {
                Some((_, batch)) => batch.push(token),
                None => routers.push((&worker.router, vec![token])),
            }
        }
        routers
    }

    /// Tells the routers that a session lets go. Waits for room in their mailboxes, in a task of
    /// its own: a goodbye must not be lost, or the table would grow for ever. The task ends when
    /// all have heard it.
    fn detach(
        &self,
        session: SessionKey,
        device: Option<DeviceId>,
        tokens: Vec<TokenId>,
    ) -> JoinHandle<()> {
        let node = self.clone();
        actix_rt::spawn(async move {
            for (router, tokens) in node.by_router(tokens.into_iter()) {
                let _ = router
                    .send(Detach {
                        session,
                        device: None,
                        tokens,
                    })
                    .await;
            }
            if let Some(worker) = device.and_then(|device| node.worker_of(device.shard_hash())) {
                let _ = worker
                    .router
                    .send(Detach {
                        session,
                        device,
                        tokens: Vec::new(),
                    })
                    .await;
            }
        })
    }

    async fn ack(&self, address: &TokenAddress, up_to: Syn) -> Result<Syn, StoreError> {
        self.store().ack(address, up_to, self.0.clock.now()).await
    }

    async fn read_for_session(
        &self,
        address: &TokenAddress,
        after: Syn,
        pushes: usize,
    ) -> Result<Page, StoreError> {
        let limit = PageLimit {
            pushes,
            bytes: self.0.settings.outbox_bytes,
        };
        self.read(address, after, limit).await
    }

    fn session_entered(&self) {
        self.0.sessions.fetch_add(1, Ordering::Relaxed);
        self.0.metrics.sessions.inc();
    }

    fn session_left(&self, session: SessionKey, conversation: &Conversation, reason: &CloseReason) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.sessions.dec();
        self.0.metrics.closes.count(reason.label());
        if !conversation.is_greeted() {
            self.0.metrics.handshakes.count(reason.handshake_label());
        }
        let tokens = conversation.tokens().map(|address| address.id).collect();
        drop(self.detach(session, conversation.device(), tokens));
        tracing::debug!(?session, reason = ?reason.label(), "session ended");
    }

    fn push_written(&self, accepted_at: Millis, live: bool) {
        self.0.metrics.push_delivered();
        if live {
            let waited_ms = self.0.clock.now().saturating_sub(accepted_at);
            // Good to a millisecond: the moment of accept is kept in milliseconds.
            let waited = Duration::from_millis(waited_ms);
            self.0
                .metrics
                .delivery_seconds
                .observe(waited.as_secs_f64());
        }
    }

    /// When a device should come back after a restart: spread, so that the next node is not
    /// flooded.
    fn restart_retry_ms(&self) -> u64 {
        rand::random_range(0..=self.0.settings.restart_spread_ms)
    }

    fn slow_reader_retry_ms(&self) -> u64 {
        let shortest = u64::try_from(OVERLOAD_RETRY.as_millis()).unwrap_or(u64::MAX);
        rand::random_range(shortest..=2 * shortest)
    }

    // --- Between actors ----------------------------------------------------------------------

    /// Hands events to one worker's registry; gives them back if it is full.
    fn notify(&self, worker: usize, events: Notify) -> Result<(), Notify> {
        let Some(worker) = self.0.workers.get(worker).and_then(OnceLock::get) else {
            return Ok(());
        };
        match worker.notify.try_send(events) {
            Err(SendError::Full(events)) => Err(events),
            // A closed registry has no sessions to tell.
            Ok(()) | Err(SendError::Closed(_)) => Ok(()),
        }
    }

    fn shed_deliveries(&self, count: usize) {
        tracing::debug!(count, "a mailbox is full, sessions will read the store");
        for _ in 0..count {
            self.0.metrics.sheds.count(Shed::MailboxFull);
        }
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
