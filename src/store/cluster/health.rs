//! Whether the backends answer, which nodes live, and whether Redis has lost something: looked at
//! twice a second, so that a send to a backend that is away is refused at once.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use scylla::errors::PrepareError;
use scylla::statement::prepared::PreparedStatement;
use tokio::sync::watch;

use super::clocks::ANOTHER_TIME;
use super::cql::Cql;
use super::options::Backend;
use super::primaries::{Look, Primaries};
use crate::store::StoreError;
use crate::store::region::NodeId;

/// How often the backends are asked.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A backend that has not answered by then is away.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// A node whose lease has not been seen for so long, though it was before, is not told anything
/// any more. Longer than a failover of the list of leases, in which everybody's lease runs out.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// The leases are heard of again after a break when the last time was this long ago. Longer than
/// they are apart, and not longer than a lease lasts.
const BREAK: Duration = Duration::from_secs(6);

/// Nodes that are remembered, living or not, before those are forgotten that are gone.
const REMEMBERED_MAX: usize = 1_024;

/// What is known of the region.
pub(super) struct Health {
    redis: AtomicBool,
    scylla: AtomicBool,
    /// Whether this node's clock shows what those of most primaries do.
    clock: AtomicBool,
    /// How many nodes have a lease, by the last answer.
    living: AtomicUsize,
    /// When the lease of each node was last seen.
    seen: RwLock<HashMap<NodeId, Instant>>,
    /// Since when the leases are heard of without a break, and when they were last.
    heard: Mutex<Option<(Instant, Instant)>>,
    /// Counts failovers and restarts of primaries, as far as they were noticed.
    upheavals: watch::Sender<u64>,
}

impl Health {
    pub(super) fn new() -> Self {
        Self {
            redis: AtomicBool::new(true),
            scylla: AtomicBool::new(true),
            clock: AtomicBool::new(true),
            living: AtomicUsize::new(1),
            seen: RwLock::default(),
            heard: Mutex::default(),
            upheavals: watch::channel(0).0,
        }
    }

    /// Whether a backend answered when it was last asked.
    pub(super) fn is_up(&self, backend: Backend) -> bool {
        self.flag(backend).load(Ordering::Relaxed)
    }

    fn flag(&self, backend: Backend) -> &AtomicBool {
        match backend {
            Backend::Redis => &self.redis,
            Backend::Scylla => &self.scylla,
        }
    }

    /// Whether a write is worth beginning.
    ///
    /// # Errors
    /// A backend is away.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if !self.is_up(Backend::Redis) {
            return Err(StoreError::Unavailable("redis is away"));
        }
        if !self.is_up(Backend::Scylla) {
            return Err(StoreError::Unavailable("scylla is away"));
        }
        self.check_clock()
    }

    /// Whether this node may judge by its clock what has expired, and which tokens have ended: what
    /// it takes for ended is gone for everybody.
    ///
    /// # Errors
    /// The clock is off.
    pub(super) fn check_clock(&self) -> Result<(), StoreError> {
        match self.clock.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(StoreError::Unavailable(ANOTHER_TIME)),
        }
    }

    /// Takes in who has a lease.
    pub(super) fn note_nodes(&self, nodes: &[NodeId]) {
        self.living.store(nodes.len(), Ordering::Relaxed);
        let now = Instant::now();
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        seen.extend(nodes.iter().map(|node| (*node, now)));
        if seen.len() > REMEMBERED_MAX {
            seen.retain(|_, at| at.elapsed() < FORGOTTEN_AFTER);
        }
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let unbroken = heard.filter(|(_, last)| last.elapsed() < BREAK);
        *heard = Some((unbroken.map_or(now, |(since, _)| since), now));
    }

    /// Whether a node that was first met then has certainly no lease, and has had none for long,
    /// though the leases were heard of all along. Not the opposite of [`Self::may_live`]: what a
    /// node that is gone has left is taken from it.
    pub(super) fn is_gone(&self, node: NodeId, met_at: Instant) -> bool {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.get(&node).copied();
        is_gone(seen, met_at, heard, Instant::now())
    }

    /// Whether a node may live. One that was never heard of may just have begun; a word to one
    /// that is gone costs little, but one that is not told misses pushes without noticing.
    pub(super) fn may_live(&self, node: NodeId) -> bool {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        seen.get(&node)
            .is_none_or(|at| at.elapsed() < FORGOTTEN_AFTER)
    }

    /// The nodes that may live, as far as they are known.
    pub(super) fn known_nodes(&self) -> Vec<NodeId> {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        let living = seen.iter().filter(|(_, at)| at.elapsed() < FORGOTTEN_AFTER);
        living.map(|(node, _)| *node).collect()
    }

    /// How many nodes have a lease; at least this one.
    pub(super) fn nodes(&self) -> usize {
        self.living.load(Ordering::Relaxed).max(1)
    }

    /// Changes whenever a primary has become another one.
    pub(super) fn upheavals(&self) -> watch::Receiver<u64> {
        self.upheavals.subscribe()
    }

    /// Looks at the backends for as long as anybody holds this.
    ///
    /// # Errors
    /// Scylla does not know what it is to be asked.
    pub(super) async fn watch(
        self: &Arc<Self>,
        primaries: Arc<Primaries>,
        cql: Arc<Cql>,
    ) -> Result<(), PrepareError> {
        let question = cql.read("SELECT key FROM system.local").await?;
        let health = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut known = HashSet::new();
            while let Some(health) = health.upgrade() {
                let (looks, scylla) = tokio::join!(
                    within(primaries.look()),
                    within(ask_scylla(&cql, &question))
                );
                health.note(Backend::Scylla, scylla.is_some());
                health.note(Backend::Redis, looks.is_some());
                let looks = looks.unwrap_or_default();
                health.note_clock(&looks);
                // One that does not answer for a while and is the same afterwards has lost nothing.
                let ids = looks.into_iter().filter_map(|it| it.replication_id);
                if is_another(&mut known, ids.collect()) {
                    tracing::info!("a primary of redis has become another one");
                    health.upheavals.send_modify(|count| *count += 1);
                }
                drop(health);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Ok(())
    }

    /// A server whose own clock is off is outvoted; who hears of none learns nothing.
    fn note_clock(&self, looks: &[Look]) {
        let agree = looks.iter().filter(|look| look.is_of_one_time).count();
        if looks.is_empty() {
            return;
        }
        let is_right = 2 * agree >= looks.len();
        let was_right = self.clock.swap(is_right, Ordering::Relaxed);
        match (was_right, is_right) {
            (true, false) => tracing::error!("this node's clock is off by more than a second"),
            (false, true) => tracing::info!("this node's clock is right again"),
            _ => {}
        }
    }

    fn note(&self, backend: Backend, is_up: bool) {
        let was_up = self.flag(backend).swap(is_up, Ordering::Relaxed);
        match (was_up, is_up) {
            (true, false) => tracing::warn!(backend = backend.name(), "a backend is away"),
            (false, true) => tracing::info!(backend = backend.name(), "a backend is back"),
            _ => {}
        }
    }
}

/// [`Health::is_gone`], of a node whose lease was last seen at `seen`.
fn is_gone(
    seen: Option<Instant>,
    met_at: Instant,
    heard: Option<(Instant, Instant)>,
    now: Instant,
) -> bool {
    let Some((since, last)) = heard.filter(|(_, last)| now - *last < BREAK) else {
        return false;
    };
    let missing_since = since.max(met_at).max(seen.unwrap_or(since));
    last.saturating_duration_since(missing_since) >= FORGOTTEN_AFTER
}

/// Takes in the ids of primaries; whether one of them is new, the very first ones apart.
fn is_another(known: &mut HashSet<String>, ids: Vec<String>) -> bool {
    let is_first_look = known.is_empty();
    let mut is_new = false;
    for id in ids {
        is_new |= known.insert(id);
    }
    is_new && !is_first_look
}

async fn within<T, E>(asked: impl Future<Output = Result<T, E>>) -> Option<T> {
    tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()
}

/// Asks any node, and a second one when the first is silent or gone.
async fn ask_scylla(
    cql: &Cql,
    question: &PreparedStatement,
) -> Result<(), scylla::errors::ExecutionError> {
    cql.session.execute_unpaged(question, ()).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_primary_that_was_never_seen_is_another_one() {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let mut known = HashSet::new();
        assert!(!is_another(&mut known, ids(&[])));
        assert!(!is_another(&mut known, ids(&["a", "b", "c"])));
        assert!(!is_another(&mut known, ids(&["a", "c"])), "b is silent");
        assert!(!is_another(&mut known, ids(&[])));
        assert!(!is_another(&mut known, ids(&["a", "b", "c"])));
        assert!(is_another(&mut known, ids(&["a", "d", "c"])));
        assert!(!is_another(&mut known, ids(&["d"])));
    }

    #[test]
    fn a_clock_is_off_when_most_servers_say_so() {
        let health = Health::new();
        let note = |agreeing: &[bool]| {
            let looks = agreeing.iter().map(|is_of_one_time| Look {
                replication_id: None,
                is_of_one_time: *is_of_one_time,
            });
            health.note_clock(&looks.collect::<Vec<_>>());
            health.check_clock().is_ok()
        };
        assert!(note(&[true, true, false]));
        assert!(!note(&[true, false, false]));
        assert!(health.check().is_err());
        assert!(!note(&[]), "nothing was heard of");
        assert!(note(&[true]));
    }

    #[test]
    fn a_node_is_gone_when_leases_were_heard_of_and_its_own_was_not() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let gone = |seen: Option<u64>, met, (since, last): (u64, u64), now| {
            is_gone(seen.map(at), at(met), Some((at(since), at(last))), at(now))
        };
        assert!(gone(None, 0, (0, 30), 31));
        assert!(gone(Some(70), 0, (0, 100), 101));
        assert!(!gone(Some(71), 0, (0, 100), 101), "not for long enough");
        assert!(!gone(None, 71, (0, 100), 101), "it may just have begun");
        assert!(!gone(None, 0, (71, 100), 101), "nobody was heard of before");
        assert!(!gone(None, 0, (0, 100), 106), "nobody is heard of any more");
        assert!(!is_gone(None, start, None, at(100)));
    }

    #[test]
    fn a_node_nobody_has_heard_of_may_live() {
        let health = Health::new();
        let (one, other) = (NodeId::generate(), NodeId::generate());
        health.note_nodes(&[one]);
        assert!(health.may_live(one) && health.may_live(other));
        assert_eq!((health.known_nodes(), health.nodes()), (vec![one], 1));
        health.note_nodes(&[]);
        assert!(health.may_live(one), "its lease may only have been lost");
    }
}
