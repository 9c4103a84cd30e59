//! What a cluster store may use, and whom it tells.

use std::sync::Arc;

use crate::store::StoreLimits;
use crate::store::counters::{CommitObserver, PushCounters};

/// Which of the two backends is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Redis Cluster: token records, presence, hints.
    Redis,
    /// Scylla, or another server of its protocol: rows of tokens and pushes.
    Scylla,
}

impl Backend {
    /// As logs and metrics name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Scylla => "scylla",
        }
    }
}

/// Where the backends are and what the store may do there.
#[derive(Clone)]
pub struct ClusterOptions {
    /// Some nodes of the Redis Cluster, as `redis://user:password@host:port`.
    pub redis: Vec<String>,
    /// Some nodes of the Scylla cluster, as `host:port`.
    pub scylla: Vec<String>,
    /// User and password there.
    pub scylla_credentials: Option<(String, String)>,
    /// Made if it does not exist.
    pub keyspace: String,
    /// The data centre whose replicas answer.
    pub datacenter: String,
    /// Copies of each row in it, when the keyspace is made here.
    pub replication_factor: usize,
    /// Begins every key and channel in Redis, so that regions may share a cluster.
    pub key_prefix: String,
    /// What the store enforces by itself.
    pub limits: StoreLimits,
    /// Counts what becomes of pushes.
    pub counters: Arc<PushCounters>,
    /// Told of every settled push, and how long it took.
    pub observer: CommitObserver,
}
