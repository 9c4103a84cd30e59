//! `swarm storm`: all sockets are cut at one moment and come back with jitter, as after the fall
//! of a network, while senders go on as if nothing had happened.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use super::run::Run;
use crate::clock::monotonic_ns;
use crate::load::{Next, Stream};
use crate::options::{CommonOptions, parse_duration, parse_rate};
use crate::pacing::{Schedule, due_in};
use crate::pipe::{Cut, Order, Progress, StormCounts};
use crate::report::RunResult;

/// The cut is ordered so long before it is done, so that all children cut at one moment.
const NOTICE: Duration = Duration::from_millis(200);

/// Flags of `swarm storm`.
#[derive(Debug, Args)]
pub struct StormOptions {
    #[command(flatten)]
    common: CommonOptions,
    /// Sends a second, before, during and after the storm.
    #[arg(long, default_value_t = 200.0, value_parser = parse_rate)]
    rate: f64,
    /// How long sends go on before the cut, and again after everybody has caught up; more if --for
    /// says so.
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    calm: Duration,
    /// Each device waits a random part of this before it first tries to come back.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    jitter: Duration,
    /// From the cut, everybody is to be back and to have caught up within this.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    within: Duration,
}

/// Runs the command.
///
/// # Errors
/// When the server cannot be reached, or the swarm itself fails.
pub async fn run(options: StormOptions) -> anyhow::Result<ExitCode> {
    let options = StormOptions {
        rate: options.common.share_of_rate(options.rate),
        common: options.common.of_this_part(),
        ..options
    };
    let mut run = Run::begin(&options.common).await?;
    let outcome = storm(&mut run, &options).await;
    run.operator.clean_up().await;
    let result = outcome?;
    result.publish(options.common.json.as_deref())?;
    Ok(result.exit_code())
}

async fn storm(run: &mut Run, options: &StormOptions) -> anyhow::Result<RunResult> {
    let common = &options.common;
    run.load.open(common.sockets, common.connect_rate).await?;
    run.await_start(common).await?;
    let tokens = run.load.tokens().to_vec();
    let longest = (options.calm * 2 + options.within + NOTICE).max(common.duration);
    let streams = |start_ns| {
        let total = due_in(options.rate, longest);
        let schedule = Schedule::new(start_ns, options.rate, total);
        vec![Stream { tokens, schedule }]
    };
    let mut course = Course::new(options);
    let mut latest = StormCounts::default();
    let direct = |progress: &Progress| {
        latest = progress.storm;
        course.next(progress.storm, Instant::now())
    };
    run.load.drive(streams, direct).await?;
    run.load.drain(common.drain).await?;
    let rss = run.server_rss().await;
    let mut result = run.finish(common, common.sockets).await?;
    result.command = "storm".to_owned();
    result.server_rss_bytes = rss.ok();
    result.storm_cut = Some(latest.cut);
    result.storm_failed_returns = Some(latest.failed);
    judge(&mut result, latest, options.within);
    Ok(result)
}

/// Where the storm is.
enum Phase {
    /// Nothing has happened yet.
    Before,
    /// The cut is ordered; everybody has until this moment.
    Storming(Instant),
    /// Everybody is back, or it is too late.
    After(Instant),
}

/// Calm, the cut, everybody's return, calm again.
struct Course {
    calm: Duration,
    /// Sends go on for so long at least.
    duration: Duration,
    jitter: Duration,
    within: Duration,
    sockets: u64,
    begun: Instant,
    phase: Phase,
}

impl Course {
    fn new(options: &StormOptions) -> Self {
        Self {
            calm: options.calm,
            duration: options.common.duration,
            jitter: options.jitter,
            within: options.within,
            sockets: options.common.sockets,
            begun: Instant::now(),
            phase: Phase::Before,
        }
    }

    fn next(&mut self, storm: StormCounts, now: Instant) -> Next {
        match self.phase {
            Phase::Before if now >= self.begun + self.calm => {
                self.phase = Phase::Storming(now + NOTICE + self.within);
                Next::Order(Order::Cut(Cut {
                    at_ns: monotonic_ns() + nanoseconds(NOTICE),
                    jitter_ns: nanoseconds(self.jitter),
                }))
            }
            Phase::Storming(until) if storm.caught_up >= self.sockets || now >= until => {
                self.phase = Phase::After((now + self.calm).max(self.begun + self.duration));
                Next::GoOn
            }
            Phase::After(until) if now >= until => Next::Finish,
            _ => Next::GoOn,
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Holds the storm against its aims.
fn judge(result: &mut RunResult, storm: StormCounts, within: Duration) {
    let asked = result.sockets_asked.unwrap_or_default();
    result.void_if(storm.cut < asked, || {
        format!("only {} of {asked} sockets were there to be cut", storm.cut)
    });
    let failed = result.refused.unwrap_or_default() + result.unknown.unwrap_or_default();
    result.miss_if(failed > 0, || format!("{failed} sends failed"));
    let slowest_ms = result.storm_caught_up_ms_max.unwrap_or_default();
    let is_late = storm.caught_up < storm.cut || slowest_ms > within.as_secs_f64() * 1e3;
    result.miss_if(is_late, || {
        format!(
            "{} of {} were back and had caught up, the last after {slowest_ms} ms",
            storm.caught_up, storm.cut
        )
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(cut: u64, caught_up: u64) -> StormCounts {
        StormCounts {
            cut,
            back: caught_up,
            caught_up,
            failed: 0,
        }
    }

    #[tokio::test]
    async fn the_storm_takes_its_course_and_ends_when_all_have_caught_up() {
        let begun = Instant::now();
        let mut course = Course {
            calm: Duration::from_secs(5),
            duration: Duration::from_secs(20),
            jitter: Duration::from_secs(10),
            within: Duration::from_secs(60),
            sockets: 3,
            begun,
            phase: Phase::Before,
        };
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert!(matches!(course.next(counts(0, 0), at(4)), Next::GoOn));
        let ordered = course.next(counts(0, 0), at(5));
        assert!(matches!(ordered, Next::Order(Order::Cut(_))));
        assert!(matches!(course.next(counts(3, 2), at(20)), Next::GoOn));
        assert!(matches!(course.next(counts(3, 3), at(21)), Next::GoOn));
        assert!(matches!(course.next(counts(3, 3), at(25)), Next::GoOn));
        assert!(matches!(course.next(counts(3, 3), at(26)), Next::Finish));
    }

    #[test]
    fn a_failed_send_or_a_late_device_misses_the_aim() {
        let judged = |refused, storm, slowest_ms| {
            let mut result = RunResult {
                sockets_asked: Some(3),
                refused: Some(refused),
                storm_caught_up_ms_max: Some(slowest_ms),
                ..RunResult::default()
            };
            judge(&mut result, storm, Duration::from_secs(1));
            (result.void.is_some(), result.missed.is_some())
        };
        assert_eq!(judged(0, counts(3, 3), 999.0), (false, false));
        assert_eq!(judged(1, counts(3, 3), 999.0), (false, true));
        assert_eq!(judged(0, counts(3, 2), 999.0), (false, true));
        assert_eq!(judged(0, counts(3, 3), 1_001.0), (false, true));
        assert_eq!(judged(0, counts(2, 2), 999.0), (true, false));
    }
}
