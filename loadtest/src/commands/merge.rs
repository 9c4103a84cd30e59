//! `swarm merge`: the results of all parts of a run as the result of one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::hold::slope;
use crate::latency::Latencies;
use crate::part::Part;
use crate::report::RunResult;

/// Flags of `swarm merge`.
#[derive(Debug, Args)]
pub struct MergeOptions {
    /// What each part wrote with --json.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Writes the result to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// When a file cannot be read, or the files are not the parts of one run.
pub fn run(options: &MergeOptions) -> anyhow::Result<ExitCode> {
    let parts: anyhow::Result<Vec<RunResult>> =
        options.files.iter().map(|path| read(path)).collect();
    let result = merge(&parts?)?;
    result.publish(options.json.as_deref())?;
    Ok(result.exit_code())
}

fn read(path: &Path) -> anyhow::Result<RunResult> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no result", path.display()))
}

/// Puts the results of all parts together.
fn merge(parts: &[RunResult]) -> anyhow::Result<RunResult> {
    let Some(first) = parts.first() else {
        bail!("there is nothing to merge");
    };
    check(parts)?;
    let of_part = |part: &RunResult, what: &Option<String>| {
        let name = part.part.clone().unwrap_or_default();
        what.as_ref().map(|what| format!("part {name}: {what}"))
    };
    let mut result = RunResult {
        command: first.command.clone(),
        void: parts.iter().find_map(|part| of_part(part, &part.void)),
        missed: parts.iter().find_map(|part| of_part(part, &part.missed)),
        first_trouble: parts
            .iter()
            .find_map(|part| of_part(part, &part.first_trouble)),
        ..RunResult::default()
    };
    add_up(&mut result, parts);
    take_largest(&mut result, parts);
    merge_latencies(&mut result, parts)?;
    merge_points(&mut result, parts);
    Ok(result)
}

/// Whether these are all parts of one run, each once.
fn check(parts: &[RunResult]) -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    let mut counts = BTreeSet::new();
    for result in parts {
        let part = result.part.as_ref().context("one is not of a part")?;
        let part: Part = part.parse().map_err(anyhow::Error::msg)?;
        ensure!(seen.insert(part.index), "part {part} is there twice");
        counts.insert(part.count);
    }
    ensure!(counts.len() == 1, "they are not parts of one run");
    let count = counts.first().copied().unwrap_or_default();
    if let Some(missing) = (1..=count).find(|index| !seen.contains(index)) {
        bail!("part {missing}/{count} is missing");
    }
    let commands: BTreeSet<&str> = parts.iter().map(|part| part.command.as_str()).collect();
    ensure!(
        commands.len() == 1,
        "they are of different commands: {commands:?}"
    );
    Ok(())
}

/// A key of a result, to be read and to be written.
type Key<T> = fn(&mut RunResult) -> &mut Option<T>;

const COUNTS: [Key<u64>; 19] = [
    |it| &mut it.sockets_asked,
    |it| &mut it.sockets_ok,
    |it| &mut it.disconnects,
    |it| &mut it.sent,
    |it| &mut it.accepted,
    |it| &mut it.refused,
    |it| &mut it.unknown,
    |it| &mut it.delivered,
    |it| &mut it.acked,
    |it| &mut it.lost,
    |it| &mut it.duplicated,
    |it| &mut it.out_of_order,
    |it| &mut it.invented,
    |it| &mut it.redelivered,
    |it| &mut it.departures,
    |it| &mut it.polls,
    |it| &mut it.storm_cut,
    |it| &mut it.storm_failed_returns,
    |it| &mut it.swarm_rss_bytes,
];

const RATES: [Key<f64>; 2] = [|it| &mut it.connects_per_s, |it| &mut it.accepted_per_s];

const WORST: [Key<f64>; 4] = [
    |it| &mut it.swarm_lag_ms_p99,
    |it| &mut it.crew_lag_ms_p99,
    |it| &mut it.swarm_cpu_share,
    |it| &mut it.swarm_rss_per_socket,
];

/// Counts and speeds of all parts are added; what no part has, the whole does not have.
fn add_up(result: &mut RunResult, parts: &[RunResult]) {
    for part in parts {
        let mut part = part.clone();
        for key in COUNTS {
            if let Some(more) = *key(&mut part) {
                *key(result).get_or_insert_default() += more;
            }
        }
        for key in RATES {
            if let Some(more) = *key(&mut part) {
                *key(result).get_or_insert_default() += more;
            }
        }
    }
}

/// The worst part speaks for the swarm, and all parts weigh the same server.
fn take_largest(result: &mut RunResult, parts: &[RunResult]) {
    for part in parts {
        let mut part = part.clone();
        for key in WORST {
            if let Some(other) = *key(&mut part) {
                let worst = key(result).get_or_insert(other);
                *worst = worst.max(other);
            }
        }
        result.server_rss_bytes = result.server_rss_bytes.max(part.server_rss_bytes);
    }
}

fn merge_latencies(result: &mut RunResult, parts: &[RunResult]) -> anyhow::Result<()> {
    let mut merged = [(); 4].map(|()| Latencies::new());
    for part in parts {
        let histograms = part.histograms.as_ref().context("one has no histograms")?;
        for (whole, part) in merged.iter_mut().zip(histograms.each()) {
            whole.merge(part);
        }
    }
    result.set_latencies(merged.each_ref());
    Ok(())
}

/// The points at which the server was weighed, with the sockets of all parts.
fn merge_points(result: &mut RunResult, parts: &[RunResult]) {
    let mut merged: Option<Vec<(u64, u64)>> = None;
    for points in parts
        .iter()
        .filter_map(|part| part.server_rss_points.as_ref())
    {
        let Some(whole) = &mut merged else {
            merged = Some(points.clone());
            continue;
        };
        for (whole, part) in whole.iter_mut().zip(points) {
            whole.0 += part.0;
            whole.1 = whole.1.max(part.1);
        }
    }
    if result.command == "hold" {
        result.server_rss_per_socket = merged.as_deref().and_then(slope);
    }
    result.server_rss_points = merged;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Histograms;

    fn part(name: &str, latencies_ms: &[u64], lost: u64) -> RunResult {
        let mut delivery = Latencies::new();
        for ms in latencies_ms {
            delivery.record_ns(ms * 1_000_000);
        }
        RunResult {
            command: "hold".to_owned(),
            part: Some(name.to_owned()),
            sent: Some(10),
            lost: Some(lost),
            accepted_per_s: Some(1.5),
            swarm_cpu_share: Some(0.1 * latencies_ms.len() as f64),
            server_rss_bytes: Some(1_000),
            server_rss_points: Some(vec![(0, 1_000), (10, 3_000)]),
            histograms: Some(Histograms {
                delivery: delivery.counts(),
                ..Histograms::default()
            }),
            ..RunResult::default()
        }
    }

    #[test]
    fn parts_are_merged_as_if_one_machine_had_counted() {
        let merged = merge(&[part("2/2", &[1, 2], 0), part("1/2", &[3, 4, 100], 1)]);
        let merged = merged.expect("all parts are there");
        assert_eq!((merged.sent, merged.lost), (Some(20), Some(1)));
        assert_eq!(merged.accepted_per_s, Some(3.0));
        assert_eq!(merged.delivery_ms_p50.map(f64::round), Some(3.0));
        assert_eq!(merged.delivery_ms_max.map(f64::round), Some(100.0));
        assert_eq!(
            merged.swarm_cpu_share.map(|it| (it * 10.0).round()),
            Some(3.0)
        );
        assert_eq!(
            merged.server_rss_points,
            Some(vec![(0, 1_000), (20, 3_000)])
        );
        assert_eq!(merged.server_rss_per_socket, Some(100.0));
        assert_eq!((merged.polls, merged.send_ms_p50), (None, None));
        assert_eq!(merged.exit_code(), ExitCode::from(1));
    }

    #[test]
    fn a_void_part_makes_the_whole_void() {
        let mut spoilt = part("1/2", &[1], 0);
        spoilt.void = Some("the server died".to_owned());
        let merged = merge(&[spoilt, part("2/2", &[1], 0)]).expect("merges");
        assert_eq!(merged.void.as_deref(), Some("part 1/2: the server died"));
    }

    #[test]
    fn only_all_parts_of_one_run_are_merged() {
        let refused = |parts: &[RunResult]| format!("{:#}", merge(parts).expect_err("no run"));
        let one = part("1/2", &[1], 0);
        assert!(refused(&[]).contains("nothing"));
        assert!(refused(std::slice::from_ref(&one)).contains("part 2/2 is missing"));
        assert!(refused(&[one.clone(), one.clone()]).contains("twice"));
        assert!(refused(&[one.clone(), part("2/3", &[1], 0)]).contains("one run"));
        let mut other = part("2/2", &[1], 0);
        other.command = "push".to_owned();
        assert!(refused(&[one.clone(), other.clone()]).contains("different"));
        other.part = None;
        assert!(refused(&[one, other]).contains("not of a part"));
    }
}
