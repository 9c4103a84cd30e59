//! The result of a run: the same flat keys from every command, and what they mean for the exit
//! code.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::latency::{Latencies, LatencyCounts, Percentiles};

/// All was well.
const EXIT_WELL: u8 = 0;
/// A promise was broken, or an aim was missed.
const EXIT_BROKEN: u8 = 1;
/// The run says nothing about the server's promises.
const EXIT_VOID: u8 = 2;

/// A result. Times are in milliseconds, memory in bytes; what does not apply is null.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunResult {
    /// Which command this is the result of.
    pub command: String,
    /// Which part of how many this is the result of, such as `2/5`.
    pub part: Option<String>,
    /// Why the figures mean nothing, if they do not.
    pub void: Option<String>,
    /// Which aim of the command was missed, if one was.
    pub missed: Option<String>,
    /// Sockets the run was to have.
    pub sockets_asked: Option<u64>,
    /// Sockets that were up at the end.
    pub sockets_ok: Option<u64>,
    /// Connects, from the first SYN to the welcome, in a second.
    pub connects_per_s: Option<f64>,
    /// Connections that were lost on the way.
    pub disconnects: Option<u64>,
    /// Sends begun.
    pub sent: Option<u64>,
    /// Sends answered with 200.
    pub accepted: Option<u64>,
    /// Sends certainly not accepted.
    pub refused: Option<u64>,
    /// Sends without a certain outcome.
    pub unknown: Option<u64>,
    /// Sends that arrived, each counted once.
    pub delivered: Option<u64>,
    /// Arrivals that were acknowledged.
    pub acked: Option<u64>,
    /// Accepted, and never arrived.
    pub lost: Option<u64>,
    /// Arrived again beyond what at-least-once allows.
    pub duplicated: Option<u64>,
    /// Arrived under a syn not above its forerunners.
    pub out_of_order: Option<u64>,
    /// Refused, and arrived all the same.
    pub invented: Option<u64>,
    /// Arrived again as at-least-once wants it: what was shown and not acknowledged.
    pub redelivered: Option<u64>,
    /// Times that a device left of its own will (`mix`).
    pub departures: Option<u64>,
    /// Polls that were answered (`mix`).
    pub polls: Option<u64>,
    /// Accepted sends in a second.
    pub accepted_per_s: Option<f64>,
    /// From the intended time of a send to its answer.
    pub send_ms_p50: Option<f64>,
    pub send_ms_p90: Option<f64>,
    pub send_ms_p99: Option<f64>,
    pub send_ms_p999: Option<f64>,
    pub send_ms_max: Option<f64>,
    /// From the intended time of a send to its arrival.
    pub delivery_ms_p50: Option<f64>,
    pub delivery_ms_p90: Option<f64>,
    pub delivery_ms_p99: Option<f64>,
    pub delivery_ms_p999: Option<f64>,
    pub delivery_ms_max: Option<f64>,
    /// Resident memory of the server at the end.
    pub server_rss_bytes: Option<u64>,
    /// What each further socket added to it.
    pub server_rss_per_socket: Option<f64>,
    /// Sockets and resident memory at each measured point.
    pub server_rss_points: Option<Vec<(u64, u64)>>,
    /// Calls a second of the kind that is measured (`ratio`).
    pub measured_per_s: Option<f64>,
    /// Calls a second of the kind it is held against (`ratio`).
    pub baseline_per_s: Option<f64>,
    /// The first divided by the second (`ratio`).
    pub ratio: Option<f64>,
    /// Median from the intended time of a send to its arrival, for sessions that were awake (`wake`).
    pub awake_delivery_ms_p50: Option<f64>,
    /// The same for sessions that were parked (`wake`).
    pub parked_delivery_ms_p50: Option<f64>,
    /// What being parked added to it (`wake`).
    pub wake_ms_p50: Option<f64>,
    /// Tokens that were subscribed (`topic`).
    pub topic_tokens: Option<u64>,
    /// Copies of the send to them that were stored (`topic`).
    pub topic_copies: Option<u64>,
    /// From that send to the end of its last copy (`topic`).
    pub topic_seconds: Option<f64>,
    /// Copies stored in a second (`topic`).
    pub topic_copies_per_s: Option<f64>,
    /// Latency of sends to single tokens before it; `send_ms_…` is beside it (`topic`).
    pub alone_send_ms_p50: Option<f64>,
    pub alone_send_ms_p99: Option<f64>,
    /// Connections that were cut at once (`storm`).
    pub storm_cut: Option<u64>,
    /// Attempts to come back that failed (`storm`).
    pub storm_failed_returns: Option<u64>,
    /// From the cut to the welcome of each device, its own jitter included (`storm`).
    pub storm_back_ms_p50: Option<f64>,
    pub storm_back_ms_p99: Option<f64>,
    pub storm_back_ms_max: Option<f64>,
    /// From the cut until a device had seen all that its welcome spoke of (`storm`).
    pub storm_caught_up_ms_p50: Option<f64>,
    pub storm_caught_up_ms_p99: Option<f64>,
    pub storm_caught_up_ms_max: Option<f64>,
    /// Sessions that were parked before the first send (`simulate`).
    pub sessions_parked: Option<u64>,
    /// Sessions that were awake then (`simulate`).
    pub sessions_awake: Option<u64>,
    /// How late the swarm was with its own sends, 99 of 100.
    pub swarm_lag_ms_p99: Option<f64>,
    /// How late the processes that hold devices were when they wanted to run, 99 of 100.
    pub crew_lag_ms_p99: Option<f64>,
    /// Share of one processor that the busiest process of the swarm used.
    pub swarm_cpu_share: Option<f64>,
    /// Resident memory of all processes of the swarm at the end.
    pub swarm_rss_bytes: Option<u64>,
    /// What each device that connected added to it.
    pub swarm_rss_per_socket: Option<f64>,
    /// What the first send that was not accepted was told, or why a socket was lost.
    pub first_trouble: Option<String>,
    /// Every latency that was counted, so that parts can be merged; only in the result of a part.
    pub histograms: Option<Histograms>,
}

/// All latencies of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Histograms {
    /// Of sends.
    pub send: LatencyCounts,
    /// Of deliveries.
    pub delivery: LatencyCounts,
    /// From the cut to the welcome.
    pub storm_back: LatencyCounts,
    /// From the cut to having caught up.
    pub storm_caught_up: LatencyCounts,
}

impl Histograms {
    /// All of them, to be merged.
    pub fn each(&self) -> [&LatencyCounts; 4] {
        [
            &self.send,
            &self.delivery,
            &self.storm_back,
            &self.storm_caught_up,
        ]
    }
}

impl RunResult {
    /// Fills in all latencies: of sends, of deliveries, of coming back and of catching up.
    pub fn set_latencies(&mut self, each: [&Latencies; 4]) {
        let [send, delivery, back, caught_up] = each.map(Latencies::percentiles);
        self.set_send_latency(send);
        self.set_delivery_latency(delivery);
        self.storm_back_ms_p50 = back.map(|ms| ms.p50);
        self.storm_back_ms_p99 = back.map(|ms| ms.p99);
        self.storm_back_ms_max = back.map(|ms| ms.max);
        self.storm_caught_up_ms_p50 = caught_up.map(|ms| ms.p50);
        self.storm_caught_up_ms_p99 = caught_up.map(|ms| ms.p99);
        self.storm_caught_up_ms_max = caught_up.map(|ms| ms.max);
    }

    /// Fills in the latencies of sends.
    pub fn set_send_latency(&mut self, percentiles: Option<Percentiles>) {
        self.send_ms_p50 = percentiles.map(|ms| ms.p50);
        self.send_ms_p90 = percentiles.map(|ms| ms.p90);
        self.send_ms_p99 = percentiles.map(|ms| ms.p99);
        self.send_ms_p999 = percentiles.map(|ms| ms.p999);
        self.send_ms_max = percentiles.map(|ms| ms.max);
    }

    /// Fills in the latencies of deliveries.
    fn set_delivery_latency(&mut self, percentiles: Option<Percentiles>) {
        self.delivery_ms_p50 = percentiles.map(|ms| ms.p50);
        self.delivery_ms_p90 = percentiles.map(|ms| ms.p90);
        self.delivery_ms_p99 = percentiles.map(|ms| ms.p99);
        self.delivery_ms_p999 = percentiles.map(|ms| ms.p999);
        self.delivery_ms_max = percentiles.map(|ms| ms.max);
    }

    /// Says why the figures mean nothing; the first reason stays.
    pub fn void_if(&mut self, is_void: bool, reason: impl FnOnce() -> String) {
        if is_void && self.void.is_none() {
            self.void = Some(reason());
        }
    }

    /// Says which aim was missed; the first one stays.
    pub fn miss_if(&mut self, is_missed: bool, aim: impl FnOnce() -> String) {
        if is_missed && self.missed.is_none() {
            self.missed = Some(aim());
        }
    }

    /// Whether a promise was broken.
    pub fn is_broken(&self) -> bool {
        [self.lost, self.duplicated, self.out_of_order, self.invented]
            .into_iter()
            .flatten()
            .any(|faults| faults > 0)
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit_number())
    }

    fn exit_number(&self) -> u8 {
        exit_number(
            self.void.is_some(),
            self.is_broken() || self.missed.is_some(),
        )
    }

    /// Prints what applies, one figure a line, and writes everything to `json` if there is one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn publish(&self, json: Option<&Path>) -> anyhow::Result<()> {
        if let serde_json::Value::Object(figures) = serde_json::to_value(self)? {
            let shown =
                |name: &str, value: &serde_json::Value| !value.is_null() && name != "histograms";
            for (name, value) in figures.iter().filter(|(name, value)| shown(name, value)) {
                println!("{name:24} {value}");
            }
        }
        write_json(self, json)
    }
}

/// Writes a result to a file, if one is wanted.
///
/// # Errors
/// When it cannot be written.
pub fn write_json(result: &impl Serialize, json: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = json else { return Ok(()) };
    let mut text = serde_json::to_string_pretty(result)?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// What a result means to whoever started the swarm.
pub fn exit_code(is_void: bool, is_broken: bool) -> ExitCode {
    ExitCode::from(exit_number(is_void, is_broken))
}

fn exit_number(is_void: bool, is_broken: bool) -> u8 {
    match (is_void, is_broken) {
        (true, _) => EXIT_VOID,
        (false, true) => EXIT_BROKEN,
        (false, false) => EXIT_WELL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_tells_void_from_broken_from_well() {
        let mut result = RunResult {
            lost: Some(0),
            ..RunResult::default()
        };
        assert_eq!(result.exit_number(), EXIT_WELL);
        result.duplicated = Some(1);
        assert_eq!(result.exit_number(), EXIT_BROKEN);
        result.duplicated = None;
        result.miss_if(true, || "not all were back in time".into());
        assert_eq!(result.exit_number(), EXIT_BROKEN);
        result.void_if(false, || "not so".into());
        assert_eq!(result.exit_number(), EXIT_BROKEN);
        result.void_if(true, || "the server died".into());
        result.void_if(true, || "and more".into());
        assert_eq!(result.exit_number(), EXIT_VOID);
        assert_eq!(result.void.as_deref(), Some("the server died"));
    }

    #[test]
    fn every_key_of_the_contract_is_there() {
        let value = serde_json::to_value(RunResult::default()).expect("serializes");
        let mut keys: Vec<String> = [
            "sockets_asked",
            "sockets_ok",
            "connects_per_s",
            "sent",
            "accepted",
            "refused",
            "delivered",
            "acked",
            "lost",
            "duplicated",
            "out_of_order",
            "server_rss_bytes",
            "server_rss_per_socket",
            "void",
        ]
        .map(str::to_owned)
        .into();
        for kind in ["send", "delivery"] {
            keys.extend(["p50", "p90", "p99", "p999", "max"].map(|at| format!("{kind}_ms_{at}")));
        }
        for key in keys {
            assert!(value.get(&key).is_some(), "{key} is missing");
        }
    }
}
