//! One device of the swarm: a socket that acknowledges what comes, answers pings, and comes back
//! when it is dropped. An idle one keeps no buffer.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use herald_protocol::{CloseCode, DeviceFrame, RetryAdvice};
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until};

use super::greeting;
use super::tally::{Crew, Scratch};
use crate::arrivals::Place;
use crate::clock::monotonic_ns;
use crate::register::Identity;
use crate::websocket::{Incoming, Opcode, read_frame, write_frame};

/// Ceiling of the first wait before coming back; it doubles up to [`RETURN_MAX`].
const RETURN_MIN: Duration = Duration::from_secs(1);
const RETURN_MAX: Duration = Duration::from_secs(30);

/// Pings go out at 0.7 to 0.9 of the interval, so that they spread.
const PING_EARLIEST: f64 = 0.7;
const PING_SPREAD: f64 = 0.2;

/// Why a connection is over.
struct Over {
    reason: String,
    retry: Retry,
}

enum Retry {
    BackOff,
    After(Duration),
    Never,
}

impl Over {
    fn fault(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            retry: Retry::BackOff,
        }
    }

    fn closed(code: u16, reason: &str) -> Self {
        let advice = RetryAdvice::from_reason(reason);
        Self {
            reason: format!("closed with {code} {reason}"),
            retry: if CloseCode::may_reconnect(code) {
                advice.map_or(Retry::BackOff, |advice| {
                    Retry::After(Duration::from_millis(advice.retry_ms))
                })
            } else {
                Retry::Never
            },
        }
    }
}

impl From<io::Error> for Over {
    fn from(error: io::Error) -> Self {
        Self::fault(error.to_string())
    }
}

/// A connection that has been greeted.
struct Socket {
    stream: TcpStream,
    /// The beginning of a frame whose end has not come; empty nearly always.
    partial: Vec<u8>,
    ping_every: Duration,
}

/// A device and its connection.
pub struct Seat {
    identity: Identity,
    place: Place,
    socket: Socket,
}

impl Seat {
    /// Connects a device for the first time.
    pub async fn take(crew: &Crew, identity: Identity) -> anyhow::Result<Self> {
        let mut place = Place::default();
        let socket = Socket::open(crew, &identity, place.reconnect()).await?;
        crew.tally.borrow_mut().open += 1;
        Ok(Self {
            identity,
            place,
            socket,
        })
    }

    pub fn token(&self) -> &str {
        &self.identity.token
    }

    /// Holds the connection, and comes back when it is lost, for as long as the process lives.
    pub async fn hold(mut self, crew: Rc<Crew>) {
        loop {
            let over = match self.serve(&crew).await {
                Ok(never) => match never {},
                Err(over) => over,
            };
            {
                let mut tally = crew.tally.borrow_mut();
                tally.open -= 1;
                tally.disconnects += 1;
                tally.disconnect_reason = Some(over.reason);
            }
            if !self.come_back(&crew, over.retry).await {
                return;
            }
            crew.tally.borrow_mut().open += 1;
        }
    }

    /// False when the device has to stay away.
    async fn come_back(&mut self, crew: &Crew, retry: Retry) -> bool {
        let mut ceiling = RETURN_MIN;
        let mut wait = match retry {
            Retry::Never => return false,
            Retry::After(advised) => advised,
            Retry::BackOff => ceiling.mul_f64(rand::random()),
        };
        let min_syn = self.place.reconnect();
        loop {
            sleep(wait).await;
            match Socket::open(crew, &self.identity, min_syn).await {
                Ok(socket) => {
                    self.socket = socket;
                    return true;
                }
                Err(error) => {
                    crew.tally.borrow_mut().disconnect_reason = Some(format!("{error:#}"));
                    ceiling = (ceiling * 2).min(RETURN_MAX);
                    wait = ceiling.mul_f64(rand::random());
                }
            }
        }
    }

    async fn serve(&mut self, crew: &Crew) -> Result<std::convert::Infallible, Over> {
        // What came together with the welcome is waiting already.
        let early = std::mem::take(&mut self.socket.partial);
        let token = &self.identity.token;
        let unsent = self.socket.handle(crew, token, &mut self.place, &early)?;
        self.socket.stream.write_all(&unsent).await?;
        let mut ping_at = Instant::now() + self.socket.ping_every;
        loop {
            tokio::select! {
                handled = self.socket.read(crew, token, &mut self.place) => {
                    let unsent = handled?;
                    self.socket.stream.write_all(&unsent).await?;
                }
                () = sleep_until(ping_at) => {
                    let mut frame = Vec::new();
                    write_frame(&mut frame, Opcode::Text, DeviceFrame::Ping.to_text().as_bytes());
                    self.socket.stream.write_all(&frame).await?;
                    ping_at = Instant::now() + self.socket.ping_every;
                }
            }
        }
    }
}

impl Socket {
    async fn open(crew: &Crew, identity: &Identity, min_syn: u64) -> anyhow::Result<Self> {
        let greeted = greeting::open(crew, identity, min_syn).await?;
        let jitter = PING_EARLIEST + PING_SPREAD * rand::random::<f64>();
        Ok(Self {
            stream: greeted.stream,
            partial: greeted.rest,
            ping_every: greeted.ping_interval.mul_f64(jitter),
        })
    }

    /// Waits for bytes, handles the frames in them, and returns what could not be written at
    /// once. May be dropped at any time.
    async fn read(&mut self, crew: &Crew, token: &str, place: &mut Place) -> Result<Vec<u8>, Over> {
        poll_fn(|context| {
            // Borrowed for this poll only, so all sockets can share it.
            let mut read = std::mem::take(&mut crew.scratch.borrow_mut().read);
            let mut buffer = ReadBuf::new(&mut read);
            let polled = Pin::new(&mut self.stream).poll_read(context, &mut buffer);
            let handled = polled.map(|outcome| {
                outcome?;
                if buffer.filled().is_empty() {
                    return Err(Over::fault("the connection ended"));
                }
                self.handle(crew, token, place, buffer.filled())
            });
            crew.scratch.borrow_mut().read = read;
            Poll::Ready(ready!(handled))
        })
        .await
    }

    /// Handles fresh bytes: counts pushes, acknowledges the last of them, answers pings.
    fn handle(
        &mut self,
        crew: &Crew,
        token: &str,
        place: &mut Place,
        fresh: &[u8],
    ) -> Result<Vec<u8>, Over> {
        let mut joined = std::mem::take(&mut self.partial);
        let mut rest = if joined.is_empty() {
            fresh
        } else {
            joined.extend_from_slice(fresh);
            &joined
        };
        let mut scratch = crew.scratch.borrow_mut();
        let Scratch { write, text, .. } = &mut *scratch;
        write.clear();
        let mut tally = crew.tally.borrow_mut();
        let now_ns = monotonic_ns();
        let mut pushes = 0;
        let mut latest = 0;
        while let Some((frame, taken)) = read_frame(rest).map_err(|broken| Over::fault(broken.0))? {
            match frame {
                Incoming::Text(frame) => {
                    if let Some(syn) = tally.on_text(place, frame, now_ns).map_err(Over::fault)? {
                        pushes += 1;
                        latest = latest.max(syn);
                    }
                }
                Incoming::Ping(content) => write_frame(write, Opcode::Pong, content),
                Incoming::Pong => {}
                Incoming::Close(code, reason) => {
                    write_frame(write, Opcode::Close, &code.to_be_bytes());
                    // A goodbye that cannot be written is a goodbye all the same.
                    let _ = self.write_now(write);
                    return Err(Over::closed(code, reason));
                }
            }
            rest = rest.get(taken..).unwrap_or_default();
        }
        if pushes > 0 {
            write_ack(text, token, latest);
            write_frame(write, Opcode::Text, text.as_bytes());
            tally.acked += pushes;
        }
        self.partial = rest.to_vec();
        self.write_now(write)
    }

    /// Writes what the kernel takes at once and returns the rest.
    fn write_now(&self, bytes: &[u8]) -> Result<Vec<u8>, Over> {
        if bytes.is_empty() {
            return Ok(Vec::new());
        }
        let written = match self.stream.try_write(bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.into()),
        };
        Ok(bytes.get(written..).unwrap_or_default().to_vec())
    }
}

/// By hand into a kept buffer: one for every push.
fn write_ack(out: &mut String, token: &str, syn: u64) {
    use std::fmt::Write as _;
    out.clear();
    let _ = write!(
        out,
        "{{\"type\":\"ack\",\"token\":\"{token}\",\"syn\":{syn}}}"
    );
}
