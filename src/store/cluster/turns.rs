//! How many appends of one node are under way: the rest wait for their turn, and the time that a
//! sender is given begins with it.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Appends under way at the backends, over all tokens. More would only wait there, and time out.
const AT_ONCE: usize = 512;

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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

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
