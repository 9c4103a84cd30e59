//! Whoever reads for a device: one socket, or one poll.

use std::collections::BTreeMap;

use herald::push::Syn;
use tokio::time::Instant;

/// A reader, with what it knows of each token.
pub struct Reader {
    pub id: u64,
    /// When it came.
    pub since: Instant,
    last: BTreeMap<usize, Syn>,
    told: BTreeMap<usize, Syn>,
}

impl Reader {
    pub fn new(id: u64) -> Self {
        Self {
            id,
            since: Instant::now(),
            last: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    /// It is shown a number; returns the one before.
    pub fn sees(&mut self, token: usize, syn: Syn) -> Syn {
        self.last.insert(token, syn).unwrap_or(0)
    }

    /// It is told that pushes up to here were dropped.
    pub fn is_told(&mut self, token: usize, up_to: Syn) {
        self.told.insert(token, up_to);
    }

    /// Up to where it knows of what was dropped.
    pub fn told(&self, token: usize) -> Syn {
        self.told.get(&token).copied().unwrap_or(0)
    }
}
