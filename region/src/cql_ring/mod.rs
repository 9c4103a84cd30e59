//! A ring of CQL nodes, each behind a link that tests can cut if that is wanted. Apache Cassandra stands in for ScyllaDB, which no package registry has: the
//! same protocol, the same last-write-wins cells, time to live and quorum; its speed says nothing.

mod asking;
mod jars;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::sync::watch;

use crate::herald_node::HeraldNode;
use crate::link::{Cuts, Link};
use crate::place::{Place, check_room};
use crate::server::{Launch, Server};
use crate::waiting::until;
use asking::{REPLICAS_ASKED_MAX, ask};
use jars::Jars;

/// Nodes of a ring at most: each takes half a gigabyte.
pub const CQL_NODES_MAX: usize = 9;

/// What the nodes call their data centre.
const DATACENTER: &str = "datacenter1";

/// The first node's address in its network: where drivers find it.
const FIRST_HOST: u8 = 51;

/// The first node's other address: where it listens for drivers when a link is on the first. Drivers
/// take it that all nodes have one port, so it cannot be another port of the same address.
const FIRST_HOST_BEHIND: u8 = 61;

const CQL_PORT: u16 = 17_042;
const STORAGE_PORT: u16 = 17_043;
/// Not listened on, but Cassandra wants to have one.
const TLS_STORAGE_PORT: u16 = 17_044;

/// A node starts in 5 s on an idle machine; three at a time on a busy one take many times as long.
const START_MAX: Duration = Duration::from_secs(240);

/// A table that every ring has, kept on three nodes, or on all if there are fewer. Nothing is in it;
/// who gets an answer knows that all its replicas are there.
const REPLICATED_QUERY: &str =
    "SELECT * FROM system_distributed.view_build_status WHERE keyspace_name='' AND view_name='x'";

/// Answers of all nodes are the same when they agree on the schema.
const SCHEMA_QUERY: &str = "SELECT schema_version FROM system.local";

const SETTINGS: &str = include_str!("../../cassandra/cassandra.yaml");
const LOGGING: &str = include_str!("../../cassandra/logback.xml");
const JAVA_OPTIONS: &str = include_str!("../../cassandra/java.options");

/// A running ring. Its nodes are numbered from 0. Killed when dropped.
#[derive(Debug)]
pub struct CqlRing {
    nodes: Vec<Node>,
    cuts: watch::Sender<Cuts>,
    /// Kept for its directory and its addresses: dropped after the nodes.
    _place: Place,
}

#[derive(Debug)]
struct Node {
    /// Where drivers and other nodes find it.
    address: Ipv4Addr,
    /// Where it listens for drivers.
    behind: Ipv4Addr,
    server: Server,
    link: Option<Link>,
}

impl CqlRing {
    /// Starts a ring and waits until every node answers for all. The first ring of a user fetches
    /// Cassandra with Maven.
    ///
    /// # Errors
    /// Java 17 or Maven is missing, or a node could not start, with the end of its log.
    pub async fn start(place: &Place, nodes: usize) -> anyhow::Result<Self> {
        Self::start_with(place, nodes, false).await
    }

    /// The same with a link in front of every node. Each byte takes another step there, so this is
    /// for tests that cut links, not for those that measure.
    ///
    /// # Errors
    /// See [`CqlRing::start`].
    pub async fn start_behind_links(place: &Place, nodes: usize) -> anyhow::Result<Self> {
        Self::start_with(place, nodes, true).await
    }

    async fn start_with(place: &Place, nodes: usize, has_links: bool) -> anyhow::Result<Self> {
        check_room("CQL nodes", nodes, CQL_NODES_MAX)?;
        let java = jars::java().await?;
        let jars = Jars::get().await?;
        let hosts = (FIRST_HOST..).take(nodes);
        let addresses: Vec<Ipv4Addr> = hosts.map(|host| place.address(host)).collect();
        let (cuts, cuts_receiver) = watch::channel(Cuts::default());
        let mut ring = Self {
            nodes: Vec::with_capacity(nodes),
            cuts,
            _place: place.clone(),
        };
        for (number, &address) in addresses.iter().enumerate() {
            let directory = place.directory_of(&format!("cql-{number}"))?;
            let behind = match has_links {
                true => place.address(FIRST_HOST_BEHIND + u8::try_from(number)?),
                false => address,
            };
            write_settings(&directory, number, &addresses, behind)?;
            let server = Server::new(Launch {
                name: format!("CQL node {number}"),
                program: java.clone().into(),
                arguments: arguments(&directory, &jars),
                // Fewer heaps of the C library, of which Java's threads would have one each.
                environment: vec![("MALLOC_ARENA_MAX".into(), "2".into())],
                directory,
            });
            let link = has_links.then(|| link(address, behind, cuts_receiver.clone()));
            ring.nodes.push(Node {
                address,
                behind,
                server,
                link,
            });
        }
        for node in &ring.nodes {
            node.server.start().await?;
        }
        ring.until_up(START_MAX).await?;
        Ok(ring)
    }

    /// What drivers connect to first: address and port of each node.
    #[must_use]
    pub fn contact_points(&self) -> Vec<String> {
        let nodes = self.nodes.iter();
        nodes
            .map(|node| format!("{}:{CQL_PORT}", node.address))
            .collect()
    }

    /// The name of the only data centre.
    #[must_use]
    pub fn datacenter(&self) -> &'static str {
        DATACENTER
    }

    /// How many nodes there are, running or not.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Kills a node with SIGKILL. The others go on asking it until they hold it for dead, which
    /// takes about ten seconds.
    ///
    /// # Errors
    /// There is no such node.
    pub fn kill(&self, node: usize) -> anyhow::Result<()> {
        let node = self.node(node)?;
        node.server.kill()?;
        if let Some(link) = &node.link {
            link.shut();
        }
        Ok(())
    }

    /// Starts a node that was killed, on its old data, and waits until all that run answer for each
    /// other.
    ///
    /// # Errors
    /// There is no such node, it runs, or it does not start.
    pub async fn restart(&self, node: usize) -> anyhow::Result<()> {
        self.node(node)?.server.start().await?;
        self.until_up(START_MAX).await
    }

    /// Stops a node where it is (SIGSTOP): its sockets stay open and nothing is answered.
    ///
    /// # Errors
    /// There is no such node, or it does not run.
    pub fn pause(&self, node: usize) -> anyhow::Result<()> {
        self.node(node)?.server.pause()
    }

    /// Ends a pause (SIGCONT).
    ///
    /// # Errors
    /// There is no such node, or it does not run.
    pub fn resume(&self, node: usize) -> anyhow::Result<()> {
        self.node(node)?.server.resume()
    }

    /// Makes a black hole of one Herald node's way to one node, if nodes are behind links and it
    /// calls from its own address ([`crate::HeraldOptions::library`]): nobody else notices.
    ///
    /// # Errors
    /// There is no such node.
    pub fn cut_way(&self, from: &HeraldNode, to: usize) -> anyhow::Result<()> {
        let way = (from.address().into(), self.node(to)?.address);
        self.cuts.send_modify(|cuts| {
            cuts.ways.insert(way);
        });
        Ok(())
    }

    /// Heals all ways of Herald nodes; what was held back arrives.
    pub fn heal_ways(&self) {
        self.cuts.send_modify(|cuts| cuts.ways.clear());
    }

    /// Heals every way, ends every pause and starts every node that does not run. They may not answer yet: see
    /// [`CqlRing::until_up`].
    ///
    /// # Errors
    /// A node cannot be started.
    pub async fn mend(&self) -> anyhow::Result<()> {
        self.heal_ways();
        for node in &self.nodes {
            node.server.mend().await?;
        }
        Ok(())
    }

    /// Waits until every node that runs answers for all that run (three at most), and all have the
    /// same schema; then drivers are let in.
    ///
    /// # Errors
    /// It is not so within `limit`; with the end of the log of a node that is in the way.
    pub async fn until_up(&self, limit: Duration) -> anyhow::Result<()> {
        let awake: Vec<&Node> = self
            .nodes
            .iter()
            .filter(|it| it.server.is_awake())
            .collect();
        let replicas = u16::try_from(awake.len())?.min(REPLICAS_ASKED_MAX);
        for node in &awake {
            let is_up = async || ask(node.cql(), REPLICATED_QUERY, replicas).await;
            node.server.until_up(limit, is_up).await?;
        }
        for link in awake.iter().filter_map(|it| it.link.as_ref()) {
            link.open().await?;
        }
        until("CQL nodes agree on the schema", limit, async || {
            let mut agreed = None;
            for node in &awake {
                let version = ask(node.cql(), SCHEMA_QUERY, 1).await?;
                let agreed = agreed.get_or_insert_with(|| version.clone());
                ensure!(*agreed == version, "{} differs", node.address);
            }
            Ok(())
        })
        .await
    }

    /// The process of a node, if it runs.
    #[must_use]
    pub fn process_id(&self, node: usize) -> Option<u32> {
        self.nodes.get(node)?.server.process_id()
    }

    /// The last lines of a node's log.
    ///
    /// # Errors
    /// There is no such node.
    pub fn log_tail(&self, node: usize) -> anyhow::Result<String> {
        Ok(self.node(node)?.server.log_tail())
    }

    fn node(&self, number: usize) -> anyhow::Result<&Node> {
        let count = self.nodes.len();
        self.nodes
            .get(number)
            .with_context(|| format!("no CQL node {number}: there are {count}"))
    }
}

impl Node {
    fn cql(&self) -> SocketAddr {
        SocketAddr::from((self.behind, CQL_PORT))
    }
}

/// A link of a node; nobody replicates through it.
fn link(front: Ipv4Addr, behind: Ipv4Addr, cuts: watch::Receiver<Cuts>) -> Link {
    Link::new(
        SocketAddrV4::new(front, CQL_PORT),
        SocketAddrV4::new(behind, CQL_PORT),
        Arc::default(),
        cuts,
    )
}

fn write_settings(
    directory: &Path,
    number: usize,
    all: &[Ipv4Addr],
    behind: Ipv4Addr,
) -> anyhow::Result<()> {
    let address = all.get(number).context("a node has an address")?;
    let seeds = all.iter().map(|seed| format!("{seed}:{STORAGE_PORT}"));
    let filled = [
        ("@ADDRESS@", address.to_string()),
        ("@BEHIND@", behind.to_string()),
        ("@SEEDS@", seeds.collect::<Vec<_>>().join(",")),
        ("@TOKEN@", first_token(number, all.len()).to_string()),
        ("@CQL_PORT@", CQL_PORT.to_string()),
        ("@STORAGE_PORT@", STORAGE_PORT.to_string()),
        ("@TLS_STORAGE_PORT@", TLS_STORAGE_PORT.to_string()),
    ];
    let settings = filled
        .iter()
        .fold(SETTINGS.to_owned(), |text, (word, value)| {
            text.replace(word, value)
        });
    std::fs::write(directory.join("cassandra.yaml"), settings)?;
    std::fs::write(directory.join("logback.xml"), LOGGING)?;
    std::fs::write(directory.join("java.options"), JAVA_OPTIONS)?;
    Ok(())
}

/// Where a node's share of all tokens begins: shares are equal, and the smallest token of all, which
/// Cassandra keeps for itself, is nobody's.
fn first_token(number: usize, count: usize) -> i64 {
    let share = u64::MAX / count.max(1) as u64;
    let from_smallest = share * number as u64 + share / 2;
    i64::MIN.wrapping_add_unsigned(from_smallest)
}

/// Java's arguments.
fn arguments(directory: &Path, jars: &Jars) -> Vec<std::ffi::OsString> {
    let directory = directory.display();
    let mut arguments: Vec<std::ffi::OsString> = [
        format!("-javaagent:{}", jars.agent.display()),
        format!("@{directory}/java.options"),
        format!("-Djava.io.tmpdir={directory}"),
        format!("-Djna.tmpdir={directory}"),
        format!("-XX:ErrorFile={directory}/java-error.log"),
        format!("-XX:HeapDumpPath={directory}"),
        format!("-Dcassandra.storagedir={directory}"),
        format!("-Dcassandra.logdir={directory}"),
        format!("-Dcassandra.config=file://{directory}/cassandra.yaml"),
        format!("-Dlogback.configurationFile=file://{directory}/logback.xml"),
    ]
    .map(Into::into)
    .into();
    arguments.extend([
        "-cp".into(),
        jars.class_path().into(),
        "org.apache.cassandra.service.CassandraDaemon".into(),
    ]);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_spread_evenly_and_the_smallest_is_nobodys() {
        for count in 1..=CQL_NODES_MAX {
            let tokens: Vec<i64> = (0..count).map(|node| first_token(node, count)).collect();
            assert!(tokens.is_sorted() && tokens[0] > i64::MIN);
            let gaps = tokens.windows(2).map(|pair| pair[1].abs_diff(pair[0]));
            let share = u64::MAX / count as u64;
            assert!(gaps.into_iter().all(|gap| gap == share));
        }
    }
}
