//! `swarm push`: sends at a steady rate to connected devices, whatever the server does, and
//! accounts for every push.

use std::process::ExitCode;

use clap::Args;

use super::run::Run;
use crate::options::{CommonOptions, parse_rate, parse_share};
use crate::pacing::{due_in, whole};
use crate::report::RunResult;
use crate::verdict::count;

/// Flags of `swarm push`.
#[derive(Debug, Args)]
pub struct PushOptions {
    #[command(flatten)]
    common: CommonOptions,
    /// Sends a second.
    #[arg(long, default_value_t = 1_000.0, value_parser = parse_rate)]
    rate: f64,
    /// Share of the sockets that is sent to.
    #[arg(long, default_value_t = 1.0, value_parser = parse_share)]
    share: f64,
}

/// Runs the command.
///
/// # Errors
/// When the server cannot be reached, or the swarm itself fails.
pub async fn run(options: PushOptions) -> anyhow::Result<ExitCode> {
    let options = PushOptions {
        rate: options.common.share_of_rate(options.rate),
        common: options.common.of_this_part(),
        ..options
    };
    let mut run = Run::begin(&options.common).await?;
    let outcome = push(&mut run, &options).await;
    run.operator.clean_up().await;
    let result = outcome?;
    result.publish(options.common.json.as_deref())?;
    Ok(result.exit_code())
}

async fn push(run: &mut Run, options: &PushOptions) -> anyhow::Result<RunResult> {
    let common = &options.common;
    let before = run.server_rss().await?;
    run.load.open(common.sockets, common.connect_rate).await?;
    let connected = run.server_rss().await?;
    run.await_start(common).await?;
    let tokens = shared(run.load.tokens(), options.share);
    let seconds = common.duration.as_secs_f64();
    run.load
        .send(&tokens, options.rate, due_in(options.rate, common.duration))
        .await?;
    run.load.drain(common.drain).await?;
    let rss = run.server_rss().await;
    let mut result = run.finish(common, common.sockets).await?;
    result.command = "push".to_owned();
    result.server_rss_bytes = rss.ok();
    result.server_rss_points = Some(vec![(0, before), (common.sockets, connected)]);
    let accepted = result
        .accepted
        .and_then(|accepted| u32::try_from(accepted).ok());
    result.accepted_per_s = accepted.map(|accepted| f64::from(accepted) / seconds);
    Ok(result)
}

/// The first tokens, as many as the share asks for, and at least one.
fn shared(tokens: &[String], share: f64) -> Vec<String> {
    let wanted = usize::try_from(whole(count(tokens.len()) * share)).unwrap_or(usize::MAX);
    let wanted = wanted.clamp(1, tokens.len().max(1));
    tokens.iter().take(wanted).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_has_at_least_one_token() {
        let tokens: Vec<String> = (0..10).map(|number| number.to_string()).collect();
        assert_eq!(shared(&tokens, 0.3).len(), 3);
        assert_eq!(shared(&tokens, 0.001), ["0"]);
        assert_eq!(shared(&tokens, 1.0).len(), 10);
        assert!(shared(&[], 1.0).is_empty());
    }
}
