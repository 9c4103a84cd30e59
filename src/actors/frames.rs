//! WebSocket framing of a device's side: whole messages in, frames out.
//!
//! The framing itself is actix-http's. What is added is the judgement that it leaves to its caller:
//! the *declared* length is checked before a byte of the payload is buffered, fragments are joined
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
            if declared_length(input).is_some_and(|length| length > DEVICE_MESSAGE_BYTES_MAX as u64)
            {
                return Err(CloseReason::TooBig);
            }
            let frame = self.codec.decode(input).map_err(|error| match error {
                actix_http::ws::ProtocolError::Overflow => CloseReason::TooBig,
                _ => CloseReason::ProtocolError("broken framing"),
            })?;
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
mod tests {
    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..126 => frame.push(0x80 | short as u8),
            medium => {
                frame.push(0x80 | 126);
                frame.extend((medium as u16).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        frame
    }

    fn read_all(bytes: &[u8]) -> Result<Vec<Incoming>, CloseReason> {
        let (mut framing, mut input) = (Framing::default(), BytesMut::from(bytes));
        let mut messages = Vec::new();
        while let Some(message) = framing.read(&mut input)? {
            messages.push(message);
        }
        Ok(messages)
    }

    #[test]
    fn a_frame_that_declares_too_much_is_refused_at_its_header() {
        let mut header = vec![0x81, 0x80 | 127];
        header.extend((1_u64 << 33).to_be_bytes());
        assert_eq!(read_all(&header), Err(CloseReason::TooBig));
        let mut header = vec![0x81, 0x80 | 126];
        header.extend((DEVICE_MESSAGE_BYTES_MAX as u16 + 1).to_be_bytes());
        assert_eq!(read_all(&header), Err(CloseReason::TooBig));
    }

    #[test]
    fn the_largest_message_passes_whole_or_in_fragments() {
        let text = vec![b'x'; DEVICE_MESSAGE_BYTES_MAX];
        let whole = String::from_utf8(text.clone()).expect("ascii");
        assert_eq!(
            read_all(&masked(0x81, &text)),
            Ok(vec![Incoming::Text(whole.clone())])
        );
        let (one, two) = text.split_at(100);
        let fragments = [masked(0x01, one), masked(0x89, b"hi"), masked(0x80, two)].concat();
        let ping = Incoming::Ping(Bytes::from_static(b"hi"));
        assert_eq!(read_all(&fragments), Ok(vec![ping, Incoming::Text(whole)]));
        let over = [masked(0x01, &text), masked(0x80, b"x")].concat();
        assert_eq!(read_all(&over), Err(CloseReason::TooBig));
    }

    #[test]
    fn faults_have_their_close_reasons() {
        assert_eq!(read_all(&masked(0x82, b"x")), Err(CloseReason::Binary));
        assert_eq!(read_all(&masked(0x81, &[0xff])), Err(CloseReason::BadUtf8));
        let broken = Err(CloseReason::ProtocolError("broken framing"));
        assert_eq!(
            read_all(&masked(0x80, b"x")),
            broken,
            "a continuation of nothing"
        );
        assert_eq!(read_all(&masked(0x83, b"x")), broken, "an unknown opcode");
        assert_eq!(read_all(&[0x81, 0x01, b'x']), broken, "not masked");
        let many = [masked(0x01, b""), masked(0x00, b"").repeat(20)].concat();
        assert!(matches!(read_all(&many), Err(CloseReason::RulesBroken(_))));
    }

    #[test]
    fn messages_come_whole_whatever_the_chunks() {
        let bytes = [
            masked(0x81, b"{\"a\":1}"),
            masked(0x89, b"p"),
            masked(0x88, b""),
        ]
        .concat();
        let (mut framing, mut input) = (Framing::default(), BytesMut::new());
        let mut messages = Vec::new();
        for byte in bytes {
            input.extend([byte]);
            messages.extend(framing.read(&mut input).expect("well formed"));
        }
        let ping = Incoming::Ping(Bytes::from_static(b"p"));
        assert_eq!(
            messages,
            [Incoming::Text("{\"a\":1}".into()), ping, Incoming::Close]
        );
    }
}
