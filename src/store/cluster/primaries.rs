//! The primaries of the Redis Cluster, each with a connection of its own that is not shared with
//! the calls of pushes: for loading functions, looking at settings, and noticing failovers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bb8_redis::RedisConnectionManager;
use bb8_redis::bb8::Pool;
use futures_util::future::{join_all, select_ok};
use redis::{ConnectionInfo, IntoConnectionInfo, RedisError};

use super::clocks::{clock_us, is_of_one_time};
use super::records::Library;

/// An administrative call takes no longer.
const CALL_MAX: Duration = Duration::from_millis(1_500);

/// A server that is only looked at answers within this time, or is taken for away.
const LOOK_MAX: Duration = Duration::from_millis(600);

type AdminPool = Pool<RedisConnectionManager>;

/// A setting that safety rests on, and what is wrong with it.
pub(super) type Concern = String;

/// Connections to the primaries, by address.
pub(super) struct Primaries {
    seeds: Vec<ConnectionInfo>,
    pools: Mutex<BTreeMap<String, AdminPool>>,
    /// Who was the last to tell of the cluster's shape: the first to be asked the next time.
    teller: Mutex<Option<String>>,
}

/// One line of `CLUSTER NODES`.
#[derive(Debug, PartialEq, Eq)]
struct Member {
    address: String,
    id: String,
    follows: Option<String>,
    is_failing: bool,
}

/// What a primary said of itself.
pub(super) struct Look {
    /// A new one after every failover and restart.
    pub(super) replication_id: Option<String>,
    /// Whether its clock and this node's show the same, as far as they must.
    pub(super) is_of_one_time: bool,
}

impl Primaries {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// A URL that is none.
    pub(super) fn new(urls: &[String]) -> Result<Self, RedisError> {
        let seeds = urls.iter().map(|url| url.as_str().into_connection_info());
        Ok(Self {
            seeds: seeds.collect::<Result<_, _>>()?,
            pools: Mutex::default(),
            teller: Mutex::default(),
        })
    }

    /// Loads a library on every primary that answers and does not have it.
    ///
    /// # Errors
    /// None of them took it.
    pub(super) async fn load(&self, library: &Library) -> Result<(), RedisError> {
        let mut load = redis::cmd("FUNCTION");
        load.arg("LOAD").arg(library.source());
        let primaries = self.addresses().await?;
        let loads =
            primaries.iter().map(
                async |primary| match self.ask(primary, &load, CALL_MAX).await {
                    Err(error) if !error.to_string().contains("already exists") => Err(error),
                    _ => Ok(()),
                },
            );
        any_of(join_all(loads).await).map(drop)
    }

    /// Looks at all primaries that answer. All are asked at once, so that one that is away hides none of
    /// the others.
    ///
    /// # Errors
    /// None of them answers.
    pub(super) async fn look(&self) -> Result<Vec<Look>, RedisError> {
        let mut info = redis::cmd("INFO");
        info.arg("replication").arg("server");
        let primaries = self.addresses().await?;
        let asked = primaries.iter().map(async |primary| {
            let before = clock_us();
            let text = text_of(self.ask(primary, &info, LOOK_MAX).await?);
            let time = field(&text, "server_time_usec:").and_then(|it| it.trim().parse().ok());
            Ok(Look {
                replication_id: field(&text, "master_replid:").map(str::to_owned),
                is_of_one_time: time.is_none_or(|time| is_of_one_time(before, time, clock_us())),
            })
        });
        any_of(join_all(asked).await)
    }

    /// What in the servers' settings endangers the promises.
    ///
    /// # Errors
    /// No node is reached.
    pub(super) async fn concerns(&self) -> Result<Vec<Concern>, RedisError> {
        let mut concerns = Vec::new();
        let members = self.members().await?;
        for primary in members.iter().filter(|member| member.follows.is_none()) {
            let replicas = members
                .iter()
                .filter(|member| member.follows.as_ref() == Some(&primary.id))
                .count();
            let mut get = redis::cmd("CONFIG");
            get.arg("GET").arg(WATCHED);
            let settings = pairs(self.ask(&primary.address, &get, CALL_MAX).await?);
            let found = judge(replicas, &settings);
            concerns.extend(
                found
                    .into_iter()
                    .map(|it| format!("{}: {it}", primary.address)),
            );
        }
        Ok(concerns)
    }

    /// Takes a lock that ends by itself; false when another node has it.
    ///
    /// # Errors
    /// Its server does not answer.
    pub(super) async fn lock(&self, key: &str, life: Duration) -> Result<bool, RedisError> {
        let mut set = redis::cmd("SET");
        let life_ms = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
        set.arg(key).arg("1").arg("NX").arg("PX").arg(life_ms);
        Ok(self.ask_owner(&set).await? == redis::Value::Okay)
    }

    /// Gives a lock back.
    ///
    /// # Errors
    /// Its server does not answer.
    pub(super) async fn unlock(&self, key: &str) -> Result<(), RedisError> {
        self.ask_owner(redis::cmd("DEL").arg(key)).await.map(drop)
    }

    /// Asks the primaries in turn until one does not say that another has the slot.
    async fn ask_owner(&self, command: &redis::Cmd) -> Result<redis::Value, RedisError> {
        let mut last = RedisError::from((redis::ErrorKind::Client, "no primary owns this key"));
        for primary in self.addresses().await? {
            match self.ask(&primary, command, CALL_MAX).await {
                Err(error) if error.code() == Some("MOVED") => last = error,
                answer => return answer,
            }
        }
        Err(last)
    }

    async fn addresses(&self) -> Result<Vec<String>, RedisError> {
        let members = self.members().await?;
        let primaries = members
            .into_iter()
            .filter(|member| member.follows.is_none() && !member.is_failing);
        Ok(primaries.map(|member| member.address).collect())
    }

    /// Asks for the shape of the cluster: whoever told it the last time, and if he is silent now
    /// all others at once, so that no dead server is waited for.
    async fn members(&self) -> Result<Vec<Member>, RedisError> {
        let teller = self.teller().clone();
        if let Some(address) = &teller
            && let Ok(members) = self.members_seen_by(address).await
        {
            return Ok(members);
        }
        let known: BTreeSet<String> = self.pools().keys().cloned().collect();
        let seeds = self.seeds.iter().map(|seed| seed.addr().to_string());
        let others: BTreeSet<String> = seeds.chain(known).collect();
        let others = others.into_iter().filter(|it| Some(it) != teller.as_ref());
        let asked = others.map(|address| {
            Box::pin(async move {
                let members = self.members_seen_by(&address).await?;
                Ok::<_, RedisError>((address, members))
            })
        });
        let asked: Vec<_> = asked.collect();
        if asked.is_empty() {
            return Err(timed_out());
        }
        let ((address, members), _) = select_ok(asked).await?;
        *self.teller() = Some(address);
        Ok(members)
    }

    async fn members_seen_by(&self, address: &str) -> Result<Vec<Member>, RedisError> {
        let mut nodes = redis::cmd("CLUSTER");
        nodes.arg("NODES");
        let answer = self.ask(address, &nodes, LOOK_MAX).await?;
        Ok(members_of(&text_of(answer)))
    }

    async fn ask(
        &self,
        address: &str,
        command: &redis::Cmd,
        limit: Duration,
    ) -> Result<redis::Value, RedisError> {
        let asked = async {
            let pool = self.pool(address).await?;
            let mut connection = pool.get().await.map_err(|error| match error {
                bb8_redis::bb8::RunError::User(error) => error,
                bb8_redis::bb8::RunError::TimedOut => timed_out(),
            })?;
            command.query_async(&mut *connection).await
        };
        tokio::time::timeout(limit, asked)
            .await
            .unwrap_or_else(|_| Err(timed_out()))
    }

    async fn pool(&self, address: &str) -> Result<AdminPool, RedisError> {
        if let Some(pool) = self.pools().get(address) {
            return Ok(pool.clone());
        }
        let manager = RedisConnectionManager::new(self.info_for(address)?)?;
        let pool = Pool::builder()
            .max_size(1)
            .connection_timeout(CALL_MAX)
            // Whoever refuses is not asked again until the time is up.
            .retry_connection(false)
            .build_unchecked(manager);
        self.pools().insert(address.to_owned(), pool.clone());
        Ok(pool)
    }

    /// The address with the first seed's credentials.
    fn info_for(&self, address: &str) -> Result<ConnectionInfo, RedisError> {
        let info = format!("redis://{address}").into_connection_info()?;
        Ok(match self.seeds.first() {
            Some(seed) => info.set_redis_settings(seed.redis_settings().clone()),
            None => info,
        })
    }

    fn teller(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.teller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pools(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, AdminPool>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answers that came.
///
/// # Errors
/// None came; one of the reasons.
fn any_of<T>(answers: Vec<Result<T, RedisError>>) -> Result<Vec<T>, RedisError> {
    let (mut came, mut last) = (Vec::new(), None);
    for answer in answers {
        match answer {
            Ok(answer) => came.push(answer),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) if came.is_empty() => Err(error),
        _ => Ok(came),
    }
}

fn timed_out() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

/// The settings that safety rests on.
const WATCHED: &[&str] = &[
    "min-replicas-to-write",
    "min-replicas-max-lag",
    "cluster-node-timeout",
    "appendonly",
    "maxmemory-policy",
];

fn judge(replicas: usize, settings: &BTreeMap<String, String>) -> Vec<Concern> {
    let number = |name: &str| settings.get(name).and_then(|it| it.parse::<u64>().ok());
    let text = |name: &str| settings.get(name).map_or("", String::as_str);
    let mut concerns = Vec::new();
    if replicas < 2 {
        concerns.push(format!(
            "it has {replicas} replicas: with fewer than 2 a shard takes no writes after a failover, or loses some"
        ));
    }
    let needed = number("min-replicas-to-write").unwrap_or_default();
    if 2 * needed <= (replicas as u64).saturating_sub(1) {
        concerns.push(format!(
            "min-replicas-to-write is {needed}: two halves of a split may both take writes"
        ));
    }
    let lag = number("min-replicas-max-lag").unwrap_or_default();
    let timeout_ms = number("cluster-node-timeout").unwrap_or_default();
    if lag == 0 || lag * 1_000 >= timeout_ms {
        concerns.push(format!(
            "min-replicas-max-lag is {lag} s and cluster-node-timeout {timeout_ms} ms: the lag must be shorter"
        ));
    }
    if timeout_ms <= 4_000 {
        concerns.push(format!(
            "cluster-node-timeout is {timeout_ms} ms: writers need more than 4000"
        ));
    }
    if text("appendonly") != "yes" {
        concerns.push("appendonly is not yes: a restart loses everything".to_owned());
    }
    if text("maxmemory-policy") != "noeviction" {
        concerns.push("maxmemory-policy is not noeviction: records may vanish".to_owned());
    }
    concerns
}

fn members_of(text: &str) -> Vec<Member> {
    let member = |line: &str| {
        let mut words = line.split(' ');
        let (id, place, flags, follows) =
            (words.next()?, words.next()?, words.next()?, words.next()?);
        let address = place.split(['@', ',']).next()?;
        let is_gone = flags.contains("noaddr") || flags.contains("handshake");
        (!is_gone).then(|| Member {
            address: address.to_owned(),
            id: id.to_owned(),
            follows: (follows != "-").then(|| follows.to_owned()),
            // A question mark behind it means that only the asked node thinks so.
            is_failing: flags.split(',').any(|flag| flag == "fail"),
        })
    };
    text.lines().filter_map(member).collect()
}

fn text_of(value: redis::Value) -> String {
    match value {
        redis::Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        redis::Value::VerbatimString { text, .. } => text,
        redis::Value::SimpleString(text) => text,
        _ => String::new(),
    }
}

fn pairs(value: redis::Value) -> BTreeMap<String, String> {
    let items: Vec<String> = match value {
        redis::Value::Array(items) => items.into_iter().map(text_of).collect(),
        redis::Value::Map(pairs) => {
            let flat = pairs.into_iter().flat_map(|(key, value)| [key, value]);
            flat.map(text_of).collect()
        }
        _ => Vec::new(),
    };
    let (chunks, _) = items.as_chunks::<2>();
    chunks
        .iter()
        .cloned()
        .map(|[key, value]| (key, value))
        .collect()
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_is_read_from_its_own_words() {
        let text = "a1 127.0.0.1:7001@17001,host myself,master - 0 0 1 connected 0-5460\n\
            b2 127.0.0.1:7002@17002 slave a1 0 0 1 connected\n\
            c3 127.0.0.1:7003@17003 master,fail - 0 0 2 disconnected\n\
            d4 :0@0 master,noaddr - 0 0 3 disconnected\n";
        let members = members_of(text);
        let seen: Vec<_> = members
            .iter()
            .map(|it| (it.address.as_str(), it.follows.as_deref(), it.is_failing))
            .collect();
        assert_eq!(
            seen,
            [
                ("127.0.0.1:7001", None, false),
                ("127.0.0.1:7002", Some("a1"), false),
                ("127.0.0.1:7003", None, true),
            ]
        );
    }

    fn settings(changed: &[(&str, &str)]) -> BTreeMap<String, String> {
        let good = [
            ("min-replicas-to-write", "1"),
            ("min-replicas-max-lag", "3"),
            ("cluster-node-timeout", "6000"),
            ("appendonly", "yes"),
            ("maxmemory-policy", "noeviction"),
        ];
        let all = good.iter().chain(changed);
        all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn safe_settings_raise_no_concern_and_each_unsafe_one_raises_its_own() {
        assert!(judge(2, &settings(&[])).is_empty());
        assert_eq!(judge(1, &settings(&[])).len(), 1);
        for (name, value) in [
            ("min-replicas-to-write", "0"),
            ("min-replicas-max-lag", "0"),
            ("min-replicas-max-lag", "10"),
            ("appendonly", "no"),
            ("maxmemory-policy", "allkeys-lru"),
        ] {
            let concerns = judge(2, &settings(&[(name, value)]));
            assert_eq!(concerns.len(), 1, "{name} {value}: {concerns:?}");
            assert!(concerns.iter().all(|concern| concern.contains(name)));
        }
        assert_eq!(
            judge(2, &settings(&[("cluster-node-timeout", "4000")])).len(),
            1
        );
    }
}
