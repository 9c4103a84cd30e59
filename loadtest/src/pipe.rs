//! What parent and child processes of the swarm tell each other: one JSON object a line, orders
//! on the child's standard input, reports on its standard output.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::arrivals::ArrivalCounts;
use crate::contenders::Service;
use crate::habit::Habit;
use crate::latency::LatencyCounts;

/// From the parent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// First of all: who to be, and where.
    Begin {
        /// The server.
        service: Service,
        /// Addresses to connect from, used in turn; none means any.
        sources: Vec<Ipv4Addr>,
    },
    /// Register this many more devices.
    Register {
        /// How many.
        count: u32,
    },
    /// Connect all that are registered and not connected yet.
    Connect {
        /// Connects a second.
        per_second: f64,
        /// What they are like.
        habit: Habit,
    },
    /// Cut every connection at one moment, and let each device come back.
    Cut(Cut),
    /// From now on every device is a good one: it stays, reads and acknowledges.
    Calm,
    /// Report everything that arrived.
    Collect,
}

/// A storm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// When, on the machine's monotonic clock, in nanoseconds.
    pub at_ns: u64,
    /// Each device waits a random part of this before it first tries to come back.
    pub jitter_ns: u64,
}

/// From a child.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// An [`Order::Register`] is done.
    Registered {
        /// Devices that could not be registered.
        failed: u32,
        /// Why the first of them could not.
        reason: Option<String>,
    },
    /// Some of the devices of an [`Order::Connect`] are connected.
    Tokens {
        /// Their push tokens.
        tokens: Vec<String>,
    },
    /// An [`Order::Connect`] is done.
    Opened {
        /// Devices that could not be connected.
        failed: u32,
        /// Why the first of them could not.
        reason: Option<String>,
        /// How long it took, in nanoseconds.
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
        /// From the cut to the welcome of each device that came back.
        storm_back: LatencyCounts,
        /// From the cut to the moment at which a device had seen all that its welcome spoke of.
        storm_caught_up: LatencyCounts,
        /// How late this process was when it wanted to run.
        lag: LatencyCounts,
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
    /// Arrivals that have been acknowledged.
    pub acked: u64,
    /// Connections lost after their welcome.
    pub disconnects: u64,
    /// Why the latest was lost.
    pub disconnect_reason: Option<String>,
    /// Times that a device left of its own will.
    pub departures: u64,
    /// Polls that were answered.
    pub polls: u64,
    /// Whether [`Order::Calm`] was heard: no device leaves of its own will any more.
    pub calm: bool,
    /// How the storm goes.
    pub storm: StormCounts,
    /// Processor time that the child has used, in nanoseconds.
    pub cpu_ns: u64,
    /// Its resident memory.
    pub rss_bytes: u64,
}

/// How a storm goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StormCounts {
    /// Connections that were cut.
    pub cut: u64,
    /// Devices that have been welcomed again.
    pub back: u64,
    /// Of these, the ones that have seen all that their welcome spoke of.
    pub caught_up: u64,
    /// Attempts to come back that failed.
    pub failed: u64,
}

impl Progress {
    /// Adds that of another process. What each process has for itself is
    /// not added: its processor time, and whether it is calm.
    pub fn add(&mut self, other: &Self) {
        self.open += other.open;
        self.arrivals.add(other.arrivals);
        self.acked += other.acked;
        self.disconnects += other.disconnects;
        if self.disconnect_reason.is_none() {
            self.disconnect_reason.clone_from(&other.disconnect_reason);
        }
        self.departures += other.departures;
        self.polls += other.polls;
        self.storm.cut += other.storm.cut;
        self.storm.back += other.storm.back;
        self.storm.caught_up += other.storm.caught_up;
        self.storm.failed += other.storm.failed;
        self.rss_bytes += other.rss_bytes;
    }
}
