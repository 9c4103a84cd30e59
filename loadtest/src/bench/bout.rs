//! One contender on a server of its own: started fresh, loaded, weighed from outside, stopped.

use std::path::Path;
use std::time::Duration;

use rand::seq::SliceRandom as _;
use tokio::time::Instant;

use super::measure::Work;
use crate::contenders::{Contender, Running, Usage};
use crate::fleet::children_for;
use crate::habit::Habit;
use crate::latency::Latencies;
use crate::load::{Load, Sending};
use crate::options::RATE_MAX;
use crate::pacing::due_in;
use crate::report::RunResult;
use crate::verdict::judge;

/// First pushes a second: slow enough for every contender.
const FIRST_PUSHES_PER_S: f64 = 2_000.0;

/// A server and the swarm at it.
pub struct Bout<'a> {
    work: &'a Work,
    running: Running,
    load: Load,
    asked: u64,
    /// How late the devices were while it mattered.
    crew_lag: Latencies,
}

/// What connecting took.
pub struct Connected {
    /// How many sockets.
    pub sockets: u64,
    /// How long.
    pub took: Duration,
    /// What the server used of the processors, in nanoseconds.
    pub cpu_ns: u64,
}

/// What sending took.
pub struct Sent {
    /// Sends that were acknowledged.
    pub accepted: u64,
    /// How long it took to send them.
    pub took: Duration,
    /// What the server used of the processors until all had arrived, in nanoseconds.
    pub cpu_ns: u64,
}

impl<'a> Bout<'a> {
    /// Starts a server that is to have up to `sockets`.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn begin(
        contender: &Contender,
        work: &'a Work,
        scratch: &Path,
        sockets: u64,
    ) -> anyhow::Result<Self> {
        // Also raises the limit of open files, which the server inherits.
        let children = children_for(sockets)?;
        let running = contender.start(scratch).await?;
        let sending = Sending {
            senders: work.senders.into(),
            payload_bytes: work.payload.into(),
        };
        let load = Load::begin(running.service()?.clone(), children, sending).await?;
        Ok(Self {
            work,
            running,
            load,
            asked: 0,
            crew_lag: Latencies::new(),
        })
    }

    /// How much work there is.
    pub fn work(&self) -> &'a Work {
        self.work
    }

    /// The server.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// What the server has and used so far.
    ///
    /// # Errors
    /// When it is gone.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        self.running.usage()
    }

    /// Connects as many more recipients as are missing to `sockets`, as fast as the server lets them
    /// in, and pushes one push to each of them.
    ///
    /// # Errors
    /// When the swarm fails.
    pub async fn open_up_to(&mut self, sockets: u64) -> anyhow::Result<Connected> {
        let missing = sockets.saturating_sub(self.asked);
        self.asked = sockets;
        let first_new = self.load.tokens().len();
        self.load.register(missing).await?;
        let before = self.usage()?;
        let took = self.load.connect(RATE_MAX, Habit::Good).await?;
        let connected = Connected {
            sockets: (self.load.tokens().len() - first_new) as u64,
            took,
            cpu_ns: self.usage()?.cpu_ns.saturating_sub(before.cpu_ns),
        };
        let fresh = self.load.tokens().get(first_new..).unwrap_or_default();
        let fresh = fresh.to_vec();
        let total = fresh.len() as u64;
        self.load.send(&fresh, FIRST_PUSHES_PER_S, total).await?;
        self.load.drain(self.work.drain).await?;
        self.load.forgive();
        Ok(connected)
    }

    /// Lets the server be.
    ///
    /// # Errors
    /// When the swarm fails.
    pub async fn settle(&mut self) -> anyhow::Result<()> {
        self.load.idle("settle", self.work.settle).await
    }

    /// Sends as fast as the answers come, and waits until all has arrived.
    ///
    /// # Errors
    /// When the swarm fails.
    pub async fn send_as_fast_as_it_goes(&mut self) -> anyhow::Result<Sent> {
        let recipients = self.recipients();
        let (before, accepted) = (self.usage()?, self.load.accepted());
        let begun = Instant::now();
        self.load
            .send_as_fast_as_it_goes(&recipients, self.work.duration)
            .await?;
        let took = begun.elapsed();
        self.load.drain(self.work.drain).await?;
        Ok(Sent {
            accepted: self.load.accepted() - accepted,
            took,
            cpu_ns: self.usage()?.cpu_ns.saturating_sub(before.cpu_ns),
        })
    }

    /// Sends at a steady rate; how long each push took, from the time at which it was due.
    ///
    /// # Errors
    /// When the swarm fails.
    pub async fn send_steadily(&mut self, per_second: f64) -> anyhow::Result<Latencies> {
        let recipients = self.recipients();
        let before = self.load.collect().await?;
        let total = due_in(per_second, self.work.duration);
        self.load.send(&recipients, per_second, total).await?;
        self.load.drain(self.work.drain).await?;
        let after = self.load.collect().await?;
        let lag = after.lag.since(&before.lag)?;
        self.crew_lag.merge(&lag.counts());
        after.delivery.since(&before.delivery)
    }

    /// All recipients in a random order: who were connected one after the other are not sent to so.
    fn recipients(&self) -> Vec<String> {
        let mut recipients = self.load.tokens().to_vec();
        recipients.shuffle(&mut rand::rng());
        recipients
    }

    /// Collects everything, passes judgement and stops the server.
    ///
    /// # Errors
    /// When the swarm fails.
    pub async fn end(mut self) -> anyhow::Result<RunResult> {
        let collected = self.load.collect().await?;
        let mut result = self.load.result(&collected, self.asked);
        result.crew_lag_ms_p99 = self.crew_lag.percentiles().map(|lag| lag.p99);
        judge(&mut result, self.usage().is_ok(), &self.crew_lag);
        Ok(result)
    }
}
