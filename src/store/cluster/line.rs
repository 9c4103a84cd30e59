//! One connection to all of Redis, made anew when it has gone silent.
//!
//! The client mends by itself what breaks below it. But a node whose client once had answered
//! nothing more after a failover, though every server was well, would have to be restarted; so
//! whoever is not answered for long takes another connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, RedisError, Value};

use super::records::ANSWER_MAX;

/// A connection on which no call was answered for so long, though calls were made, is given up:
/// a little longer than a failover takes, in which calls to one shard only may well have no answer.
const SILENT_MAX: Duration = Duration::from_secs(8);

/// Connecting anew takes no longer.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// A multiplexed connection that many callers share.
pub(super) struct Line {
    client: ClusterClient,
    connection: RwLock<ClusterConnection>,
    silence: Mutex<Silence>,
    is_renewing: AtomicBool,
}

impl Line {
    /// Connects.
    pub(super) async fn open(client: ClusterClient) -> Result<Arc<Self>, RedisError> {
        let connection = client.get_async_connection().await?;
        Ok(Arc::new(Self {
            client,
            connection: RwLock::new(connection),
            silence: Mutex::default(),
            is_renewing: AtomicBool::new(false),
        }))
    }

    /// Sends a command and waits for its answer.
    pub(super) async fn call(self: &Arc<Self>, command: &Cmd) -> Result<Value, RedisError> {
        let mut connection = self.current();
        let answer = command.query_async(&mut connection);
        let answer = tokio::time::timeout(ANSWER_MAX, answer)
            .await
            .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()));
        let is_silent = answer.as_ref().is_err_and(RedisError::is_timeout);
        if self.note(is_silent, Instant::now()) {
            self.renew();
        }
        answer
    }

    fn current(&self) -> ClusterConnection {
        let connection = self.connection.read();
        connection.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, is_silent: bool, now: Instant) -> bool {
        let mut silence = self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        silence.note(is_silent, now)
    }

    /// Takes another connection, in the background; one at a time.
    fn renew(self: &Arc<Self>) {
        if self.is_renewing.swap(true, Ordering::Relaxed) {
            return;
        }
        let line = Arc::clone(self);
        tokio::spawn(async move {
            let connecting = line.client.get_async_connection();
            match tokio::time::timeout(CONNECT_MAX, connecting).await {
                Ok(Ok(connection)) => {
                    tracing::info!("a connection to redis had gone silent: here is another one");
                    let mut current = line.connection.write();
                    *current
                        .as_deref_mut()
                        .unwrap_or_else(|poisoned| poisoned.get_mut()) = connection;
                }
                Ok(Err(error)) => tracing::debug!(%error, "redis does not take a connection"),
                Err(_) => tracing::debug!("redis does not take a connection in time"),
            }
            line.is_renewing.store(false, Ordering::Relaxed);
        });
    }
}

/// How long nothing was answered.
#[derive(Debug, Default)]
struct Silence {
    since: Option<Instant>,
}

impl Silence {
    /// A call was answered, or was not. True when it has been silent for too long; it counts from
    /// the beginning then.
    fn note(&mut self, is_silent: bool, now: Instant) -> bool {
        if !is_silent {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let is_too_long = now.saturating_duration_since(since) >= SILENT_MAX;
        if is_too_long {
            self.since = None;
        }
        is_too_long
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_given_up_when_nothing_is_answered_for_long() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut silence = Silence::default();
        assert!(!silence.note(true, at(0)));
        assert!(!silence.note(true, at(7)));
        assert!(!silence.note(false, at(7)), "one answer is enough");
        assert!(!silence.note(true, at(9)));
        assert!(!silence.note(true, at(16)));
        assert!(silence.note(true, at(17)));
        assert!(!silence.note(true, at(18)), "the new one has its time");
        assert!(silence.note(true, at(26)));
    }
}
