//! How a node of a region begins: both backends reached, the tables made if nobody has made them,
//! a lease taken.

use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::Semaphore;

use super::backends::{Backends, TOPIC_CHANGES_AT_ONCE};
use super::cleanup::Cleanup;
use super::cql::Cql;
use super::deliberate::Deliberate;
use super::fan_out_rows::FanOutRows;
use super::fan_outs::FanOuts;
use super::health::Health;
use super::hints::{Hints, NOTICES_MAX};
use super::options::{Backend, ClusterOptions};
use super::primaries::Primaries;
use super::push_rows::PushRows;
use super::records::Records;
use super::schema::{self, Found, SchemaError};
use super::token_rows::TokenRows;
use super::topic_rows::TopicRows;
use super::turns::{Menders, Turns};
use super::{ClusterStore, Threads};
use crate::store::lifetimes::token_ends_at;
use crate::store::region::NodeId;

/// Threads that speak with the backends.
const THREADS: usize = 2;

/// While another node makes the tables, one looks again this often.
const SCHEMA_LOOK_EVERY: Duration = Duration::from_millis(200);

/// Making the tables takes no longer; a node that has not finished by then has died at it.
const SCHEMA_MAX: Duration = Duration::from_secs(60);

/// Why a node cannot use its backends.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// A setting that no waiting will mend.
    #[error("{0}")]
    Refused(String),
    /// A backend that may come yet.
    #[error("{} cannot be reached: {reason}", backend.name())]
    Unreachable {
        /// Which one.
        backend: Backend,
        /// In its client's words.
        reason: String,
    },
}

fn unreachable(backend: Backend, reason: impl std::fmt::Display) -> ConnectError {
    ConnectError::Unreachable {
        backend,
        reason: reason.to_string(),
    }
}

impl ClusterStore {
    /// Connects to both backends, makes what is missing there, and takes a lease for this node.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(options: ClusterOptions) -> Result<Self, ConnectError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("cluster")
            .enable_all()
            .build()
            .map_err(|error| ConnectError::Refused(error.to_string()))?;
        let threads = Threads(Some(runtime));
        let Some(connecting) = threads.spawn(connect(options)) else {
            return Err(ConnectError::Refused("there are no threads".to_owned()));
        };
        let mut store = connecting
            .await
            .map_err(|error| ConnectError::Refused(error.to_string()))??;
        store.runtime = Some(threads);
        Ok(store)
    }
}

async fn connect(options: ClusterOptions) -> Result<ClusterStore, ConnectError> {
    let redis_fault = |error: redis::RedisError| match error.kind() {
        redis::ErrorKind::InvalidClientConfig => ConnectError::Refused(format!("redis: {error}")),
        // The cluster's client wraps what the first server said.
        _ if error.to_string().contains("AuthenticationFailed") => {
            ConnectError::Refused("redis: it does not take these credentials".to_owned())
        }
        _ if error.to_string().contains("cluster support disabled") => ConnectError::Refused(
            "redis: the server is no cluster (cluster-enabled is off)".to_owned(),
        ),
        _ => unreachable(Backend::Redis, error),
    };
    let primaries = Arc::new(Primaries::new(&options.redis).map_err(redis_fault)?);
    let connected = Records::connect(&options.redis, &options.key_prefix, Arc::clone(&primaries));
    let records = connected.await.map_err(redis_fault)?;
    let cql = Cql::connect(&options).await;
    let cql = Arc::new(cql.map_err(|error| unreachable(Backend::Scylla, error))?);
    prepare_schema(&cql, &primaries, &options).await?;
    let prepare_fault = |error: scylla::errors::PrepareError| unreachable(Backend::Scylla, error);
    let pushes = Arc::new(PushRows::prepare(&cql).await.map_err(prepare_fault)?);
    let tokens = Arc::new(TokenRows::prepare(&cql).await.map_err(prepare_fault)?);
    let topics = Arc::new(TopicRows::prepare(&cql).await.map_err(prepare_fault)?);
    let fan_outs = FanOutRows::prepare(&cql).await.map_err(prepare_fault)?;
    let deliberate = Deliberate::prepare(&cql).await.map_err(prepare_fault)?;
    let health = Arc::new(Health::new());
    let watched = health.watch(Arc::clone(&primaries), Arc::clone(&cql));
    watched.await.map_err(prepare_fault)?;
    let life_ms = token_ends_at(0, options.limits.token_ttl_ms);
    let cleanup = Cleanup::start(
        Arc::clone(&cql),
        Arc::clone(&pushes),
        Arc::clone(&tokens),
        Arc::clone(&topics),
        life_ms,
    );
    let (notices, told) = tokio::sync::mpsc::channel(NOTICES_MAX);
    let backends = Arc::new(Backends {
        node: NodeId::generate(),
        records,
        primaries,
        cql,
        pushes,
        tokens,
        topics,
        cleanup,
        health,
        limits: options.limits,
        counters: options.counters,
        notices,
        held_back: Arc::default(),
        menders: Menders::default(),
        topic_turns: Semaphore::new(TOPIC_CHANGES_AT_ONCE),
    });
    backends.keep_lease();
    Ok(ClusterStore {
        hints: Hints::start(&backends, told, &options.redis, &options.key_prefix),
        backends,
        deliberate: Arc::new(deliberate),
        fan_outs: FanOuts::new(fan_outs),
        observer: options.observer,
        ended: Arc::default(),
        running: Arc::default(),
        turns: Arc::new(Turns::new()),
        runtime: None,
    })
}

/// Uses the tables; makes them if they are not there and no other node is at it.
async fn prepare_schema(
    cql: &Cql,
    primaries: &Primaries,
    options: &ClusterOptions,
) -> Result<(), ConnectError> {
    let fault = |error: SchemaError| match error {
        SchemaError::Foreign { .. } => ConnectError::Refused(error.to_string()),
        SchemaError::Failed(reason) => unreachable(Backend::Scylla, reason),
    };
    let deadline = Instant::now() + SCHEMA_MAX;
    let lock = format!("{}:{{schema}}", options.key_prefix);
    loop {
        if schema::look(cql, options).await.map_err(fault)? == Found::Complete {
            return schema::enter(cql, options).await.map_err(fault);
        }
        let has_lock = primaries
            .lock(&lock, SCHEMA_MAX)
            .await
            .map_err(|error| unreachable(Backend::Redis, error))?;
        if has_lock {
            let made = schema::make(cql, options).await.map_err(fault);
            // Lost, it ends by itself.
            let _ = primaries.unlock(&lock).await;
            return made;
        }
        if Instant::now() >= deadline {
            return Err(unreachable(
                Backend::Scylla,
                "another node makes the tables",
            ));
        }
        tokio::time::sleep(SCHEMA_LOOK_EVERY).await;
    }
}
