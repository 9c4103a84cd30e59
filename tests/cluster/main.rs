//! A region under faults: real servers, senders on one node, devices on another.
//!
//! All tests share one region and have it to themselves one after another: see [`stage`]. What
//! sends and reads meanwhile, and what it must find, is in [`load`] and [`witness`].

#[path = "../scenarios/harness/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "scenarios of a single server need more of it"
)]
mod harness;

#[path = "../torture/crowd/mod.rs"]
mod crowd;

mod alone;
mod bad_beginnings;
mod clocks;
mod cost;
mod cql;
mod devices;
mod faults;
mod load;
mod nodes;
mod operators;
mod redis;
mod scylla;
mod speed;
mod stage;
mod topics;
mod torture;
mod witness;
