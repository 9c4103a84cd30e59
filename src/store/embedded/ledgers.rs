//! The ledgers in memory: striped locks over a bounded cache.
//!
//! Each stripe keeps two generations. What is used moves to the young one; when that is half of
//! what the stripe may hold, the old one is forgotten and the young one becomes old. A ledger with
//! anything staged that is not committed yet is carried over: disk does not know its truth.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::ledger::Ledger;
use crate::dense_map::DenseMap;
use crate::store::StoreError;
use crate::token::TokenId;

/// Locks that the tokens are spread over. More than cores, so that two rarely meet.
const STRIPES: usize = 64;

type Generation = DenseMap<TokenId, Ledger>;

/// All ledgers in memory.
pub(super) struct Ledgers {
    stripes: [Mutex<Stripe>; STRIPES],
    young_weight_max: usize,
}

/// The ledgers under one lock.
#[derive(Default)]
pub(super) struct Stripe {
    young: Generation,
    old: Generation,
    young_weight: usize,
}

impl Ledgers {
    /// An empty cache of about `weight_max` bytes.
    pub(super) fn new(weight_max: usize) -> Self {
        Self {
            stripes: std::array::from_fn(|_| Mutex::default()),
            young_weight_max: weight_max / STRIPES / 2,
        }
    }

    /// Locks the stripe of a token.
    pub(super) fn lock(&self, token: TokenId) -> MutexGuard<'_, Stripe> {
        let hash = usize::try_from(token.shard_hash() % STRIPES as u64).unwrap_or(0);
        let stripe = &self.stripes[hash];
        stripe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes all cached ledgers cost, about. For tests and reports.
    #[cfg(test)]
    pub(super) fn weight(&self) -> usize {
        let stripes = self.stripes.iter();
        let weigh = |stripe: &Mutex<Stripe>| {
            let stripe = stripe.lock().unwrap_or_else(PoisonError::into_inner);
            let ledgers = stripe.young.values().chain(stripe.old.values());
            ledgers.map(Ledger::weight).sum::<usize>()
        };
        stripes.map(weigh).sum()
    }
}

impl Stripe {
    /// The ledger of a token, from memory or by `load`, or begun by `begin`.
    pub(super) fn find(
        &mut self,
        token: TokenId,
        load: impl FnOnce() -> Result<Option<Ledger>, StoreError>,
        begin: impl FnOnce() -> Option<Ledger>,
    ) -> Result<Option<&mut Ledger>, StoreError> {
        if !self.young.contains_key(&token) {
            let found = match self.old.remove(&token) {
                Some(ledger) => Some(ledger),
                None => load()?.or_else(begin),
            };
            let Some(ledger) = found else {
                return Ok(None);
            };
            self.young_weight += ledger.weight();
            self.young.insert(token, ledger);
        }
        Ok(self.young.get_mut(&token))
    }

    /// The ledger of a token that is certainly in memory, because it has numbers in flight.
    pub(super) fn in_memory(&mut self, token: TokenId) -> Option<&mut Ledger> {
        self.young
            .get_mut(&token)
            .or_else(|| self.old.get_mut(&token))
    }

    /// A ledger changed its weight.
    pub(super) fn reweigh(&mut self, before: usize, after: usize) {
        self.young_weight = (self.young_weight + after).saturating_sub(before);
    }
}

impl Ledgers {
    /// Forgets what was not used for longest, if the stripe holds too much. `committed` is the
    /// last round that is on disk.
    pub(super) fn shrink(&self, stripe: &mut Stripe, committed: u64) {
        if stripe.young_weight <= self.young_weight_max {
            return;
        }
        let mut forgotten = std::mem::take(&mut stripe.old);
        stripe.old = std::mem::take(&mut stripe.young);
        forgotten.retain(|_, ledger| ledger.has_in_flight() || ledger.staged_in > committed);
        stripe.young_weight = forgotten.values().map(Ledger::weight).sum();
        stripe.young = forgotten;
    }
}
