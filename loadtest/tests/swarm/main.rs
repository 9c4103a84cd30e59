//! The swarm's binary, child processes and all, against a server that breaks its promises.

mod bench;
mod fake;

use std::path::Path;
use std::process::ExitStatus;

use fake::{Fake, Fault};
use serde_json::{Value, json};
use tokio::process::Command;

/// Runs the swarm with `arguments` against a server with `fault`: exit status and result.
async fn swarm(fault: Fault, arguments: &[&str]) -> (ExitStatus, Value, Fake) {
    let (fake, address) = Fake::start(fault).await;
    let (status, result) = swarm_at(&address.to_string(), arguments).await;
    (status, result, fake)
}

async fn swarm_at(address: &str, arguments: &[&str]) -> (ExitStatus, Value) {
    let name = format!(
        "swarm-test-{}-{}",
        std::process::id(),
        address.replace(':', "-")
    );
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&directory).expect("a scratch directory");
    let (dev, json) = (directory.join("dev.json"), directory.join("result.json"));
    std::fs::write(&dev, dev_file(address)).expect("writes");
    let status = Command::new(env!("CARGO_BIN_EXE_swarm"))
        .args(arguments)
        .args([Path::new("--dev-json"), &dev, Path::new("--json"), &json])
        .status()
        .await
        .expect("runs");
    let result = std::fs::read(&json).unwrap_or_default();
    std::fs::remove_dir_all(&directory).expect("cleans up");
    (status, serde_json::from_slice(&result).unwrap_or_default())
}

fn dev_file(address: &str) -> String {
    json!({
        "project_id": "demo", "package_name": "com.example.app", "cert_sha256": ["91:AC"],
        "service_token": "s", "admin_token": "a", "listen": address, "admin_listen": address,
    })
    .to_string()
}

/// The exit code to expect when all else is as expected: on a machine that is busy with other
/// things the swarm may be the bottleneck, and then it has to say so.
fn code_or_void(code: i32, result: &Value) -> Option<i32> {
    let void = result["void"].as_str().unwrap_or_default();
    // What a part of a run says stands behind the name of the part.
    let mut reasons = void.split(": ");
    let is_bottleneck = reasons.any(|reason| {
        reason.starts_with("the swarm") || reason.starts_with("a process of the swarm")
    });
    Some(if is_bottleneck { 2 } else { code })
}

const PUSH: [&str; 11] = [
    "push",
    "--sockets",
    "4",
    "--rate",
    "400",
    "--for",
    "500ms",
    "--drain",
    "300ms",
    "--processes",
    "2",
];

#[tokio::test]
async fn every_push_is_accounted_for() {
    let (status, result, fake) = swarm(Fault::None, &PUSH).await;
    assert_eq!(status.code(), code_or_void(0, &result), "{result}");
    for key in ["sent", "accepted", "delivered", "acked"] {
        assert_eq!(result[key], 200, "{key} in {result}");
    }
    for key in [
        "lost",
        "duplicated",
        "out_of_order",
        "invented",
        "refused",
        "disconnects",
    ] {
        assert_eq!(result[key], 0, "{key} in {result}");
    }
    assert_eq!(
        (&result["sockets_asked"], &result["sockets_ok"]),
        (&json!(4), &json!(4))
    );
    assert!(
        result["delivery_ms_p50"]
            .as_f64()
            .is_some_and(|ms| ms > 0.0)
    );
    assert!(fake.acked() > 0);
}

#[tokio::test]
async fn broken_promises_are_found() {
    for (fault, key) in [
        (Fault::Lose, "lost"),
        (Fault::Repeat, "duplicated"),
        (Fault::Invert, "out_of_order"),
        (Fault::Invent, "invented"),
    ] {
        let (status, result, _) = swarm(fault, &PUSH).await;
        assert_eq!(
            status.code(),
            code_or_void(1, &result),
            "{fault:?}: {result}"
        );
        assert_eq!(result[key], 1, "{fault:?}: {result}");
    }
}

#[tokio::test]
async fn a_server_that_restarted_or_is_not_there_makes_the_run_void() {
    let (status, result, _) = swarm(Fault::Restart, &PUSH).await;
    assert_eq!(status.code(), Some(2));
    assert_eq!(result["void"], "the server died");
    let unused = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = unused.local_addr().expect("has an address").to_string();
    drop(unused);
    let (status, _) = swarm_at(&address, &PUSH).await;
    assert_eq!(status.code(), Some(2));
}

#[tokio::test]
async fn a_dropped_socket_comes_back_and_nothing_is_held_against_it() {
    let mut patient = PUSH;
    // Long enough for the socket to come back, which takes up to a second.
    patient[6] = "2s";
    let (status, result, _) = swarm(Fault::Drop, &patient).await;
    assert_eq!(result["disconnects"], 1, "{result}");
    assert_eq!(result["duplicated"], 0, "{result}");
    assert_eq!(result["sockets_ok"], 4, "{result}");
    assert_eq!(result["lost"], 0, "{result}");
    assert_eq!(status.code(), code_or_void(0, &result), "{result}");
}

#[tokio::test]
async fn holding_weighs_the_server_at_each_step() {
    let hold = [
        "hold",
        "--at",
        "3,9",
        "--settle",
        "100ms",
        "--for",
        "200ms",
        "--processes",
        "2",
    ];
    let (status, result, _) = swarm(Fault::None, &hold).await;
    assert_eq!(status.code(), code_or_void(0, &result), "{result}");
    assert_eq!(result["sockets_ok"], 9);
    assert_eq!(result["acked"], 9);
    assert_eq!(result["server_rss_bytes"], 5_000_000);
    assert_eq!(result["server_rss_per_socket"], 0.0);
    let points = json!([[0, 5_000_000], [3, 5_000_000], [9, 5_000_000]]);
    assert_eq!(result["server_rss_points"], points);
}

#[tokio::test]
async fn two_kinds_of_calls_are_compared() {
    for kind in ["send", "poll"] {
        let ratio = [
            "ratio",
            kind,
            "--for",
            "600ms",
            "--slice",
            "100ms",
            "--tokens",
            "10",
            "--senders",
            "2",
        ];
        let (status, result, _) = swarm(Fault::None, &ratio).await;
        // A bare server is fast enough to make the swarm the bottleneck.
        assert_eq!(status.code(), code_or_void(0, &result), "{result}");
        for key in ["measured_per_s", "baseline_per_s", "ratio"] {
            assert!(
                result[key].as_f64().is_some_and(|figure| figure > 0.0),
                "{result}"
            );
        }
    }
}

#[tokio::test]
async fn awake_and_parked_sessions_are_told_apart() {
    let wake = ["wake", "--rest", "0ms", "--for", "1s"];
    let (status, result, _) = swarm(Fault::None, &wake).await;
    assert_eq!(status.code(), code_or_void(0, &result), "{result}");
    assert_eq!(result["delivered"], 100);
    for key in ["awake_delivery_ms_p50", "parked_delivery_ms_p50"] {
        assert!(
            result[key].as_f64().is_some_and(|latency| latency > 0.0),
            "{result}"
        );
    }
    let (status, result, _) = swarm(Fault::Lose, &wake).await;
    assert_eq!(status.code(), code_or_void(1, &result), "{result}");
}

const STORM: [&str; 17] = [
    "storm",
    "--for",
    "1s",
    "--sockets",
    "6",
    "--rate",
    "200",
    "--calm",
    "500ms",
    "--jitter",
    "400ms",
    "--within",
    "10s",
    "--drain",
    "300ms",
    "--processes",
    "2",
];

#[tokio::test]
async fn everybody_comes_back_from_a_storm_and_has_everything() {
    let (status, result, _) = swarm(Fault::None, &STORM).await;
    assert_eq!(status.code(), code_or_void(0, &result), "{result}");
    for (key, expected) in [
        ("storm_cut", 6),
        ("sockets_ok", 6),
        ("storm_failed_returns", 0),
        ("disconnects", 0),
        ("refused", 0),
        ("lost", 0),
        ("duplicated", 0),
        ("out_of_order", 0),
    ] {
        assert_eq!(result[key], expected, "{key} in {result}");
    }
    let ms = |key: &str| result[key].as_f64().expect("a latency");
    assert!(ms("storm_back_ms_p50") > 0.0);
    assert!(ms("storm_back_ms_max") <= ms("storm_caught_up_ms_max"));
    assert!(ms("storm_caught_up_ms_max") < 10_000.0);
    assert_eq!(result["missed"], Value::Null);
}

#[tokio::test]
async fn a_storm_that_costs_pushes_or_sends_is_found() {
    let (status, result, _) = swarm(Fault::Forget, &STORM).await;
    assert_eq!(status.code(), code_or_void(1, &result), "{result}");
    assert!(result["lost"].as_u64() > Some(0), "{result}");
    let (status, result, _) = swarm(Fault::Refuse, &STORM).await;
    assert_eq!(status.code(), code_or_void(1, &result), "{result}");
    assert_eq!(
        (&result["lost"], &result["refused"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(result["missed"], "1 sends failed");
}

/// A scenario with everything in it that is over soon.
const SHORT_MIX: &str = r#"
devices = 12
connect_rate = 500.0
for = "1500ms"
rate = 200.0

[[habits]]
habit = "restless"
share = 0.25
stays = "200ms"
away = "100ms"

[[habits]]
habit = "slow"
share = 0.17
bytes = 64
pause = "20ms"

[[habits]]
habit = "silent"
share = 0.17
stays = "300ms"

[[habits]]
habit = "polling"
share = 0.17
every = "100ms"

[[bursts]]
after = "500ms"
every = "500ms"
sends = 40
devices = 3
"#;

async fn mix(fault: Fault) -> (ExitStatus, Value, Fake) {
    let name = format!("swarm-test-{}-{fault:?}.toml", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, SHORT_MIX).expect("writes");
    let scenario = path.to_str().expect("a plain path");
    let arguments = ["mix", "--scenario", scenario, "--drain", "3s"];
    let outcome = swarm(fault, &arguments).await;
    std::fs::remove_file(&path).expect("cleans up");
    outcome
}

#[tokio::test]
async fn in_a_mix_of_devices_nothing_is_missing_at_the_end() {
    let (status, result, fake) = mix(Fault::None).await;
    assert_eq!(status.code(), code_or_void(0, &result), "{result}");
    assert_eq!(
        (&result["sent"], &result["accepted"]),
        (&json!(380), &json!(380))
    );
    assert_eq!(result["delivered"], 380, "{result}");
    // Two of the twelve poll.
    assert_eq!(result["sockets_ok"], 10, "{result}");
    for key in ["departures", "redelivered"] {
        assert!(result[key].as_u64() > Some(0), "{key} in {result}");
    }
    assert!(
        result["polls"].as_u64() > Some(0) && fake.polls() > 0,
        "{result}"
    );
    for key in ["lost", "duplicated", "out_of_order", "disconnects"] {
        assert_eq!(result[key], 0, "{key} in {result}");
    }
}

#[tokio::test]
async fn a_loss_in_a_mix_is_found() {
    let (status, result, _) = mix(Fault::Lose).await;
    assert_eq!(result["lost"], 1, "{result}");
    assert_eq!(status.code(), code_or_void(1, &result), "{result}");
}

#[tokio::test]
async fn a_part_that_is_too_late_for_the_others_is_void() {
    let late = [&PUSH[..], &["--part", "1/2", "--start-at", "1000000000"]].concat();
    let (status, _, _) = swarm(Fault::None, &late).await;
    assert_eq!(status.code(), Some(2));
}

#[tokio::test]
async fn parts_of_a_run_are_merged_into_one_result() {
    let (_, address) = Fake::start(Fault::None).await;
    let directory = std::env::temp_dir().join(format!("swarm-test-{}-merge", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a scratch directory");
    let mut files = Vec::new();
    for part in ["1/2", "2/2"] {
        let arguments = [&PUSH[..], &["--part", part]].concat();
        let (status, result) = swarm_at(&address.to_string(), &arguments).await;
        assert_eq!(status.code(), code_or_void(0, &result), "{result}");
        assert_eq!(
            (&result["sockets_ok"], &result["sent"]),
            (&json!(2), &json!(100))
        );
        let file = directory.join(part.replace('/', "-"));
        std::fs::write(&file, result.to_string()).expect("writes");
        files.push(file);
    }
    let merged = directory.join("merged.json");
    let merge = |files: &[std::path::PathBuf]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_swarm"));
        command.arg("merge").args(files).arg("--json").arg(&merged);
        command
    };
    let status = merge(&files[..1]).status().await.expect("runs");
    assert_eq!(status.code(), Some(2), "a part is missing");
    let status = merge(&files).status().await.expect("runs");
    let text = std::fs::read(&merged).expect("was written");
    let result: Value = serde_json::from_slice(&text).expect("is JSON");
    assert_eq!(status.code(), code_or_void(0, &result), "{result}");
    for key in ["sent", "accepted", "delivered", "acked"] {
        assert_eq!(result[key], 200, "{key} in {result}");
    }
    assert_eq!(
        (&result["lost"], &result["part"]),
        (&json!(0), &Value::Null)
    );
    assert!(result["delivery_ms_p50"].as_f64() > Some(0.0));
    std::fs::remove_dir_all(&directory).expect("cleans up");
}

#[tokio::test]
async fn a_simulation_delivers_into_parked_and_awake_sessions() {
    let simulate = [
        "simulate",
        "--sessions",
        "400",
        "--awake",
        "0.25",
        "--park-after",
        "50ms",
        "--pushes",
        "800",
        "--rate",
        "8000",
        "--workers",
        "2",
    ];
    let json = std::env::temp_dir().join(format!("swarm-test-{}-simulate", std::process::id()));
    let status = Command::new(env!("CARGO_BIN_EXE_swarm"))
        .args(simulate)
        .args([Path::new("--json"), &json])
        .status()
        .await
        .expect("runs");
    let text = std::fs::read(&json).expect("was written");
    std::fs::remove_file(&json).expect("cleans up");
    let result: Value = serde_json::from_slice(&text).expect("is JSON");
    assert_eq!(status.code(), code_or_void(0, &result), "{result}");
    for (key, expected) in [
        ("sockets_ok", 400),
        ("accepted", 800),
        ("delivered", 800),
        ("acked", 800),
        ("lost", 0),
        ("duplicated", 0),
        ("out_of_order", 0),
    ] {
        assert_eq!(result[key], expected, "{key} in {result}");
    }
    for key in ["sessions_parked", "sessions_awake", "server_rss_bytes"] {
        assert!(result[key].as_u64() > Some(0), "{key} in {result}");
    }
}
