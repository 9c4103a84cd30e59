//! How many appends of one node are under way: the rest wait for their turn, and the time that a
//! sender is given begins with it. And who mends a record: one at a time.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore, SemaphorePermit};

use crate::token::TokenId;

/// Appends under way at the backends, over all tokens. More would only wait there, and time out.
const AT_ONCE: usize = 256;

/// Appends of one token under way. All nodes together may have 64, and one must not take them all.
const OF_ONE_TOKEN: usize = 32;

/// Tokens share lanes by their hash. Two busy ones that share one are slower, not wrong.
const LANES: usize = 1_024;

/// Who may go on.
pub(super) struct Turns {
    all: Semaphore,
    lanes: Vec<Semaphore>,
}

/// A place that is given back when it is dropped.
pub(super) struct Turn<'a> {
    _lane: Option<SemaphorePermit<'a>>,
    _all: Option<SemaphorePermit<'a>>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            all: Semaphore::new(AT_ONCE),
            lanes: (0..LANES).map(|_| Semaphore::new(OF_ONE_TOKEN)).collect(),
        }
    }

    /// Waits for a turn, in the order of asking.
    pub(super) async fn take(&self, shard_hash: u64) -> Turn<'_> {
        let lane = usize::try_from(shard_hash % LANES as u64).unwrap_or(0);
        // The lane first: whoever waits for its token must not keep others from going.
        let lane = match self.lanes.get(lane) {
            Some(lane) => lane.acquire().await.ok(),
            None => None,
        };
        Turn {
            _lane: lane,
            _all: self.all.acquire().await.ok(),
        }
    }
}

/// One mender a token. As many are known as mend or wait for it.
#[derive(Default)]
pub(super) struct Menders(DashMap<TokenId, Arc<Mutex<()>>, ahash::RandomState>);

/// The turn to mend one token's record, until it is dropped.
pub(super) struct MendingTurn<'a> {
    menders: &'a Menders,
    token: TokenId,
    _turn: OwnedMutexGuard<()>,
}

impl Menders {
    /// The turn to mend; `None` after somebody else had it.
    pub(super) async fn enter(&self, token: TokenId) -> Option<MendingTurn<'_>> {
        let lane = Arc::clone(&self.0.entry(token).or_default());
        if let Ok(turn) = Arc::clone(&lane).try_lock_owned() {
            return Some(MendingTurn {
                menders: self,
                token,
                _turn: turn,
            });
        }
        drop(lane.lock().await);
        None
    }
}

impl Drop for MendingTurn<'_> {
    fn drop(&mut self) {
        self.menders.0.remove(&self.token);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn who_waits_for_a_mender_does_not_mend_again() {
        let (menders, token) = (Menders::default(), TokenId([1; 16]));
        let first = menders.enter(token).now_or_never().flatten();
        let first = first.expect("the first one mends");
        let mut second = Box::pin(menders.enter(token));
        assert!(second.as_mut().now_or_never().is_none(), "it waits");
        let other = menders.enter(TokenId([2; 16])).now_or_never().flatten();
        assert!(other.is_some(), "nobody waits for another token");
        drop(first);
        assert!(second.now_or_never().expect("its turn").is_none());
        assert!(menders.enter(token).now_or_never().flatten().is_some());
    }

    #[test]
    fn a_busy_token_keeps_nobody_else_from_going() {
        let turns = Turns::new();
        let mut taken = Vec::new();
        for _ in 0..OF_ONE_TOKEN {
            taken.push(turns.take(7).now_or_never().expect("a turn"));
        }
        assert!(turns.take(7).now_or_never().is_none());
        assert!(turns.take(8).now_or_never().is_some());
        taken.pop();
        assert!(turns.take(7).now_or_never().is_some());
    }
}
