//! The session with Scylla, or with another server of its protocol: how it connects, how long it
//! waits, and what its errors say of a write.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use scylla::client::PoolSize;
use scylla::client::execution_profile::{ExecutionProfile, ExecutionProfileHandle};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::errors::{DbError, ExecutionError, NewSessionError, PrepareError, RequestAttemptError};
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::policies::retry::{DefaultRetryPolicy, FallthroughRetryPolicy};
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use scylla::response::query_result::QueryResult;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, SerialConsistency};

use super::options::ClusterOptions;
use crate::store::StoreError;

/// One try of a write; several of them fit into what a sender waits.
const WRITE_MAX: Duration = Duration::from_millis(700);

/// A read, with its second try.
const READ_MAX: Duration = Duration::from_millis(1_500);

/// A second replica is asked when the first has not answered in this time.
const SPECULATE_AFTER: Duration = Duration::from_millis(50);

/// Several round trips between replicas.
const DELIBERATE_MAX: Duration = Duration::from_secs(3);

/// Pause between two tries of a write.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// How often a connection is tried that is silent, and how long it may stay so. A node that cannot be
/// reached any more, though nobody has said so, costs each write that is given to it a whole try; after
/// that it is given none.
const SILENT_TRIED_EVERY: Duration = Duration::from_secs(2);
const SILENT_MAX: Duration = Duration::from_secs(2);

/// Connecting to one node.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// How statements run, by kind.
pub(super) struct Profiles {
    /// Plain writes: tried again by us, so that we know whether any try may have been applied.
    write: ExecutionProfileHandle,
    /// Reads.
    read: ExecutionProfileHandle,
    /// Compare and set.
    deliberate: ExecutionProfileHandle,
}

impl Profiles {
    fn of(options: &ClusterOptions) -> Self {
        let nearby = DefaultPolicy::builder()
            .token_aware(true)
            .prefer_datacenter(options.datacenter.clone())
            .permit_dc_failover(false)
            .build();
        let profile = |timeout| {
            ExecutionProfile::builder()
                .consistency(Consistency::LocalQuorum)
                .serial_consistency(Some(SerialConsistency::LocalSerial))
                .load_balancing_policy(nearby.clone())
                .request_timeout(Some(timeout))
        };
        let speculation = SimpleSpeculativeExecutionPolicy {
            max_retry_count: 1,
            retry_interval: SPECULATE_AFTER,
        };
        Self {
            write: profile(WRITE_MAX)
                .retry_policy(Arc::new(FallthroughRetryPolicy::new()))
                .build()
                .into_handle(),
            read: profile(READ_MAX)
                .retry_policy(Arc::new(DefaultRetryPolicy::new()))
                .speculative_execution_policy(Some(Arc::new(speculation)))
                .build()
                .into_handle(),
            deliberate: profile(DELIBERATE_MAX)
                .retry_policy(Arc::new(FallthroughRetryPolicy::new()))
                .build()
                .into_handle(),
        }
    }
}

/// The session and how its statements run.
pub(super) struct Cql {
    pub(super) session: Session,
    profiles: Profiles,
}

impl Cql {
    /// Connects; no keyspace is used yet.
    pub(super) async fn connect(options: &ClusterOptions) -> Result<Self, NewSessionError> {
        let profiles = Profiles::of(options);
        let mut builder = SessionBuilder::new()
            .known_nodes(&options.scylla)
            .connection_timeout(CONNECT_MAX)
            .keepalive_interval(SILENT_TRIED_EVERY)
            .keepalive_timeout(SILENT_MAX)
            .pool_size(PoolSize::PerShard(NonZeroUsize::MIN))
            .default_execution_profile_handle(profiles.deliberate.clone());
        if let Some((user, password)) = &options.scylla_credentials {
            builder = builder.user(user, password);
        }
        Ok(Self {
            session: builder.build().await?,
            profiles,
        })
    }

    /// Prepares a plain write.
    pub(super) async fn write(&self, text: &str) -> Result<PreparedStatement, PrepareError> {
        let mut statement = self.session.prepare(text).await?;
        statement.set_is_idempotent(true);
        statement.set_execution_profile_handle(Some(self.profiles.write.clone()));
        Ok(statement)
    }

    /// Prepares a read.
    pub(super) async fn read(&self, text: &str) -> Result<PreparedStatement, PrepareError> {
        let mut statement = self.session.prepare(text).await?;
        statement.set_is_idempotent(true);
        statement.set_use_cached_result_metadata(true);
        statement.set_execution_profile_handle(Some(self.profiles.read.clone()));
        Ok(statement)
    }

    /// Writes that are made together or not at all, sooner or later.
    pub(super) async fn together(&self, texts: [&str; 2]) -> Result<Batch, PrepareError> {
        let mut statements = Vec::with_capacity(texts.len());
        for text in texts {
            statements.push(BatchStatement::from(self.write(text).await?));
        }
        let mut batch = Batch::new_with_statements(BatchType::Logged, statements);
        batch.set_is_idempotent(true);
        batch.set_execution_profile_handle(Some(self.profiles.write.clone()));
        Ok(batch)
    }

    /// Prepares a compare and set.
    pub(super) async fn deliberate(&self, text: &str) -> Result<PreparedStatement, PrepareError> {
        let mut statement = self.session.prepare(text).await?;
        statement.set_execution_profile_handle(Some(self.profiles.deliberate.clone()));
        Ok(statement)
    }
}

/// Makes a write that is the same however often it is made; tried again until `deadline`.
///
/// # Errors
/// [`StoreError::Unavailable`] when no try has left a trace, else [`StoreError::OutcomeUnknown`].
pub(super) async fn write_by<F>(
    deadline: Instant,
    attempt: impl Fn() -> F,
) -> Result<(), StoreError>
where
    F: Future<Output = Result<QueryResult, ExecutionError>>,
{
    let mut may_be_applied = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let error = match tokio::time::timeout(left, attempt()).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => ExecutionError::RequestTimeout(left),
        };
        may_be_applied |= !is_certainly_not_applied(&error);
        if Instant::now() + RETRY_PAUSE >= deadline {
            return Err(match may_be_applied {
                true => unknown(error),
                false => unavailable(error),
            });
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Whether a write that failed so has certainly left no trace.
fn is_certainly_not_applied(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::BadQuery(_)
        | ExecutionError::EmptyPlan
        | ExecutionError::PrepareError(_)
        | ExecutionError::ConnectionPoolError(_) => true,
        ExecutionError::LastAttemptError(attempt) => match attempt {
            RequestAttemptError::SerializationError(_)
            | RequestAttemptError::CqlRequestSerialization(_)
            | RequestAttemptError::UnableToAllocStreamId => true,
            // Said by the coordinator before it has sent anything to a replica.
            RequestAttemptError::DbError(cause, _) => matches!(
                cause,
                DbError::Unavailable { .. } | DbError::IsBootstrapping | DbError::Invalid
            ),
            _ => false,
        },
        _ => false,
    }
}

/// A read that failed, or a write whose failure loses nothing.
pub(super) fn unavailable(error: impl std::fmt::Display) -> StoreError {
    tracing::debug!(%error, "scylla did not do what it was asked");
    StoreError::Unavailable("scylla does not answer")
}

/// A write that may or may not have been applied.
pub(super) fn unknown(error: impl std::fmt::Display) -> StoreError {
    tracing::debug!(%error, "scylla did not say how a write ended");
    StoreError::OutcomeUnknown("scylla does not answer")
}

/// A row that has not the shape that this build writes.
pub(super) fn misread(error: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("a row: {error}"))
}

/// A syn or a time as CQL has it. All of ours are below 2^53.
pub(super) fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The inverse of [`bigint`].
pub(super) fn from_bigint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
