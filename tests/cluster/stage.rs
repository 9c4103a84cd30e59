//! The region that all tests share: one after another has it to itself, and finds it mended.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use herald_region::{Region, RegionOptions};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use crate::harness::{Credential, Door, FaultyDisk};

/// How long a test waits for something that must happen. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

const PACKAGE: &str = "com.example.app";
const FINGERPRINT: &str = "91:AC:7F:1B:91:AC:7F:1B:91:AC:7F:1B:91:AC:7F:1B:\
                           91:AC:7F:1B:91:AC:7F:1B:91:AC:7F:1B:91:AC:7F:1B";

/// A record is named by the 16 bytes of its token's id.
const RECORD_KEY_LENGTH: usize = "herald:{}".len() + 22;

/// Lives until the process ends, which takes all servers along.
static SHARED: Mutex<Option<Shared>> = Mutex::const_new(None);

struct Shared {
    region: Region,
    service_token: String,
}

/// The region, for one test at a time.
pub struct Stage {
    shared: MutexGuard<'static, Option<Shared>>,
    /// A door of each node.
    pub doors: Vec<Door>,
}

impl Stage {
    /// Waits for its turn, and until all is well.
    pub async fn enter() -> Self {
        let mut shared = SHARED.lock().await;
        if shared.is_none() {
            *shared = Some(begin().await);
        }
        let Some(Shared {
            region,
            service_token,
        }) = shared.as_ref()
        else {
            panic!("there is a region");
        };
        region
            .mend(PATIENCE * 2)
            .await
            .expect("a region that is well");
        let doors = (0..region.nodes.len()).map(|node| door(region, node, service_token));
        let doors = doors.collect();
        Self { shared, doors }
    }

    /// Its servers.
    pub fn region(&self) -> &Region {
        &self.shared.as_ref().expect("a region").region
    }

    /// The node that senders prefer.
    pub fn sending(&self) -> &Door {
        &self.doors[0]
    }

    /// The node that devices prefer.
    pub fn holding(&self) -> &Door {
        &self.doors[1]
    }

    /// A new device with a new token.
    pub async fn device(&self) -> (Credential, String) {
        let device = self.holding().device().await;
        let token = self.holding().token(&device).await;
        (device, token)
    }

    /// A new device whose token has a record, and the record's key.
    pub async fn device_with_record(&self) -> (Credential, String, String) {
        let before = self.record_keys().await;
        let (device, token) = self.device().await;
        self.holding().poll_token(&device, &token, 1).await;
        let after = self.record_keys().await;
        let key = after.into_iter().find(|key| !before.contains(key));
        (device, token, key.expect("a record"))
    }

    /// Keys of all tokens' records.
    pub async fn record_keys(&self) -> Vec<String> {
        let redis = &self.region().redis;
        let mut keys = Vec::new();
        for primary in redis.primaries().await.expect("primaries") {
            let found = redis.command(primary.node, &["KEYS", "herald:{*}"]).await;
            let found: Vec<String> =
                ::redis::from_redis_value(found.expect("keys")).expect("names");
            // The list of nodes is named likewise, but shorter.
            keys.extend(
                found
                    .into_iter()
                    .filter(|key| key.len() == RECORD_KEY_LENGTH),
            );
        }
        keys
    }

    /// Calls a function of the node's library on a record, as a node does.
    pub async fn call_function(&self, name: &str, key: &str, arguments: &[&str]) -> ::redis::Value {
        let redis = &self.region().redis;
        let primary = redis.primary_of(key).await.expect("a primary").node;
        let list = redis.command(primary, &["FUNCTION", "LIST"]).await;
        let list = format!("{:?}", list.expect("functions"));
        let version = list
            .split_once("'herald")
            .or_else(|| list.split_once("\"herald"))
            .expect("a library")
            .1;
        let version: String = version
            .chars()
            .take_while(|it| *it == '_' || it.is_ascii_alphanumeric())
            .collect();
        let function = format!("{name}{version}");
        let mut words = vec!["FCALL", &function, "1", key];
        words.extend(arguments);
        redis.command(primary, &words).await.expect("an answer")
    }

    /// Leaves a number of this record pending, as a writer that died between its number and its
    /// settle.
    pub async fn dead_writer(&self, key: &str, nonce: &str) {
        let now = std::time::UNIX_EPOCH.elapsed().expect("a clock");
        let clock = now.as_micros().to_string();
        let answer = self
            .call_function("alloc", key, &[nonce, "0", &clock, ""])
            .await;
        assert!(format!("{answer:?}").contains("ok"), "{answer:?}");
    }

    /// A field of a record as a node of the cluster has it, primary or replica.
    pub async fn record_field(&self, node: usize, key: &str, field: &str) -> u64 {
        let redis = &self.region().redis;
        let value = redis.command_on_replica(node, &["HGET", key, field]).await;
        let value: Option<u64> =
            ::redis::from_redis_value(value.expect("a value")).expect("a number");
        value.unwrap_or_default()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.region().nodes {
                eprintln!("--- {} ---\n{}", node.listen(), node.log_tail());
            }
        }
    }
}

async fn begin() -> Shared {
    let settings = [
        ("HERALD_LIMITS__MINTS_PER_MINUTE_PER_ADDRESS", "0"),
        ("HERALD_QUOTA__SENDS_PER_MINUTE_PER_PROJECT", "0"),
        ("HERALD_DRAIN__DELAY_MS", "200"),
        ("HERALD_DRAIN__WINDOW_MS", "1000"),
        ("HERALD_DRAIN__DEADLINE_MS", "5000"),
    ];
    let options = RegionOptions {
        binary: env!("CARGO_BIN_EXE_herald").into(),
        directory: std::env::var_os("CLUSTER_TEST_DIRECTORY").map(PathBuf::from),
        settings: settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        library: Some(FaultyDisk::library().to_owned()),
        ..RegionOptions::default()
    };
    let region = Region::start(&options).await.expect("a region");
    let project = door(&region, 0, "").project("demo").await;
    let service_token = project.service_token;
    // The other node hears of it a little later.
    let other = door(&region, 1, &service_token);
    eventually("the project is known everywhere", async || {
        let device = other.device().await;
        let answer = other.try_token(&device).await;
        (answer.0 == 200).then_some(())
    })
    .await;
    Shared {
        region,
        service_token,
    }
}

/// A door of a node of any region, with the project of all tests.
pub fn door(region: &Region, node: usize, service_token: &str) -> Door {
    let node = &region.nodes[node];
    Door::new(json!({
        "listen": node.listen(),
        "admin_listen": node.admin_listen(),
        "service_token": service_token,
        "admin_token": region.admin_token,
        "package_name": PACKAGE,
        "cert_sha256": [FINGERPRINT],
    }))
}

/// Asks until there is an answer.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The number of a welcome's only token.
pub fn stored_of(welcome: &Value) -> u64 {
    let stored = welcome["tokens"][0]["syn_stored"].as_u64();
    stored.unwrap_or_else(|| panic!("a number: {welcome}"))
}
