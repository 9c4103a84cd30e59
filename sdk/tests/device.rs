//! The device against a scripted server: what it says, and what it does when it is told off.

use futures_util::{SinkExt as _, StreamExt as _};
use herald_protocol::{DeviceFrame, Hello, ServerFrame};
use herald_sdk::{Api, Credential, Device, DeviceState, Event, SdkError, TokenState};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// A server that does what the test says, one connection after the other.
struct Script {
    listener: TcpListener,
}

/// One greeted socket, seen from the server.
struct Session {
    socket: WebSocketStream<TcpStream>,
}

/// One HTTP request.
struct Request {
    stream: TcpStream,
    head: String,
    body: String,
}

impl Script {
    async fn start() -> (Self, Api) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("has an address");
        let api = Api::new(&format!("http://{address}")).expect("a good address");
        (Self { listener }, api)
    }

    async fn socket(&self) -> Session {
        let (stream, _) = self.listener.accept().await.expect("accepts");
        let socket = tokio_tungstenite::accept_async(stream)
            .await
            .expect("an upgrade");
        Session { socket }
    }

    async fn request(&self) -> Request {
        let (mut stream, _) = self.listener.accept().await.expect("accepts");
        let mut bytes = Vec::new();
        loop {
            stream.read_buf(&mut bytes).await.expect("reads");
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(0, |(_, length)| length.parse().expect("a number"));
            if body.len() >= length {
                return Request {
                    stream,
                    head: head.to_owned(),
                    body: body.to_owned(),
                };
            }
        }
    }
}

impl Request {
    async fn answer(mut self, status: &str, headers: &str, body: &str) {
        let text = format!(
            "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        self.stream
            .write_all(text.as_bytes())
            .await
            .expect("writes");
    }
}

impl Session {
    async fn hear(&mut self) -> DeviceFrame {
        loop {
            let message = self.socket.next().await.expect("still open");
            if let Message::Text(text) = message.expect("no fault") {
                return DeviceFrame::parse(&text).expect("a frame of the contract");
            }
        }
    }

    async fn hear_hello(&mut self) -> Hello {
        match self.hear().await {
            DeviceFrame::Hello(hello) => hello,
            other => panic!("no hello: {other:?}"),
        }
    }

    async fn say(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("writes");
    }

    async fn welcome(&mut self, ping_interval_ms: u64) -> Hello {
        let hello = self.hear_hello().await;
        self.say(&format!(
            r#"{{"type":"welcome","session":"s","time":1,"ping_interval_ms":{ping_interval_ms},"tokens":[]}}"#
        ))
        .await;
        hello
    }

    async fn push(&mut self, syn: u64, message_id: &str) {
        let mut text = String::new();
        ServerFrame::write_push(&mut text, "t", syn, message_id, 5, r#"{"data":{"a":"b"}}"#);
        self.say(&text).await;
    }

    async fn close(mut self, code: u16, reason: &str) {
        let frame = CloseFrame {
            code: code.into(),
            reason: reason.to_owned().into(),
        };
        self.socket.close(Some(frame)).await.expect("closes");
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}

fn device(api: Api, acked: u64) -> Device {
    let mut state = DeviceState::new(Credential {
        device_id: "d".into(),
        device_secret: "s".into(),
    });
    state.tokens.push(TokenState {
        project_id: "demo".into(),
        token: "t".into(),
        acked,
    });
    Device::new(api, state, "test/1")
}

async fn event(device: &mut Device) -> Event {
    device.next_event().await.expect("the device is not away")
}

async fn expect_push(device: &mut Device, syn: u64) {
    match event(device).await {
        Event::Push(push) => {
            assert_eq!((push.token.as_str(), push.syn), ("t", syn));
            assert_eq!(push.message.get(), r#"{"data":{"a":"b"}}"#);
        }
        other => panic!("no push: {other:?}"),
    }
}

#[tokio::test]
async fn it_resumes_where_it_acknowledged_and_shows_nothing_twice() {
    let (script, api) = Script::start().await;
    let server = async {
        let mut session = script.socket().await;
        let hello = session.welcome(270_000).await;
        assert_eq!(hello.device_id.as_deref(), Some("d"));
        assert_eq!(hello.device_secret.as_deref(), Some("s"));
        assert_eq!(hello.tokens.first().map(|token| token.min_syn), Some(18));
        session.push(18, "m18").await;
        session.push(19, "m19").await;
        let ack = session.hear().await;
        assert_eq!(
            ack,
            DeviceFrame::Ack {
                token: "t".into(),
                syn: 18
            }
        );
        session.close(1012, r#"{"retry_ms":20}"#).await;

        let mut session = script.socket().await;
        let hello = session.welcome(270_000).await;
        assert_eq!(hello.tokens.first().map(|token| token.min_syn), Some(19));
        session.push(19, "m19").await;
        session.push(20, "m18").await;
        session.push(21, "m21").await;
        let ack = session.hear().await;
        assert_eq!(
            ack,
            DeviceFrame::Ack {
                token: "t".into(),
                syn: 21
            }
        );
    };
    let app = async {
        let mut device = device(api, 17);
        assert!(matches!(event(&mut device).await, Event::Connected { .. }));
        expect_push(&mut device, 18).await;
        device.ack("t", 18);
        expect_push(&mut device, 19).await;
        let Event::Disconnected { retry_in, .. } = event(&mut device).await else {
            panic!("still connected");
        };
        assert_eq!(retry_in.as_millis(), 20);
        assert!(matches!(event(&mut device).await, Event::Connected { .. }));
        expect_push(&mut device, 21).await;
        device.ack("t", 21);
        assert_eq!(
            device.state().tokens.first().map(|token| token.acked),
            Some(21)
        );
        device.close().await;
    };
    tokio::join!(server, app);
}

#[tokio::test]
async fn a_device_that_was_taken_over_stays_away_until_it_is_told() {
    let (script, api) = Script::start().await;
    let server = async {
        let mut session = script.socket().await;
        session.welcome(270_000).await;
        session.close(4009, "").await;
        script.socket().await.welcome(270_000).await;
    };
    let app = async {
        let mut device = device(api, 0);
        assert!(matches!(event(&mut device).await, Event::Connected { .. }));
        assert!(matches!(event(&mut device).await, Event::Replaced));
        assert!(device.next_event().await.is_none());
        assert!(device.next_event().await.is_none());
        device.resume();
        assert!(matches!(event(&mut device).await, Event::Connected { .. }));
    };
    tokio::join!(server, app);
}

#[tokio::test]
async fn a_refused_credential_makes_a_new_device_after_some_work() {
    let (script, api) = Script::start().await;
    let server = async {
        let mut session = script.socket().await;
        session.hear_hello().await;
        session.close(4003, "").await;
        let request = script.request().await;
        assert!(request.head.starts_with("POST /v1/devices "));
        let challenge = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"busy","details":[{"@type":"type.googleapis.com/herald.v1.ProofOfWork","challenge":"c","bits":8}]}}"#;
        request.answer("429 Too Many Requests", "", challenge).await;
        let request = script.request().await;
        assert!(request.head.to_lowercase().contains("herald-proof: c:"));
        let credential = r#"{"device_id":"d2","device_secret":"s2"}"#;
        request.answer("200 OK", "", credential).await;

        let mut session = script.socket().await;
        let hello = session.welcome(270_000).await;
        assert_eq!(hello.device_id.as_deref(), Some("d2"));
        assert!(hello.tokens.is_empty());
        let request = script.request().await;
        assert!(request.head.starts_with("POST /v1/projects/demo/tokens "));
        assert!(request.head.contains("Device d2.s2"));
        assert!(request.body.contains(r#""package_name":"com.example.app""#));
        request.answer("200 OK", "", r#"{"token":"t2"}"#).await;
        let DeviceFrame::Subscribe(cursor) = session.hear().await else {
            panic!("no subscribe");
        };
        assert_eq!((cursor.token.as_str(), cursor.min_syn), ("t2", 1));
        session
            .say(r#"{"type":"subscribed","token":"t2","error":"UNREGISTERED"}"#)
            .await;
    };
    let app = async {
        let mut device = device(api, 3);
        assert!(matches!(
            event(&mut device).await,
            Event::Disconnected { .. }
        ));
        let Event::Registered { lost } = event(&mut device).await else {
            panic!("no new device");
        };
        assert_eq!(lost.first().map(|token| token.token.as_str()), Some("t"));
        assert!(matches!(event(&mut device).await, Event::Connected { .. }));
        let token = device
            .mint_token("demo", "com.example.app", "91:AC")
            .await
            .expect("mints");
        assert_eq!(token, "t2");
        let Event::Unregistered { token, status } = event(&mut device).await else {
            panic!("still registered");
        };
        assert_eq!((token.as_str(), status.as_str()), ("t2", "UNREGISTERED"));
        assert!(device.state().tokens.is_empty());
    };
    tokio::join!(server, app);
}

#[tokio::test]
async fn it_polls_while_the_socket_cannot_be_had() {
    let (script, api) = Script::start().await;
    let server = async {
        let request = script.request().await;
        assert!(request.head.starts_with("GET /v1/connect "));
        request
            .answer("503 Service Unavailable", "retry-after: 60\r\n", "")
            .await;
        let request = script.request().await;
        assert!(request.head.starts_with("POST /v1/projects/messages:get "));
        assert!(request.body.contains(r#""min_syn":1"#));
        let page = r#"{"by_token":[{"project_id":"demo","token":"t","messages":[{"syn":4,"message_id":"m4","time":1,"message":{"data":{"a":"b"}}}],"syn_stored":5,"partial_content":true,"deleted_up_to":3}]}"#;
        request.answer("200 OK", "", page).await;
        let request = script.request().await;
        assert!(request.body.contains(r#""min_syn":5"#));
        let page = r#"{"by_token":[{"project_id":"demo","token":"t","error":{"code":404,"status":"UNREGISTERED","message":"gone"}}]}"#;
        request.answer("200 OK", "", page).await;
    };
    let app = async {
        let mut device = device(api, 0);
        let Event::Disconnected { retry_in, .. } = event(&mut device).await else {
            panic!("connected to nothing");
        };
        assert_eq!(retry_in.as_secs(), 60);
        let Event::Deleted { up_to_syn, .. } = event(&mut device).await else {
            panic!("nothing deleted");
        };
        assert_eq!(up_to_syn, 3);
        expect_push(&mut device, 4).await;
        device.ack("t", 4);
        assert!(matches!(
            event(&mut device).await,
            Event::Unregistered { .. }
        ));
    };
    tokio::join!(server, app);
}

#[tokio::test]
async fn it_pings_in_time() {
    let (script, api) = Script::start().await;
    let server = async {
        let mut session = script.socket().await;
        session.welcome(50).await;
        assert_eq!(session.hear().await, DeviceFrame::Ping);
        session.say(r#"{"type":"pong"}"#).await;
        assert_eq!(session.hear().await, DeviceFrame::Ping);
        session.close(1001, "").await;
    };
    let app = async {
        let mut device = device(api, 0);
        assert!(matches!(event(&mut device).await, Event::Connected { .. }));
        assert!(matches!(
            event(&mut device).await,
            Event::Disconnected { .. }
        ));
    };
    tokio::join!(server, app);
}

#[tokio::test]
async fn a_refusal_is_told_with_the_servers_words() {
    let (script, api) = Script::start().await;
    let server = async {
        let refusal = r#"{"error":{"code":403,"status":"PERMISSION_DENIED","message":"no such certificate"}}"#;
        script
            .request()
            .await
            .answer("403 Forbidden", "", refusal)
            .await;
    };
    let app = async {
        let mut device = device(api, 0);
        let refused = device.mint_token("demo", "com.example.app", "00").await;
        let Err(SdkError::Refused {
            code,
            status,
            message,
            ..
        }) = refused
        else {
            panic!("not refused: {refused:?}");
        };
        assert_eq!((code, status.as_str()), (403, "PERMISSION_DENIED"));
        assert_eq!(message, "no such certificate");
    };
    tokio::join!(server, app);
    assert!(matches!(Api::new("ftp://x"), Err(SdkError::BadUrl(_))));
    assert!(matches!(Api::new("localhost:80"), Err(SdkError::BadUrl(_))));
}
