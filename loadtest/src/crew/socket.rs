//! The connection of one device: reads frames, acknowledges what comes, answers pings. An idle one
//! keeps no buffer.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use herald_protocol::{CloseCode, DeviceFrame, RetryAdvice};
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

use super::device::Device;
use super::tally::{Crew, Scratch};
use crate::clock::monotonic_ns;
use crate::contenders::Greeted;
use crate::pipe::Cut;
use crate::websocket::{Opcode, write_frame};

/// Pings go out at 0.7 to 0.9 of the interval, so that they spread.
const PING_EARLIEST: f64 = 0.7;
const PING_SPREAD: f64 = 0.2;

/// Further away than any run is long.
pub const NEVER: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Why a connection is over.
pub struct Over {
    pub reason: String,
    pub retry: Retry,
}

/// When a device whose connection is over comes back.
#[derive(Clone, Copy)]
pub enum Retry {
    /// Like a device that finds no server: later and later.
    BackOff,
    /// As the server advised.
    After(Duration),
    /// The server wants it to stay away.
    Never,
    /// It left of its own will.
    Departed,
    /// A storm cut it off.
    Cut(Cut),
}

impl Over {
    pub fn fault(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            retry: Retry::BackOff,
        }
    }

    /// The swarm itself wanted it so.
    pub fn planned(retry: Retry) -> Self {
        Self {
            reason: String::new(),
            retry,
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
pub struct Socket {
    stream: TcpStream,
    /// The beginning of a frame whose end has not come; empty nearly always.
    partial: Vec<u8>,
    /// How often the device pings.
    pub ping_every: Duration,
}

impl Socket {
    /// Connects; also says up to where the token's log went when the welcome was written.
    pub async fn open(crew: &Crew, device: &mut Device) -> anyhow::Result<(Self, u64)> {
        let min_syn = device.place.reconnect();
        let source = crew.next_source();
        let greeted = crew.service.connect(source, &device.identity, min_syn);
        let Greeted {
            connection,
            ping_interval,
            syn_stored,
        } = greeted.await?;
        let jitter = PING_EARLIEST + PING_SPREAD * rand::random::<f64>();
        let socket = Self {
            stream: connection.stream,
            partial: connection.bytes,
            ping_every: ping_interval.map_or(NEVER, |interval| interval.mul_f64(jitter)),
        };
        Ok((socket, syn_stored))
    }

    #[cfg(test)]
    pub fn of(stream: TcpStream) -> Self {
        Self {
            stream,
            partial: Vec::new(),
            ping_every: Duration::from_secs(1),
        }
    }

    /// Handles what came together with the welcome.
    pub async fn begin(&mut self, crew: &Crew, device: &mut Device) -> Result<(), Over> {
        let early = std::mem::take(&mut self.partial);
        let unsent = self.handle(crew, device, &early)?;
        self.write_all(&unsent).await
    }

    /// Writes bytes, however long the server takes.
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), Over> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// Waits for bytes, handles the frames in them, and returns what could not be written at
    /// once. May be dropped at any time.
    pub async fn read(&mut self, crew: &Crew, device: &mut Device) -> Result<Vec<u8>, Over> {
        poll_fn(|context| {
            // Borrowed for this poll only, so all sockets can share it.
            let mut read = std::mem::take(&mut crew.scratch.borrow_mut().read);
            let gulp = device.gulp_bytes().min(read.len());
            let mut buffer = ReadBuf::new(read.get_mut(..gulp).unwrap_or_default());
            let polled = Pin::new(&mut self.stream).poll_read(context, &mut buffer);
            let handled = polled.map(|outcome| {
                outcome?;
                if buffer.filled().is_empty() {
                    return Err(Over::fault("the connection ended"));
                }
                self.handle(crew, device, buffer.filled())
            });
            crew.scratch.borrow_mut().read = read;
            Poll::Ready(ready!(handled))
        })
        .await
    }

    /// Handles fresh bytes: counts pushes, acknowledges the last of them, answers pings.
    fn handle(&mut self, crew: &Crew, device: &mut Device, fresh: &[u8]) -> Result<Vec<u8>, Over> {
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
        loop {
            let mut counted = Ok(());
            let mut pushed = |syn, data| {
                device.unacked += 1;
                let this = tally.on_push(&mut device.place, syn, &data, now_ns);
                counted = std::mem::replace(&mut counted, Ok(())).and(this);
            };
            let heard = crew.service.hear(rest, write, &mut pushed);
            let Some(heard) = heard.map_err(Over::fault)? else {
                break;
            };
            counted.map_err(Over::fault)?;
            if let Some((code, reason)) = heard.goodbye {
                // A goodbye that cannot be written is a goodbye all the same.
                let _ = self.write_now(write);
                return Err(Over::closed(code, reason));
            }
            rest = rest.get(heard.taken..).unwrap_or_default();
        }
        tally.acked += device.write_ack(&crew.service, text, write);
        device.note_caught_up(&mut tally, now_ns);
        self.partial = rest.to_vec();
        self.write_now(write)
    }

    /// Says that the device is still there.
    pub async fn ping(&mut self) -> Result<(), Over> {
        let mut frame = Vec::new();
        let ping = DeviceFrame::Ping.to_text();
        write_frame(&mut frame, Opcode::Text, ping.as_bytes());
        self.write_all(&frame).await
    }

    /// Acknowledges what the device has not acknowledged yet.
    pub async fn acknowledge(&mut self, crew: &Crew, device: &mut Device) -> Result<(), Over> {
        let (mut text, mut frame) = (String::new(), Vec::new());
        let acked = device.write_ack(&crew.service, &mut text, &mut frame);
        crew.tally.borrow_mut().acked += acked;
        self.write_all(&frame).await
    }

    /// Says goodbye as a device does that is switched off properly.
    pub fn say_goodbye(&self) {
        let mut frame = Vec::new();
        write_frame(&mut frame, Opcode::Close, &1000_u16.to_be_bytes());
        // Whoever leaves does not wait to be heard.
        let _ = self.write_now(&frame);
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
