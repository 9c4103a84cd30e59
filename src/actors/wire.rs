//! The bytes of one awake session: its stream, and what is half read or half written. Knows frames,
//! not what they mean.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};

use crate::actors::close_reason::CloseReason;
use crate::actors::frames::{Framing, Incoming};
use crate::actors::stream::{DeviceStream, NotParked};

/// Bytes read from a stream at a time: a device's frames are small.
const READ_BYTES: usize = 2 * 1024;

/// A stream with its buffers.
pub struct Wire<S: DeviceStream> {
    /// Gone once the session is parked or over.
    stream: Option<S>,
    framing: Framing,
    input: BytesMut,
    output: BytesMut,
    /// Since when the stream takes no bytes, on the caller's clock.
    stalled_since_ms: Option<u64>,
    /// A close frame was written: nothing follows it, and our side is shut after its last byte.
    is_ending: bool,
    is_shut: bool,
}

impl<S: DeviceStream> Wire<S> {
    /// `leftover` was read behind the upgrade request.
    pub fn new(stream: S, leftover: &[u8]) -> Self {
        Self {
            stream: Some(stream),
            framing: Framing::default(),
            input: BytesMut::from(leftover),
            output: BytesMut::new(),
            stalled_since_ms: None,
            is_ending: false,
            is_shut: false,
        }
    }

    /// Bytes that wait to be written.
    pub fn unsent(&self) -> usize {
        self.output.len()
    }

    /// Since when the stream takes no bytes.
    pub fn stalled_since_ms(&self) -> Option<u64> {
        self.stalled_since_ms
    }

    /// Queues a text frame.
    pub fn write_text(&mut self, text: String) {
        self.framing.write_text(text, &mut self.output);
    }

    /// Queues a pong.
    pub fn write_pong(&mut self, payload: Bytes) {
        self.framing.write_pong(payload, &mut self.output);
    }

    /// Queues the words of a close and the close itself. What comes in from now on is not kept.
    pub fn write_close(&mut self, reason: &CloseReason) {
        if let Some(frame) = reason.error_frame() {
            self.write_text(frame.to_text());
        }
        self.framing.write_close(reason, &mut self.output);
        self.is_ending = true;
    }

    /// Takes one message out of what was read; `None` when more bytes are needed.
    ///
    /// # Errors
    /// With what the device did wrong.
    pub fn next_message(&mut self) -> Result<Option<Incoming>, CloseReason> {
        let message = self.framing.read(&mut self.input)?;
        if message.is_none() && self.input.is_empty() {
            // The buffer of a burst is not kept by an idle session.
            self.input = BytesMut::new();
        }
        Ok(message)
    }

    /// Reads some bytes, and says how many; 0 at the end of the stream.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        let Some(stream) = self.stream.as_mut() else {
            return Poll::Pending;
        };
        let mut bytes = [0; READ_BYTES];
        let mut buffer = tokio::io::ReadBuf::new(&mut bytes);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        // What a peer says after our close is only read to let it finish.
        if !self.is_ending {
            self.input.extend_from_slice(buffer.filled());
        }
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Writes what waits, and says how many bytes went; shuts the stream after a close.
    ///
    /// # Errors
    /// When the stream is broken.
    pub fn flush(&mut self, now_ms: u64, cx: &mut Context<'_>) -> std::io::Result<usize> {
        let Some(stream) = self.stream.as_mut() else {
            return Ok(0);
        };
        let mut sent = 0;
        while !self.output.is_empty() {
            match Pin::new(&mut *stream).poll_write(cx, &self.output)? {
                Poll::Ready(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => {
                    self.output.advance(written);
                    self.stalled_since_ms = None;
                    sent += written;
                }
                Poll::Pending => {
                    self.stalled_since_ms.get_or_insert(now_ms);
                    return Ok(sent);
                }
            }
        }
        self.output = BytesMut::new();
        let flushed = Pin::new(&mut *stream).poll_flush(cx)?;
        if self.is_ending && !self.is_shut && flushed.is_ready() {
            self.is_shut = Pin::new(stream).poll_shutdown(cx)?.is_ready();
        }
        Ok(sent)
    }

    /// Nothing is half read or half written.
    pub fn is_idle(&self) -> bool {
        self.input.is_empty() && self.output.is_empty() && self.framing.is_empty()
    }

    /// Takes the stream out of the runtime, if it can leave; the wire is dead afterwards.
    ///
    /// # Errors
    /// When the stream is broken.
    pub fn park(&mut self) -> std::io::Result<Option<S::Parked>> {
        let Some(stream) = self.stream.take() else {
            return Ok(None);
        };
        match stream.park() {
            Ok(parked) => Ok(Some(parked)),
            Err(NotParked::Stays(stream)) => {
                self.stream = Some(stream);
                Ok(None)
            }
            Err(NotParked::Broken(error)) => Err(error),
        }
    }
}
