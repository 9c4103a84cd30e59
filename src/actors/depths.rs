//! How much waits between the actors, for the metrics: mailboxes do not tell their length.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::metrics::{Metrics, Queue};

/// One queue's length. Counted up before an entry goes in, so that it never falls below zero.
#[derive(Debug, Default)]
pub struct Depth(AtomicUsize);

impl Depth {
    /// So many entries are about to go in.
    pub fn add(&self, entries: usize) {
        self.0.fetch_add(entries, Ordering::Relaxed);
    }

    /// So many entries came out, or did not go in.
    pub fn take(&self, entries: usize) {
        self.0.fetch_sub(entries, Ordering::Relaxed);
    }

    fn read(&self) -> f64 {
        // A queue is far shorter than what a float holds exactly.
        self.0.load(Ordering::Relaxed) as f64
    }
}

/// The queues of one node, all workers together.
#[derive(Debug, Default)]
pub struct Depths {
    /// Appends in the mailboxes of Storage actors.
    pub storage: Depth,
    /// Deliveries in the mailboxes of Router actors.
    pub router: Depth,
    /// Sends that wait because their token has too many on their way.
    pub token: Depth,
}

impl Depths {
    /// From now on the metrics show these depths.
    pub fn show_on(self: &Arc<Self>, metrics: &Metrics) {
        let depths = Arc::clone(self);
        metrics.watch_queue(Queue::Storage, move || depths.storage.read());
        let depths = Arc::clone(self);
        metrics.watch_queue(Queue::Router, move || depths.router.read());
        let depths = Arc::clone(self);
        metrics.watch_queue(Queue::Token, move || depths.token.read());
    }
}
