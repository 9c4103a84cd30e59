//! Opens the store that the settings ask for, and shows its counts on the metrics.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use crate::clock::Clock;
use crate::config::{Config, ContactPoint, RedisUrl, Secret, StoreKind};
use crate::metrics::{Metrics, Queue, StoreCounts};
use crate::store::cluster::{Backend, ClusterOptions, ClusterStore, ConnectError};
use crate::store::counters::{CommitObserver, PushCounters};
use crate::store::embedded::{EmbeddedOptions, EmbeddedStore};
use crate::store::memory::MemoryStore;
use crate::store::region::MaybeRegion;
use crate::store::{Store, StoreLimits};

/// The store's own directory within the data directory.
pub const STORE_DIRECTORY: &str = "store";

/// A store, and the other nodes that share it.
pub struct OpenedStore {
    /// The store.
    pub store: Arc<dyn Store>,
    /// None for a node that is alone.
    pub region: MaybeRegion,
}

/// Opens a store that this node has to itself.
///
/// # Errors
/// When it is held by another process or cannot be read.
pub fn open_own(
    config: &Config,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<OpenedStore> {
    let counters = Arc::new(PushCounters::default());
    let store: Arc<dyn Store> = match config.store.kind {
        StoreKind::Embedded => {
            let directory = config.data_dir.join(STORE_DIRECTORY);
            open_embedded(config, &directory, clock, &counters, metrics)?
        }
        StoreKind::Memory | StoreKind::Cluster => {
            Arc::new(MemoryStore::new(limits(config), Arc::clone(&counters)))
        }
    };
    let watched = Arc::clone(&store);
    metrics.watch_backend("embedded", move || watched.is_healthy());
    watch_counts(&store, counters, metrics);
    Ok(OpenedStore {
        store,
        region: None,
    })
}

fn open_embedded(
    config: &Config,
    directory: &Path,
    clock: &Clock,
    counters: &Arc<PushCounters>,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Arc<dyn Store>> {
    let options = EmbeddedOptions {
        now: clock.now(),
        block_cache_bytes: config.store.block_cache_bytes as u64,
        ledger_cache_bytes: config.store.ledger_cache_bytes,
        queue_bytes: config.store.queue_bytes,
        counters: Arc::clone(counters),
        observer: observer(metrics),
        ..EmbeddedOptions::default()
    };
    let store = EmbeddedStore::open(directory, limits(config), options)
        .with_context(|| format!("cannot open the store in {}", directory.display()))?;
    let store = Arc::new(store);
    let watched = Arc::clone(&store);
    // A count of pushes is far below what a float holds exactly.
    metrics.watch_queue(Queue::Commit, move || watched.queued() as f64);
    Ok(store)
}

/// Connects to the store that this node shares with others.
///
/// # Errors
/// [`ConnectError`]: whether waiting may help.
pub async fn connect_shared(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> Result<OpenedStore, ConnectError> {
    let counters = Arc::new(PushCounters::default());
    let settings = &config.store;
    let user = settings
        .scylla_user
        .as_ref()
        .map(|it| it.as_str().to_owned());
    let password = config.secrets.scylla_password.as_ref().map(Secret::reveal);
    let options = ClusterOptions {
        redis: settings
            .redis
            .iter()
            .map(RedisUrl::reveal)
            .map(str::to_owned)
            .collect(),
        scylla: settings
            .scylla
            .iter()
            .map(ContactPoint::as_str)
            .map(str::to_owned)
            .collect(),
        scylla_credentials: user.zip(password.map(str::to_owned)),
        keyspace: settings.keyspace.as_str().to_owned(),
        datacenter: settings.datacenter.as_str().to_owned(),
        replication_factor: settings.replication_factor,
        key_prefix: settings.key_prefix.as_str().to_owned(),
        limits: limits(config),
        counters: Arc::clone(&counters),
        observer: observer(metrics),
    };
    let cluster = Arc::new(ClusterStore::connect(options).await?);
    for concern in cluster.concerns().await {
        tracing::warn!(concern, "a setting of redis endangers what is promised");
    }
    for backend in [Backend::Redis, Backend::Scylla] {
        let watched = Arc::clone(&cluster);
        metrics.watch_backend(backend.name(), move || watched.is_up(backend));
    }
    let region = Some(cluster.region());
    let store: Arc<dyn Store> = cluster;
    watch_counts(&store, counters, metrics);
    Ok(OpenedStore { store, region })
}

fn limits(config: &Config) -> StoreLimits {
    StoreLimits {
        pending_per_token: config.limits.pending_per_token,
        token_ttl_ms: config.limits.token_ttl_ms,
        topics_per_token: config.limits.topics_per_token,
    }
}

fn observer(metrics: &Arc<Metrics>) -> CommitObserver {
    let metrics = Arc::clone(metrics);
    Arc::new(move |took, pushes| {
        metrics.store_commit_seconds.observe(took.as_secs_f64());
        // A count of pushes is far below what a float holds exactly.
        metrics.store_batch_pushes.observe(pushes as f64);
    })
}

fn watch_counts(store: &Arc<dyn Store>, counters: Arc<PushCounters>, metrics: &Arc<Metrics>) {
    let watched = Arc::clone(store);
    metrics.watch_store(move || {
        let counts = counters.counts();
        StoreCounts {
            recovered: counts.recovered,
            stored: counts.stored,
            acked: counts.acked,
            expired: counts.expired,
            collapsed: counts.collapsed,
            dropped: counts.dropped,
            deleted: counts.deleted,
            pending: watched.totals().pending,
        }
    });
}
