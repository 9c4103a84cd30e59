//! Pushes to many, as one node sees them: those that it has begun, and those that it takes over
//! from nodes that are gone. Each belongs to one node at a time; who passes a checkpoint hears
//! whether it still does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashSet;
use futures_util::StreamExt as _;
use rand::seq::SliceRandom as _;

use super::backends::{Backends, deadline};
use super::clocks::clock_us;
use super::fan_out_rows::{FanOutRows, Taken};
use super::records::Function;
use crate::push::MessageId;
use crate::store::StoreError;
use crate::store::region::NodeId;
use crate::token::{ProjectHash, TokenId};
use crate::topic::{Checkpoint, FanOut};

/// Calls under way while pushes are taken over, or marks taken away.
const AT_ONCE: usize = 32;

/// Taking marks away takes no longer; the rest of them end with their push.
const UNMARK_MAX: Duration = Duration::from_secs(2);

/// A node that is taken for gone, but has begun another push this recently, is not forgotten: far
/// more than clocks may differ.
const FORGET_AFTER_US: u64 = 10_000_000;

/// A row that nobody has heard of by then will not come any more.
const IN_DOUBT_FOR: Duration = Duration::from_secs(10);

/// A push to many and its project.
type Named = (MessageId, ProjectHash);

/// Whose pushes to many are whose.
pub(super) struct FanOuts {
    pub(super) rows: FanOutRows,
    /// Whether this node has ever had one.
    has_begun: AtomicBool,
    /// Those that the caller knows to be this node's.
    known: DashSet<MessageId, ahash::RandomState>,
    /// Those that may have been accepted, though the caller does not know of it; and since when.
    doubted: Mutex<HashMap<Named, Instant>>,
    /// Those taken over that the caller has not been told of.
    taken: Mutex<Vec<Named>>,
    /// Since when each node is known to have begun something.
    met: Mutex<HashMap<NodeId, Instant>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A push to many whose row is being written. Dropped before it is decided whether the row is
/// there, because nobody knows or nobody waits any more, it is in doubt.
struct Acceptance<'a> {
    fan_outs: &'a FanOuts,
    named: Named,
    is_decided: bool,
}

impl Drop for Acceptance<'_> {
    fn drop(&mut self) {
        if !self.is_decided {
            self.fan_outs.doubt(self.named);
        }
    }
}

impl FanOuts {
    pub(super) fn new(rows: FanOutRows) -> Self {
        Self {
            rows,
            has_begun: AtomicBool::new(false),
            known: DashSet::default(),
            doubted: Mutex::default(),
            taken: Mutex::default(),
            met: Mutex::default(),
        }
    }

    /// Makes a push to many durable. One of which it is not known whether it is, is looked for at
    /// the next [`Self::take`].
    ///
    /// # Errors
    /// A backend is away or did not answer.
    pub(super) async fn accept(
        &self,
        backends: &Backends,
        fan_out: &FanOut,
    ) -> Result<(), StoreError> {
        backends.health.check()?;
        let (cql, node, deadline) = (&backends.cql, backends.node, deadline());
        let named = (fan_out.message_id, fan_out.project);
        self.has_begun.store(true, Ordering::Relaxed);
        let pointed = self.rows.point(cql, node, named, deadline).await;
        // A pointer to nothing is nothing.
        pointed.map_err(|_| StoreError::Unavailable("scylla does not answer"))?;
        let mut acceptance = Acceptance {
            fan_outs: self,
            named,
            is_decided: false,
        };
        let written = self.rows.insert(cql, fan_out, node, deadline).await;
        acceptance.is_decided = match &written {
            Ok(()) => {
                self.known.insert(fan_out.message_id);
                locked(&self.doubted).remove(&named);
                true
            }
            Err(error) => error.is_certainly_not_applied(),
        };
        written
    }

    /// It may have been accepted.
    pub(super) fn doubt(&self, named: Named) {
        locked(&self.doubted).insert(named, Instant::now());
    }

    /// Takes over what nodes have left that are gone; answers with what is this node's since the
    /// last time. What cannot be taken now waits for the next time.
    pub(super) async fn take(&self, backends: &Backends) -> Result<Vec<Named>, StoreError> {
        self.take_doubted(backends).await;
        for node in self.gone_nodes(backends).await? {
            if let Err(error) = self.take_all_of(backends, node).await {
                tracing::debug!(%error, ?node, "pushes to many wait for being taken over");
            }
        }
        Ok(std::mem::take(&mut *locked(&self.taken)))
    }

    async fn take_doubted(&self, backends: &Backends) {
        let (cql, us) = (&backends.cql, backends.node);
        let doubted: Vec<_> = locked(&self.doubted).clone().into_iter().collect();
        for (named, since) in doubted {
            match self.take_one(backends, us, named).await {
                Ok(Taken::Gone) if since.elapsed() < IN_DOUBT_FOR => {}
                Ok(Taken::Gone) => {
                    locked(&self.doubted).remove(&named);
                    // A pointer to nothing is nothing.
                    let _ = self.rows.unpoint(cql, us, named.0).await;
                }
                Ok(_) => {
                    locked(&self.doubted).remove(&named);
                }
                Err(error) => tracing::debug!(%error, "a push to many stays in doubt"),
            }
        }
    }

    async fn gone_nodes(&self, backends: &Backends) -> Result<Vec<NodeId>, StoreError> {
        let nodes = self.rows.nodes(&backends.cql).await?;
        let now = Instant::now();
        let mut met = locked(&self.met);
        met.retain(|node, _| nodes.iter().any(|(known, _)| known == node));
        let others = nodes.into_iter().filter(|(node, _)| *node != backends.node);
        let gone = others.filter(|(node, has_left)| {
            let met_at = met.entry(*node).or_insert(now);
            *has_left || backends.health.is_gone(*node, *met_at)
        });
        Ok(gone.map(|(node, _)| node).collect())
    }

    async fn take_all_of(&self, backends: &Backends, node: NodeId) -> Result<(), StoreError> {
        let before_us = clock_us().saturating_sub(FORGET_AFTER_US);
        let mut left = self.rows.pointers(&backends.cql, node).await?;
        // All nodes find them at the same time: each begins with another one.
        left.shuffle(&mut rand::rng());
        if !left.is_empty() {
            tracing::info!(?node, count = left.len(), "a node has left pushes to many");
        }
        let takes: Vec<_> = left
            .into_iter()
            .map(|named| self.take_one(backends, node, named))
            .collect();
        let outcomes = futures_util::stream::iter(takes).buffer_unordered(AT_ONCE);
        let outcomes: Vec<Result<Taken, StoreError>> = outcomes.collect().await;
        outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.rows.remove_node(&backends.cql, node, before_us).await
    }

    /// The pointer first: a push that has none is never taken over.
    async fn take_one(
        &self,
        backends: &Backends,
        from: NodeId,
        named: Named,
    ) -> Result<Taken, StoreError> {
        let (cql, us, message_id) = (&backends.cql, backends.node, named.0);
        let is_ours = from == us;
        if !is_ours {
            self.has_begun.store(true, Ordering::Relaxed);
            self.rows.point(cql, us, named, deadline()).await?;
        }
        let taken = self.rows.take(cql, message_id, from, us).await?;
        if taken == Taken::Ours && self.known.insert(message_id) {
            locked(&self.taken).push(named);
        }
        if taken != Taken::Ours && !is_ours {
            self.rows.unpoint(cql, us, message_id).await?;
        }
        if !is_ours {
            self.rows.unpoint(cql, from, message_id).await?;
        }
        Ok(taken)
    }

    /// A push to many that is this node's, and how far it has come.
    ///
    /// # Errors
    /// No answer, or a row of another shape.
    pub(super) async fn find(
        &self,
        backends: &Backends,
        message_id: MessageId,
    ) -> Result<Option<(FanOut, Checkpoint)>, StoreError> {
        let found = self.rows.find(&backends.cql, message_id, backends.node);
        let found = found.await?;
        if found.is_none() {
            // Should it ever be this node's again, the caller must be told.
            self.known.remove(&message_id);
        }
        Ok(found)
    }

    /// Notes how far a push to many has come, and only then takes the marks behind it away.
    ///
    /// # Errors
    /// No answer: it may be noted.
    pub(super) async fn pass(
        &self,
        backends: &Backends,
        message_id: MessageId,
        checkpoint: &Checkpoint,
        copied: &[TokenId],
    ) -> Result<bool, StoreError> {
        let (cql, node) = (&backends.cql, backends.node);
        let is_ours = self.rows.pass(cql, message_id, checkpoint, node).await?;
        match is_ours {
            true => backends.unmark(message_id, copied).await,
            false => {
                self.known.remove(&message_id);
            }
        }
        Ok(is_ours)
    }

    /// This node stops: others may take over at once what it has begun.
    pub(super) async fn leave(&self, backends: &Backends) {
        if self.has_begun.load(Ordering::Relaxed) {
            // Lost, they wait until it is gone for long enough.
            let _ = self.rows.note_left(&backends.cql, backends.node).await;
        }
    }

    /// Forgets a push to many.
    ///
    /// # Errors
    /// No answer: it may be forgotten.
    pub(super) async fn finish(
        &self,
        backends: &Backends,
        message_id: MessageId,
    ) -> Result<(), StoreError> {
        let (cql, node) = (&backends.cql, backends.node);
        self.rows.delete(cql, message_id, node).await?;
        self.known.remove(&message_id);
        // A pointer to nothing is nothing.
        let _ = self.rows.unpoint(cql, node, message_id).await;
        Ok(())
    }
}

impl Backends {
    /// Takes the marks of copies away.
    async fn unmark(&self, message_id: MessageId, tokens: &[TokenId]) {
        let id = message_id.as_bytes().as_slice();
        let calls: Vec<_> = tokens
            .iter()
            .map(|token| self.records.on_token(Function::Unmark, *token).arg(id))
            .map(|call| self.records.run(call))
            .collect();
        let calls = futures_util::stream::iter(calls).buffer_unordered(AT_ONCE);
        let all = calls.for_each(|_| std::future::ready(()));
        if tokio::time::timeout(UNMARK_MAX, all).await.is_err() {
            tracing::debug!("marks of copies are left to expire");
        }
    }
}
