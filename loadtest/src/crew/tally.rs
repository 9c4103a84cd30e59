//! What the devices of one process share: the target, their counts, and working memory.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;

use herald_protocol::ServerFrame;
use serde::Deserialize;

use crate::arrivals::{Arrivals, Place};
use crate::latency::Latencies;
use crate::target::Target;

/// What one read takes at most, for all sockets of the process together.
const SCRATCH_BYTES: usize = 64 * 1024;

/// What all devices of one process share.
pub struct Crew {
    pub target: Target,
    sources: Vec<IpAddr>,
    next_source: Cell<usize>,
    pub tally: RefCell<Tally>,
    pub scratch: RefCell<Scratch>,
}

/// What the devices of one process have seen.
pub struct Tally {
    pub arrivals: Arrivals,
    pub delivery: Latencies,
    pub open: u64,
    pub acked: u64,
    pub disconnects: u64,
    pub disconnect_reason: Option<String>,
}

/// Working memory that a socket borrows while it handles one read.
pub struct Scratch {
    pub read: Box<[u8]>,
    pub write: Vec<u8>,
    pub text: String,
}

impl Crew {
    pub fn new(target: Target, sources: Vec<IpAddr>) -> Self {
        let tally = Tally {
            arrivals: Arrivals::default(),
            delivery: Latencies::new(),
            open: 0,
            acked: 0,
            disconnects: 0,
            disconnect_reason: None,
        };
        let scratch = Scratch {
            read: vec![0; SCRATCH_BYTES].into(),
            write: Vec::new(),
            text: String::new(),
        };
        Self {
            target,
            sources,
            next_source: Cell::new(0),
            tally: RefCell::new(tally),
            scratch: RefCell::new(scratch),
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

/// A push as the server wrote it, as far as the swarm looks at it. Read in one pass without
/// copying, because this is the swarm's hot path.
#[derive(Deserialize)]
struct PushView<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    syn: u64,
    #[serde(borrow)]
    message: MessageView<'a>,
}

#[derive(Deserialize)]
struct MessageView<'a> {
    #[serde(borrow)]
    data: DataView<'a>,
}

#[derive(Deserialize)]
struct DataView<'a> {
    send: &'a str,
    at: &'a str,
}

impl Tally {
    /// Counts a text frame; its syn when it is a push. The error says what is wrong with it.
    pub fn on_text(
        &mut self,
        place: &mut Place,
        text: &str,
        now_ns: u64,
    ) -> Result<Option<u64>, String> {
        if let Ok(push) = serde_json::from_str::<PushView<'_>>(text)
            && push.kind == "push"
        {
            let data = push.message.data;
            let (Ok(send), Ok(at_ns)) = (data.send.parse(), data.at.parse()) else {
                return Err("a push is not the swarm's".to_owned());
            };
            self.arrivals.arrive(place, send, push.syn);
            self.delivery.record_ns(now_ns.saturating_sub(at_ns));
            return Ok(Some(push.syn));
        }
        match ServerFrame::parse(text) {
            Ok(ServerFrame::Push(_)) => Err("a push is not the swarm's".to_owned()),
            Ok(ServerFrame::Error { status, message }) => {
                Err(format!("error frame: {status} {message}"))
            }
            Ok(_) => Ok(None),
            Err(error) => Err(format!("a broken frame: {error}")),
        }
    }
}
