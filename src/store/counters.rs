//! What became of pushes, counted where it happens: by the stores.
//!
//! Once a store is idle, `accepted + recovered = acked + expired + collapsed + dropped + deleted +
//! pending`, where `accepted` is counted by whoever is told that a push is stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Told of every durable batch: how long its commit took, and how many pushes it settled.
pub type CommitObserver = Arc<dyn Fn(Duration, usize) + Send + Sync>;

/// Running totals since the process started. Cheap to count into from any thread.
#[derive(Debug, Default)]
pub struct PushCounters {
    stored: AtomicU64,
    acked: AtomicU64,
    expired: AtomicU64,
    collapsed: AtomicU64,
    dropped: AtomicU64,
    deleted: AtomicU64,
    recovered: AtomicU64,
}

/// What one step did, or the totals at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PushCounts {
    /// Settled: made durable, or "now or never" and given its number.
    pub stored: u64,
    /// Removed because their device acknowledged them.
    pub acked: u64,
    /// Removed because their time passed; every "now or never" push ends here as it settles.
    pub expired: u64,
    /// Replaced by a newer push of the same collapse key, or by one of a fifth key.
    pub collapsed: u64,
    /// Dropped by the pending cap.
    pub dropped: u64,
    /// Gone with their token.
    pub deleted: u64,
    /// Found pending when the store was opened.
    pub recovered: u64,
}

impl PushCounts {
    /// Pushes that ended, by whatever way.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.acked + self.expired + self.collapsed + self.dropped + self.deleted
    }
}

impl PushCounters {
    /// So many pushes were found pending; whatever was counted while they were looked for is
    /// forgotten.
    pub fn begin_with(&self, recovered: u64) {
        let all = [
            &self.stored,
            &self.acked,
            &self.expired,
            &self.collapsed,
            &self.dropped,
            &self.deleted,
        ];
        all.iter()
            .for_each(|counter| counter.store(0, Ordering::Relaxed));
        self.recovered.store(recovered, Ordering::Relaxed);
    }

    /// Adds what one step did.
    pub fn add(&self, counts: &PushCounts) {
        let pairs = [
            (&self.stored, counts.stored),
            (&self.acked, counts.acked),
            (&self.expired, counts.expired),
            (&self.collapsed, counts.collapsed),
            (&self.dropped, counts.dropped),
            (&self.deleted, counts.deleted),
            (&self.recovered, counts.recovered),
        ];
        for (counter, count) in pairs {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    /// The totals now.
    #[must_use]
    pub fn counts(&self) -> PushCounts {
        PushCounts {
            stored: self.stored.load(Ordering::Relaxed),
            acked: self.acked.load(Ordering::Relaxed),
            expired: self.expired.load(Ordering::Relaxed),
            collapsed: self.collapsed.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            deleted: self.deleted.load(Ordering::Relaxed),
            recovered: self.recovered.load(Ordering::Relaxed),
        }
    }
}
