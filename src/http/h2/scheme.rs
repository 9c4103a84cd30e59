//! Lets senders in whose `:scheme` ends in a colon: Node's `firebase-admin` sends `https:` on every
//! HTTP/2 request, and `h2` rightly refuses that.
//!
//! The header is mended before `h2` sees it. Header blocks are compressed (RFC 7541), but walking
//! over one needs neither its tables nor Huffman's code: every field says how long it is. A literal
//! `:scheme` names itself by one of two numbers that never change, and its text `https:` takes
//! exactly as many bytes in Huffman's code as `https` takes plain. So five bytes and their length
//! byte are overwritten in place, and nothing moves. Later requests name the field by its place in the
//! connection's table, into which `h2` has put the mended one. That this cannot make the table of
//! `h2` differ from the sender's where it matters is shown in `docs/decisions`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::idle_frames::{CONTINUATION, HEADERS, IdleFrames};

/// What every client sends first (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;

/// Length, type, flags and stream of a frame.
const FRAME_HEAD_BYTES: usize = 9;

const END_HEADERS: u8 = 0x04;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;

/// What priority takes in a frame of headers.
const PRIORITY_BYTES: usize = 5;

/// The places of `:scheme` in the table that never changes (RFC 7541, appendix A).
const SCHEME_INDEXES: [u8; 2] = [6, 7];

/// A wrong text as Huffman's code has it, and the right one plain: each with its length byte.
const MENDED: [(&[u8], &[u8]); 2] = [
    (b"\x85\x9d\x29\xad\x17\x3f", b"\x05https"),
    (b"\x84\x9d\x29\xae\xe7", b"\x04http"),
];

/// Where the last seven bits of a text's length may stand.
const LENGTH_SHIFT_MAX: u32 = 21;

/// Bytes that are read at a time.
const READ_BYTES: usize = 8 * 1024;

/// What a read takes of a turn, of which tokio grants 128: it may hold hundreds of frames.
const READ_COST: usize = 128 / 16;

/// A connection whose incoming `:scheme`s are mended.
pub struct MendedScheme<C> {
    connection: C,
    /// Read, and not yet handed on.
    incoming: BytesMut,
    /// How many bytes of it will not change any more.
    decided: usize,
    walker: Walker,
}

impl<C> MendedScheme<C> {
    /// Wraps a connection of which nothing was read yet.
    pub fn new(connection: C) -> Self {
        Self {
            connection,
            incoming: BytesMut::new(),
            decided: 0,
            walker: Walker::default(),
        }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for MendedScheme<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.decided == 0 {
            for _ in 0..READ_COST {
                ready!(tokio::task::coop::poll_proceed(cx)).made_progress();
            }
            this.incoming.reserve(READ_BYTES);
            let connection = Pin::new(&mut this.connection);
            let read = tokio_util::io::poll_read_buf(connection, cx, &mut this.incoming);
            if ready!(read)? == 0 {
                // The end: what was held back will not be completed.
                this.decided = this.incoming.len();
                break;
            }
            this.decided = this.walker.walk(&mut this.incoming);
            if this.walker.idle_frames.are_too_many() {
                return Poll::Ready(Err(io::Error::other("frames without requests")));
            }
        }
        let count = this.decided.min(buffer.remaining());
        buffer.put_slice(&this.incoming[..count]);
        this.incoming.advance(count);
        this.decided -= count;
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for MendedScheme<C> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().connection).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().connection).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }
}

/// Where in the client's bytes the walk is.
#[derive(Debug)]
struct Walker {
    idle_frames: IdleFrames,
    frame: Frame,
    field: Field,
}

#[derive(Debug, Clone, Copy)]
enum Frame {
    /// At the first byte of a frame.
    Head,
    /// In bytes that are none of ours.
    Other { left: usize },
    /// In a piece of a header block; so many bytes of padding follow it.
    Block {
        left: usize,
        padding: usize,
        is_last: bool,
    },
    /// This is no HTTP/2. `h2` will say so, and nothing is touched any more.
    Lost,
}

/// Where in a header block the walk is. A block may be in several pieces.
#[derive(Debug, Clone, Copy)]
enum Field {
    Start,
    /// In the rest of a number whose value does not matter; whether a text follows.
    Number {
        text_follows: bool,
    },
    /// At the length of a name or a value.
    Length(Text),
    /// In the rest of a length.
    LongLength {
        text: Text,
        length: usize,
        shift: u32,
    },
    /// In a text.
    Text {
        text: Text,
        left: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    /// After which comes the value.
    Name,
    Value,
    ValueOfScheme,
}

impl Default for Walker {
    fn default() -> Self {
        Self {
            idle_frames: IdleFrames::default(),
            frame: Frame::Other {
                left: PREFACE_BYTES,
            },
            field: Field::Start,
        }
    }
}

impl Walker {
    /// Goes on through bytes that begin where the last walk ended, and mends them. Answers with how
    /// far it came: a few bytes at the end may have to wait for the next ones.
    fn walk(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
            match self.step(rest) {
                Some(count) => at += count,
                None => break,
            }
        }
        at
    }

    /// Takes the next few bytes; `None` when there are too few of them.
    fn step(&mut self, bytes: &mut [u8]) -> Option<usize> {
        match self.frame {
            Frame::Head => self.begin_frame(bytes),
            Frame::Lost => Some(bytes.len()),
            Frame::Other { left } => {
                let count = left.min(bytes.len());
                self.frame = match left - count {
                    0 => Frame::Head,
                    left => Frame::Other { left },
                };
                Some(count)
            }
            Frame::Block {
                left: 0,
                padding,
                is_last,
            } => {
                if is_last {
                    self.field = Field::Start;
                }
                self.frame = Frame::Other { left: padding };
                Some(0)
            }
            Frame::Block {
                left,
                padding,
                is_last,
            } => {
                let count = self.take_field_bytes(bytes, left)?;
                self.frame = Frame::Block {
                    left: left - count,
                    padding,
                    is_last,
                };
                Some(count)
            }
        }
    }

    fn begin_frame(&mut self, bytes: &[u8]) -> Option<usize> {
        let (head, payload) = bytes.split_at_checked(FRAME_HEAD_BYTES)?;
        let &[high, middle, low, kind, flags, ..] = head else {
            return None;
        };
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.idle_frames.note(kind, length);
        if kind != HEADERS && kind != CONTINUATION {
            self.frame = Frame::Other { left: length };
            return Some(FRAME_HEAD_BYTES);
        }
        let has = |flag| kind == HEADERS && flags & flag != 0;
        let mut before = if has(PRIORITY) { PRIORITY_BYTES } else { 0 };
        let mut padding = 0;
        if has(PADDED) && length > 0 {
            padding = usize::from(*payload.first()?);
            before += 1;
        }
        if payload.len() < before.min(length) {
            return None;
        }
        let left = length.checked_sub(before + padding);
        self.frame = left.map_or(Frame::Lost, |left| Frame::Block {
            left,
            padding,
            is_last: flags & END_HEADERS != 0,
        });
        Some(FRAME_HEAD_BYTES + before.min(length))
    }

    /// Takes bytes of a piece of a header block that has so many `left`, which is not 0.
    fn take_field_bytes(&mut self, bytes: &mut [u8], left: usize) -> Option<usize> {
        let first = *bytes.first()?;
        self.field = match self.field {
            Field::Start => begin_field(first),
            Field::Number { text_follows } if first & 0x80 != 0 => Field::Number { text_follows },
            Field::Number { text_follows: true } => Field::Length(Text::Value),
            Field::Number {
                text_follows: false,
            } => Field::Start,
            Field::Length(text) => {
                if text == Text::ValueOfScheme {
                    mend(bytes, left)?;
                }
                match bytes.first()? & 0x7f {
                    0x7f => Field::LongLength {
                        text,
                        length: 0x7f,
                        shift: 0,
                    },
                    length => text_of(text, usize::from(length)),
                }
            }
            Field::LongLength {
                text,
                length,
                shift,
            } => {
                // More than any block can hold: `h2` will not take it either.
                if shift > LENGTH_SHIFT_MAX {
                    self.field = Field::Text {
                        text,
                        left: usize::MAX,
                    };
                    return Some(1);
                }
                let length = length + (usize::from(first & 0x7f) << shift);
                match first & 0x80 {
                    0 => text_of(text, length),
                    _ => Field::LongLength {
                        text,
                        length,
                        shift: shift + 7,
                    },
                }
            }
            Field::Text { text, left: inside } => {
                let count = inside.min(left).min(bytes.len());
                self.field = text_of(text, inside - count);
                return Some(count);
            }
        };
        Some(1)
    }
}

/// What a field's first byte says (RFC 7541, section 6).
fn begin_field(first: u8) -> Field {
    let (prefix, is_literal) = match first {
        0x80.. => (0x7f, false),
        0x40.. => (0x3f, true),
        // The size of the table.
        0x20.. => (0x1f, false),
        _ => (0x0f, true),
    };
    let index = first & prefix;
    if index == prefix {
        return Field::Number {
            text_follows: is_literal,
        };
    }
    match index {
        _ if !is_literal => Field::Start,
        0 => Field::Length(Text::Name),
        _ if SCHEME_INDEXES.contains(&index) => Field::Length(Text::ValueOfScheme),
        _ => Field::Length(Text::Value),
    }
}

/// A text of which so much is left.
fn text_of(text: Text, left: usize) -> Field {
    match (left, text) {
        (0, Text::Name) => Field::Length(Text::Value),
        (0, _) => Field::Start,
        _ => Field::Text { text, left },
    }
}

/// Mends the value that begins here, if it is one of the wrong ones and stands in one piece. `None`
/// when more bytes are needed to know.
fn mend(bytes: &mut [u8], left: usize) -> Option<()> {
    for (wrong, right) in MENDED {
        let seen = bytes.len().min(wrong.len());
        if left < wrong.len() || bytes.get(..seen) != wrong.get(..seen) {
            continue;
        }
        bytes.get_mut(..wrong.len())?.copy_from_slice(right);
        return Some(());
    }
    Some(())
}

#[cfg(test)]
mod tests;
