//! What is measured, and how: each measure has a fresh server for itself.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use super::bout::{Bout, Sent};
use crate::commands::hold::slope;
use crate::commands::ratio::{Comparison, Kind, compare};
use crate::contenders::Contender;
use crate::options::{parse_duration, parse_rate};
use crate::report::RunResult;
use crate::verdict::float;

/// Turns of both kinds of calls together, of which the first two warm up.
const RATIO_TURNS: u32 = 20;

const NS_PER_US: f64 = 1_000.0;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Measure {
    /// Resident bytes of each further idle socket.
    Memory,
    /// What a connect costs the server, and how many a second there are.
    Connect,
    /// Acknowledged sends a second, as fast as the answers come, and what a send costs the server.
    Sends,
    /// From the time a send is due to its arrival, at steady rates.
    Latency,
    /// What a send costs at many sockets, against what it costs at few.
    Growth,
    /// Durable sends against sends that are only checked; where there are such.
    Validate,
    /// Polls with nothing new against the cheapest call; where there are such.
    Poll,
}

/// How much work there is.
#[derive(Debug, Clone, Args)]
pub struct Work {
    /// Sockets at which memory is weighed first.
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub few: u64,
    /// Sockets at which memory is weighed again, and the larger number for `growth`.
    #[arg(long, default_value_t = 16_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub many: u64,
    /// The smaller number of sockets for `growth`.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub growth_from: u64,
    /// Sockets for `connect`, `sends` and `latency`, and tokens for `validate` and `poll`.
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub sockets: u64,
    /// Quiet time before memory is weighed: allocators give back pages late.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub settle: Duration,
    /// Connections to send over.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub senders: u16,
    /// How long to send: 10s, 500ms.
    #[arg(long = "for", default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Sends a second for `latency`.
    #[arg(long, value_delimiter = ',', default_values_t = [500.0, 1_000.0], value_parser = parse_rate)]
    pub rate: Vec<f64>,
    /// Bytes of data in each push, keys and values.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(0..=4_096))]
    pub payload: u16,
    /// Waits this long at most for pushes still on their way.
    #[arg(long, default_value = "15s", value_parser = parse_duration)]
    pub drain: Duration,
}

/// What came of a measure: figures by their names, and what else became of the run.
pub struct Outcome {
    /// The figures.
    pub figures: Vec<(String, f64)>,
    /// Whether they mean anything, and whether something was lost.
    pub results: Vec<RunResult>,
}

impl Measure {
    /// Measures one contender; `None` where there is nothing to measure.
    ///
    /// # Errors
    /// When it does not start, or the swarm itself fails.
    pub async fn take(
        self,
        contender: &Contender,
        work: &Work,
        scratch: &Path,
    ) -> anyhow::Result<Option<Outcome>> {
        let begin = async |sockets| Bout::begin(contender, work, scratch, sockets).await;
        Ok(Some(match self {
            Self::Memory => memory(begin(work.many).await?).await?,
            Self::Connect => connect(begin(work.sockets).await?).await?,
            Self::Sends => sends(begin(work.sockets).await?).await?,
            Self::Latency => latency(begin(work.sockets).await?).await?,
            Self::Growth => growth(begin, [work.growth_from, work.many]).await?,
            Self::Validate => return ratio(begin(1).await?, Kind::Send).await,
            Self::Poll => return ratio(begin(1).await?, Kind::Poll).await,
        }))
    }
}

/// Figures by their names.
type Figures = Vec<(String, f64)>;

impl Outcome {
    /// Every measure also shows what it took of the swarm.
    fn new(mut figures: Figures, results: Vec<RunResult>) -> Self {
        let shares = results.iter().filter_map(|result| result.swarm_cpu_share);
        figures.push(named("swarm_cpu_share", shares.fold(0.0, f64::max)));
        Self { figures, results }
    }
}

async fn memory(mut bout: Bout<'_>) -> anyhow::Result<Outcome> {
    let mut points = Vec::new();
    for sockets in [bout.work().few, bout.work().many] {
        bout.open_up_to(sockets).await?;
        bout.settle().await?;
        points.push((sockets, bout.usage()?.rss_bytes));
    }
    let slope = slope(&points).context("--few must be less than --many")?;
    let figures = vec![named("bytes_per_socket", slope)];
    Ok(Outcome::new(figures, vec![bout.end().await?]))
}

async fn connect(mut bout: Bout<'_>) -> anyhow::Result<Outcome> {
    let connected = bout.open_up_to(bout.work().sockets).await?;
    let sockets = float(connected.sockets);
    let figures = vec![
        named("cpu_us", micros(connected.cpu_ns) / sockets),
        named("per_s", sockets / connected.took.as_secs_f64()),
    ];
    Ok(Outcome::new(figures, vec![bout.end().await?]))
}

async fn sends(mut bout: Bout<'_>) -> anyhow::Result<Outcome> {
    bout.open_up_to(bout.work().sockets).await?;
    let sent = bout.send_as_fast_as_it_goes().await?;
    let figures = vec![
        named("per_s", float(sent.accepted) / sent.took.as_secs_f64()),
        // A microsecond each is a millisecond for a thousand.
        named("cpu_ms_per_1000", cpu_us(&sent)),
    ];
    Ok(Outcome::new(figures, vec![bout.end().await?]))
}

async fn latency(mut bout: Bout<'_>) -> anyhow::Result<Outcome> {
    bout.open_up_to(bout.work().sockets).await?;
    let mut figures = Vec::new();
    for &rate in &bout.work().rate {
        let latencies = bout.send_steadily(rate).await?;
        let ms = latencies.percentiles().context("nothing arrived")?;
        let at = |what: &str, value| named(&format!("{rate}_per_s.{what}"), value);
        figures.extend([
            at("p50_ms", ms.p50),
            at("p99_ms", ms.p99),
            at("p999_ms", ms.p999),
            at("p99_to_p50", ms.p99 / ms.p50),
        ]);
    }
    Ok(Outcome::new(figures, vec![bout.end().await?]))
}

/// One server after the other, for each number of sockets.
async fn growth<'a>(
    begin: impl AsyncFn(u64) -> anyhow::Result<Bout<'a>>,
    counts: [u64; 2],
) -> anyhow::Result<Outcome> {
    let (mut costs, mut results) = (Vec::new(), Vec::new());
    for sockets in counts {
        let mut bout = begin(sockets).await?;
        bout.open_up_to(sockets).await?;
        costs.push(cpu_us(&bout.send_as_fast_as_it_goes().await?));
        results.push(bout.end().await?);
    }
    let [few, many] = costs[..] else {
        bail!("two numbers of sockets have two costs");
    };
    let figures = vec![named("cpu_ratio", many / few)];
    Ok(Outcome::new(figures, results))
}

async fn ratio(bout: Bout<'_>, kind: Kind) -> anyhow::Result<Option<Outcome>> {
    let Some(operator) = bout.running().operator() else {
        bout.end().await?;
        return Ok(None);
    };
    let work = bout.work();
    let options = Comparison {
        senders: work.senders,
        duration: work.duration,
        slice: work.duration / RATIO_TURNS,
        tokens: u32::try_from(work.sockets)?,
        payload: work.payload,
    };
    let target = bout.running().service()?.target()?;
    let result = compare(kind, &options, target, operator).await?;
    bout.end().await?;
    let figures = [("per_s", result.measured_per_s), ("ratio", result.ratio)];
    let figures = figures
        .into_iter()
        .filter_map(|(name, value)| Some(named(name, value?)));
    Ok(Some(Outcome::new(figures.collect(), vec![result])))
}

fn named(name: &str, value: f64) -> (String, f64) {
    (name.to_owned(), value)
}

/// Of the server, for a send, its delivery included.
fn cpu_us(sent: &Sent) -> f64 {
    micros(sent.cpu_ns) / float(sent.accepted)
}

fn micros(ns: u64) -> f64 {
    float(ns) / NS_PER_US
}
