//! A device's socket, frame by frame.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::soon;

/// What proves a device.
#[derive(Debug, Clone)]
pub struct Credential {
    /// The public id.
    pub id: String,
    /// The secret.
    pub secret: String,
}

impl Credential {
    /// The `Authorization` header's value.
    pub fn header(&self) -> String {
        format!("Device {}.{}", self.id, self.secret)
    }
}

/// What came over a socket.
#[derive(Debug, Default)]
pub struct Heard {
    /// The pushes, in order.
    pub pushes: Vec<Value>,
    /// The code of the close, if it was closed.
    pub closed: Option<u16>,
}

/// An open socket.
pub struct Socket {
    /// For what tests want beside the verbs below.
    pub stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Socket {
    /// Opens a socket.
    pub async fn connect(url: &str) -> Self {
        let connected = soon(
            "the upgrade",
            tokio_tungstenite::connect_async_with_config(url, None, true),
        )
        .await;
        Self {
            stream: connected.expect("an upgrade").0,
        }
    }

    /// Opens a socket, if somebody is there.
    pub async fn try_connect(url: &str) -> Option<Self> {
        let connecting = tokio_tungstenite::connect_async_with_config(url, None, true);
        let (stream, _) = soon("the upgrade or its end", connecting).await.ok()?;
        Some(Self { stream })
    }

    /// Opens a socket with the device's credential in the header.
    pub async fn connect_as(url: &str, device: &Credential) -> Self {
        use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
        let mut request = url.into_client_request().expect("a request");
        let value = device.header().parse().expect("a header's value");
        request.headers_mut().insert("Authorization", value);
        let connecting = tokio_tungstenite::connect_async_with_config(request, None, true);
        Self {
            stream: soon("the upgrade", connecting).await.expect("an upgrade").0,
        }
    }

    /// Opens a socket whose receive buffer holds some 64 KiB: less, and the kernels at both
    /// ends would wait for each other.
    pub async fn connect_narrow(address: &str, url: &str) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket
            .set_recv_buffer_size(64 * 1024)
            .expect("a small buffer");
        let address = address.parse().expect("an address");
        let stream = soon("a connection", socket.connect(address))
            .await
            .expect("a connection");
        let stream = MaybeTlsStream::Plain(stream);
        let upgraded = tokio_tungstenite::client_async(url, stream);
        Self {
            stream: soon("the upgrade", upgraded).await.expect("an upgrade").0,
        }
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: &Value) {
        self.send_message(Message::text(frame.to_string())).await;
    }

    /// Sends any message; a socket that is gone is found out when it is read.
    pub async fn send_message(&mut self, message: Message) {
        let _ = self.stream.send(message).await;
    }

    /// Says hello.
    pub async fn hello(&mut self, device: &Credential, tokens: &[(&str, u64)]) {
        let tokens: Vec<Value> = tokens
            .iter()
            .map(|(token, min_syn)| json!({"token": token, "min_syn": min_syn}))
            .collect();
        self.send(&json!({
            "type": "hello",
            "device_id": device.id,
            "device_secret": device.secret,
            "tokens": tokens,
            "client": "scenarios/1",
        }))
        .await;
    }

    /// Acknowledges.
    pub async fn ack(&mut self, token: &str, syn: u64) {
        self.send(&json!({"type": "ack", "token": token, "syn": syn}))
            .await;
    }

    /// Adds a token to the session.
    pub async fn subscribe(&mut self, token: &str, min_syn: u64) {
        self.send(&json!({"type": "subscribe", "token": token, "min_syn": min_syn}))
            .await;
    }

    /// Takes a token off the session.
    pub async fn unsubscribe(&mut self, token: &str) {
        self.send(&json!({"type": "unsubscribe", "token": token}))
            .await;
    }

    /// Reads until the socket is closed, or so many pushes have come; other frames are passed over.
    pub async fn until_closed_or(&mut self, pushes_wanted: usize) -> Heard {
        let mut heard = Heard::default();
        while heard.pushes.len() < pushes_wanted {
            match self.message().await {
                Some(Message::Text(text)) => {
                    let frame: Value = serde_json::from_str(&text).expect("a frame of JSON");
                    if frame["type"] == "push" {
                        heard.pushes.push(frame);
                    }
                }
                Some(Message::Close(close)) => {
                    heard.closed = Some(close.map_or(1005, |close| close.code.into()));
                    break;
                }
                Some(_) => {}
                None => {
                    heard.closed = Some(1006);
                    break;
                }
            }
        }
        heard
    }

    /// Sends a ping and waits for its pong: everything sent before has been taken by then. Frames
    /// that come in between are returned.
    pub async fn sync(&mut self) -> Vec<Value> {
        self.send(&json!({"type": "ping"})).await;
        let mut before = Vec::new();
        loop {
            let frame = self.frame().await;
            if frame["type"] == "pong" {
                return before;
            }
            before.push(frame);
        }
    }

    /// The next message of any kind; `None` at the end of the stream.
    pub async fn message(&mut self) -> Option<Message> {
        soon("a message", self.stream.next())
            .await
            .and_then(Result::ok)
    }

    /// The next text frame.
    pub async fn frame(&mut self) -> Value {
        loop {
            match self.message().await {
                Some(Message::Text(text)) => {
                    return serde_json::from_str(&text).expect("a frame of JSON");
                }
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("a frame was expected, not {other:?}"),
            }
        }
    }

    /// The next push.
    pub async fn push(&mut self) -> Value {
        let frame = self.frame().await;
        assert_eq!(frame["type"], "push", "{frame}");
        frame
    }

    /// Reads until the close; its code and reason. Frames before it are passed over.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.message().await {
                Some(Message::Close(Some(close))) => {
                    return (close.code.into(), close.reason.to_string());
                }
                Some(Message::Close(None)) => return (1005, String::new()),
                None => return (1006, String::new()),
                Some(_) => {}
            }
        }
    }
}
