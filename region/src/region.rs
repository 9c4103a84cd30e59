//! A whole region: both stores, and nodes over them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use crate::cql_ring::CqlRing;
use crate::herald_node::{HeraldNode, HeraldOptions, Stores};
use crate::place::Place;
use crate::redis_cluster::{RedisCluster, RedisOptions};

/// Every row is kept on so many CQL nodes, if there are as many.
const REPLICATION_FACTOR: usize = 3;

/// How a region is to be.
#[derive(Debug, Clone)]
pub struct RegionOptions {
    /// The Redis Cluster.
    pub redis: RedisOptions,
    /// Nodes of the CQL ring.
    pub cql_nodes: usize,
    /// Herald nodes; 0 for the stores alone.
    pub nodes: usize,
    /// The `herald` binary, which is not looked at without nodes.
    pub binary: PathBuf,
    /// Settings of all nodes: see [`HeraldOptions::settings`].
    pub settings: Vec<(String, String)>,
    /// What is loaded into all nodes: see [`HeraldOptions::library`]. With it, CQL nodes are behind
    /// links, as Redis nodes always are.
    pub library: Option<PathBuf>,
    /// An empty directory for data and logs, which stays; one that goes when the region does if
    /// there is none.
    pub directory: Option<PathBuf>,
}

impl Default for RegionOptions {
    fn default() -> Self {
        Self {
            redis: RedisOptions::default(),
            cql_nodes: 3,
            nodes: 2,
            binary: PathBuf::from("herald"),
            settings: Vec::new(),
            library: None,
            directory: None,
        }
    }
}

/// A running region. Everything of it is killed when it is dropped, or when this process ends.
#[derive(Debug)]
pub struct Region {
    /// Herald nodes, by number.
    pub nodes: Vec<HeraldNode>,
    /// Their Redis Cluster.
    pub redis: RedisCluster,
    /// Their CQL ring.
    pub cql: CqlRing,
    /// The token of their admin listeners.
    pub admin_token: String,
    herald: HeraldOptions,
    place: Place,
}

impl Region {
    /// Starts a region and waits until every part of it is ready.
    ///
    /// # Errors
    /// Something could not start, with the end of its log.
    pub async fn start(options: &RegionOptions) -> anyhow::Result<Self> {
        let place = match &options.directory {
            Some(directory) => Place::at(directory)?,
            None => Place::temporary()?,
        };
        let cql = async {
            match options.library {
                Some(_) => CqlRing::start_behind_links(&place, options.cql_nodes).await,
                None => CqlRing::start(&place, options.cql_nodes).await,
            }
        };
        let redis = RedisCluster::start(&place, &options.redis);
        let (redis, cql) = tokio::try_join!(redis, cql)?;
        let admin_token = admin_token();
        let mut region = Self {
            nodes: Vec::new(),
            redis,
            cql,
            admin_token: admin_token.clone(),
            herald: HeraldOptions {
                binary: options.binary.clone(),
                admin_token,
                settings: options.settings.clone(),
                library: options.library.clone(),
            },
            place,
        };
        // One after another: the first makes the tables, and two must not do it at once.
        for _ in 0..options.nodes {
            region.add_node().await?;
        }
        Ok(region)
    }

    /// Starts one more Herald node and waits until it is ready.
    ///
    /// # Errors
    /// It could not start, with the end of its log, or there is no room for it.
    pub async fn add_node(&mut self) -> anyhow::Result<&HeraldNode> {
        let number = self.nodes.len();
        let stores = self.stores();
        let node = HeraldNode::start(&self.place, number, &self.herald, &stores).await?;
        self.nodes.push(node);
        self.nodes.last().context("a node was added")
    }

    /// Heals every link, ends every pause, starts whatever does not run, and waits until all is
    /// well: so that a test finds the region as it should be, whatever the one before has left.
    ///
    /// # Errors
    /// Something is not well within `limit`.
    pub async fn mend(&self, limit: Duration) -> anyhow::Result<()> {
        self.redis.mend().await?;
        self.cql.mend().await?;
        self.redis.until_well(limit).await?;
        self.cql.until_up(limit).await?;
        for node in &self.nodes {
            node.mend().await?;
        }
        for node in &self.nodes {
            node.until_ready(limit).await?;
        }
        Ok(())
    }

    /// Where nodes of this region keep pushes and tokens.
    #[must_use]
    pub fn stores(&self) -> Stores {
        Stores {
            redis: self.redis.urls(),
            cql: self.cql.contact_points(),
            datacenter: self.cql.datacenter().to_owned(),
            replication_factor: self.cql.node_count().min(REPLICATION_FACTOR),
        }
    }

    /// Where all of it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }
}

/// A random token, told from others by how it begins.
fn admin_token() -> String {
    format!("herald_admin_{:032x}", rand::random::<u128>())
}
