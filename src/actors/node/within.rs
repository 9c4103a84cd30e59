//! The node as its own actors see it: what sessions ask of routers and store, and what actors tell
//! each other across threads.

use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::prelude::*;
use tokio::task::JoinHandle;

use crate::actors::action::{Attachment, Right};
use crate::actors::close_reason::CloseReason;
use crate::actors::conversation::Conversation;
use crate::actors::messages::{Attach, Claim, Detach, Notify};
use crate::actors::node::Worker;
use crate::actors::registry::SessionKey;
use crate::actors::router::Router;
use crate::actors::{Node, OVERLOAD_RETRY};
use crate::clock::Millis;
use crate::metrics::Shed;
use crate::push::Syn;
use crate::store::region::Epoch;
use crate::store::{Page, PageLimit, StoreError};
use crate::token::{DeviceId, TokenAddress, TokenId};

impl Node {
    // --- For sessions ------------------------------------------------------------------------

    /// Makes the session known to the routers first and asks the store second: a push settled
    /// between the two is delivered, one settled before is in the watermark.
    pub(in crate::actors) async fn attach(
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
            answers.push(self.contact_of(address, *min_syn, Some(epoch)).await);
        }
        Attachment { epoch, answers }
    }

    pub(in crate::actors) async fn claim(&self, session: SessionKey, device: DeviceId) -> Epoch {
        let epoch = self.claim_in_region(device).await;
        if let Some(worker) = self.worker_of(device.shard_hash()) {
            let claim = Claim {
                device,
                session,
                epoch,
            };
            // No router answers only when the process ends.
            let _ = worker.router.send(claim).await;
        }
        epoch
    }

    pub(in crate::actors) fn by_router(
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
    pub(in crate::actors) fn detach(
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

    pub(in crate::actors) async fn ack(
        &self,
        address: &TokenAddress,
        up_to: Syn,
    ) -> Result<Syn, StoreError> {
        self.store().ack(address, up_to, self.0.clock.now()).await
    }

    pub(in crate::actors) async fn read_for_session(
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

    pub(in crate::actors) fn session_entered(&self) {
        self.0.sessions.fetch_add(1, Ordering::Relaxed);
        self.0.metrics.sessions.inc();
    }

    pub(in crate::actors) fn session_left(
        &self,
        session: SessionKey,
        conversation: &Conversation,
        reason: &CloseReason,
    ) {
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

    pub(in crate::actors) fn push_written(&self, accepted_at: Millis, live: bool) {
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
    pub(in crate::actors) fn restart_retry_ms(&self) -> u64 {
        rand::random_range(0..=self.0.settings.restart_spread_ms)
    }

    pub(in crate::actors) fn slow_reader_retry_ms(&self) -> u64 {
        let shortest = u64::try_from(OVERLOAD_RETRY.as_millis()).unwrap_or(u64::MAX);
        rand::random_range(shortest..=2 * shortest)
    }

    /// The actors of worker number `index` have started; false if they had before, or there is no
    /// such worker.
    pub(in crate::actors) fn seat(&self, index: usize, worker: Worker) -> bool {
        let seat = self.0.workers.get(index);
        seat.is_some_and(|seat| seat.set(worker).is_ok())
    }

    // --- Between actors ----------------------------------------------------------------------

    /// Hands events to one worker's registry; gives them back if it is full.
    pub(in crate::actors) fn notify(&self, worker: usize, events: Notify) -> Result<(), Notify> {
        let Some(worker) = self.0.workers.get(worker).and_then(OnceLock::get) else {
            return Ok(());
        };
        match worker.notify.try_send(events) {
            Err(SendError::Full(events)) => Err(events),
            // A closed registry has no sessions to tell.
            Ok(()) | Err(SendError::Closed(_)) => Ok(()),
        }
    }

    pub(in crate::actors) fn shed_deliveries(&self, count: usize) {
        tracing::debug!(count, "a mailbox is full, sessions will read the store");
        for _ in 0..count {
            self.0.metrics.sheds.count(Shed::MailboxFull);
        }
    }
}
