//! A keep-alive HTTP/1.1 client that costs one write and one read a call: the swarm shares its
//! processors with the server it measures.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// A call without an answer after this long has an unknown outcome.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The server closes connections after 75 idle seconds; one this old may be closing already.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Largest answer that is read; metrics are the longest.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

const HEADERS_MAX: usize = 64;

/// Why a call has no answer.
#[derive(Debug)]
pub enum CallError {
    /// No connection, so nothing was asked.
    Unreachable(io::Error),
    /// The connection broke, or stalled, after the request was handed to it.
    Broken(io::Error),
}

impl std::fmt::Display for CallError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(error) => write!(formatter, "cannot connect: {error}"),
            Self::Broken(error) => write!(formatter, "no answer: {error}"),
        }
    }
}

impl std::error::Error for CallError {}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body, decoded.
    pub body: Vec<u8>,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        write!(formatter, "HTTP {}: {body}", self.status)
    }
}

/// One connection to a server, opened when it is needed and kept.
#[derive(Debug)]
pub struct Caller {
    server: SocketAddr,
    source: Option<IpAddr>,
    stream: Option<TcpStream>,
    used_at: Instant,
    buffer: Vec<u8>,
}

impl Caller {
    /// A caller from a given source address, or any.
    pub fn new(server: SocketAddr, source: Option<IpAddr>) -> Self {
        Self {
            server,
            source,
            stream: None,
            used_at: Instant::now(),
            buffer: Vec::new(),
        }
    }

    /// A caller of the same server with a connection of its own.
    pub fn another(&self) -> Self {
        Self::new(self.server, self.source)
    }

    /// Sends a request, as written by [`write_request`], and waits for the answer.
    ///
    /// # Errors
    /// When there is no answer; the next call opens a new connection.
    pub async fn call(&mut self, request: &[u8]) -> Result<Answer, CallError> {
        if self.used_at.elapsed() > IDLE_MAX {
            self.stream = None;
        }
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.server, self.source)
                .await
                .map_err(CallError::Unreachable)?,
        };
        let exchange = exchange(&mut stream, &mut self.buffer, request);
        let (answer, keep) = timeout(CALL_TIMEOUT, exchange)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(CallError::Broken)?;
        if keep {
            self.stream = Some(stream);
        }
        self.used_at = Instant::now();
        Ok(answer)
    }
}

/// A TCP connection, from a given source address if there is one.
///
/// # Errors
/// When the server does not accept it in time.
pub async fn connect(server: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if server.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = timeout(CALL_TIMEOUT, socket.connect(server))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Appends a request. `head` is the request line and every header but the length, each with its
/// line end.
pub fn write_request(out: &mut Vec<u8>, head: &str, body: &[u8]) {
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(b"content-length: ");
    out.extend_from_slice(body.len().to_string().as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}

async fn exchange(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    request: &[u8],
) -> io::Result<(Answer, bool)> {
    buffer.clear();
    stream.write_all(request).await?;
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(answer) = read_answer(buffer)? {
            return Ok(answer);
        }
        if buffer.len() > ANSWER_BYTES_MAX {
            return Err(broken("the answer is too long"));
        }
    }
}

/// Reads a complete answer and whether the connection may be used again; `None` when more must
/// come.
fn read_answer(bytes: &[u8]) -> io::Result<Option<(Answer, bool)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let parsed = head
        .parse(bytes)
        .map_err(|error| broken(error.to_string()))?;
    let httparse::Status::Complete(length) = parsed else {
        return Ok(None);
    };
    let status = head.code.unwrap_or_default();
    let header = |name: &str| {
        let found = head
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let keep = !header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let rest = bytes.get(length..).unwrap_or_default();
    let body = if header("transfer-encoding").is_some() {
        read_chunks(rest)?
    } else {
        let length = header("content-length").map_or(Ok(0), str::parse);
        let length: usize = length.map_err(|_| broken("the content-length is no number"))?;
        rest.get(..length).map(<[u8]>::to_vec)
    };
    Ok(body.map(|body| (Answer { status, body }, keep)))
}

/// Reads a chunked body up to its last chunk; `None` when more must come.
fn read_chunks(mut rest: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let parsed =
            httparse::parse_chunk_size(rest).map_err(|_| broken("a chunk is malformed"))?;
        let httparse::Status::Complete((header, length)) = parsed else {
            return Ok(None);
        };
        let length = usize::try_from(length).map_err(|_| broken("a chunk is too long"))?;
        let end = header.saturating_add(length);
        let (Some(chunk), Some(b"\r\n")) =
            (rest.get(header..end), rest.get(end..end.saturating_add(2)))
        else {
            return Ok(None);
        };
        if length == 0 {
            return Ok(Some(body));
        }
        body.extend_from_slice(chunk);
        rest = rest.get(end + 2..).unwrap_or_default();
    }
}

fn broken(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn read(text: &str) -> Option<(u16, String, bool)> {
        let answer = read_answer(text.as_bytes()).expect("is HTTP");
        answer.map(|(answer, keep)| {
            let body = String::from_utf8(answer.body).expect("is text");
            (answer.status, body, keep)
        })
    }

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let plain = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(read(plain), Some((200, "abc".into(), true)));
        let closing = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
        assert_eq!(read(closing), Some((204, String::new(), false)));
        let chunked =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
        assert_eq!(read(chunked), Some((200, "abcd".into(), true)));
        for whole in [plain, closing, chunked] {
            for cut in 0..whole.len() {
                assert_eq!(read(&whole[..cut]), None, "at {cut} of {whole:?}");
            }
        }
        assert!(read_answer(b"SSH-2.0\r\n").is_err());
    }

    #[tokio::test]
    async fn a_connection_is_kept_and_replaced_when_it_broke() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let server = listener.local_addr().expect("an address");
        let serve = async {
            let (mut first, _) = listener.accept().await.expect("accepts");
            let mut request = [0; 64];
            for _ in 0..2 {
                assert_ne!(first.read(&mut request).await.expect("reads"), 0);
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                first.write_all(answer).await.expect("writes");
            }
            assert_ne!(first.read(&mut request).await.expect("reads"), 0);
            drop(first);
            let (mut second, _) = listener.accept().await.expect("accepts");
            assert_ne!(second.read(&mut request).await.expect("reads"), 0);
            let answer = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";
            second.write_all(answer).await.expect("writes");
        };
        let call = async {
            let source = Some("127.0.0.9".parse().expect("an address"));
            let mut caller = Caller::new(server, source);
            let mut request = Vec::new();
            write_request(&mut request, "GET / HTTP/1.1\r\nhost: h\r\n", b"");
            for _ in 0..2 {
                assert_eq!(caller.call(&request).await.expect("answers").status, 200);
            }
            let broken = caller.call(&request).await;
            assert!(matches!(broken, Err(CallError::Broken(_))), "{broken:?}");
            assert_eq!(caller.call(&request).await.expect("answers").status, 503);
        };
        tokio::join!(serve, call);
        drop(listener);
        let mut caller = Caller::new(server, None);
        let refused = caller.call(b"GET / HTTP/1.1\r\n\r\n").await;
        assert!(
            matches!(refused, Err(CallError::Unreachable(_))),
            "{refused:?}"
        );
    }
}
