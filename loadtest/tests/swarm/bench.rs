//! `swarm bench` with real servers: two of Herald's, and those of others that are installed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use herald_region::herald_of_profile;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

/// As little of everything as there can be.
const LITTLE: [&str; 18] = [
    "--rounds",
    "1",
    "--sockets",
    "50",
    "--few",
    "20",
    "--many",
    "60",
    "--growth-from",
    "10",
    "--settle",
    "100ms",
    "--for",
    "500ms",
    "--rate",
    "100",
    "--senders",
    "4",
];

/// Exit code, result, and what was said on standard error.
async fn bench(arguments: &[&str]) -> (Option<i32>, Value, String) {
    let scratch = tempfile::tempdir().expect("a directory");
    let json = scratch.path().join("result.json");
    let output = Command::new(env!("CARGO_BIN_EXE_swarm"))
        .args(["bench", "--herald"])
        .arg(herald().await)
        .args(LITTLE)
        .args(arguments)
        .args([Path::new("--scratch"), scratch.path()])
        .args([Path::new("--json"), &json])
        .output()
        .await
        .expect("runs");
    let result = std::fs::read(&json).unwrap_or_default();
    std::fs::remove_file(&json).unwrap_or_default();
    let left = std::fs::read_dir(scratch.path()).expect("reads").count();
    assert_eq!(left, 0, "servers leave nothing behind");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let result = serde_json::from_slice(&result).unwrap_or_default();
    (output.status.code(), result, said)
}

/// Of the same build as the swarm.
async fn herald() -> PathBuf {
    let swarm = Path::new(env!("CARGO_BIN_EXE_swarm"));
    let profile = swarm.parent().expect("a directory");
    herald_of_profile(profile).await.expect("a binary")
}

/// The rows of a figure, one for each contender.
fn rows<'a>(result: &'a Value, figure: &str) -> Vec<&'a Value> {
    let rows = result["rows"].as_array().expect("rows");
    rows.iter().filter(|row| row["figure"] == figure).collect()
}

/// On a machine that is busy with other things the swarm may be the bottleneck of a measure, and
/// then it has to say so, and of whom.
fn is_void(result: &Value, measure: &str, contender: &str) -> bool {
    let place = format!("{measure} of {contender}, ");
    let void = result["void"].as_array().expect("reasons");
    void.iter()
        .any(|reason| reason.as_str().is_some_and(|it| it.starts_with(&place)))
}

/// Each contender has the figure, and a positive one, or it is said why not.
fn assert_figure(result: &Value, measure: &str, figure: &str, contenders: &[&str]) {
    let rows = rows(result, &format!("{measure}.{figure}"));
    for contender in contenders {
        if is_void(result, measure, contender) {
            continue;
        }
        let row = rows.iter().find(|row| row["contender"] == *contender);
        let median = row.and_then(|row| row["median"].as_f64());
        assert!(
            median.is_some_and(|value| value > 0.0),
            "{measure}.{figure} of {contender}: {result}"
        );
    }
}

#[tokio::test]
async fn two_builds_do_all_the_work() {
    let herald = herald().await;
    let herald = herald.to_str().expect("a plain path");
    let (code, result, said) = bench(&["--herald", herald]).await;
    let void = result["void"].as_array().map_or(0, Vec::len);
    assert_eq!(code, Some(if void > 0 { 2 } else { 0 }), "{result} {said}");
    assert_eq!(result["broken"], Value::Array(Vec::new()));
    let second = format!("{herald} (2)");
    let both = [herald, &second];
    for (measure, figure) in [
        ("connect", "cpu_us"),
        ("connect", "per_s"),
        ("sends", "per_s"),
        ("sends", "cpu_ms_per_1000"),
        ("latency", "100_per_s.p50_ms"),
        ("latency", "100_per_s.p999_ms"),
        ("growth", "cpu_ratio"),
        ("validate", "ratio"),
        ("poll", "ratio"),
    ] {
        assert_figure(&result, measure, figure, &both);
    }
    // So few sockets may weigh nothing.
    let weighed = rows(&result, "memory.bytes_per_socket").len();
    let void = both.iter().filter(|it| is_void(&result, "memory", it));
    assert_eq!(weighed + void.count(), 2, "{result}");
}

#[tokio::test]
async fn peers_that_are_installed_do_the_work_that_is_theirs() {
    for peer in ["mosquitto", "nchan", "nats"] {
        let measures = "--measure=connect,sends,latency,validate";
        let (code, result, said) = bench(&["--peer", peer, measures]).await;
        if code == Some(2) && said.contains("is not installed") {
            skipped(peer);
            continue;
        }
        let void = result["void"].as_array().map_or(0, Vec::len);
        assert_eq!(code, Some(if void > 0 { 2 } else { 0 }), "{result} {said}");
        assert_eq!(result["broken"], Value::Array(Vec::new()));
        for (measure, figure) in [
            ("connect", "cpu_us"),
            ("sends", "per_s"),
            ("latency", "100_per_s.p50_ms"),
        ] {
            assert_figure(&result, measure, figure, &[peer]);
        }
        let checked = rows(&result, "validate.ratio");
        assert!(checked.iter().all(|row| row["contender"] != peer));
    }
}

/// Says so loudly.
fn skipped(peer: &str) {
    // Not by a macro, whose words a passed test keeps to itself.
    let line = format!("\n*** SKIPPED: a peer was not tried: {peer} is not installed\n\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

#[tokio::test]
async fn who_is_told_to_end_leaves_no_server_behind() {
    let scratch = tempfile::tempdir().expect("a directory");
    let mut swarm = Command::new(env!("CARGO_BIN_EXE_swarm"))
        .args(["bench", "--herald"])
        .arg(herald().await)
        .args(["--measure=memory", "--few=5", "--many=9", "--settle=10m"])
        .args([Path::new("--scratch"), scratch.path()])
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("runs");
    let mut said = BufReader::new(swarm.stderr.take().expect("a pipe")).lines();
    while let Some(line) = said.next_line().await.expect("reads") {
        if line.starts_with("settle") {
            break;
        }
    }
    let id = swarm.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
    kill_process(id.expect("runs"), Signal::TERM).expect("is told");
    let status = swarm.wait().await.expect("ends");
    assert_eq!(status.code(), Some(2));
    // The directory is that of a server, and goes with it.
    assert_eq!(std::fs::read_dir(scratch.path()).expect("reads").count(), 0);
}

#[tokio::test]
async fn a_server_that_does_not_start_ends_the_run() {
    let (code, _, said) = bench(&["--herald", "/bin/false", "--measure", "sends"]).await;
    assert_eq!(code, Some(2));
    assert!(said.contains("starting /bin/false"), "{said}");
}
