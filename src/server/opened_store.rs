//! Opens the store that the settings ask for, and shows its counts on the metrics.

use std::sync::Arc;

use anyhow::Context as _;

use crate::clock::Clock;
use crate::config::{Config, StoreKind};
use crate::metrics::{Metrics, Queue, StoreCounts};
use crate::store::counters::PushCounters;
use crate::store::embedded::{EmbeddedOptions, EmbeddedStore};
use crate::store::memory::MemoryStore;
use crate::store::{Store, StoreLimits};

/// The store's own directory within the data directory.
pub const STORE_DIRECTORY: &str = "store";

/// Opens the store.
///
/// # Errors
/// When it is held by another process or cannot be read.
pub fn open(
    config: &Config,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Arc<dyn Store>> {
    let counters = Arc::new(PushCounters::default());
    let limits = StoreLimits {
        pending_per_token: config.limits.pending_per_token,
        token_ttl_ms: config.limits.token_ttl_ms,
    };
    let store: Arc<dyn Store> = match config.store.kind {
        StoreKind::Memory => Arc::new(MemoryStore::new(limits, Arc::clone(&counters))),
        StoreKind::Embedded => {
            let directory = config.data_dir.join(STORE_DIRECTORY);
            let options = EmbeddedOptions {
                now: clock.now(),
                ..embedded_options(config, &counters, metrics)
            };
            let store = EmbeddedStore::open(&directory, limits, options)
                .with_context(|| format!("cannot open the store in {}", directory.display()))?;
            let store = Arc::new(store);
            let watched = Arc::clone(&store);
            // A count of pushes is far below what a float holds exactly.
            metrics.watch_queue(Queue::Commit, move || watched.queued() as f64);
            store
        }
    };
    let watched = Arc::clone(&store);
    metrics.watch_store(move || counts(&counters, &*watched));
    let watched = Arc::clone(&store);
    metrics.watch_backend("embedded", move || watched.is_healthy());
    Ok(store)
}

fn embedded_options(
    config: &Config,
    counters: &Arc<PushCounters>,
    metrics: &Arc<Metrics>,
) -> EmbeddedOptions {
    let metrics = Arc::clone(metrics);
    EmbeddedOptions {
        block_cache_bytes: config.store.block_cache_bytes as u64,
        ledger_cache_bytes: config.store.ledger_cache_bytes,
        queue_bytes: config.store.queue_bytes,
        counters: Arc::clone(counters),
        observer: Arc::new(move |took, pushes| {
            metrics.store_commit_seconds.observe(took.as_secs_f64());
            // A count of pushes is far below what a float holds exactly.
            metrics.store_batch_pushes.observe(pushes as f64);
        }),
        ..EmbeddedOptions::default()
    }
}

fn counts(counters: &PushCounters, store: &dyn Store) -> StoreCounts {
    let counts = counters.counts();
    StoreCounts {
        recovered: counts.recovered,
        stored: counts.stored,
        acked: counts.acked,
        expired: counts.expired,
        collapsed: counts.collapsed,
        dropped: counts.dropped,
        deleted: counts.deleted,
        pending: store.totals().pending,
    }
}
