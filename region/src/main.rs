//! `region`: brings up a whole region on this machine, says where it is, and takes it down again.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use herald_region::{Region, RegionOptions, banner, herald_of_profile};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

/// The command line is wrong (`EX_USAGE` of `sysexits.h`).
const USAGE: u8 = 64;

/// Something could not start (`EX_SOFTWARE` of `sysexits.h`).
const FAULT: u8 = 70;

/// Without `--for`: as good as for ever.
const UNTIL_TOLD: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Brings up a whole region on this machine: Redis Cluster, CQL ring, Herald nodes. Ctrl-C takes it
/// down again.
#[derive(Debug, Parser)]
#[command(name = "region", version)]
struct Arguments {
    /// Herald nodes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=100))]
    nodes: u8,
    /// Redis replicas of each of the three primaries.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=5))]
    redis_replicas: u8,
    /// When a Redis node that does not answer is held for failed.
    #[arg(long, default_value = "6s", value_parser = parse_duration)]
    redis_node_timeout: Duration,
    /// CQL nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    cql_nodes: u8,
    /// The herald binary [default: the one beside this binary, which is built if it is missing].
    #[arg(long, value_name = "PATH")]
    herald: Option<PathBuf>,
    /// An empty directory for data and logs, which stays [default: a temporary one, which does not].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The stores alone.
    #[arg(long, conflicts_with_all = ["nodes", "herald"])]
    without_herald: bool,
    /// Ends by itself after this long: 500ms, 30s, 2m [default: runs until Ctrl-C].
    #[arg(long = "for", value_parser = parse_duration)]
    duration: Option<Duration>,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nobody to tell if this fails: the terminal is gone.
            let _ = error.print();
            let is_help = error.exit_code() == 0;
            return ExitCode::from(if is_help { 0 } else { USAGE });
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = runtime
        .context("no runtime")
        .and_then(|runtime| runtime.block_on(run(&arguments)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(FAULT)
        }
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
    // Also while it starts: what has started by then is dropped, and so killed.
    tokio::select! {
        ended = start_and_hold(arguments) => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

async fn start_and_hold(arguments: &Arguments) -> anyhow::Result<()> {
    let nodes = if arguments.without_herald {
        0
    } else {
        arguments.nodes.into()
    };
    let binary = match &arguments.herald {
        _ if nodes == 0 => PathBuf::new(),
        // Nodes start in directories of their own.
        Some(binary) => binary
            .canonicalize()
            .with_context(|| format!("there is no {}", binary.display()))?,
        None => herald_beside_this().await?,
    };
    let mut options = RegionOptions {
        cql_nodes: arguments.cql_nodes.into(),
        nodes,
        binary,
        directory: arguments.data.clone(),
        ..RegionOptions::default()
    };
    options.redis.replicas = arguments.redis_replicas.into();
    options.redis.node_timeout = arguments.redis_node_timeout;
    let region = Region::start(&options).await?;
    // A reader that has left (`| head`) is no fault.
    let _ = std::io::stdout().write_all(banner(&region).as_bytes());
    sleep(arguments.duration.unwrap_or(UNTIL_TOLD)).await;
    Ok(())
}

/// The `herald` binary in the directory of this one, built as this one was if it is missing.
async fn herald_beside_this() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("where is this binary?")?;
    herald_of_profile(this.parent().context("a binary is in a directory")?).await
}

/// Reads `500ms`, `30s` or `2m`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u32 = digits
        .parse()
        .map_err(|_| format!("{text:?} is no duration such as 30s"))?;
    match text.get(digits.len()..) {
        Some("ms") => Ok(Duration::from_millis(number.into())),
        Some("s") => Ok(Duration::from_secs(number.into())),
        Some("m") => Ok(Duration::from_secs(60) * number),
        _ => Err(format!("{text:?} needs a unit: ms, s or m")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_makes_sense() {
        Arguments::command().debug_assert();
        let arguments = Arguments::try_parse_from(["region", "--for", "2m"]).expect("read");
        assert_eq!(arguments.duration, Some(Duration::from_secs(120)));
        for wrong in [
            ["--for", "30"],
            ["--nodes", "0"],
            ["--cql-nodes", "10"],
            ["--without-herald", "--nodes=1"],
        ] {
            let arguments = ["region"].into_iter().chain(wrong);
            assert!(Arguments::try_parse_from(arguments).is_err(), "{wrong:?}");
        }
    }
}
