//! The client half of RFC 6455, as little of it as a swarm needs: no allocation for a frame, no
//! buffer for an idle socket.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Longest frame the server may send.
const FRAME_BYTES_MAX: u64 = 1024 * 1024;

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// Kinds of frames a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A text message.
    Text = 0x1,
    /// A message of bytes.
    Binary = 0x2,
    /// A goodbye.
    Close = 0x8,
    /// The answer to a ping.
    Pong = 0xA,
}

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A text message.
    Text(&'a str),
    /// A message of bytes.
    Binary(&'a [u8]),
    /// A goodbye with its code; 1005 when it had none.
    Close(u16, &'a str),
    /// Wants a pong with the same content.
    Ping(&'a [u8]),
    /// Answers a ping.
    Pong,
}

/// What a server must not send.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken(pub &'static str);

/// The request that asks for the upgrade.
pub fn upgrade_request(host: &str, path: &str) -> String {
    let key = STANDARD.encode(rand::random::<[u8; 16]>());
    let mut request = String::new();
    let _ = write!(
        request,
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n"
    );
    request
}

/// Reads the answer to the upgrade: how many bytes it takes, or `None` when more must come. The
/// server's proof that it knows the protocol is not checked: the frames that follow prove it.
///
/// # Errors
/// When the server does not switch.
pub fn read_upgrade(bytes: &[u8]) -> Result<Option<usize>, Broken> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut answer = httparse::Response::new(&mut headers);
    match answer.parse(bytes) {
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(length)) if answer.code == Some(101) => Ok(Some(length)),
        Ok(httparse::Status::Complete(_)) => Err(Broken("the upgrade was refused")),
        Err(_) => Err(Broken("the answer to the upgrade is not HTTP")),
    }
}

/// Appends one masked frame.
pub fn write_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    out.push(FINAL | opcode as u8);
    let length = payload.len();
    if let Ok(short) = u8::try_from(length)
        && short < LENGTH_16
    {
        out.push(MASKED | short);
    } else if let Ok(medium) = u16::try_from(length) {
        out.push(MASKED | LENGTH_16);
        out.extend_from_slice(&medium.to_be_bytes());
    } else {
        out.push(MASKED | LENGTH_64);
        out.extend_from_slice(&(length as u64).to_be_bytes());
    }
    let mask: [u8; 4] = rand::random();
    out.extend_from_slice(&mask);
    let masked = payload.iter().zip(mask.iter().cycle());
    out.extend(masked.map(|(byte, key)| byte ^ key));
}

/// Reads the first frame in `bytes` and how many bytes it takes; `None` when more must come.
///
/// # Errors
/// When the server breaks the protocol, or uses a part of it that no contender uses.
pub fn read_frame(bytes: &[u8]) -> Result<Option<(Incoming<'_>, usize)>, Broken> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    if second & MASKED != 0 {
        return Err(Broken("a server's frame is masked"));
    }
    let Some((length, header)) = read_length(*second, rest) else {
        return Ok(None);
    };
    if length > FRAME_BYTES_MAX {
        return Err(Broken("a frame is too long"));
    }
    let Ok(length) = usize::try_from(length) else {
        return Err(Broken("a frame is too long"));
    };
    let Some(payload) = bytes.get(header..header + length) else {
        return Ok(None);
    };
    Ok(Some((read_payload(*first, payload)?, header + length)))
}

/// The payload's length, and where it begins in the frame.
fn read_length(second: u8, rest: &[u8]) -> Option<(u64, usize)> {
    match second {
        LENGTH_16 => {
            let length = rest.first_chunk::<2>()?;
            Some((u64::from(u16::from_be_bytes(*length)), 4))
        }
        LENGTH_64 => {
            let length = rest.first_chunk::<8>()?;
            Some((u64::from_be_bytes(*length), 10))
        }
        short => Some((u64::from(short), 2)),
    }
}

fn read_payload(first: u8, payload: &[u8]) -> Result<Incoming<'_>, Broken> {
    if first & FINAL == 0 {
        return Err(Broken("a frame is fragmented"));
    }
    match first & !FINAL {
        0x1 => std::str::from_utf8(payload)
            .map(Incoming::Text)
            .map_err(|_| Broken("a text frame is not UTF-8")),
        0x2 => Ok(Incoming::Binary(payload)),
        0x8 => Ok(match payload {
            [high, low, reason @ ..] => Incoming::Close(
                u16::from_be_bytes([*high, *low]),
                std::str::from_utf8(reason).unwrap_or_default(),
            ),
            _ => Incoming::Close(1005, ""),
        }),
        0x9 => Ok(Incoming::Ping(payload)),
        0xA => Ok(Incoming::Pong),
        _ => Err(Broken("a frame is of no known kind")),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::CloseFrame;

    use super::*;

    const LENGTHS: [usize; 6] = [0, 1, 125, 126, 65_535, 65_536];

    /// Reads one frame from the stream, in gulps of at most `gulp` bytes.
    async fn next_text(stream: &mut tokio::io::DuplexStream, buffer: &mut Vec<u8>) -> String {
        loop {
            if let Some((Incoming::Text(text), taken)) = read_frame(buffer).expect("not broken") {
                let text = text.to_owned();
                buffer.drain(..taken);
                return text;
            }
            assert_ne!(stream.read_buf(buffer).await.expect("reads"), 0);
        }
    }

    #[tokio::test]
    async fn it_speaks_with_a_known_good_server() {
        // A small pipe, so that frames arrive in pieces.
        let (mut client, server) = tokio::io::duplex(100);
        let echo = async {
            let mut socket = tokio_tungstenite::accept_async(server)
                .await
                .expect("a good upgrade");
            for length in LENGTHS {
                let message = socket.next().await.expect("a message").expect("no fault");
                assert_eq!(message.len(), length);
                socket.send(message).await.expect("writes");
            }
            let close = socket.next().await.expect("a close").expect("no fault");
            assert!(matches!(close, Message::Close(Some(frame)) if u16::from(frame.code) == 1000));
        };
        let talk = async {
            let request = upgrade_request("host", "/v1/connect");
            client.write_all(request.as_bytes()).await.expect("writes");
            let mut buffer = Vec::new();
            let taken = loop {
                client.read_buf(&mut buffer).await.expect("reads");
                if let Some(taken) = read_upgrade(&buffer).expect("switches") {
                    break taken;
                }
            };
            buffer.drain(..taken);
            for length in LENGTHS {
                let text = "ü".repeat(length / 2) + if length % 2 == 1 { "x" } else { "" };
                let mut frame = Vec::new();
                write_frame(&mut frame, Opcode::Text, text.as_bytes());
                client.write_all(&frame).await.expect("writes");
                assert_eq!(next_text(&mut client, &mut buffer).await, text);
            }
            let mut frame = Vec::new();
            write_frame(&mut frame, Opcode::Close, &1000_u16.to_be_bytes());
            client.write_all(&frame).await.expect("writes");
        };
        tokio::join!(echo, talk);
    }

    #[tokio::test]
    async fn it_reads_control_frames() {
        let (mut client, server) = tokio::io::duplex(1_000);
        let mut socket = tokio_tungstenite::WebSocketStream::from_raw_socket(
            server,
            tokio_tungstenite::tungstenite::protocol::Role::Server,
            None,
        )
        .await;
        socket
            .send(Message::Ping("p".into()))
            .await
            .expect("writes");
        let frame = CloseFrame {
            code: 1012.into(),
            reason: "why".into(),
        };
        socket.close(Some(frame)).await.expect("writes");
        let mut buffer = Vec::new();
        while buffer.len() < 10 {
            client.read_buf(&mut buffer).await.expect("reads");
        }
        assert_eq!(read_frame(&buffer), Ok(Some((Incoming::Ping(b"p"), 3))));
        let rest = &buffer[3..];
        assert_eq!(
            read_frame(rest),
            Ok(Some((Incoming::Close(1012, "why"), 7)))
        );
    }

    #[test]
    fn what_a_server_must_not_send_is_refused_before_it_is_buffered() {
        assert!(read_frame(&[0x81, 0x81, 0, 0, 0, 0, 0]).is_err());
        assert!(read_frame(&[0x01, 1, b'x']).is_err());
        assert!(read_frame(&[0x83, 1, b'x']).is_err());
        assert!(read_frame(&[0x81, 1, 0xff]).is_err());
        assert!(read_frame(&[0x81, 127, 0xff, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert_eq!(read_frame(&[0x81, 126, 1]), Ok(None));
        assert!(read_upgrade(b"HTTP/1.1 503 Busy\r\n\r\n").is_err());
        assert_eq!(read_upgrade(b"HTTP/1.1 101 Swi"), Ok(None));
    }
}
