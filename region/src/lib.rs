//! A whole region on one machine, for tests; as yet its Redis Cluster and its
//! CQL ring.
//!
//! Everything is a child process that is killed when its owner is dropped, and also when this
//! process ends in any other way.

mod background;
mod cql_ring;
mod link;
mod place;
mod redis_cluster;
mod server;
mod waiting;

pub use cql_ring::{CQL_NODES_MAX, CqlRing};
pub use place::Place;
pub use redis_cluster::{PRIMARIES, Primary, REPLICAS_MAX, RedisCluster, RedisOptions};
