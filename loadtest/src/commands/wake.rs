//! `swarm wake`: what it costs a push that its session is parked. Two groups of devices are sent to
//! in turn within one run: a few who hear so often that their sessions stay awake, and many who hear
//! so seldom that theirs are parked each time.

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep};

use crate::clock::{cpu_ns, monotonic_ns};
use crate::contenders::Service;
use crate::crew::{Crew, open_here};
use crate::options::parse_duration;
use crate::pacing::{Schedule, due_in};
use crate::progress::Stage;
use crate::report::RunResult;
use crate::sender::{SendTally, send_on_schedule};
use crate::target::{Target, TargetOptions};
use crate::verdict::{CPU_SHARE_MAX, LAG_MS_MAX, busiest};

/// Devices whose sessions stay awake.
const AWAKE: u32 = 5;

/// Devices whose sessions are parked; with [`RATE`] each hears every six seconds, three times the
/// server's default of `socket.park_after_ms`.
const PARKED: u32 = 300;

/// Sends a second, every other one to a parked session.
const RATE: f64 = 100.0;

/// Connections to send over.
const SENDERS: usize = 8;

/// What is still on its way at the end may take this long.
const DRAIN: Duration = Duration::from_secs(5);

/// How often it is looked whether everything has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Flags of `swarm wake`.
#[derive(Debug, Args)]
pub struct WakeOptions {
    #[command(flatten)]
    target: TargetOptions,
    /// How long to send: 30s, 2m.
    #[arg(long = "for", default_value = "30s", value_parser = parse_duration)]
    duration: Duration,
    /// How long everybody is silent first, so that all sessions are parked.
    #[arg(long, default_value = "4s", value_parser = parse_duration)]
    rest: Duration,
    /// Bytes of data in each push, keys and values.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(0..=4_096))]
    payload: u16,
    /// Writes the result to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// When the server cannot be reached, or the swarm itself fails.
pub async fn run(options: WakeOptions) -> anyhow::Result<ExitCode> {
    let (target, mut operator) = options.target.resolve().await?;
    let outcome = compare(&options, &target).await;
    operator.clean_up().await;
    let result = outcome?;
    result.publish(options.json.as_deref())?;
    Ok(result.exit_code())
}

async fn compare(options: &WakeOptions, target: &Target) -> anyhow::Result<RunResult> {
    let service = Service::Herald(target.clone());
    let (awake, awake_tokens) = open_here(&service, AWAKE).await?;
    let (parked, parked_tokens) = open_here(&service, PARKED).await?;
    sleep(options.rest).await;
    let turns = in_turns(&awake_tokens, &parked_tokens);
    let total = due_in(RATE, options.duration);
    let tally = RefCell::new(SendTally::new());
    let payload = options.payload.into();
    let stage = Stage::begin("send", total);
    let (cpu_before, begun) = (cpu_ns(), Instant::now());
    let schedule = Schedule::new(monotonic_ns(), RATE, total);
    send_on_schedule(&service, payload, &turns, schedule, SENDERS, &tally).await?;
    let share = busiest(&[cpu_before], &[cpu_ns()], begun.elapsed());
    await_arrivals(&[&awake, &parked], &tally).await;
    stage.end(total, "sent");
    Ok(judge(&awake, &parked, &tally.borrow(), share))
}

/// One of the few, one of the many, and so on until all of the many had their turn.
fn in_turns(awake: &[String], parked: &[String]) -> Vec<String> {
    let pairs = awake.iter().cycle().zip(parked);
    pairs
        .flat_map(|(awake, parked)| [awake.clone(), parked.clone()])
        .collect()
}

async fn await_arrivals(crews: &[&Rc<Crew>], tally: &RefCell<SendTally>) {
    let deadline = Instant::now() + DRAIN;
    let arrived = || -> u64 {
        let counts = crews
            .iter()
            .map(|crew| crew.tally.borrow().arrivals.counts());
        counts.map(|counts| counts.delivered).sum()
    };
    while arrived() < tally.borrow().ledger.accepted() && Instant::now() < deadline {
        sleep(LOOK_EVERY).await;
    }
}

fn judge(awake: &Crew, parked: &Crew, sends: &SendTally, share: f64) -> RunResult {
    let (awake, parked) = (awake.tally.borrow(), parked.tally.borrow());
    let mut seen = awake.arrivals.seen().clone();
    seen.merge(parked.arrivals.seen());
    let verdict = sends.ledger.judge(&seen);
    let median = |latencies: &crate::latency::Latencies| latencies.percentiles().map(|ms| ms.p50);
    let (awake_ms, parked_ms) = (median(&awake.delivery), median(&parked.delivery));
    let mut result = RunResult {
        command: "wake".to_owned(),
        sockets_asked: Some(u64::from(AWAKE + PARKED)),
        sockets_ok: Some(awake.open + parked.open),
        sent: Some(sends.ledger.sent()),
        accepted: Some(sends.ledger.accepted()),
        refused: Some(sends.ledger.refused()),
        unknown: Some(sends.ledger.unknown()),
        delivered: Some(seen.len()),
        acked: Some(awake.acked + parked.acked),
        lost: Some(verdict.lost),
        invented: Some(verdict.invented),
        awake_delivery_ms_p50: awake_ms,
        parked_delivery_ms_p50: parked_ms,
        wake_ms_p50: parked_ms
            .zip(awake_ms)
            .map(|(parked, awake)| parked - awake),
        swarm_lag_ms_p99: sends.lag.percentiles().map(|lag| lag.p99),
        swarm_cpu_share: Some(share),
        first_trouble: sends.first_trouble.clone(),
        ..RunResult::default()
    };
    let lag_ms = result.swarm_lag_ms_p99.unwrap_or_default();
    result.void_if(lag_ms > LAG_MS_MAX, || {
        format!("the swarm did not keep its schedule: it was {lag_ms} ms late")
    });
    result.void_if(share > CPU_SHARE_MAX, || {
        format!("the swarm used {share:.2} of a processor")
    });
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_few_hear_often_and_the_many_once_a_round() {
        let names = |prefix: &str, count| -> Vec<String> {
            (0..count)
                .map(|number| format!("{prefix}{number}"))
                .collect()
        };
        let turns = in_turns(&names("a", 2), &names("p", 3));
        assert_eq!(turns, ["a0", "p0", "a1", "p1", "a0", "p2"]);
        assert_eq!(due_in(RATE, Duration::from_millis(1_500)), 150);
    }
}
