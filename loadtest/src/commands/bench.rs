//! `swarm bench`: the same work on several servers that it starts itself, in turns, so that the
//! machine's moods fall on all alike.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum as _};
use tokio::signal::unix::{SignalKind, signal};

use crate::bench::{Measure, Table, Work};
use crate::contenders::{Contender, Peer, possible_name};
use crate::report::{exit_code, write_json};

/// Flags of `swarm bench`.
#[derive(Debug, Args)]
pub struct BenchOptions {
    /// A binary of Herald; again for another build. The first is what all others are held against.
    #[arg(long, value_name = "BINARY", required = true)]
    herald: Vec<PathBuf>,
    /// A server that others made, if it is installed; again for another one.
    #[arg(long, value_enum)]
    peer: Vec<Peer>,
    /// What to measure; everything if left out.
    #[arg(long, value_enum, value_delimiter = ',')]
    measure: Vec<Measure>,
    /// How often everybody is measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    #[command(flatten)]
    work: Work,
    /// Where servers keep their files while they run; on the disk that is to be measured.
    #[arg(long, value_name = "DIRECTORY")]
    scratch: Option<PathBuf>,
    /// Writes the result to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// When a contender does not start, or the swarm itself fails.
pub async fn run(options: BenchOptions) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // What is dropped here stops its server.
    let table = tokio::select! {
        table = measure_all(&options) => table?,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("told to end"),
    };
    let summary = table.summary();
    print!("{}", summary.to_text());
    write_json(&summary, options.json.as_deref())?;
    Ok(exit_code(
        !summary.void.is_empty(),
        !summary.broken.is_empty(),
    ))
}

async fn measure_all(options: &BenchOptions) -> anyhow::Result<Table> {
    let contenders = contenders(options)?;
    let scratch = options.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let measures = match &options.measure[..] {
        [] => Measure::value_variants(),
        some => some,
    };
    let mut table = Table::new(names(&contenders));
    for round in 1..=options.rounds {
        for measure in measures {
            for (index, contender) in contenders.iter().enumerate() {
                let name = possible_name(*measure);
                eprintln!("round {round}: {name} of {contender}");
                let outcome = measure.take(contender, &options.work, &scratch).await;
                let outcome = outcome.with_context(|| format!("{name} of {contender}"))?;
                if let Some(outcome) = outcome {
                    table.add(round, index, &name, outcome);
                }
            }
        }
    }
    Ok(table)
}

fn contenders(options: &BenchOptions) -> anyhow::Result<Vec<Contender>> {
    for &peer in &options.peer {
        ensure!(
            peer.is_installed(),
            "{} is not installed; loadtest/peers.sh does it",
            possible_name(peer)
        );
    }
    let builds = options.herald.iter().cloned().map(Contender::Herald);
    let peers = options.peer.iter().copied().map(Contender::Peer);
    Ok(builds.chain(peers).collect())
}

/// Each with a number where two have the same name.
fn names(contenders: &[Contender]) -> Vec<String> {
    let names: Vec<String> = contenders.iter().map(ToString::to_string).collect();
    let numbered = names.iter().enumerate().map(|(index, name)| {
        let earlier = names.iter().take(index).filter(|it| *it == name).count();
        match earlier {
            0 => name.clone(),
            _ => format!("{name} ({})", earlier + 1),
        }
    });
    numbered.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_of_one_name_are_told_apart() {
        let herald = || Contender::Herald("a/herald".into());
        let names = names(&[herald(), Contender::Peer(Peer::Nats), herald()]);
        assert_eq!(names, ["a/herald", "nats", "a/herald (2)"]);
    }
}
