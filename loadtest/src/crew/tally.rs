//! What the devices of one process share: the server, their counts, and working memory.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;

use tokio::sync::watch;

use super::socket::{Over, Retry};
use crate::arrivals::{Arrivals, Place};
use crate::clock::cpu_ns;
use crate::contenders::{DataView, Service};
use crate::latency::Latencies;
use crate::memory::resident_bytes;
use crate::pipe::{Cut, Progress, StormCounts};
use crate::register::Identity;

/// What one read takes at most, for all sockets of the process together.
const SCRATCH_BYTES: usize = 64 * 1024;

/// What all devices of one process share.
pub struct Crew {
    pub service: Service,
    /// Registered, and not connected yet.
    pub registered: RefCell<Vec<Identity>>,
    sources: Vec<IpAddr>,
    next_source: Cell<usize>,
    pub tally: RefCell<Tally>,
    pub scratch: RefCell<Scratch>,
    /// What every device does now.
    pub standing: watch::Sender<Standing>,
}

/// Orders that stand for all devices, those that are away too.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standing {
    /// How many cuts were ordered.
    pub cuts: u64,
    /// The latest one.
    pub cut: Option<Cut>,
    /// Everybody is good from now on.
    pub calm: bool,
}

/// What the devices of one process have seen.
pub struct Tally {
    pub arrivals: Arrivals,
    pub delivery: Latencies,
    pub open: u64,
    pub acked: u64,
    pub disconnects: u64,
    pub disconnect_reason: Option<String>,
    pub departures: u64,
    pub polls: u64,
    pub storm: StormCounts,
    pub storm_back: Latencies,
    pub storm_caught_up: Latencies,
    pub lag: Latencies,
}

/// Working memory that a socket borrows while it handles one read.
pub struct Scratch {
    pub read: Box<[u8]>,
    pub write: Vec<u8>,
    pub text: String,
}

impl Crew {
    pub fn new(service: Service, sources: Vec<IpAddr>) -> Self {
        let scratch = Scratch {
            read: vec![0; SCRATCH_BYTES].into(),
            write: Vec::new(),
            text: String::new(),
        };
        Self {
            service,
            registered: RefCell::default(),
            sources,
            next_source: Cell::new(0),
            tally: RefCell::new(Tally::new()),
            scratch: RefCell::new(scratch),
            standing: watch::Sender::default(),
        }
    }

    /// For the parent.
    pub fn progress(&self) -> Progress {
        let tally = self.tally.borrow();
        Progress {
            open: tally.open,
            arrivals: tally.arrivals.counts(),
            acked: tally.acked,
            disconnects: tally.disconnects,
            disconnect_reason: tally.disconnect_reason.clone(),
            departures: tally.departures,
            polls: tally.polls,
            calm: self.standing.borrow().calm,
            storm: tally.storm,
            cpu_ns: cpu_ns(),
            rss_bytes: resident_bytes(),
        }
    }

    /// The address the next connection comes from: one address has too few ports for a swarm.
    pub fn next_source(&self) -> Option<IpAddr> {
        let turn = self.next_source.get();
        self.next_source.set(turn.wrapping_add(1));
        let place = turn.checked_rem(self.sources.len())?;
        self.sources.get(place).copied()
    }
}

impl Tally {
    fn new() -> Self {
        Self {
            arrivals: Arrivals::default(),
            delivery: Latencies::new(),
            open: 0,
            acked: 0,
            disconnects: 0,
            disconnect_reason: None,
            departures: 0,
            polls: 0,
            storm: StormCounts::default(),
            storm_back: Latencies::new(),
            storm_caught_up: Latencies::new(),
            lag: Latencies::new(),
        }
    }

    /// A connection is over.
    pub fn lose(&mut self, over: Over) {
        self.open -= 1;
        match over.retry {
            Retry::Departed => self.departures += 1,
            Retry::Cut(_) => self.storm.cut += 1,
            Retry::BackOff | Retry::After(_) | Retry::Never => {
                self.disconnects += 1;
                self.disconnect_reason = Some(over.reason);
            }
        }
    }

    /// Counts one push, however it came.
    pub fn on_push(
        &mut self,
        place: &mut Place,
        syn: Option<u64>,
        data: &DataView<'_>,
        now_ns: u64,
    ) -> Result<(), String> {
        let (send, at_ns) = data.numbers().ok_or("a push is not the swarm's")?;
        // Where pushes have no numbers, nothing is known to be out of order.
        let syn = syn.unwrap_or(place.shown() + 1);
        self.arrivals.arrive(place, send, syn);
        self.delivery.record_ns(now_ns.saturating_sub(at_ns));
        Ok(())
    }
}
