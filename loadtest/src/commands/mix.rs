//! `swarm mix`: devices of every kind at once, as a scenario file has them, and sends in a steady
//! stream and in bursts. At the end everybody is good, and nothing may be missing.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::run::Run;
use crate::load::{Next, Stream};
use crate::options::{CommonOptions, START_AT_MAX, parse_duration};
use crate::pacing::Schedule;
use crate::part::Part;
use crate::report::RunResult;
use crate::scenario::Scenario;
use crate::target::TargetOptions;

/// The sends of a burst are due within microseconds of each other.
const BURST_RATE: f64 = 1_000_000.0;

/// Flags of `swarm mix`.
#[derive(Debug, Args)]
pub struct MixOptions {
    #[command(flatten)]
    target: TargetOptions,
    /// What to do, see loadtest/scenarios/.
    #[arg(long, value_name = "FILE")]
    scenario: PathBuf,
    /// Connections to send over; a burst has as many of its own.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    senders: u16,
    /// Waits this long at most for everybody to come back, and as long for what is on its way.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    drain: Duration,
    /// Child processes to spread the devices over; as many as are needed if left out.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=60))]
    processes: Option<u16>,
    /// Takes this part of the devices and sends, such as 2/5.
    #[arg(long, value_name = "PART/PARTS")]
    part: Option<Part>,
    /// When everybody is connected, waits until so many seconds after 1970 before it sends.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=START_AT_MAX))]
    start_at: Option<u64>,
    /// Writes the result to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// When the scenario is none, the server cannot be reached, or the swarm itself fails.
pub async fn run(options: MixOptions) -> anyhow::Result<ExitCode> {
    let whole = Scenario::read(&options.scenario)?;
    let scenario = match options.part {
        Some(part) => whole.part(part),
        None => whole,
    };
    let common = CommonOptions {
        target: options.target,
        sockets: scenario.devices,
        connect_rate: scenario.connect_rate,
        senders: options.senders,
        duration: scenario.duration,
        payload: scenario.payload,
        drain: options.drain,
        processes: options.processes,
        part: options.part,
        start_at: options.start_at,
        json: options.json,
    };
    let mut run = Run::begin(&common).await?;
    let outcome = mix(&mut run, &common, &scenario).await;
    run.operator.clean_up().await;
    let result = outcome?;
    result.publish(common.json.as_deref())?;
    Ok(result.exit_code())
}

async fn mix(
    run: &mut Run,
    common: &CommonOptions,
    scenario: &Scenario,
) -> anyhow::Result<RunResult> {
    let habits = scenario.habits();
    for &(habit, devices) in habits.iter().filter(|(_, devices)| *devices > 0) {
        run.load
            .open_with(devices, common.connect_rate, habit)
            .await?;
    }
    run.await_start(common).await?;
    let tokens = run.load.tokens().to_vec();
    run.load
        .drive(
            |start_ns| streams(scenario, &tokens, start_ns),
            |_| Next::GoOn,
        )
        .await?;
    let with_socket = habits.iter().filter(|(habit, _)| habit.has_socket());
    let sockets = with_socket.map(|(_, devices)| devices).sum();
    run.load.gather(sockets, common.drain).await?;
    run.load.drain(common.drain).await?;
    let rss = run.server_rss().await;
    let mut result = run.finish(common, sockets).await?;
    result.command = "mix".to_owned();
    result.server_rss_bytes = rss.ok();
    Ok(result)
}

/// The steady stream, and one for each burst.
fn streams(scenario: &Scenario, tokens: &[String], start_ns: u64) -> Vec<Stream> {
    let mut streams = vec![Stream {
        tokens: tokens.to_vec(),
        schedule: Schedule::new(start_ns, scenario.rate, scenario.steady_sends()),
    }];
    let devices = tokens.len() as u64;
    for burst in scenario.bursts.iter().filter(|_| devices > 0) {
        for (number, at) in burst.moments(scenario.duration).enumerate() {
            let places = burst.places(number as u64, devices);
            let places = places.filter_map(|place| usize::try_from(place).ok());
            let at_ns = start_ns + u64::try_from(at.as_nanos()).unwrap_or(u64::MAX / 2);
            streams.push(Stream {
                tokens: places
                    .filter_map(|place| tokens.get(place).cloned())
                    .collect(),
                schedule: Schedule::new(at_ns, BURST_RATE, burst.sends),
            });
        }
    }
    streams
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_a_scenario() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
        let files = std::fs::read_dir(directory).expect("a directory");
        let mut count = 0;
        for file in files {
            let path = file.expect("an entry").path();
            let scenario = Scenario::read(&path);
            assert!(scenario.is_ok(), "{path:?}: {scenario:?}");
            count += 1;
        }
        assert_eq!(count, 2);
    }

    #[test]
    fn the_example_makes_one_stream_and_five_bursts() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/rough.toml");
        let scenario = Scenario::read(path.as_ref()).expect("is one");
        let tokens: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
        let streams = streams(&scenario, &tokens, 0);
        let totals: Vec<u64> = streams.iter().map(|it| it.schedule.total()).collect();
        assert_eq!(totals, [18_000, 500, 500, 500, 500, 500]);
        assert_eq!(streams[2].tokens.len(), 10);
        assert_ne!(streams[1].tokens, streams[2].tokens);
        assert_eq!(streams[1].schedule.at(0), 10_000_000_000);
        assert!(super::streams(&scenario, &[], 0)[0].tokens.is_empty());
    }
}
