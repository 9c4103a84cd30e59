//! A Redis Cluster of three primaries and their replicas, each node behind a link that tests can cut.

mod calling;
mod forming;
mod shape;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::sync::watch;

pub use shape::Primary;

use crate::herald_node::HeraldNode;
use crate::link::{Cuts, Link};
use crate::place::{Place, check_room};
use crate::server::{Launch, Server};
use crate::waiting::until;

/// A cluster needs three to agree on a failover.
pub const PRIMARIES: usize = 3;

/// Replicas of one primary at most: a network has room for so many.
pub const REPLICAS_MAX: usize = 5;

/// The first node's address in its network.
const FIRST_HOST: u8 = 11;

/// Where clients and replicas connect: the link. It is the port that nodes announce.
const FRONT_PORT: u16 = 17_001;

/// Where the node itself listens.
const BACK_PORT: u16 = 17_002;

/// The cluster bus, by which nodes judge each other.
const BUS_PORT: u16 = 17_003;

/// A node may take this long to start, on a machine that is busy building something.
const START_MAX: Duration = Duration::from_secs(60);

/// How a cluster is to be.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// Replicas of each primary, at most [`REPLICAS_MAX`]. With none, primaries write without any;
    /// else each refuses to write when it has not heard of any of its replicas for 3 s.
    pub replicas: usize,
    /// When a node that does not answer is held for failed (`cluster-node-timeout`).
    pub node_timeout: Duration,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            replicas: 2,
            node_timeout: Duration::from_secs(6),
        }
    }
}

/// A running cluster. Its nodes are numbered from 0; the first three begin as primaries. Killed when
/// dropped.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Node>,
    cuts: watch::Sender<Cuts>,
    /// Kept for its directory and its addresses: dropped after the nodes.
    _place: Place,
}

#[derive(Debug)]
struct Node {
    address: Ipv4Addr,
    server: Server,
    link: Link,
}

impl RedisCluster {
    /// Starts a cluster and waits until it is well: see [`RedisCluster::until_well`].
    ///
    /// # Errors
    /// A node could not start, with the end of its log, or the nodes do not find together.
    pub async fn start(place: &Place, options: &RedisOptions) -> anyhow::Result<Self> {
        check_room(
            "replicas and a primary",
            options.replicas + 1,
            REPLICAS_MAX + 1,
        )?;
        let count = PRIMARIES * (options.replicas + 1);
        let hosts = (FIRST_HOST..).take(count);
        let addresses: Vec<Ipv4Addr> = hosts.map(|host| place.address(host)).collect();
        let (cuts, cuts_receiver) = watch::channel(Cuts::default());
        let all: Arc<BTreeSet<Ipv4Addr>> = Arc::new(addresses.iter().copied().collect());
        let mut nodes = Vec::with_capacity(count);
        for (number, &address) in addresses.iter().enumerate() {
            let link = Link::new(
                SocketAddrV4::new(address, FRONT_PORT),
                SocketAddrV4::new(address, BACK_PORT),
                Arc::clone(&all),
                cuts_receiver.clone(),
            );
            nodes.push(Node {
                address,
                server: Server::new(launch(place, number, address, options)?),
                link,
            });
        }
        let cluster = Self {
            nodes,
            cuts,
            _place: place.clone(),
        };
        // All processes first: they start side by side.
        for node in &cluster.nodes {
            node.server.start().await?;
        }
        for node in &cluster.nodes {
            node.until_up().await?;
        }
        cluster.form(options.replicas).await?;
        Ok(cluster)
    }

    /// What clients connect to, one URL for each node.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        let addresses = self.nodes.iter().map(|node| node.address);
        addresses
            .map(|address| format!("redis://{address}:{FRONT_PORT}"))
            .collect()
    }

    /// How many nodes there are, running or not.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Kills a node with SIGKILL. Clients that are not cut see their connections end, and new ones
    /// refused.
    ///
    /// # Errors
    /// There is no such node.
    pub fn kill(&self, node: usize) -> anyhow::Result<()> {
        let node = self.node(node)?;
        node.server.kill()?;
        node.link.shut();
        Ok(())
    }

    /// Starts a node that was killed, on its old data, and waits until it answers. It may not have
    /// found its place in the cluster yet: see [`RedisCluster::until_well`].
    ///
    /// # Errors
    /// There is no such node, it runs, or it does not start.
    pub async fn restart(&self, node: usize) -> anyhow::Result<()> {
        let node = self.node(node)?;
        node.server.start().await?;
        node.until_up().await
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

    /// Makes a black hole of every replication link of a node, whether it is primary or replica:
    /// connections stay open, nothing crosses them any more. Clients and the cluster bus do not
    /// notice. After about 3 s a primary whose replicas are all cut off refuses to write; what it
    /// has accepted before that is lost if it dies.
    ///
    /// # Errors
    /// There is no such node.
    pub fn isolate_replication(&self, node: usize) -> anyhow::Result<()> {
        let address = self.node(node)?.address;
        self.cuts.send_modify(|cuts| {
            cuts.replication_of.insert(address);
        });
        Ok(())
    }

    /// Heals all replication links; what was held back arrives.
    pub fn heal_links(&self) {
        self.cuts.send_modify(|cuts| cuts.replication_of.clear());
    }

    /// Makes a black hole of every client's connection to every node, or heals it. New connections
    /// are accepted and answer nothing.
    pub fn cut_clients(&self, is_cut: bool) {
        let addresses = self.nodes.iter().filter(|_| is_cut);
        let addresses = addresses.map(|node| node.address).collect();
        self.cuts.send_modify(|cuts| cuts.clients_of = addresses);
    }

    /// Makes a black hole of every client's connection to one node more. The nodes go on seeing each
    /// other, so nobody takes its place. [`RedisCluster::cut_clients`] heals it.
    ///
    /// # Errors
    /// There is no such node.
    pub fn cut_clients_of(&self, node: usize) -> anyhow::Result<()> {
        let address = self.node(node)?.address;
        self.cuts.send_modify(|cuts| {
            cuts.clients_of.insert(address);
        });
        Ok(())
    }

    /// Makes a black hole of one Herald node's way to one node of Redis, if it calls from its own
    /// address ([`crate::HeraldOptions::library`]): nobody else notices.
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

    /// The same of its ways to all nodes.
    pub fn cut_ways(&self, from: &HeraldNode) {
        let ways = self
            .nodes
            .iter()
            .map(|to| (from.address().into(), to.address));
        self.cuts.send_modify(|cuts| cuts.ways.extend(ways));
    }

    /// Heals all ways of Herald nodes; what was held back arrives.
    pub fn heal_ways(&self) {
        self.cuts.send_modify(|cuts| cuts.ways.clear());
    }

    /// From now on bytes of clients take so long, each way; zero heals it.
    pub fn slow_clients(&self, delay: Duration) {
        self.cuts.send_modify(|cuts| cuts.client_delay = delay);
    }

    /// Heals every link, ends every pause, and starts every node that does not run. They may not
    /// have found together yet: see [`RedisCluster::until_well`].
    ///
    /// # Errors
    /// A node does not start.
    pub async fn mend(&self) -> anyhow::Result<()> {
        self.heal_links();
        self.heal_ways();
        self.cut_clients(false);
        self.slow_clients(Duration::ZERO);
        for node in &self.nodes {
            if node.server.mend().await? {
                node.until_up().await?;
            }
        }
        Ok(())
    }

    /// Waits until all nodes that run say the same: every slot has a primary, every replica that
    /// runs has its link up, and primaries may write. Returns the primaries.
    ///
    /// # Errors
    /// It is not so within `limit`; with what was last in the way.
    pub async fn until_well(&self, limit: Duration) -> anyhow::Result<Vec<Primary>> {
        until("the cluster is well", limit, async || self.check().await).await
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
            .with_context(|| format!("no node {number}: there are {count}"))
    }
}

impl Node {
    fn back(&self) -> SocketAddr {
        SocketAddr::from((self.address, BACK_PORT))
    }

    /// Waits until the node answers, then lets others in.
    async fn until_up(&self) -> anyhow::Result<()> {
        let ask = async || {
            let answer = calling::call(self.back(), &["PING"]).await?;
            ensure!(answer == redis::Value::SimpleString("PONG".to_owned()));
            Ok(())
        };
        self.server.until_up(START_MAX, ask).await?;
        self.link.open().await
    }
}

fn launch(
    place: &Place,
    number: usize,
    address: Ipv4Addr,
    options: &RedisOptions,
) -> anyhow::Result<Launch> {
    let directory = place.directory_of(&format!("redis-{number}"))?;
    let file = directory.join("redis.conf");
    std::fs::write(&file, settings(address, options))?;
    Ok(Launch {
        name: format!("redis node {number}"),
        program: "redis-server".into(),
        arguments: vec![file.into()],
        environment: Vec::new(),
        directory,
    })
}

fn settings(address: Ipv4Addr, options: &RedisOptions) -> String {
    let node_timeout_ms = options.node_timeout.as_millis();
    let replicas_to_write = options.replicas.min(1);
    format!(
        "bind {address}\n\
         port {BACK_PORT}\n\
         protected-mode no\n\
         # Its own address also when it connects to others: by that its link knows a replica.\n\
         bind-source-addr {address}\n\
         cluster-enabled yes\n\
         cluster-port {BUS_PORT}\n\
         # Clients and replicas are sent to the link in front of this node.\n\
         cluster-announce-ip {address}\n\
         cluster-announce-port {FRONT_PORT}\n\
         cluster-announce-bus-port {BUS_PORT}\n\
         cluster-node-timeout {node_timeout_ms}\n\
         appendonly yes\n\
         appendfsync everysec\n\
         save \"\"\n\
         min-replicas-to-write {replicas_to_write}\n\
         min-replicas-max-lag 3\n\
         repl-diskless-sync-delay 0\n\
         loglevel notice\n\
         daemonize no\n"
    )
}
