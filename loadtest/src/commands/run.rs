//! What the commands that hold sockets have in common: a fleet, sends to it, and the verdict.

use std::cell::RefCell;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::monotonic_ns;
use crate::fleet::{Collected, Fleet};
use crate::options::CommonOptions;
use crate::pacing::Schedule;
use crate::progress::Stage;
use crate::report::RunResult;
use crate::sender::{Letter, SendTally, send_on_schedule};
use crate::target::{Operator, Target};

/// A process that used more of one processor than this had no time to spare, so it may have been
/// what was measured.
pub const CPU_SHARE_MAX: f64 = 0.95;

/// A send loop that was later than this with one send in a hundred did not keep its schedule.
pub const LAG_MS_MAX: f64 = 20.0;

/// How often progress is shown.
const SHOW_EVERY: Duration = Duration::from_millis(250);

/// The schedule begins a little later, so that everything is ready for its first moment.
const HEAD_START_NS: u64 = 20_000_000;

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

    /// Connects more devices; returns the place of the first new token.
    ///
    /// # Errors
    /// When a child process is lost.
    pub async fn open(&mut self, count: u64, per_second: f64) -> anyhow::Result<usize> {
        let first_new = self.tokens.len();
        let mut stage = Stage::begin("connect", first_new as u64 + count);
        let show = |open| stage.at(open, "");
        let opened = self.fleet.open(count, per_second, show).await?;
        self.tokens.extend(opened.tokens);
        self.connecting_ns += opened.connecting_ns;
        self.trouble = self.trouble.take().or(opened.reason);
        let failed = format!("{} failed", opened.failed);
        stage.end(self.tokens.len() as u64, &failed);
        Ok(first_new)
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
        let letter = Letter::new(&self.target, options.payload.into());
        let schedule = Schedule::new(monotonic_ns() + HEAD_START_NS, per_second, total);
        let (before, begun) = (self.fleet.cpu_ns(), Instant::now());
        let senders = options.senders.into();
        let sending = send_on_schedule(
            &self.target,
            &letter,
            tokens,
            schedule,
            senders,
            &self.tally,
        );
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
            let tally = self.tally.borrow();
            stage.at(tally.ledger.sent(), &delivered(&self.fleet));
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
        let is_enough = |fleet: &Fleet| fleet.arrivals().delivered >= accepted;
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
            let open = format!("s, {} sockets", self.fleet.open_sockets());
            stage.at(begun.elapsed().as_secs(), &open);
        }
        stage.end(duration.as_secs(), "s");
        Ok(())
    }

    /// Collects everything and passes judgement. `asked` is how many sockets there should be.
    ///
    /// # Errors
    /// When a child process is lost.
    pub async fn finish(&mut self, asked: u64) -> anyhow::Result<RunResult> {
        let collected = self.fleet.collect().await?;
        let mut result = RunResult::default();
        self.fill_sockets(&mut result, asked);
        self.fill_sends(&mut result, &collected);
        let alive = self.operator.is_alive_since(self.started_at).await;
        judge_run(&mut result, alive);
        Ok(result)
    }

    fn fill_sends(&self, result: &mut RunResult, collected: &Collected) {
        let tally = self.tally.borrow();
        let verdict = tally.ledger.judge(&collected.seen);
        let arrivals = self.fleet.arrivals();
        result.sent = Some(tally.ledger.sent());
        result.accepted = Some(tally.ledger.accepted());
        result.refused = Some(tally.ledger.refused());
        result.unknown = Some(tally.ledger.unknown());
        result.delivered = Some(collected.seen.len());
        result.acked = Some(self.fleet.acked());
        result.lost = Some(verdict.lost);
        result.invented = Some(verdict.invented);
        result.duplicated = Some(arrivals.duplicated);
        result.out_of_order = Some(arrivals.out_of_order);
        result.set_send_latency(tally.latency.percentiles());
        result.set_delivery_latency(collected.delivery.percentiles());
        result.swarm_lag_ms_p99 = tally.lag.percentiles().map(|lag| lag.p99);
        result.swarm_cpu_share = Some(self.cpu_share);
        let trouble = self.trouble.clone().or(tally.first_trouble.clone());
        let lost_socket = || self.fleet.disconnect_reason().map(str::to_owned);
        result.first_trouble = trouble.or_else(lost_socket);
    }

    fn fill_sockets(&self, result: &mut RunResult, asked: u64) {
        result.sockets_asked = Some(asked);
        result.sockets_ok = Some(self.fleet.open_sockets());
        result.disconnects = Some(self.fleet.disconnects());
        let seconds = Duration::from_nanos(self.connecting_ns).as_secs_f64();
        result.connects_per_s = (seconds > 0.0).then(|| count(self.tokens.len()) / seconds);
    }
}

/// Whether the figures mean anything.
fn judge_run(result: &mut RunResult, alive: bool) {
    result.void_if(!alive, || "the server died".to_owned());
    let (asked, open) = (result.sockets_asked, result.sockets_ok);
    let trouble = result.first_trouble.clone().unwrap_or_default();
    result.void_if(open < asked, || {
        format!("not all sockets were up at the end: {trouble}")
    });
    let lag_ms = result.swarm_lag_ms_p99.unwrap_or_default();
    result.void_if(lag_ms > LAG_MS_MAX, || {
        format!("the swarm did not keep its schedule: it was {lag_ms} ms late")
    });
    let share = result.swarm_cpu_share.unwrap_or_default();
    result.void_if(share > CPU_SHARE_MAX, || {
        format!("a process of the swarm used {share:.2} of a processor")
    });
}

fn delivered(fleet: &Fleet) -> String {
    format!("sent, {} delivered", fleet.arrivals().delivered)
}

/// The largest share of one processor that any process used.
pub fn busiest(before: &[u64], after: &[u64], elapsed: Duration) -> f64 {
    let used = before
        .iter()
        .zip(after)
        .map(|(before, after)| after.saturating_sub(*before));
    let most = Duration::from_nanos(used.max().unwrap_or(0));
    most.as_secs_f64() / elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
}

#[expect(clippy::cast_precision_loss, reason = "no swarm has 2^53 of anything")]
pub fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_process_counts() {
        let share = busiest(
            &[0, 500, 0],
            &[100, 1_000_500, 10],
            Duration::from_millis(2),
        );
        assert!((share - 0.5).abs() < 1e-9);
    }
}
