//! The region's store against a real Redis Cluster and a real CQL server: the suite of all stores.

use std::sync::{Arc, OnceLock};

use herald_region::{CqlRing, Place, RedisCluster, RedisOptions};

use tokio::sync::Semaphore;

use super::{ClusterOptions, ClusterStore, ConnectError};
use crate::store::StoreLimits;
use crate::store::conformance::{Books, Subject, suite};
use crate::store::counters::PushCounters;

/// One primary's replica is enough for what is tested here; failovers are tested with the whole
/// server.
const REDIS: RedisOptions = RedisOptions {
    replicas: 1,
    node_timeout: std::time::Duration::from_secs(6),
};

/// Each takes seconds when the machine is busy.
const TRIES: usize = 10;

/// Scenarios under way: all of them at once would have senders wait for a busy machine until they
/// are told so, which is right, and not what is tested here.
pub(super) const TURNS_MAX: u32 = 3;
pub(super) static TURNS: Semaphore = Semaphore::const_new(TURNS_MAX as usize);

/// Shared by all scenarios, which are nodes of one region; ends with the process.
pub(super) struct Servers {
    pub(super) redis: RedisCluster,
    cql: CqlRing,
}

pub(super) fn servers() -> &'static Servers {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    SERVERS.get_or_init(|| {
        on_a_runtime(|| async {
            let place = Place::temporary().expect("a place");
            let (redis, cql) = tokio::join!(
                RedisCluster::start(&place, &REDIS),
                CqlRing::start(&place, 1)
            );
            Servers {
                redis: redis.expect("a Redis Cluster"),
                cql: cql.expect("a CQL server"),
            }
        })
    })
}

/// Runs on a thread of its own: the caller may be on a runtime already.
pub(super) fn on_a_runtime<T: Send, W: Future<Output = T>>(work: impl FnOnce() -> W + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(work())
    };
    std::thread::scope(|scope| scope.spawn(run).join().expect("no panic"))
}

pub(super) fn options(limits: StoreLimits, counters: &Arc<PushCounters>) -> ClusterOptions {
    ClusterOptions {
        redis: servers().redis.urls(),
        scylla: servers().cql.contact_points(),
        scylla_credentials: None,
        keyspace: "herald".to_owned(),
        datacenter: servers().cql.datacenter().to_owned(),
        replication_factor: 1,
        key_prefix: "herald".to_owned(),
        limits,
        counters: Arc::clone(counters),
        observer: Arc::new(|_, _| ()),
    }
}

fn open(limits: StoreLimits) -> Subject {
    let turn = on_a_runtime(|| TURNS.acquire()).expect("never closed");
    let counters = Arc::new(PushCounters::default());
    let options = options(limits, &counters);
    let store = on_a_runtime(|| connect(options));
    Subject {
        store: Arc::new(store),
        counters,
        books: Books::Partial,
        keep: Box::new(turn),
    }
}

/// As the server does, which waits for backends that are busy.
pub(super) async fn connect(options: ClusterOptions) -> ClusterStore {
    let mut tries = 0;
    loop {
        match ClusterStore::connect(options.clone()).await {
            Ok(store) => return store,
            Err(error @ ConnectError::Refused(_)) => panic!("{error}"),
            Err(error) => assert!(tries < TRIES, "{error}"),
        }
        tries += 1;
    }
}

suite!(open);
