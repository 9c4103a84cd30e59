//! What the commands that hold sockets have in common: a load on Herald, and the verdict.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use crate::contenders::Service;
use crate::load::{Load, Sending};
use crate::options::CommonOptions;
use crate::report::RunResult;
use crate::target::Operator;
use crate::verdict::judge;

/// A run with sockets.
pub struct Run {
    /// Its sockets and sends.
    pub load: Load,
    /// The server's operator side.
    pub operator: Operator,
    /// When the server's process started.
    started_at: f64,
}

impl Run {
    /// Finds the server and starts the child processes.
    ///
    /// # Errors
    /// When the server is not there.
    pub async fn begin(options: &CommonOptions) -> anyhow::Result<Self> {
        let children = options.children()?;
        let (target, mut operator) = options.target.resolve().await?;
        let started_at = operator.process_facts().await?.started_at;
        let sending = Sending {
            senders: options.senders.into(),
            payload_bytes: options.payload.into(),
        };
        Ok(Self {
            load: Load::begin(Service::Herald(target), children, sending).await?,
            operator,
            started_at,
        })
    }

    /// Resident memory of the server.
    ///
    /// # Errors
    /// When the metrics cannot be had.
    pub async fn server_rss(&mut self) -> anyhow::Result<u64> {
        Ok(self.operator.process_facts().await?.rss_bytes)
    }

    /// Waits for the moment at which all parts of a run begin.
    ///
    /// # Errors
    /// When it is over already, or a child process is lost.
    pub async fn await_start(&mut self, options: &CommonOptions) -> anyhow::Result<()> {
        let Some(start_at) = options.start_at else {
            return Ok(());
        };
        let start_at = UNIX_EPOCH + Duration::from_secs(start_at);
        let wait = start_at.duration_since(SystemTime::now());
        let wait = wait.context("--start-at was over before everybody was connected")?;
        self.load.idle("start", wait).await
    }

    /// Collects everything and passes judgement. `asked` is how many sockets there should be.
    ///
    /// # Errors
    /// When a child process is lost.
    pub async fn finish(
        &mut self,
        options: &CommonOptions,
        asked: u64,
    ) -> anyhow::Result<RunResult> {
        let collected = self.load.collect().await?;
        let mut result = self.load.result(&collected, asked);
        result.part = options.part.map(|part| part.to_string());
        // Only parts are merged.
        result.histograms = result.histograms.filter(|_| options.part.is_some());
        let alive = self.operator.is_alive_since(self.started_at).await;
        judge(&mut result, alive, &collected.lag);
        Ok(result)
    }
}
