//! What the embedded store may use, and whom it tells.

use std::sync::Arc;
use std::time::Duration;

use super::committer::Fatal;
use crate::clock::Millis;
use crate::store::counters::{CommitObserver, PushCounters};

/// Default of [`EmbeddedOptions::block_cache_bytes`].
pub const BLOCK_CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// Default of [`EmbeddedOptions::ledger_cache_bytes`]: about three million idle tokens.
pub const LEDGER_CACHE_BYTES: usize = 256 * 1024 * 1024;

/// Default of [`EmbeddedOptions::queue_bytes`]: some 20,000 pushes of a kilobyte, a fraction of a
/// second's work.
pub const QUEUE_BYTES: usize = 32 * 1024 * 1024;

/// How the process ends after a failed commit: "internal software error" of sysexits.
const EXIT_FAULT: i32 = 70;

/// What the embedded store may use, and whom it tells.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// Memory for blocks read from disk.
    pub block_cache_bytes: u64,
    /// Memory for ledgers; those with something in flight are kept beyond it.
    pub ledger_cache_bytes: usize,
    /// Staged writes that may wait for the committer; beyond it sends are refused.
    pub queue_bytes: usize,
    /// The clock when the store is opened: what has expired by then was not recovered. With 0
    /// nothing has.
    pub now: Millis,
    /// Counts what becomes of pushes.
    pub counters: Arc<PushCounters>,
    /// Told of every batch.
    pub observer: CommitObserver,
    /// Called when a commit has failed. The default logs and ends the process.
    pub fatal: Fatal,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            block_cache_bytes: BLOCK_CACHE_BYTES,
            ledger_cache_bytes: LEDGER_CACHE_BYTES,
            queue_bytes: QUEUE_BYTES,
            now: 0,
            counters: Arc::default(),
            observer: Arc::new(|_: Duration, _: usize| ()),
            fatal: Arc::new(end_process),
        }
    }
}

fn end_process(reason: &str) {
    tracing::error!(reason, "a commit failed, ending the process to recover");
    std::process::exit(EXIT_FAULT);
}
