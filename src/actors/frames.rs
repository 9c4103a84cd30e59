//! WebSocket framing of a device's side: whole messages in, frames out.
//!
//! The framing itself is actix-http's. What is added is the judgement that it leaves to its caller:
//! a frame is judged by its header, before a byte of its payload is buffered, fragments are joined
//! within the same bound, and every fault has its close code.

use actix_http::ws::{
    CloseCode as WireCode, CloseReason as WireReason, Codec, Frame, Item, Message,
};
use bytes::{Bytes, BytesMut};
use herald_protocol::DEVICE_MESSAGE_BYTES_MAX;
use tokio_util::codec::{Decoder, Encoder};

use crate::actors::close_reason::CloseReason;

/// Fragments one message may come in. A device's messages fit one frame.
const FRAGMENTS_MAX: usize = 16;

/// Largest payload of a ping, pong or close (RFC 6455, 5.5).
const CONTROL_BYTES_MAX: u8 = 125;

/// What is no frame of RFC 6455.
const BROKEN: CloseReason = CloseReason::ProtocolError("broken framing");

/// A message from the device.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A text message.
    Text(String),
    /// To be answered with a pong of the same bytes.
    Ping(Bytes),
    /// A pong; only shows that the device lives.
    Pong,
    /// The device says goodbye.
    Close,
}

/// Reads and writes frames. Holds a few bytes unless a message is half received.
#[derive(Debug)]
pub struct Framing {
    codec: Codec,
    partial: Option<Box<Partial>>,
}

#[derive(Debug, Default)]
struct Partial {
    text: Vec<u8>,
    fragments: usize,
}

impl Default for Framing {
    fn default() -> Self {
        Self {
            codec: Codec::new().max_size(DEVICE_MESSAGE_BYTES_MAX),
            partial: None,
        }
    }
}

impl Framing {
    /// Takes the next whole message out of `input`; `None` when more bytes are needed.
    ///
    /// # Errors
    /// The reason to end the session with.
    pub fn read(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, CloseReason> {
        loop {
            judge_header(input)?;
            let frame = self.codec.decode(input).map_err(|_| BROKEN)?;
            let Some(frame) = frame else {
                return Ok(None);
            };
            if let Some(incoming) = self.take_frame(frame)? {
                return Ok(Some(incoming));
            }
        }
    }

    fn take_frame(&mut self, frame: Frame) -> Result<Option<Incoming>, CloseReason> {
        match frame {
            Frame::Text(text) => utf8(text.to_vec()).map(Some),
            Frame::Binary(_) | Frame::Continuation(Item::FirstBinary(_)) => {
                Err(CloseReason::Binary)
            }
            Frame::Continuation(Item::FirstText(bytes)) => {
                self.partial = Some(Box::default());
                self.add_fragment(&bytes)?;
                Ok(None)
            }
            Frame::Continuation(Item::Continue(bytes)) => {
                self.add_fragment(&bytes)?;
                Ok(None)
            }
            Frame::Continuation(Item::Last(bytes)) => {
                self.add_fragment(&bytes)?;
                let whole = self.partial.take().unwrap_or_default();
                utf8(whole.text).map(Some)
            }
            Frame::Ping(bytes) => Ok(Some(Incoming::Ping(bytes))),
            Frame::Pong(_) => Ok(Some(Incoming::Pong)),
            Frame::Close(_) => Ok(Some(Incoming::Close)),
        }
    }

    fn add_fragment(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        let partial = self.partial.get_or_insert_default();
        partial.fragments += 1;
        if partial.text.len() + bytes.len() > DEVICE_MESSAGE_BYTES_MAX {
            return Err(CloseReason::TooBig);
        }
        if partial.fragments > FRAGMENTS_MAX {
            return Err(CloseReason::RulesBroken(
                "a message of too many fragments".to_owned(),
            ));
        }
        partial.text.extend_from_slice(bytes);
        Ok(())
    }

    /// Whether half a message is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.partial.is_none()
    }

    /// Writes a text frame.
    pub fn write_text(&mut self, text: String, output: &mut BytesMut) {
        self.write(Message::Text(text.into()), output);
    }

    /// Answers a ping.
    pub fn write_pong(&mut self, bytes: Bytes, output: &mut BytesMut) {
        self.write(Message::Pong(bytes), output);
    }

    /// Says goodbye.
    pub fn write_close(&mut self, reason: &CloseReason, output: &mut BytesMut) {
        let wire = reason.code().map(|code| WireReason {
            code: WireCode::from(code.as_u16()),
            description: reason.text(),
        });
        // A device that closed by itself gets its close back.
        let wire = wire.unwrap_or_else(|| WireReason::from(WireCode::Normal));
        self.write(Message::Close(Some(wire)), output);
    }

    fn write(&mut self, message: Message, output: &mut BytesMut) {
        // Whole messages cannot fail: only continuations out of turn do.
        if let Err(error) = self.codec.encode(message, output) {
            tracing::error!(%error, "a frame could not be written");
        }
    }
}

fn utf8(bytes: Vec<u8>) -> Result<Incoming, CloseReason> {
    String::from_utf8(bytes)
        .map(Incoming::Text)
        .map_err(|_| CloseReason::BadUtf8)
}

/// Judges the frame header at the start of `input`, as far as it has come.
///
/// The codec judges the same, but some of it only when the whole frame is there, so that the verdict
/// would depend on the pieces that it comes in; and a ping in fragments is worth a line in the log
/// to it, of which any device could make a flood.
fn judge_header(input: &[u8]) -> Result<(), CloseReason> {
    let [first, second, ..] = input else {
        return Ok(());
    };
    let (is_final, reserved, opcode) = (first & 0x80 != 0, first & 0x70, first & 0x0f);
    let (is_masked, short_length) = (second & 0x80 != 0, second & 0x7f);
    let is_sound = match opcode {
        0..=2 => true,
        8..=10 => is_final && short_length <= CONTROL_BYTES_MAX,
        _ => false,
    };
    if reserved != 0 || !is_masked || !is_sound {
        return Err(BROKEN);
    }
    match declared_length(input) {
        Some(length) if length > DEVICE_MESSAGE_BYTES_MAX as u64 => Err(CloseReason::TooBig),
        _ => Ok(()),
    }
}

/// The payload length that the frame header at the start of `input` declares, once it is there.
fn declared_length(input: &[u8]) -> Option<u64> {
    match (input.get(1)? & 0x7f, input) {
        (126, [_, _, a, b, ..]) => Some(u64::from(u16::from_be_bytes([*a, *b]))),
        (127, [_, _, a, b, c, d, e, f, g, h, ..]) => {
            Some(u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
        }
        (126 | 127, _) => None,
        (short, _) => Some(u64::from(short)),
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
