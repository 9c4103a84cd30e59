//! `swarm simulate`: the server's own sessions in this process, millions of them, parked and awake,
//! and pushes delivered into them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::latency::Latencies;
use crate::options::{parse_duration, parse_rate, parse_share_or_none};
use crate::pacing::due_in;
use crate::report::RunResult;
use crate::simulation::{self, Outcome, Plan};
use crate::verdict::{CPU_SHARE_MAX, LAG_MS_MAX};

const GIB: u64 = 1024 * 1024 * 1024;

/// Flags of `swarm simulate`.
#[derive(Debug, Args)]
pub struct SimulateOptions {
    /// Sessions, each of a device with one token; also --sockets.
    #[arg(long, alias = "sockets", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    sessions: u64,
    /// Share of the sessions that never park.
    #[arg(long, default_value_t = 0.1, value_parser = parse_share_or_none)]
    awake: f64,
    /// Worker threads; one per core if left out.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: Option<u16>,
    /// How long a session is idle before it parks.
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    park_after: Duration,
    /// Pushes in all.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(0..=100_000_000))]
    pushes: u64,
    /// How long to send; instead of --pushes.
    #[arg(long = "for", value_parser = parse_duration, conflicts_with = "pushes")]
    duration: Option<Duration>,
    /// Pushes a second.
    #[arg(long, default_value_t = 20_000.0, value_parser = parse_rate)]
    rate: f64,
    /// Bytes of padding in each push.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(0..=4_096))]
    payload: u16,
    /// Keeps pushes and tokens on disk in this new directory, as a server does; in memory if left
    /// out.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// This process is to have so many GiB of memory at most.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=4_096))]
    within_gib: u64,
    /// Waits this long at most for sessions to park, and for pushes on their way.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    drain: Duration,
    /// Writes the result to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the command. Must not be called on a runtime.
///
/// # Errors
/// When the simulation itself fails.
pub fn run(options: &SimulateOptions) -> anyhow::Result<ExitCode> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let plan = Plan {
        sessions: options.sessions,
        awake_share: options.awake,
        workers: options.workers.map_or(cores, usize::from),
        park_after: options.park_after,
        pushes: options
            .duration
            .map_or(options.pushes, |duration| due_in(options.rate, duration)),
        rate: options.rate,
        payload: options.payload.into(),
        memory_max: options.within_gib * GIB,
        store: options.store.clone(),
        patience: options.drain,
    };
    let result = judge(&plan, &simulation::run(&plan)?);
    result.publish(options.json.as_deref())?;
    Ok(result.exit_code())
}

fn judge(plan: &Plan, outcome: &Outcome) -> RunResult {
    let ledger = &outcome.sends.ledger;
    let verdict = ledger.judge(&outcome.seen);
    let mut result = RunResult {
        command: "simulate".to_owned(),
        sockets_asked: Some(plan.sessions),
        sockets_ok: Some(outcome.welcomed),
        connects_per_s: per_second(outcome.welcomed, outcome.welcoming),
        sessions_parked: Some(outcome.parked),
        sessions_awake: Some(outcome.welcomed - outcome.parked),
        sent: Some(ledger.sent()),
        accepted: Some(ledger.accepted()),
        refused: Some(ledger.refused()),
        unknown: Some(ledger.unknown()),
        accepted_per_s: per_second(ledger.accepted(), outcome.sending),
        delivered: Some(outcome.seen.len()),
        acked: Some(outcome.acked),
        lost: Some(verdict.lost),
        invented: Some(verdict.invented),
        duplicated: Some(outcome.arrivals.duplicated),
        out_of_order: Some(outcome.arrivals.out_of_order),
        redelivered: Some(outcome.arrivals.redelivered),
        server_rss_bytes: Some(outcome.rss_at_end),
        server_rss_per_socket: per_session(outcome),
        server_rss_points: Some(vec![
            (0, outcome.rss_before),
            (outcome.welcomed, outcome.rss_at_rest),
            (outcome.welcomed, outcome.rss_at_end),
        ]),
        swarm_lag_ms_p99: outcome.sends.lag.percentiles().map(|lag| lag.p99),
        swarm_cpu_share: Some(outcome.cpu_share),
        first_trouble: outcome
            .fault
            .clone()
            .or(outcome.sends.first_trouble.clone()),
        ..RunResult::default()
    };
    let none = Latencies::new();
    result.set_latencies([&outcome.sends.latency, &outcome.delivery, &none, &none]);
    judge_result(&mut result, plan, outcome.rss_max);
    result
}

/// Whether the figures mean anything, and whether they are what was wanted.
fn judge_result(result: &mut RunResult, plan: &Plan, rss_max: u64) {
    let lag_ms = result.swarm_lag_ms_p99.unwrap_or_default();
    result.void_if(lag_ms > LAG_MS_MAX, || {
        format!("the swarm did not keep its schedule: it was {lag_ms} ms late")
    });
    let share = result.swarm_cpu_share.unwrap_or_default();
    result.void_if(share > CPU_SHARE_MAX, || {
        format!("the senders used {share:.2} of a processor")
    });
    result.miss_if(rss_max > plan.memory_max, || {
        format!("{rss_max} bytes of memory, {} allowed", plan.memory_max)
    });
    result.miss_if(result.sockets_ok < Some(plan.sessions), || {
        "not all sessions were welcomed".to_owned()
    });
    let failed = result.refused.unwrap_or_default() + result.unknown.unwrap_or_default();
    result.miss_if(failed > 0, || format!("{failed} sends failed"));
}

#[expect(
    clippy::cast_precision_loss,
    reason = "no simulation has 2^53 of anything"
)]
fn per_second(number: u64, took: Duration) -> Option<f64> {
    (!took.is_zero()).then(|| number as f64 / took.as_secs_f64())
}

/// Bytes that each session added, its simulated device included.
#[expect(
    clippy::cast_precision_loss,
    reason = "no machine has 2^53 bytes of memory"
)]
fn per_session(outcome: &Outcome) -> Option<f64> {
    let bytes = outcome.rss_at_rest.saturating_sub(outcome.rss_before);
    (outcome.welcomed > 0).then(|| bytes as f64 / outcome.welcomed as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_sessions_and_sends_are_aims() {
        let plan = Plan {
            sessions: 10,
            awake_share: 0.0,
            workers: 1,
            park_after: Duration::ZERO,
            pushes: 0,
            rate: 1.0,
            payload: 0,
            memory_max: 1_000,
            store: None,
            patience: Duration::ZERO,
        };
        let judged = |welcomed, refused, rss_max| {
            let mut result = RunResult {
                sockets_ok: Some(welcomed),
                refused: Some(refused),
                ..RunResult::default()
            };
            judge_result(&mut result, &plan, rss_max);
            result.missed.unwrap_or_default()
        };
        assert_eq!(judged(10, 0, 1_000), "");
        assert!(judged(10, 0, 1_001).contains("1001 bytes"));
        assert!(judged(9, 0, 1_000).contains("not all sessions"));
        assert!(judged(10, 1, 1_000).contains("1 sends failed"));
    }
}
