//! `swarm ratio`: two kinds of calls, each as fast as it goes, in turns within one run, so that
//! the machine's moods fall on both alike.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, ValueEnum};
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;

use crate::clock::{cpu_ns, monotonic_ns};
use crate::contenders::Letter;
use crate::http::{Caller, write_request};
use crate::options::parse_duration;
use crate::progress::Stage;
use crate::register::{Identity, register_some};
use crate::report::RunResult;
use crate::sender::data;
use crate::target::{Operator, Target, TargetOptions};
use crate::verdict::{CPU_SHARE_MAX, busiest};

/// What is measured against what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Durable sends against sends with `validate_only`.
    Send,
    /// Polls with nothing new against `/livez`.
    Poll,
}

/// Flags of `swarm ratio`.
#[derive(Debug, Args)]
pub struct RatioOptions {
    #[command(flatten)]
    target: TargetOptions,
    /// What to compare.
    #[arg(value_enum)]
    kind: Kind,
    #[command(flatten)]
    comparison: Comparison,
    /// Writes the result to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// How two kinds of calls are compared.
#[derive(Debug, Clone, Args)]
pub struct Comparison {
    /// Calls at a time, each on a connection of its own.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub senders: u16,
    /// How long in all: 30s, 2m.
    #[arg(long = "for", default_value = "20s", value_parser = parse_duration)]
    pub duration: Duration,
    /// How long each turn is.
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    pub slice: Duration,
    /// Tokens that the calls are about, in turn.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub tokens: u32,
    /// Bytes of data in each push, keys and values.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(0..=4_096))]
    pub payload: u16,
}

/// Which of the two kinds of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Measured,
    Baseline,
}

/// Calls of one side that were answered with 200, and the time they took together.
#[derive(Debug, Clone, Copy, Default)]
struct Speed {
    calls: u32,
    time: Duration,
}

impl Speed {
    fn per_second(self) -> Option<f64> {
        (!self.time.is_zero()).then(|| f64::from(self.calls) / self.time.as_secs_f64())
    }
}

/// Runs the command.
///
/// # Errors
/// When the server cannot be reached, or the swarm itself fails.
pub async fn run(options: RatioOptions) -> anyhow::Result<ExitCode> {
    let (target, mut operator) = options.target.resolve().await?;
    let outcome = compare(options.kind, &options.comparison, &target, &operator).await;
    operator.clean_up().await;
    let result = outcome?;
    result.publish(options.json.as_deref())?;
    Ok(result.exit_code())
}

/// Compares two kinds of calls, with tokens that are there only for that.
///
/// # Errors
/// When the server cannot be reached, or the swarm itself fails.
pub async fn compare(
    kind: Kind,
    options: &Comparison,
    target: &Target,
    operator: &Operator,
) -> anyhow::Result<RunResult> {
    let devices = register_all(target, options.tokens).await?;
    let setting = Setting {
        kind,
        options,
        target,
        devices: &devices,
    };
    let outcome = take_turns(setting, operator).await;
    delete_tokens(target, &devices).await;
    outcome
}

async fn register_all(target: &Target, count: u32) -> anyhow::Result<Vec<Identity>> {
    let outcomes = register_some(target, None, count).await;
    outcomes.into_iter().collect()
}

/// Leaves no unacknowledged pushes behind.
async fn delete_tokens(target: &Target, devices: &[Identity]) {
    let mut caller = Caller::new(target.server, None);
    for device in devices {
        let head = format!(
            "DELETE /v1/projects/{}/tokens/{} HTTP/1.1\r\nhost: {}\r\n\
             authorization: Device {}.{}\r\n",
            target.project_id, device.token, target.host, device.device_id, device.device_secret
        );
        let mut request = Vec::new();
        write_request(&mut request, &head, b"");
        if let Err(error) = caller.call(&request).await {
            eprintln!("swarm: tokens are left behind: {error}");
            return;
        }
    }
}

async fn take_turns(setting: Setting<'_>, operator: &Operator) -> anyhow::Result<RunResult> {
    let options = setting.options;
    let turns = options.duration.as_millis() / options.slice.as_millis().max(1);
    ensure!(turns >= 4, "--for must be at least four times --slice");
    let mut callers: Vec<Looper<'_>> = (0..options.senders)
        .map(|first| Looper::new(setting, operator, first.into()))
        .collect();
    let (mut measured, mut baseline) = (Speed::default(), Speed::default());
    let (cpu_before, begun) = (cpu_ns(), Instant::now());
    let mut stage = Stage::begin("compare", options.duration.as_secs());
    for turn in 0..turns {
        let (side, speed) = if turn % 2 == 0 {
            (Side::Measured, &mut measured)
        } else {
            (Side::Baseline, &mut baseline)
        };
        let slice = take_turn(&mut callers, side, options.slice).await;
        // The first turn of each side warms up.
        if turn >= 2 {
            speed.calls += slice.calls;
            speed.time += slice.time;
        }
        stage.at(begun.elapsed().as_secs(), "s");
    }
    stage.end(begun.elapsed().as_secs(), "s");
    let share = busiest(&[cpu_before], &[cpu_ns()], begun.elapsed());
    let trouble = callers.into_iter().find_map(|caller| caller.trouble);
    Ok(judge(measured, baseline, share, trouble))
}

async fn take_turn(callers: &mut [Looper<'_>], side: Side, slice: Duration) -> Speed {
    let begun = Instant::now();
    let until = begun + slice;
    let counts = join_all(callers.iter_mut().map(|caller| caller.call(side, until))).await;
    Speed {
        calls: counts.into_iter().sum(),
        time: begun.elapsed(),
    }
}

fn judge(measured: Speed, baseline: Speed, share: f64, trouble: Option<String>) -> RunResult {
    let (measured, baseline) = (measured.per_second(), baseline.per_second());
    let mut result = RunResult {
        command: "ratio".to_owned(),
        measured_per_s: measured,
        baseline_per_s: baseline,
        ratio: measured
            .zip(baseline)
            .map(|(measured, baseline)| measured / baseline)
            .filter(|ratio| ratio.is_finite()),
        swarm_cpu_share: Some(share),
        first_trouble: trouble.clone(),
        ..RunResult::default()
    };
    result.void_if(trouble.is_some(), || {
        format!(
            "not every call was answered with 200: {}",
            trouble.unwrap_or_default()
        )
    });
    result.void_if(share > CPU_SHARE_MAX, || {
        format!("the swarm used {share:.2} of a processor")
    });
    result
}

/// What all callers know.
#[derive(Clone, Copy)]
struct Setting<'a> {
    kind: Kind,
    options: &'a Comparison,
    target: &'a Target,
    devices: &'a [Identity],
}

/// One caller: the next call begins when the last is answered.
struct Looper<'a> {
    setting: Setting<'a>,
    letter: Letter,
    public: Caller,
    admin: Caller,
    livez: Vec<u8>,
    request: Vec<u8>,
    /// Which device is next; callers start apart.
    next: usize,
    trouble: Option<String>,
}

impl<'a> Looper<'a> {
    fn new(setting: Setting<'a>, operator: &Operator, first: usize) -> Self {
        let target = setting.target;
        let (admin, host) = operator.address();
        let mut livez = Vec::new();
        write_request(
            &mut livez,
            &format!("GET /livez HTTP/1.1\r\nhost: {host}\r\n"),
            b"",
        );
        Self {
            setting,
            letter: Letter::new(target),
            public: Caller::new(target.server, None),
            admin,
            livez,
            request: Vec::new(),
            next: first,
            trouble: None,
        }
    }

    /// Calls until the turn is over; how many were answered with 200.
    async fn call(&mut self, side: Side, until: Instant) -> u32 {
        let mut answered = 0;
        while Instant::now() < until {
            let answer = if (self.setting.kind, side) == (Kind::Poll, Side::Baseline) {
                self.admin.call(&self.livez).await
            } else {
                self.write_request(side);
                self.public.call(&self.request).await
            };
            match answer {
                Ok(answer) if answer.status == 200 => answered += 1,
                Ok(answer) => {
                    let body = String::from_utf8_lossy(&answer.body);
                    self.give_up(format!("HTTP {}: {body}", answer.status));
                    return answered;
                }
                Err(error) => {
                    self.give_up(error.to_string());
                    return answered;
                }
            }
        }
        answered
    }

    fn write_request(&mut self, side: Side) {
        let Setting {
            kind,
            options,
            target,
            devices,
        } = self.setting;
        self.next = (self.next + usize::from(options.senders)) % devices.len().max(1);
        let Some(device) = devices.get(self.next) else {
            return;
        };
        if kind == Kind::Send {
            let validate_only = side == Side::Baseline;
            let data = data(0, monotonic_ns(), options.payload.into());
            self.letter
                .write(&mut self.request, &device.token, &data, validate_only);
            return;
        }
        let head = format!(
            "POST /v1/projects/messages:get HTTP/1.1\r\nhost: {}\r\n\
             authorization: Device {}.{}\r\ncontent-type: application/json\r\n",
            target.host, device.device_id, device.device_secret
        );
        let body = json!({"requests": [
            {"project_id": target.project_id, "token": device.token, "min_syn": 1}
        ]});
        self.request.clear();
        write_request(&mut self.request, &head, body.to_string().as_bytes());
    }

    fn give_up(&mut self, trouble: String) {
        self.trouble.get_or_insert(trouble);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_needs_clean_calls_and_an_idle_swarm() {
        let speed = |calls| Speed {
            calls,
            time: Duration::from_secs(2),
        };
        let result = judge(speed(600), speed(1_000), 0.5, None);
        assert_eq!(result.ratio, Some(0.6));
        assert_eq!((result.measured_per_s, result.void), (Some(300.0), None));
        assert!(judge(speed(1), speed(1), 0.99, None).void.is_some());
        let refused = judge(speed(1), speed(0), 0.1, Some("HTTP 429".into()));
        assert!(refused.ratio.is_none());
        assert!(refused.void.is_some_and(|void| void.contains("429")));
    }
}
