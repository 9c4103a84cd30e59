//! The way out: nothing that was promised is cut off, and devices do not all come back at once.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Running;

/// How often the drain looks whether everybody has left.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

impl Running {
    /// Drains the server: not ready at once, no new connections after a delay, sockets closed over
    /// a window, sends finished, the store flushed. Takes `drain.deadline_ms` at most.
    ///
    /// # Errors
    /// When the store could not be flushed.
    pub async fn drain(self) -> anyhow::Result<()> {
        let started = Instant::now();
        let deadline = Duration::from_millis(self.config.drain.deadline_ms);
        self.leaving.store(true, Ordering::Relaxed);
        tracing::info!(sessions = self.node.sessions(), "draining");
        tokio::time::sleep(Duration::from_millis(self.config.drain.delay_ms)).await;
        self.refuse_connections().await;
        self.node.close_all(self.config.drain.window_ms).await;
        while (self.node.sessions() > 0 || self.node.running_sends() > 0)
            && started.elapsed() < deadline
        {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        let cut_off = (self.node.sessions(), self.node.running_sends());
        if cut_off != (0, 0) {
            tracing::warn!(
                sessions = cut_off.0,
                sends = cut_off.1,
                "the drain's deadline passed"
            );
        }
        self.node.leave_region().await;
        self.public_handle.stop(true).await;
        self.store.flush().await?;
        self.admin_handle.stop(true).await;
        tracing::info!("drained");
        Ok(())
    }

    /// Stops listening, and asks clients with open connections to go elsewhere.
    async fn refuse_connections(&self) {
        self.node.start_draining();
        self.public_handle.pause().await;
        // A paused listener still takes connections into its backlog: shut, it refuses them.
        if let Err(error) = rustix::net::shutdown(&self.public_socket, rustix::net::Shutdown::Both)
        {
            tracing::warn!(%error, "the public socket could not be shut");
        }
        self.draining.send_replace(true);
    }
}
