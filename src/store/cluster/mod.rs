//! The store of a region: any number of nodes over one Redis Cluster and one Scylla cluster.
//!
//! The way of a push: a function in Redis gives it a number, its row becomes durable in Scylla, and
//! another function settles it: two round trips to Redis, one write. Redis says which pushes are
//! live and how far everything is settled; Scylla has their rows, and a row of every token, from
//! which a record that Redis has lost is made again. `functions.lua` has the steps.

mod appending;
mod backends;
mod cleanup;
mod clocks;
mod connecting;
mod cql;
mod deliberate;
mod fan_out_rows;
mod fan_outs;
mod healing;
mod health;
mod hints;
mod letters;
mod line;
mod options;
mod presence;
mod primaries;
mod push_rows;
mod reading;
mod records;
mod reply;
mod schema;
mod subscribing;
mod token_rows;
mod topic_rows;
mod topics;
mod turns;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod topics_tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use dashmap::DashSet;
use futures_util::future::{BoxFuture, ready};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use self::connecting::ConnectError;
pub use self::options::{Backend, ClusterOptions};
pub use self::schema::SchemaError;

use self::backends::Backends;
use self::cql::Cql;
use self::deliberate::Deliberate;
use self::fan_outs::FanOuts;
use self::hints::Hints;
use self::turns::Turns;
use super::counters::CommitObserver;
use super::region::{Claimed, Epoch, Held, Hint, NodeId, Region};
use super::{
    Appended, Claim, Contact, Page, PageLimit, Saved, Settled, SettledSink, Store, StoreError,
    Totals,
};
use crate::clock::Millis;
use crate::projects::Project;
use crate::push::{IdempotencyKey, MessageId, NewPush, Syn};
use crate::token::{DeviceId, ProjectHash, TokenAddress, TokenId};

/// Appends under way in the whole store; more of them are refused.
const APPENDS_MAX: usize = 65_536;

/// The store of a region, as one of its nodes sees it.
pub struct ClusterStore {
    backends: Arc<Backends>,
    deliberate: Arc<Deliberate>,
    fan_outs: FanOuts,
    hints: Arc<Hints>,
    observer: CommitObserver,
    /// Projects whose tokens are dead whatever their records say.
    ended: Arc<DashSet<ProjectHash, ahash::RandomState>>,
    running: Arc<AtomicU64>,
    turns: Arc<Turns>,
    runtime: Option<Threads>,
}

/// The threads that speak with the backends. Their owner may be dropped on an asynchronous thread,
/// which must not wait for them: also when it gives up connecting.
struct Threads(Option<Runtime>);

impl Threads {
    fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Option<JoinHandle<T>> {
        self.0.as_ref().map(|runtime| runtime.spawn(task))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl ClusterStore {
    /// What in the settings of Redis endangers the promises, in an operator's words.
    pub async fn concerns(&self) -> Vec<String> {
        self.backends.primaries.concerns().await.unwrap_or_default()
    }

    /// Whether a backend answered when it was last asked.
    #[must_use]
    pub fn is_up(&self, backend: Backend) -> bool {
        self.backends.health.is_up(backend)
    }

    /// The other nodes.
    #[must_use]
    pub fn region(self: &Arc<Self>) -> Arc<dyn Region> {
        Arc::clone(self) as Arc<dyn Region>
    }

    fn has_ended(&self, address: &TokenAddress) -> bool {
        self.ended.contains(&address.project)
    }

    async fn delete_tokens_of_now(
        &self,
        project: ProjectHash,
        now: Millis,
    ) -> Result<(), StoreError> {
        self.ended.insert(project);
        if !self
            .deliberate
            .begin_ending(&self.backends.cql, project)
            .await?
        {
            return Ok(());
        }
        let (backends, deliberate) = (Arc::clone(&self.backends), Arc::clone(&self.deliberate));
        let end_all = async move {
            backends.finish_all_of(project, now).await?;
            deliberate.note_ended(&backends.cql, project).await
        };
        if let Some(runtime) = &self.runtime {
            runtime.spawn(async move {
                if let Err(error) = end_all.await {
                    tracing::warn!(%error, "tokens of a deleted project are left to expire");
                }
            });
        }
        Ok(())
    }
}

impl Store for ClusterStore {
    fn append(&self, push: NewPush, ticket: u64, sink: &SettledSink) {
        let Some(runtime) = &self.runtime else {
            return;
        };
        let sink = Arc::clone(sink);
        let refusal = match self.has_ended(&push.address) {
            true => Some(Ok(Appended::Unregistered)),
            false if self.running.load(Ordering::Relaxed) >= APPENDS_MAX as u64 => {
                Some(Err(StoreError::Full))
            }
            false => None,
        };
        if let Some(outcome) = refusal {
            return sink(vec![Settled { ticket, outcome }]);
        }
        let running = Arc::clone(&self.running);
        running.fetch_add(1, Ordering::Relaxed);
        let (backends, deliberate) = (Arc::clone(&self.backends), Arc::clone(&self.deliberate));
        let (observer, turns) = (Arc::clone(&self.observer), Arc::clone(&self.turns));
        runtime.spawn(async move {
            let turn = turns.take(push.address.id.shard_hash()).await;
            let begun = Instant::now();
            let outcome = backends.append(&push).await;
            drop(turn);
            if let Some(key) = push.idempotency {
                let send = (push.message_id, push.accepted_at);
                close_claim(&backends.cql, &deliberate, key, send, is_stored(&outcome)).await;
            }
            if outcome.is_ok() {
                observer(begun.elapsed(), 1);
            }
            running.fetch_sub(1, Ordering::Relaxed);
            sink(vec![Settled { ticket, outcome }]);
        });
    }

    fn contact<'a>(
        &'a self,
        address: &'a TokenAddress,
        min_syn: Syn,
        held: Option<Epoch>,
        now: Millis,
    ) -> BoxFuture<'a, Result<Contact, StoreError>> {
        if self.has_ended(address) {
            return Box::pin(ready(Ok(Contact::Unregistered)));
        }
        Box::pin(self.backends.contact(address, min_syn, held, now))
    }

    fn is_registered<'a>(
        &'a self,
        address: &'a TokenAddress,
        now: Millis,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        if self.has_ended(address) {
            return Box::pin(ready(Ok(false)));
        }
        Box::pin(self.backends.is_registered(address, now))
    }

    fn read<'a>(
        &'a self,
        address: &'a TokenAddress,
        after: Syn,
        limit: PageLimit,
        now: Millis,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(self.backends.read(address, after, limit, now))
    }

    fn ack<'a>(
        &'a self,
        address: &'a TokenAddress,
        up_to: Syn,
        now: Millis,
    ) -> BoxFuture<'a, Result<Syn, StoreError>> {
        Box::pin(self.backends.ack(address, up_to, now))
    }

    fn delete_token<'a>(
        &'a self,
        address: &'a TokenAddress,
        now: Millis,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.backends.delete_token(address, now))
    }

    fn claim(
        &self,
        key: IdempotencyKey,
        proposed: MessageId,
        now: Millis,
    ) -> BoxFuture<'_, Result<Claim, StoreError>> {
        let cql = &self.backends.cql;
        Box::pin(self.deliberate.claim(cql, key, proposed, now))
    }

    fn projects(&self) -> BoxFuture<'_, Result<Vec<Project>, StoreError>> {
        Box::pin(self.deliberate.projects(&self.backends.cql))
    }

    fn save_project<'a>(
        &'a self,
        project: &'a Project,
    ) -> BoxFuture<'a, Result<Saved, StoreError>> {
        Box::pin(self.deliberate.save_project(&self.backends.cql, project))
    }

    fn delete_tokens_of(
        &self,
        project: ProjectHash,
        now: Millis,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.delete_tokens_of_now(project, now))
    }

    fn keep_secret<'a>(
        &'a self,
        name: &'a str,
        proposed: &'a [u8],
    ) -> BoxFuture<'a, Result<Vec<u8>, StoreError>> {
        let cql = &self.backends.cql;
        Box::pin(self.deliberate.keep_secret(cql, name, proposed))
    }

    fn kept_secret<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        Box::pin(self.deliberate.kept_secret(&self.backends.cql, name))
    }

    /// Redis and Scylla expire by themselves.
    fn sweep(&self, _: Millis) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(ready(Ok(())))
    }

    /// Of this node's own doing: what it has stored and not seen end. Other nodes end what this
    /// one has stored, so only the sum over all nodes means something.
    fn totals(&self) -> Totals {
        let counts = self.backends.counters.counts();
        Totals {
            tokens: 0,
            pending: counts.stored.saturating_sub(counts.ended()),
        }
    }

    fn is_healthy(&self) -> bool {
        self.backends.health.check().is_ok()
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.backends.cleanup.flush())
    }
}

/// Whether a push is stored; `None` when that is not known.
fn is_stored(outcome: &Result<Appended, StoreError>) -> Option<bool> {
    match outcome {
        Ok(Appended::Stored { .. } | Appended::Repeated) => Some(true),
        Ok(Appended::Unregistered) => Some(false),
        Err(error) if error.is_certainly_not_applied() => Some(false),
        Err(_) => None,
    }
}

/// Notes how the send of an idempotency key has ended. One whose outcome is unknown keeps its
/// claim, which a repeat takes over with its message id.
async fn close_claim(
    cql: &Cql,
    deliberate: &Deliberate,
    key: IdempotencyKey,
    (message_id, accepted_at): (MessageId, Millis),
    is_stored: Option<bool>,
) {
    let closed = match is_stored {
        Some(true) => {
            deliberate
                .settle_claim(cql, key, message_id, accepted_at)
                .await
        }
        Some(false) => deliberate.drop_claim(cql, key, message_id).await,
        None => Ok(()),
    };
    if let Err(error) = closed {
        tracing::debug!(%error, "a claim of an idempotency key stays open");
    }
}

impl Region for ClusterStore {
    fn claim(&self, device: DeviceId) -> BoxFuture<'_, Result<Claimed, StoreError>> {
        Box::pin(self.backends.claim_device(device))
    }

    fn release(&self, device: DeviceId, epoch: Epoch) -> BoxFuture<'_, ()> {
        Box::pin(self.backends.release_device(device, epoch))
    }

    fn hold<'a>(&'a self, tokens: &'a [(TokenId, Epoch)], now: Millis) -> BoxFuture<'a, Vec<Held>> {
        Box::pin(self.backends.hold(tokens, now))
    }

    fn let_go(&self, token: TokenId, epoch: Epoch) -> BoxFuture<'_, ()> {
        Box::pin(self.backends.let_go(token, epoch))
    }

    fn tell(&self, node: NodeId, hint: Hint) {
        if self.backends.health.may_live(node) {
            self.hints.tell(node, hint);
        }
    }

    fn listen(&self) -> Option<mpsc::Receiver<Hint>> {
        self.hints.heard()
    }

    fn nodes(&self) -> usize {
        self.backends.health.nodes()
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // Lost, the lease ends by itself.
            let _ = self.backends.lease(0).await;
            self.fan_outs.leave(&self.backends).await;
        })
    }
}
