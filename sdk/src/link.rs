//! One live socket: greeted, kept alive, and over at the first fault.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use herald_protocol::{CloseCode, DeviceFrame, Hello, RetryAdvice, ServerFrame, Welcome};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
};

use crate::api::Api;

/// From the first SYN to the server's welcome.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A ping that nothing answers for this long means that the socket is dead.
const PONG_TIMEOUT: Duration = Duration::from_secs(30);

/// A write or a goodbye that takes longer than this has failed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest frame the server may send: a message of 64 KiB with room for its envelope.
const SERVER_MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// Longest `retry_ms` that is believed.
const RETRY_MAX: Duration = Duration::from_secs(3_600);

/// Pings go out at 0.8 to 1.0 of the interval, so that devices greeted together drift apart.
const PING_EARLIEST: f64 = 0.8;

/// What a device does after a socket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Comes back after its own backoff.
    BackOff,
    /// Comes back when the server said.
    After(Duration),
    /// Registers anew.
    Register,
    /// Stays away.
    StayAway,
}

/// Why a socket ended or never came to be.
#[derive(Debug)]
pub(crate) struct Goodbye {
    pub(crate) next: Next,
    pub(crate) reason: String,
}

impl Goodbye {
    fn fault(reason: impl Into<String>) -> Self {
        Self {
            next: Next::BackOff,
            reason: reason.into(),
        }
    }

    fn closed(frame: Option<CloseFrame>) -> Self {
        let Some(frame) = frame else {
            return Self::fault("the server closed the socket");
        };
        let code = u16::from(frame.code);
        let next = if code == CloseCode::CredentialRefused.as_u16() {
            Next::Register
        } else if !CloseCode::may_reconnect(code) {
            Next::StayAway
        } else {
            RetryAdvice::from_reason(&frame.reason).map_or(Next::BackOff, |advice| {
                Next::After(Duration::from_millis(advice.retry_ms).min(RETRY_MAX))
            })
        };
        Self {
            next,
            reason: format!("closed with {code} {}", frame.reason),
        }
    }

    fn failed(error: Error) -> Self {
        let Error::Http(answer) = error else {
            return Self::fault(error.to_string());
        };
        let wait = answer
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(|seconds| Duration::from_secs(seconds).min(RETRY_MAX));
        Self {
            next: wait.map_or(Next::BackOff, Next::After),
            reason: format!(
                "the server refused the socket with HTTP {}",
                answer.status()
            ),
        }
    }
}

/// A greeted socket.
pub(crate) struct Link {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    opened_at: Instant,
    ping_every: Duration,
    ping_at: Instant,
    /// A ping is out; without any frame until then the socket is dead.
    dead_at: Option<Instant>,
}

impl Link {
    /// Connects and says hello. The credential goes into the hello, and into the upgrade's headers
    /// only where strangers are refused: a refusal is then certainly the server's own word, and never that of something
    /// between here and there that answers 401 to everything.
    pub(crate) async fn open(api: Api, hello: Hello) -> Result<(Self, Welcome), Goodbye> {
        timeout(CONNECT_TIMEOUT, Self::connect(api, hello))
            .await
            .unwrap_or_else(|_| Err(Goodbye::fault("the server took too long to greet")))
    }

    async fn connect(api: Api, hello: Hello) -> Result<(Self, Welcome), Goodbye> {
        let opened = match open_socket(&api, None).await? {
            // Too many strangers come from this network: say that this device is known.
            Err(Error::Http(answer)) if answer.status() == StatusCode::TOO_MANY_REQUESTS => {
                open_socket(&api, Some(&hello)).await?
            }
            opened => opened,
        };
        let mut socket = opened.map_err(Goodbye::failed)?;
        let hello = DeviceFrame::Hello(hello).to_text();
        socket
            .send(Message::text(hello))
            .await
            .map_err(Goodbye::failed)?;
        loop {
            match read(&mut socket).await? {
                Some(ServerFrame::Welcome(welcome)) => {
                    return Ok((Self::greeted(socket, welcome.ping_interval_ms), welcome));
                }
                Some(ServerFrame::Error { status, message }) => {
                    tracing::debug!(status, message, "server reports a fault before welcome");
                }
                _ => {}
            }
        }
    }

    fn greeted(socket: WebSocketStream<MaybeTlsStream<TcpStream>>, ping_interval_ms: u64) -> Self {
        let jitter = PING_EARLIEST + (1.0 - PING_EARLIEST) * rand::random::<f64>();
        let ping_every = Duration::from_millis(ping_interval_ms.max(1)).mul_f64(jitter);
        let now = Instant::now();
        Self {
            socket,
            opened_at: now,
            ping_every,
            ping_at: now + ping_every,
            dead_at: None,
        }
    }

    /// How long the socket has been up.
    pub(crate) fn age(&self) -> Duration {
        self.opened_at.elapsed()
    }

    /// Waits for the next frame and keeps the socket alive meanwhile; `None` when `wake_at` comes
    /// first. May be dropped and called again.
    pub(crate) async fn next(
        &mut self,
        wake_at: Option<Instant>,
    ) -> Result<Option<ServerFrame>, Goodbye> {
        loop {
            let alarm = self.dead_at.unwrap_or(self.ping_at);
            let alarm = wake_at.map_or(alarm, |wake_at| wake_at.min(alarm));
            tokio::select! {
                frame = read(&mut self.socket) => {
                    let frame = frame?;
                    self.dead_at = None;
                    if frame.is_some() {
                        return Ok(frame);
                    }
                }
                () = sleep_until(alarm) => {
                    let now = Instant::now();
                    if self.dead_at.is_some_and(|dead_at| dead_at <= now) {
                        return Err(Goodbye::fault("the server no longer answers"));
                    }
                    if self.dead_at.is_none() && self.ping_at <= now {
                        self.send(&DeviceFrame::Ping).await?;
                        self.ping_at = now + self.ping_every;
                        self.dead_at = Some(now + PONG_TIMEOUT);
                    }
                    if wake_at.is_some_and(|wake_at| wake_at <= now) {
                        return Ok(None);
                    }
                }
            }
        }
    }

    pub(crate) async fn send(&mut self, frame: &DeviceFrame) -> Result<(), Goodbye> {
        timeout(
            WRITE_TIMEOUT,
            self.socket.send(Message::text(frame.to_text())),
        )
        .await
        .map_err(|_| Goodbye::fault("the server no longer reads"))?
        .map_err(Goodbye::failed)
    }

    /// Says goodbye properly.
    pub(crate) async fn close(mut self) {
        let frame = CloseFrame {
            code: CloseCode::Normal.as_u16().into(),
            reason: "".into(),
        };
        let goodbye = async {
            self.socket.close(Some(frame)).await?;
            while let Some(message) = self.socket.next().await {
                message?;
            }
            Ok::<(), Error>(())
        };
        // The socket is given up either way.
        let _ = timeout(WRITE_TIMEOUT, goodbye).await;
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens a socket, as a stranger or as the device of this hello.
async fn open_socket(api: &Api, device: Option<&Hello>) -> Result<Result<Socket, Error>, Goodbye> {
    let fault = |error: &dyn std::error::Error| Goodbye::fault(error.to_string());
    let url = api.socket_url().map_err(|error| fault(&error))?;
    let mut request = url
        .as_str()
        .into_client_request()
        .map_err(|error| fault(&error))?;
    if let Some(hello) = device
        && let (Some(id), Some(secret)) = (&hello.device_id, &hello.device_secret)
    {
        let credential = format!("Device {id}.{secret}");
        let mut value = HeaderValue::from_str(&credential).map_err(|error| fault(&error))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    let config = WebSocketConfig::default()
        .read_buffer_size(4 * 1024)
        .write_buffer_size(0)
        .max_message_size(Some(SERVER_MESSAGE_BYTES_MAX))
        .max_frame_size(Some(SERVER_MESSAGE_BYTES_MAX));
    let connector = Connector::Rustls(Arc::new(api.tls()));
    let opened = connect_async_tls_with_config(request, Some(config), true, Some(connector)).await;
    Ok(opened.map(|(socket, _)| socket))
}

/// One message; `None` when it is nothing to act on, yet a sign of life.
async fn read(
    socket: &mut WebSocketStream<MaybeTlsStream<TcpStream>>,
) -> Result<Option<ServerFrame>, Goodbye> {
    match socket.next().await {
        Some(Ok(Message::Text(text))) => ServerFrame::parse(text.as_str())
            .map(Some)
            .map_err(|error| Goodbye::fault(format!("the server sent a broken frame: {error}"))),
        Some(Ok(Message::Close(frame))) => Err(Goodbye::closed(frame)),
        Some(Ok(_)) => Ok(None),
        Some(Err(error)) => Err(Goodbye::failed(error)),
        None => Err(Goodbye::fault("the connection broke")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(code: u16, reason: &str) -> Next {
        Goodbye::closed(Some(CloseFrame {
            code: code.into(),
            reason: reason.to_owned().into(),
        }))
        .next
    }

    #[test]
    fn close_codes_say_what_comes_next() {
        assert_eq!(closed(1001, ""), Next::BackOff);
        assert_eq!(
            closed(1012, r#"{"retry_ms":1500}"#),
            Next::After(Duration::from_millis(1_500))
        );
        assert_eq!(closed(1013, "soon"), Next::BackOff);
        assert_eq!(
            closed(1013, r#"{"retry_ms":99999999999}"#),
            Next::After(RETRY_MAX)
        );
        assert_eq!(closed(4003, ""), Next::Register);
        assert_eq!(closed(4008, ""), Next::BackOff);
        assert_eq!(closed(4009, ""), Next::StayAway);
        assert_eq!(Goodbye::closed(None).next, Next::BackOff);
    }
}
