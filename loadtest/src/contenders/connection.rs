//! A connection to a server of any kind: bytes go out, and what comes back is read until it is whole.

use std::io;
use std::net::{IpAddr, SocketAddr};

use anyhow::bail;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http::{self, CALL_TIMEOUT, CallError};
use crate::websocket::{read_upgrade, upgrade_request};

/// Enough for any greeting at once.
const GREETING_BYTES: usize = 512;

/// A connection, and what was read from it and not yet taken.
pub struct Connection {
    /// The connection.
    pub stream: TcpStream,
    /// What came and was not asked for yet.
    pub bytes: Vec<u8>,
}

impl Connection {
    /// Connects, from a given source address if there is one.
    ///
    /// # Errors
    /// When the server does not accept it.
    pub async fn open(server: SocketAddr, source: Option<IpAddr>) -> io::Result<Self> {
        Ok(Self {
            stream: http::connect(server, source).await?,
            bytes: Vec::with_capacity(GREETING_BYTES),
        })
    }

    /// Asks for a WebSocket and waits until it is one.
    ///
    /// # Errors
    /// When the server does not switch.
    pub async fn upgrade(&mut self, host: &str, path: &str) -> anyhow::Result<()> {
        let request = upgrade_request(host, path);
        self.ask(request.as_bytes(), |bytes| match read_upgrade(bytes) {
            Ok(taken) => Ok(taken.map(|taken| ((), taken))),
            Err(broken) => {
                let head = String::from_utf8_lossy(bytes);
                bail!("{}: {}", broken.0, head.lines().next().unwrap_or_default())
            }
        })
        .await
    }

    /// Writes `question`, then reads until `take` finds something whole at the front, and how many
    /// bytes it takes.
    ///
    /// # Errors
    /// When the connection ends before that, or `take` finds something that must not be.
    pub async fn ask<T>(
        &mut self,
        question: &[u8],
        mut take: impl FnMut(&[u8]) -> anyhow::Result<Option<(T, usize)>>,
    ) -> anyhow::Result<T> {
        self.stream.write_all(question).await?;
        loop {
            if let Some((found, taken)) = take(&self.bytes)? {
                self.bytes.drain(..taken);
                return Ok(found);
            }
            if self.stream.read_buf(&mut self.bytes).await? == 0 {
                bail!("the connection ended before the answer");
            }
        }
    }
}

/// A connection for one question after the other: opened when it is needed, and kept.
#[derive(Default)]
pub struct Line(Option<Connection>);

impl Line {
    /// Asks, on a connection that `open` makes if there is none; see [`Connection::ask`].
    ///
    /// # Errors
    /// When there is no answer; the next question opens a new connection.
    pub async fn ask<T>(
        &mut self,
        open: impl AsyncFnOnce() -> anyhow::Result<Connection>,
        question: &[u8],
        take: impl FnMut(&[u8]) -> anyhow::Result<Option<(T, usize)>>,
    ) -> Result<T, CallError> {
        let mut connection = match self.0.take() {
            Some(connection) => connection,
            None => open()
                .await
                .map_err(|error| CallError::Unreachable(io::Error::other(error)))?,
        };
        let answer = timeout(CALL_TIMEOUT, connection.ask(question, take))
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
            .map_err(|error| CallError::Broken(io::Error::other(error)))?;
        self.0 = Some(connection);
        Ok(answer)
    }
}
