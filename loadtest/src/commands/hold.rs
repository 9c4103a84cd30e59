//! `swarm hold`: connects many sockets, sends each one push, then lets them be, and weighs the
//! server.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;

use super::run::Run;
use crate::options::{CommonOptions, parse_duration};
use crate::report::RunResult;

/// Flags of `swarm hold`.
#[derive(Debug, Args)]
pub struct HoldOptions {
    #[command(flatten)]
    common: CommonOptions,
    /// Socket counts at which the server is weighed; the last is how many are held. Replaces
    /// --sockets.
    #[arg(long, value_delimiter = ',', value_name = "COUNT,COUNT")]
    at: Vec<u64>,
    /// Quiet time before the server is weighed.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    settle: Duration,
}

/// Runs the command.
///
/// # Errors
/// When the server cannot be reached, or the swarm itself fails.
pub async fn run(options: HoldOptions) -> anyhow::Result<ExitCode> {
    let steps = steps(&options)?;
    let sockets = steps.last().copied().unwrap_or_default();
    let common = CommonOptions {
        sockets,
        ..options.common
    }
    .of_this_part();
    let steps: Vec<u64> = steps.into_iter().map(|step| common.share(step)).collect();
    let mut run = Run::begin(&common).await?;
    let outcome = hold(&mut run, &common, &steps, options.settle).await;
    run.operator.clean_up().await;
    let result = outcome?;
    result.publish(common.json.as_deref())?;
    Ok(result.exit_code())
}

fn steps(options: &HoldOptions) -> anyhow::Result<Vec<u64>> {
    if options.at.is_empty() {
        return Ok(vec![options.common.sockets]);
    }
    let rises = options.at.is_sorted_by(|before, after| before < after);
    ensure!(
        rises && options.at.first() > Some(&0),
        "--at wants rising counts above 0"
    );
    Ok(options.at.clone())
}

async fn hold(
    run: &mut Run,
    options: &CommonOptions,
    steps: &[u64],
    settle: Duration,
) -> anyhow::Result<RunResult> {
    let mut points = vec![(0, run.server_rss().await?)];
    let mut held = 0;
    for &sockets in steps {
        let first_new = run.load.open(sockets - held, options.connect_rate).await?;
        held = sockets;
        let fresh = run
            .load
            .tokens()
            .get(first_new..)
            .unwrap_or_default()
            .to_vec();
        let total = fresh.len() as u64;
        run.load.send(&fresh, options.connect_rate, total).await?;
        run.load.drain(options.drain).await?;
        run.load.idle("settle", settle).await?;
        points.push((sockets, run.server_rss().await?));
    }
    run.await_start(options).await?;
    run.load.idle("hold", options.duration).await?;
    let end_bytes = run.server_rss().await;
    let mut result = run.finish(options, held).await?;
    result.command = "hold".to_owned();
    if let (Ok(end_bytes), Some(last)) = (end_bytes, points.last_mut()) {
        last.1 = end_bytes;
        result.server_rss_bytes = Some(end_bytes);
    }
    // A part sees the memory of all sockets, and knows only its own.
    result.server_rss_per_socket = slope(&points).filter(|_| options.part.is_none());
    result.server_rss_points = Some(points);
    Ok(result)
}

/// Bytes that each further socket added. What the server takes once, for its first sockets, is
/// left out if there is a point after it.
#[expect(
    clippy::cast_precision_loss,
    reason = "no machine has 2^53 bytes of memory"
)]
pub fn slope(points: &[(u64, u64)]) -> Option<f64> {
    let (last, earlier) = points.split_last()?;
    let first = earlier.get(1).or(earlier.first())?;
    let bytes = last.1 as f64 - first.1 as f64;
    Some(bytes / (last.0.checked_sub(first.0).filter(|sockets| *sockets > 0)? as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_leaves_out_what_is_taken_once() {
        assert_eq!(slope(&[(0, 1_000), (10, 3_000)]), Some(200.0));
        assert_eq!(slope(&[(0, 1_000), (10, 9_000), (30, 10_000)]), Some(50.0));
        assert_eq!(slope(&[(0, 1_000), (10, 500)]), Some(-50.0));
        assert_eq!(slope(&[(0, 1_000)]), None);
    }
}
