//! Sockets that are held at a server of any kind, sends to them, and the account of both.

use std::cell::RefCell;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::Instant;

use crate::clock::monotonic_ns;
use crate::contenders::Service;
use crate::fleet::{Collected, Fleet, Opened};
use crate::habit::Habit;
use crate::latency::Latencies;
use crate::pacing::Schedule;
use crate::pipe::{Order, Progress};
use crate::progress::Stage;
use crate::report::{Histograms, RunResult};
use crate::sender::{SendTally, send_as_fast_as_it_goes, send_on_schedule};
use crate::verdict::{busiest, count};

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

/// What is sent, and over how many connections.
#[derive(Debug, Clone, Copy)]
pub struct Sending {
    /// Connections to send over.
    pub senders: usize,
    /// Bytes of data in each push, keys and values.
    pub payload_bytes: usize,
}

/// The load that the swarm is on one server.
pub struct Load {
    service: Service,
    sending: Sending,
    fleet: Fleet,
    tokens: Vec<String>,
    /// Devices that are to be connected next.
    registered: u64,
    connecting_ns: u64,
    trouble: Option<String>,
    tally: RefCell<SendTally>,
    /// The busiest process's share of a processor while sending or connecting, at its highest.
    cpu_share: f64,
    /// Resident memory of the swarm before its first device.
    rss_before: u64,
}

impl Load {
    /// Starts so many child processes.
    ///
    /// # Errors
    /// When one cannot be started.
    pub async fn begin(
        service: Service,
        children: usize,
        sending: Sending,
    ) -> anyhow::Result<Self> {
        let fleet = Fleet::start(children, &service).await?;
        Ok(Self {
            service,
            sending,
            fleet,
            tokens: Vec::new(),
            registered: 0,
            connecting_ns: 0,
            trouble: None,
            tally: RefCell::new(SendTally::new()),
            cpu_share: 0.0,
            rss_before: 0,
        })
    }

    /// Push tokens of all devices that were connected.
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// Sends accepted so far.
    pub fn accepted(&self) -> u64 {
        self.tally.borrow().ledger.accepted()
    }

    /// From now on the swarm is on time until it is late again: what it was late with was not to be
    /// measured.
    pub fn forgive(&mut self) {
        self.tally.get_mut().lag = Latencies::new();
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
        let first_new = self.tokens.len();
        self.register(count).await?;
        self.connect(per_second, habit).await?;
        Ok(first_new)
    }

    /// Registers more devices.
    ///
    /// # Errors
    /// When a child process is lost.
    pub async fn register(&mut self, count: u64) -> anyhow::Result<()> {
        if self.rss_before == 0 {
            let deadline = Instant::now() + BEGINNING_MAX;
            self.fleet.watch(deadline, Fleet::has_heard_all).await?;
            self.rss_before = self.fleet.rss_bytes();
        }
        let mut stage = Stage::begin("register", count);
        let registered = self.fleet.register(count, |_| stage.at(0, "")).await?;
        self.trouble = self.trouble.take().or(registered.reason);
        self.registered += count - u64::from(registered.failed);
        stage.end(count, &format!("{} failed", registered.failed));
        Ok(())
    }

    /// Connects all that are registered; returns how long that took.
    ///
    /// # Errors
    /// When a child process is lost.
    pub async fn connect(&mut self, per_second: f64, habit: Habit) -> anyhow::Result<Duration> {
        let (before, begun) = (self.fleet.cpu_ns(), Instant::now());
        let mut stage = Stage::begin("connect", self.tokens.len() as u64 + self.registered);
        let show = |open| stage.at(open, "");
        let Opened {
            tokens,
            failed,
            reason,
            connecting_ns,
        } = self.fleet.connect(per_second, habit, show).await?;
        self.note_share(&before, begun);
        self.tokens.extend(tokens);
        self.registered = 0;
        self.connecting_ns += connecting_ns;
        self.trouble = self.trouble.take().or(reason);
        stage.end(self.tokens.len() as u64, &format!("{failed} failed"));
        Ok(Duration::from_nanos(connecting_ns))
    }

    /// Sends `total` pushes to the tokens in `tokens`, in turn, and watches them arrive.
    ///
    /// # Errors
    /// When a child process is lost.
    pub async fn send(
        &mut self,
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
        self.drive(streams, |_| Next::GoOn).await
    }

    /// Sends several streams at once; `direct` is asked several times a second what happens next.
    ///
    /// # Errors
    /// When a child process is lost.
    pub async fn drive(
        &mut self,
        streams: impl FnOnce(u64) -> Vec<Stream>,
        direct: impl FnMut(&Progress) -> Next,
    ) -> anyhow::Result<()> {
        let streams = streams(monotonic_ns() + HEAD_START_NS);
        let total: u64 = streams.iter().map(|stream| stream.schedule.total()).sum();
        let (before, begun) = (self.fleet.cpu_ns(), Instant::now());
        let (service, tally) = (&self.service, &self.tally);
        let (senders, payload_bytes) = (self.sending.senders, self.sending.payload_bytes);
        let sending = try_join_all(streams.iter().map(|stream| {
            let Stream { tokens, schedule } = stream;
            send_on_schedule(service, payload_bytes, tokens, *schedule, senders, tally)
        }));
        let sending = async { sending.await.map(drop) };
        let stage = Stage::begin("send", tally.borrow().ledger.sent() + total);
        accompany(sending, &mut self.fleet, tally, stage, direct).await?;
        self.note_share(&before, begun);
        Ok(())
    }

    /// Sends to the tokens in turn, on each connection as fast as the answers come.
    ///
    /// # Errors
    /// When a child process is lost.
    pub async fn send_as_fast_as_it_goes(
        &mut self,
        tokens: &[String],
        duration: Duration,
    ) -> anyhow::Result<()> {
        let (before, begun) = (self.fleet.cpu_ns(), Instant::now());
        let until_ns = monotonic_ns() + u64::try_from(duration.as_nanos())?;
        let (service, tally) = (&self.service, &self.tally);
        let (senders, payload_bytes) = (self.sending.senders, self.sending.payload_bytes);
        let sending = async {
            send_as_fast_as_it_goes(service, payload_bytes, tokens, until_ns, senders, tally).await;
            Ok(())
        };
        let stage = Stage::begin("send", 0);
        accompany(sending, &mut self.fleet, tally, stage, |_| Next::GoOn).await?;
        self.note_share(&before, begun);
        Ok(())
    }

    fn note_share(&mut self, before: &[u64], begun: Instant) {
        let share = busiest(before, &self.fleet.cpu_ns(), begun.elapsed());
        self.cpu_share = self.cpu_share.max(share);
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

    /// Everything that arrived so far.
    ///
    /// # Errors
    /// When a child process is lost.
    pub async fn collect(&mut self) -> anyhow::Result<Collected> {
        self.fleet.collect().await
    }

    /// What became of all that was done. `asked` is how many sockets there should be.
    pub fn result(&self, collected: &Collected, asked: u64) -> RunResult {
        let mut result = RunResult::default();
        let total = self.fleet.total();
        self.fill_sockets(&mut result, &total, asked);
        self.fill_sends(&mut result, &total, collected);
        self.fill_latencies(&mut result, collected);
        result
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
        let [send, delivery, storm_back, storm_caught_up] = each.map(Latencies::counts);
        result.histograms = Some(Histograms {
            send,
            delivery,
            storm_back,
            storm_caught_up,
        });
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

/// Waits for `sending` to end and hears the children meanwhile.
async fn accompany(
    sending: impl Future<Output = anyhow::Result<()>>,
    fleet: &mut Fleet,
    tally: &RefCell<SendTally>,
    mut stage: Stage,
    mut direct: impl FnMut(&Progress) -> Next,
) -> anyhow::Result<()> {
    tokio::pin!(sending);
    loop {
        let until = Instant::now() + SHOW_EVERY;
        tokio::select! {
            sent = &mut sending => {
                sent?;
                break;
            }
            heard = fleet.watch(until, |_| false) => heard?,
        }
        match direct(&fleet.total()) {
            Next::GoOn => {}
            Next::Order(order) => fleet.order_all(&order).await?,
            Next::Finish => tally.borrow_mut().finish(),
        }
        stage.at(tally.borrow().ledger.sent(), &delivered(fleet));
    }
    stage.end(tally.borrow().ledger.sent(), &delivered(fleet));
    Ok(())
}

fn delivered(fleet: &Fleet) -> String {
    let total = fleet.total();
    format!(
        "sent, {} delivered, {} sockets",
        total.arrivals.delivered, total.open
    )
}
