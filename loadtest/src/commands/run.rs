//! What the commands that hold sockets have in common: a fleet, sends to it, and the verdict.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::verdict::{busiest, count, judge};
use crate::clock::monotonic_ns;
use crate::fleet::{Collected, Fleet};
use crate::habit::Habit;
use crate::latency::Latencies;
use crate::options::CommonOptions;
use crate::pacing::Schedule;
use crate::pipe::{Order, Progress};
use crate::progress::Stage;
use crate::report::{Histograms, RunResult};
use crate::sender::{Letter, SendTally, send_on_schedule};
use crate::target::{Operator, Target};

/// How often progress is shown.
const SHOW_EVERY: Duration = Duration::from_millis(250);

/// The schedule begins a little later, so that everything is ready for its first moment.
const HEAD_START_NS: u64 = 20_000_000;

/// How long to wait at most for every child's first word: how much memory it has without devices.
const BEGINNING_MAX: Duration = Duration::from_secs(5);

/// Sends at moments of their own, to tokens of their own.
pub struct Stream {
    /// Sent to in turn.
    pub tokens: Vec<String>,
    /// When.
    pub schedule: Schedule,
}

/// What happens next while a run sends.
pub enum Next {
    /// Nothing.
    GoOn,
    /// All children are told something.
    Order(Order),
    /// No further send begins.
    Finish,
}

/// A run with sockets.
pub struct Run {
    /// The server's device and sender side.
    pub target: Target,
    /// The server's operator side.
    pub operator: Operator,
    /// When the server's process started.
    started_at: f64,
    fleet: Fleet,
    tokens: Vec<String>,
    connecting_ns: u64,
    trouble: Option<String>,
    tally: RefCell<SendTally>,
    /// The busiest process's share of a processor while sending.
    cpu_share: f64,
    /// Resident memory of the swarm before its first device.
    rss_before: u64,
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
        let fleet = Fleet::start(children, &target).await?;
        Ok(Self {
            target,
            operator,
            started_at,
            fleet,
            tokens: Vec::new(),
            connecting_ns: 0,
            trouble: None,
            tally: RefCell::new(SendTally::new()),
            cpu_share: 0.0,
            rss_before: 0,
        })
    }

    /// Resident memory of the server.
    ///
    /// # Errors
    /// When the metrics cannot be had.
    pub async fn server_rss(&mut self) -> anyhow::Result<u64> {
        Ok(self.operator.process_facts().await?.rss_bytes)
    }

    /// Push tokens of all devices that were connected.
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// Connects more good devices; returns the place of the first new token.
    ///
    /// # Errors
    /// When a child process is lost.
    pub async fn open(&mut self, count: u64, per_second: f64) -> anyhow::Result<usize> {
        self.open_with(count, per_second, Habit::Good).await
    }

    /// The same for devices with any habit.
    ///
    /// # Errors
    /// When a child process is lost.
    pub async fn open_with(
        &mut self,
        count: u64,
        per_second: f64,
        habit: Habit,
    ) -> anyhow::Result<usize> {
        if self.rss_before == 0 {
            let deadline = Instant::now() + BEGINNING_MAX;
            self.fleet.watch(deadline, Fleet::has_heard_all).await?;
            self.rss_before = self.fleet.rss_bytes();
        }
        let first_new = self.tokens.len();
        let mut stage = Stage::begin("connect", first_new as u64 + count);
        let show = |open| stage.at(open, "");
        let opened = self.fleet.open(count, per_second, habit, show).await?;
        self.tokens.extend(opened.tokens);
        self.connecting_ns += opened.connecting_ns;
        self.trouble = self.trouble.take().or(opened.reason);
        let failed = format!("{} failed", opened.failed);
        stage.end(self.tokens.len() as u64, &failed);
        Ok(first_new)
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
        self.idle("start", wait).await
    }

    /// Sends `total` pushes to the tokens in `tokens`, in turn, and watches them arrive.
    ///
    /// # Errors
    /// When a child process is lost.
    pub async fn send(
        &mut self,
        options: &CommonOptions,
        tokens: &[String],
        per_second: f64,
        total: u64,
    ) -> anyhow::Result<()> {
        let streams = |start_ns| {
            vec![Stream {
                tokens: tokens.to_vec(),
                schedule: Schedule::new(start_ns, per_second, total),
            }]
        };
        self.drive(options, streams, |_| Next::GoOn).await
    }

    /// Sends several streams at once; `direct` is asked several times a second what happens next.
    ///
    /// # Errors
    /// When a child process is lost.
    pub async fn drive(
        &mut self,
        options: &CommonOptions,
        streams: impl FnOnce(u64) -> Vec<Stream>,
        mut direct: impl FnMut(&Progress) -> Next,
    ) -> anyhow::Result<()> {
        let letter = Letter::new(&self.target, options.payload.into());
        let streams = streams(monotonic_ns() + HEAD_START_NS);
        let total: u64 = streams.iter().map(|stream| stream.schedule.total()).sum();
        let (before, begun) = (self.fleet.cpu_ns(), Instant::now());
        let senders = options.senders.into();
        let (target, tally) = (&self.target, &self.tally);
        let sending = try_join_all(streams.iter().map(|stream| {
            let Stream { tokens, schedule } = stream;
            send_on_schedule(target, &letter, tokens, *schedule, senders, tally)
        }));
        tokio::pin!(sending);
        let mut stage = Stage::begin("send", self.tally.borrow().ledger.sent() + total);
        loop {
            let until = Instant::now() + SHOW_EVERY;
            tokio::select! {
                sent = &mut sending => {
                    sent?;
                    break;
                }
                heard = self.fleet.watch(until, |_| false) => heard?,
            }
            match direct(&self.fleet.total()) {
                Next::GoOn => {}
                Next::Order(order) => self.fleet.order_all(&order).await?,
                Next::Finish => self.tally.borrow_mut().finish(),
            }
            stage.at(self.tally.borrow().ledger.sent(), &delivered(&self.fleet));
        }
        self.cpu_share = busiest(&before, &self.fleet.cpu_ns(), begun.elapsed());
        stage.end(self.tally.borrow().ledger.sent(), &delivered(&self.fleet));
        Ok(())
    }

    /// Waits until everything that was accepted has arrived, for as long as `patience` at most.
    ///
    /// # Errors
    /// When a child process is lost.
    pub async fn drain(&mut self, patience: Duration) -> anyhow::Result<()> {
        let accepted = self.tally.borrow().ledger.accepted();
        let is_enough = |fleet: &Fleet| fleet.total().arrivals.delivered >= accepted;
        let deadline = Instant::now() + patience;
        self.fleet.watch(deadline, is_enough).await
    }

    /// Lets everything be quiet for a while.
    ///
    /// # Errors
    /// When a child process is lost.
    pub async fn idle(&mut self, label: &'static str, duration: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut stage = Stage::begin(label, duration.as_secs());
        while begun.elapsed() < duration {
            let step = (begun + duration).min(Instant::now() + SHOW_EVERY);
            self.fleet.watch(step, |_| false).await?;
            let open = format!("s, {} sockets", self.fleet.total().open);
            stage.at(begun.elapsed().as_secs(), &open);
        }
        stage.end(duration.as_secs(), "s");
        Ok(())
    }

    /// Calls everybody back and waits until so many sockets are open, for as long as `patience` at most.
    ///
    /// # Errors
    /// When a child process is lost.
    pub async fn gather(&mut self, sockets: u64, patience: Duration) -> anyhow::Result<()> {
        self.fleet.order_all(&Order::Calm).await?;
        // Only who is calm stays: what a child said before may be out of date.
        let is_enough = |fleet: &Fleet| fleet.is_calm() && fleet.total().open >= sockets;
        let deadline = Instant::now() + patience;
        self.fleet.watch(deadline, is_enough).await
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
        let collected = self.fleet.collect().await?;
        let mut result = RunResult {
            part: options.part.map(|part| part.to_string()),
            ..RunResult::default()
        };
        let total = self.fleet.total();
        self.fill_sockets(&mut result, &total, asked);
        self.fill_sends(&mut result, &total, &collected);
        self.fill_latencies(&mut result, &collected);
        let alive = self.operator.is_alive_since(self.started_at).await;
        judge(&mut result, alive, &collected.lag);
        Ok(result)
    }

    fn fill_sends(&self, result: &mut RunResult, total: &Progress, collected: &Collected) {
        let tally = self.tally.borrow();
        let verdict = tally.ledger.judge(&collected.seen);
        result.sent = Some(tally.ledger.sent());
        result.accepted = Some(tally.ledger.accepted());
        result.refused = Some(tally.ledger.refused());
        result.unknown = Some(tally.ledger.unknown());
        result.delivered = Some(collected.seen.len());
        result.acked = Some(total.acked);
        result.lost = Some(verdict.lost);
        result.invented = Some(verdict.invented);
        result.duplicated = Some(total.arrivals.duplicated);
        result.out_of_order = Some(total.arrivals.out_of_order);
        result.redelivered = Some(total.arrivals.redelivered);
        result.departures = Some(total.departures);
        result.polls = Some(total.polls);
        result.swarm_lag_ms_p99 = tally.lag.percentiles().map(|lag| lag.p99);
        result.crew_lag_ms_p99 = collected.lag.percentiles().map(|lag| lag.p99);
        result.swarm_cpu_share = Some(self.cpu_share);
        let trouble = self.trouble.clone().or(tally.first_trouble.clone());
        result.first_trouble = trouble.or_else(|| total.disconnect_reason.clone());
    }

    fn fill_latencies(&self, result: &mut RunResult, collected: &Collected) {
        let each = [
            &self.tally.borrow().latency,
            &collected.delivery,
            &collected.storm_back,
            &collected.storm_caught_up,
        ];
        result.set_latencies(each);
        if result.part.is_some() {
            let [send, delivery, storm_back, storm_caught_up] = each.map(Latencies::counts);
            result.histograms = Some(Histograms {
                send,
                delivery,
                storm_back,
                storm_caught_up,
            });
        }
    }

    fn fill_sockets(&self, result: &mut RunResult, total: &Progress, asked: u64) {
        result.sockets_asked = Some(asked);
        result.sockets_ok = Some(total.open);
        result.disconnects = Some(total.disconnects);
        let seconds = Duration::from_nanos(self.connecting_ns).as_secs_f64();
        result.connects_per_s = (seconds > 0.0).then(|| count(self.tokens.len()) / seconds);
        let rss = self.fleet.rss_bytes();
        let gained = usize::try_from(rss.saturating_sub(self.rss_before)).unwrap_or(usize::MAX);
        let devices = self.tokens.len();
        result.swarm_rss_bytes = Some(rss);
        result.swarm_rss_per_socket = (devices > 0).then(|| count(gained) / count(devices));
    }
}

fn delivered(fleet: &Fleet) -> String {
    let total = fleet.total();
    format!(
        "sent, {} delivered, {} sockets",
        total.arrivals.delivered, total.open
    )
}
