//! What parent and child processes of the swarm tell each other: one JSON object a line, orders
//! on the child's standard input, reports on its standard output.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::arrivals::ArrivalCounts;
use crate::latency::LatencyCounts;
use crate::target::Target;

/// From the parent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// First of all: who to be, and where.
    Begin {
        /// The server and the app.
        target: Target,
        /// Addresses to connect from, used in turn; none means any.
        sources: Vec<Ipv4Addr>,
    },
    /// Register this many more devices, mint a token each, and connect them.
    Open {
        /// How many.
        count: u32,
        /// Connects a second.
        per_second: f64,
    },
    /// Report everything that arrived.
    Collect,
}

/// From a child.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// Some of the devices of an [`Order::Open`] are connected.
    Tokens {
        /// Their push tokens.
        tokens: Vec<String>,
    },
    /// An [`Order::Open`] is done.
    Opened {
        /// Devices that could not be connected.
        failed: u32,
        /// Why the first of them could not.
        reason: Option<String>,
        /// How long the connecting took, in nanoseconds, without the registering.
        connecting_ns: u64,
    },
    /// How things are; sent several times a second.
    Progress(Progress),
    /// The answer to [`Order::Collect`].
    Collected {
        /// The [`crate::arrivals::SendSet`] of all that arrived.
        seen: String,
        /// From the intended time of each send to its arrival.
        delivery: LatencyCounts,
        /// The latest counts.
        progress: Progress,
    },
}

/// How a child is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Sockets that are connected and greeted.
    pub open: u64,
    /// What arrived.
    pub arrivals: ArrivalCounts,
    /// Arrivals whose acknowledgement was written.
    pub acked: u64,
    /// Connections lost after their welcome.
    pub disconnects: u64,
    /// Why the latest was lost.
    pub disconnect_reason: Option<String>,
    /// Processor time that the child has used, in nanoseconds.
    pub cpu_ns: u64,
}
