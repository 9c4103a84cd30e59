//! A whole region on one machine, for tests and for trying things out: a Redis Cluster, a CQL ring,
//! and Herald nodes over them.
//!
//! [`Region::start`] brings up all of it; [`RedisCluster`], [`CqlRing`] and [`HeraldNode`] also come
//! alone, in a [`Place`] of their own. Everything is a child process that is killed when its owner
//! is dropped, and also when this process ends in any other way. What runs is used by
//! `&self`, so that the tests of one binary can share a region; what one test breaks it must mend.
//!
//! Faults: processes are killed (`kill`, SIGKILL) or stopped (`pause`, SIGSTOP); replication between
//! Redis nodes and the connections of Redis clients become black holes
//! ([`RedisCluster::isolate_replication`], [`RedisCluster::cut_clients`]), or slow
//! ([`RedisCluster::slow_clients`]). With a library loaded into the nodes
//! ([`RegionOptions::library`]), one Herald node's way to Redis or to CQL nodes becomes a black hole
//! ([`RedisCluster::cut_way`], [`CqlRing::cut_way`]), and its clock goes astray
//! ([`HeraldNode::move_clock`]).
//!
//! Needed on the machine: `redis-server` 7, Java 17, Maven (once, to fetch Cassandra into
//! `~/.cache/herald`, or where `HERALD_CACHE` says), and `setpriv`, without which a parent that is
//! killed leaves its servers behind.

mod background;
mod banner;
mod cql_ring;
mod herald_binary;
mod herald_node;
mod link;
mod place;
mod redis_cluster;
mod region;
mod server;
mod waiting;

pub use banner::banner;
pub use cql_ring::{CQL_NODES_MAX, CqlRing};
pub use herald_binary::herald_of_profile;
pub use herald_node::{HERALD_NODES_MAX, HeraldNode, HeraldOptions, Stores};
pub use place::Place;
pub use redis_cluster::{PRIMARIES, Primary, REPLICAS_MAX, RedisCluster, RedisOptions};
pub use region::{Region, RegionOptions};
