//! Nodes that cannot begin: they say why, wait where waiting may help, and end when they are told.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cql::Cql;
use crate::harness::{Door, message, texts_of};
use crate::stage::{PATIENCE, Stage, eventually};

/// A node that is told to end while it waits has nothing to drain.
const END_MAX: Duration = Duration::from_secs(10);

const ADMIN_TOKEN: &str = "herald_admin_000102030405060708090a0b0c0d0e0f";

/// An address of this process that no region uses.
fn address() -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 78, high, low.max(1))
}

fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(17_100);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Where a node is told that everything is.
struct Settings {
    redis: Vec<String>,
    cql: Vec<String>,
    keyspace: &'static str,
    prefix: &'static str,
}

impl Settings {
    fn of(stage: &Stage) -> Self {
        Self {
            redis: stage.region().redis.urls(),
            cql: stage.region().cql.contact_points(),
            keyspace: "herald",
            prefix: "herald",
        }
    }
}

/// A node that may never be ready. Killed when dropped.
struct Beginner {
    process: Child,
    directory: TempDir,
    door: Door,
}

impl Beginner {
    fn start(stage: &Stage, settings: &Settings) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listen = format!("{}:{}", address(), free_port());
        let admin = format!("{}:{}", address(), free_port());
        let Settings {
            redis,
            cql,
            keyspace,
            prefix,
        } = settings;
        let data = directory.path().join("data");
        let text = format!(
            "listen = {listen:?}\nadmin_listen = {admin:?}\ndata_dir = {data:?}\n\
             [store]\nkind = \"cluster\"\nredis = {redis:?}\nscylla = {cql:?}\n\
             keyspace = {keyspace:?}\ndatacenter = {:?}\nkey_prefix = {prefix:?}\n",
            stage.region().cql.datacenter(),
        );
        let file = directory.path().join("herald.toml");
        std::fs::write(&file, text).expect("written");
        let log = std::fs::File::create(directory.path().join("log")).expect("a log");
        let process = Command::new(env!("CARGO_BIN_EXE_herald"))
            .args(["serve", "--config"])
            .arg(&file)
            .env("HERALD_ADMIN_TOKEN", ADMIN_TOKEN)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Self {
            process: process.expect("started"),
            directory,
            door: Door::new(json!({
                "listen": listen,
                "admin_listen": admin,
                "admin_token": ADMIN_TOKEN,
            })),
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Waits until it says why it is not ready; all the while it is alive.
    async fn says(&mut self, word: &str) {
        let (process, log) = (&mut self.process, self.directory.path().join("log"));
        eventually(word, async || {
            let ended = process.try_wait().expect("a process");
            assert_eq!(
                ended,
                None,
                "{}",
                std::fs::read_to_string(&log).expect("a log")
            );
            let asked = self.door.http().get(self.door.admin_url("/readyz"));
            let answer = asked.send().await.ok()?;
            assert_eq!(answer.status(), 503);
            let text = answer.text().await.ok()?;
            text.contains(word).then_some(())
        })
        .await;
        let asked = self.door.http().get(self.door.admin_url("/livez"));
        assert_eq!(asked.send().await.expect("an answer").status(), 200);
    }

    async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.process.try_wait().expect("a process") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn ends_when_told(mut self) {
        let id = Pid::from_raw(i32::try_from(self.process.id()).expect("a pid"));
        kill(id, Signal::SIGTERM).expect("told");
        let status = self.ended(END_MAX).await;
        assert_eq!(
            status.code(),
            Some(0),
            "{:?}: {}",
            status.signal(),
            self.log()
        );
    }

    async fn ends_refused(mut self, word: &str) {
        let status = self.ended(PATIENCE).await;
        let log = self.log();
        assert_eq!(status.code(), Some(64), "{log}");
        assert!(log.contains(word), "{log}");
    }
}

impl Drop for Beginner {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_backend_that_is_not_there_is_named_and_waited_for() {
    let stage = Stage::enter().await;
    let nobody = format!("{}:{}", address(), free_port());
    // Takes connections and never says a word.
    let silent = TcpListener::bind((address(), 0)).expect("a listener");
    let silent = silent.local_addr().expect("an address").to_string();
    for place in [&nobody, &silent] {
        let redis = vec![format!("redis://{place}")];
        let mut without_redis = Beginner::start(
            &stage,
            &Settings {
                redis,
                ..Settings::of(&stage)
            },
        );
        let cql = vec![place.clone()];
        let mut without_cql = Beginner::start(
            &stage,
            &Settings {
                cql,
                ..Settings::of(&stage)
            },
        );
        without_redis.says("redis").await;
        without_cql.says("scylla").await;
        without_redis.ends_when_told().await;
        without_cql.ends_when_told().await;
    }
}

#[tokio::test]
async fn what_no_waiting_mends_ends_with_64_and_says_why() {
    let stage = Stage::enter().await;
    let port = free_port();
    let mut alone = Command::new("redis-server")
        .args([
            "--save",
            "",
            "--appendonly",
            "no",
            "--port",
            &port.to_string(),
        ])
        .args(["--bind", &address().to_string()])
        .args(["--requirepass", "secret"])
        .stdout(Stdio::null())
        .spawn()
        .expect("a Redis server");
    let with_redis = |url: String| Settings {
        redis: vec![url],
        ..Settings::of(&stage)
    };
    let url = format!("redis://:secret@{}:{port}", address());
    Beginner::start(&stage, &with_redis(url))
        .ends_refused("no cluster")
        .await;
    let url = format!("redis://:wrong@{}:{port}", address());
    Beginner::start(&stage, &with_redis(url))
        .ends_refused("credentials")
        .await;
    alone.kill().and_then(|()| alone.wait()).expect("ended");

    let cql = Cql::connect(&stage).await;
    let replication = "{'class': 'NetworkTopologyStrategy', 'datacenter1': 1}";
    for keyspace in ["foreign", "newer"] {
        let create =
            format!("CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {replication}");
        cql.run(&create).await;
    }
    cql.run("CREATE TABLE IF NOT EXISTS foreign.customers (id int PRIMARY KEY)")
        .await;
    cql.run("CREATE TABLE IF NOT EXISTS newer.region (name text PRIMARY KEY, value text)")
        .await;
    cql.run("INSERT INTO newer.region (name, value) VALUES ('format', '2')")
        .await;
    for (keyspace, word) in [("foreign", "customers"), ("newer", "format 2")] {
        let settings = Settings {
            keyspace,
            ..Settings::of(&stage)
        };
        Beginner::start(&stage, &settings).ends_refused(word).await;
    }
}

#[tokio::test]
async fn two_regions_on_the_same_servers_do_not_see_each_other() {
    let stage = Stage::enter().await;
    let (device, token) = stage.device().await;
    stage.sending().push(&token, "ours").await;
    let settings = Settings {
        keyspace: "neighbour",
        prefix: "neighbour",
        ..Settings::of(&stage)
    };
    let other = Beginner::start(&stage, &settings);
    eventually("the other region is ready", async || {
        other.door.is_ready().await.then_some(())
    })
    .await;
    // The same name is another project there; our credentials and tokens mean nothing.
    let theirs = other.door.project("demo").await;
    let body = message(&token, "theirs");
    assert_eq!(
        other
            .door
            .send_as(&stage.sending().service_token(), "demo", &body)
            .await
            .0,
        401
    );
    assert_eq!(
        other
            .door
            .send_as(&theirs.service_token, "demo", &body)
            .await
            .0,
        400
    );
    let their_device = other.door.device().await;
    let their_token = other.door.token_in(&theirs, &their_device).await;
    let sent = other
        .door
        .send_as(
            &theirs.service_token,
            "demo",
            &message(&their_token, "theirs"),
        )
        .await;
    assert_eq!(sent.0, 200, "{}", sent.1);
    let entry = other.door.poll_token(&their_device, &their_token, 1).await;
    assert_eq!(texts_of(&entry), ["theirs"]);
    let polled = other
        .door
        .poll(&device, json!([{"project_id": "demo", "token": token}]))
        .await;
    assert_eq!(polled.0, 401, "{}", polled.1);
    let entry: Value = stage.holding().poll_token(&device, &token, 1).await;
    assert_eq!(texts_of(&entry), ["ours"]);
    other.ends_when_told().await;
}
