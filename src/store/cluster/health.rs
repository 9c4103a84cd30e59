//! Whether the backends answer, which nodes live, and whether Redis has lost something: looked at
//! twice a second, so that a send to a backend that is away is refused at once.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;

use super::cql::Cql;
use super::options::Backend;
use super::primaries::Primaries;
use crate::store::StoreError;
use crate::store::region::NodeId;

/// How often the backends are asked.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A backend that has not answered by then is away.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// What is known of the region.
pub(super) struct Health {
    redis: AtomicBool,
    scylla: AtomicBool,
    nodes: RwLock<HashSet<NodeId>>,
    /// Counts failovers and restarts of primaries, as far as they were noticed.
    upheavals: watch::Sender<u64>,
}

impl Health {
    pub(super) fn new() -> Self {
        Self {
            redis: AtomicBool::new(true),
            scylla: AtomicBool::new(true),
            nodes: RwLock::default(),
            upheavals: watch::channel(0).0,
        }
    }

    /// Whether a backend answered when it was last asked.
    pub(super) fn is_up(&self, backend: Backend) -> bool {
        self.flag(backend).load(Ordering::Relaxed)
    }

    fn flag(&self, backend: Backend) -> &AtomicBool {
        match backend {
            Backend::Redis => &self.redis,
            Backend::Scylla => &self.scylla,
        }
    }

    /// Whether a write is worth beginning.
    ///
    /// # Errors
    /// A backend is away.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if !self.is_up(Backend::Redis) {
            return Err(StoreError::Unavailable("redis is away"));
        }
        if !self.is_up(Backend::Scylla) {
            return Err(StoreError::Unavailable("scylla is away"));
        }
        Ok(())
    }

    /// Takes in who lives.
    pub(super) fn note_nodes(&self, nodes: HashSet<NodeId>) {
        *self.nodes.write().unwrap_or_else(PoisonError::into_inner) = nodes;
    }

    /// Whether a node has a lease.
    pub(super) fn lives(&self, node: NodeId) -> bool {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes.contains(&node)
    }

    /// How many nodes have a lease; at least this one.
    pub(super) fn nodes(&self) -> usize {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes.len().max(1)
    }

    /// Changes whenever a primary has become another one.
    pub(super) fn upheavals(&self) -> watch::Receiver<u64> {
        self.upheavals.subscribe()
    }

    /// Looks at the backends for as long as anybody holds this.
    pub(super) fn watch(self: &Arc<Self>, primaries: Arc<Primaries>, cql: Arc<Cql>) {
        let health = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut known = None;
            while let Some(health) = health.upgrade() {
                let (ids, scylla) = tokio::join!(
                    within(primaries.replication_ids()),
                    within(ask_scylla(&cql))
                );
                health.note(Backend::Scylla, scylla.is_some());
                health.note(Backend::Redis, ids.is_some());
                if let Some(ids) = ids {
                    if known.as_ref().is_some_and(|known| *known != ids) {
                        tracing::info!("a primary of redis has become another one");
                        health.upheavals.send_modify(|count| *count += 1);
                    }
                    known = Some(ids);
                }
                drop(health);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
    }

    fn note(&self, backend: Backend, is_up: bool) {
        let was_up = self.flag(backend).swap(is_up, Ordering::Relaxed);
        match (was_up, is_up) {
            (true, false) => tracing::warn!(backend = backend.name(), "a backend is away"),
            (false, true) => tracing::info!(backend = backend.name(), "a backend is back"),
            _ => {}
        }
    }
}

async fn within<T, E>(asked: impl Future<Output = Result<T, E>>) -> Option<T> {
    tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()
}

async fn ask_scylla(cql: &Cql) -> Result<(), scylla::errors::ExecutionError> {
    let select = "SELECT key FROM system.local";
    cql.session.query_unpaged(select, ()).await.map(drop)
}
