//! A device at the other end of a stream in memory. It has no task and no descriptor of its own: it
//! acts while the session writes to it, and its answer is read in the same breath.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use herald::actors::stream::{DeviceStream, NotParked};
use herald_protocol::{DeviceFrame, ServerFrame};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::arrivals::{Arrivals, Place};
use crate::clock::monotonic_ns;
use crate::contenders::MessageView;
use crate::latency::Latencies;
use crate::websocket::{Incoming, Opcode, read_frame, write_frame};

/// Counts of one worker's devices, for whoever watches from another thread.
#[derive(Debug, Default)]
pub struct Counts {
    /// Devices that were welcomed.
    pub welcomed: AtomicU64,
    /// Sessions that are parked now.
    pub parked: AtomicU64,
    /// Sends that arrived.
    pub delivered: AtomicU64,
    /// Arrivals that were acknowledged.
    pub acked: AtomicU64,
}

/// What the devices of one worker have seen.
pub struct Witness {
    pub counts: Arc<Counts>,
    pub arrivals: RefCell<Arrivals>,
    pub delivery: RefCell<Latencies>,
    /// What a device was told that no device should be told.
    pub fault: RefCell<Option<String>>,
    /// Rings when a device is welcomed.
    pub welcome: Notify,
}

/// A push as the server writes it, as far as a device looks at it.
#[derive(Deserialize)]
struct PushView<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    token: &'a str,
    syn: u64,
    #[serde(borrow)]
    message: MessageView<'a>,
}

/// A simulated device.
pub struct Device {
    witness: Rc<Witness>,
    /// Whether its stream can leave the runtime; like one over TLS it cannot otherwise.
    parks: bool,
    talk: RefCell<Talk>,
    is_parked: Cell<bool>,
}

/// What is being said. Both buffers of an idle device are empty.
#[derive(Default)]
struct Talk {
    to_server: Vec<u8>,
    /// The beginning of a frame whose end has not come.
    from_server: Vec<u8>,
    place: Place,
    /// The session's, while it waits for the device.
    reader: Option<Waker>,
}

impl Witness {
    /// Nothing seen yet.
    pub fn new(counts: Arc<Counts>) -> Self {
        Self {
            counts,
            arrivals: RefCell::default(),
            delivery: RefCell::new(Latencies::new()),
            fault: RefCell::default(),
            welcome: Notify::new(),
        }
    }

    fn blame(&self, fault: impl Into<String>) {
        self.fault.borrow_mut().get_or_insert_with(|| fault.into());
    }
}

impl Device {
    /// Takes in what the session wrote, and answers.
    fn hear(&self, bytes: &[u8]) {
        let talk = &mut *self.talk.borrow_mut();
        let mut joined = std::mem::take(&mut talk.from_server);
        let mut rest = if joined.is_empty() {
            bytes
        } else {
            joined.extend_from_slice(bytes);
            &joined
        };
        let mut ack = None;
        let now_ns = monotonic_ns();
        loop {
            match read_frame(rest) {
                Ok(Some((frame, taken))) => {
                    ack = self.hear_frame(&mut talk.place, &frame, now_ns).or(ack);
                    rest = rest.get(taken..).unwrap_or_default();
                }
                Ok(None) => break,
                Err(broken) => return self.witness.blame(broken.0),
            }
        }
        talk.from_server = rest.to_vec();
        if let Some(token) = ack {
            let syn = talk.place.acknowledge();
            let frame = DeviceFrame::Ack { token, syn }.to_text();
            write_frame(&mut talk.to_server, Opcode::Text, frame.as_bytes());
            if let Some(reader) = talk.reader.take() {
                reader.wake();
            }
        }
    }

    /// Takes in one frame; the token to acknowledge when it was a push.
    fn hear_frame(&self, place: &mut Place, frame: &Incoming<'_>, now_ns: u64) -> Option<String> {
        let text = match frame {
            Incoming::Text(text) => *text,
            Incoming::Close(code, reason) => {
                self.witness.blame(format!("closed with {code} {reason}"));
                return None;
            }
            Incoming::Binary(_) => {
                self.witness.blame("a frame is not text");
                return None;
            }
            Incoming::Ping(_) | Incoming::Pong => return None,
        };
        if let Ok(push) = serde_json::from_str::<PushView<'_>>(text)
            && push.kind == "push"
        {
            let Some((send, at_ns)) = push.message.data.numbers() else {
                self.witness.blame("a push is not the swarm's");
                return None;
            };
            self.arrive(place, push.syn, send, now_ns.saturating_sub(at_ns));
            return Some(push.token.to_owned());
        }
        match ServerFrame::parse(text) {
            Ok(ServerFrame::Welcome(welcome)) => {
                let state = welcome.tokens.first();
                if let Some(error) = state.and_then(|state| state.error.as_ref()) {
                    self.witness.blame(format!("a token was refused: {error}"));
                }
                self.witness.counts.welcomed.fetch_add(1, Ordering::Relaxed);
                self.witness.welcome.notify_one();
            }
            other => self.witness.blame(format!("unexpected: {other:?}")),
        }
        None
    }

    fn arrive(&self, place: &mut Place, syn: u64, send: u64, latency_ns: u64) {
        let mut arrivals = self.witness.arrivals.borrow_mut();
        let before = arrivals.counts().delivered;
        arrivals.arrive(place, send, syn);
        let new = arrivals.counts().delivered - before;
        let counts = &self.witness.counts;
        counts.delivered.fetch_add(new, Ordering::Relaxed);
        counts.acked.fetch_add(1, Ordering::Relaxed);
        self.witness.delivery.borrow_mut().record_ns(latency_ns);
    }

    fn set_parked(&self, parked: bool) {
        let counts = &self.witness.counts;
        match (self.is_parked.replace(parked), parked) {
            (false, true) => counts.parked.fetch_add(1, Ordering::Relaxed),
            (true, false) => counts.parked.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}

/// The server's end of the stream.
pub struct MemoryStream(Rc<Device>);

impl MemoryStream {
    /// A stream to a new device.
    pub fn new(witness: &Rc<Witness>, parks: bool) -> Self {
        Self(Rc::new(Device {
            witness: Rc::clone(witness),
            parks,
            talk: RefCell::default(),
            is_parked: Cell::new(false),
        }))
    }
}

impl Drop for MemoryStream {
    /// The session's waker must not outlive the session: it keeps the session alive.
    fn drop(&mut self) {
        self.0.talk.borrow_mut().reader = None;
    }
}

impl DeviceStream for MemoryStream {
    type Parked = Rc<Device>;

    fn park(self) -> Result<Rc<Device>, NotParked<Self>> {
        if !self.0.parks {
            return Err(NotParked::Stays(self));
        }
        self.0.set_parked(true);
        Ok(Rc::clone(&self.0))
    }

    fn descriptor(_: &Rc<Device>) -> Option<BorrowedFd<'_>> {
        None
    }

    fn wake(parked: Rc<Device>) -> io::Result<Self> {
        parked.set_parked(false);
        Ok(Self(parked))
    }
}

impl AsyncRead for MemoryStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut talk = self.0.talk.borrow_mut();
        if talk.to_server.is_empty() {
            talk.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let taken = buffer.remaining().min(talk.to_server.len());
        buffer.put_slice(talk.to_server.get(..taken).unwrap_or_default());
        // A new one, for an idle device keeps no buffer.
        talk.to_server = talk.to_server.split_off(taken);
        if talk.to_server.is_empty() {
            talk.to_server = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MemoryStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.hear(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
