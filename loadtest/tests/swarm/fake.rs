//! A small server with just enough of the contract for the swarm, and faults on demand.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use herald_protocol::{DeviceFrame, ServerFrame, TokenState, Welcome};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

/// The send at which a fault shows.
const FAULTY_SEND: u64 = 50;

/// What the server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Answers 200 and forgets the push.
    Lose,
    /// Delivers a push twice.
    Repeat,
    /// Delivers a push under a number that it gave before.
    Invert,
    /// Delivers a push that it refused.
    Invent,
    /// Is another process each time it is asked.
    Restart,
    /// Closes a socket and lets it come back.
    Drop,
    /// Keeps nothing for a device that is away.
    Forget,
    /// Refuses a send.
    Refuse,
}

#[derive(Default)]
struct State {
    made: u64,
    logs: HashMap<String, Log>,
    acked: u64,
    polls: u64,
}

/// What the server knows of one token.
#[derive(Default)]
struct Log {
    /// To the latest socket of its device.
    socket: Option<mpsc::UnboundedSender<Message>>,
    syn: u64,
    /// Pushes that are not acknowledged: syn, send number, data.
    pending: Vec<(u64, u64, Value)>,
}

impl Log {
    fn ack(&mut self, up_to: u64) {
        self.pending.retain(|(syn, _, _)| *syn > up_to);
    }
}

#[derive(Clone)]
pub struct Fake {
    fault: Fault,
    state: Arc<Mutex<State>>,
}

impl Fake {
    /// Starts the server; it ends with the test.
    pub async fn start(fault: Fault) -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("has an address");
        let fake = Self {
            fault,
            state: Arc::default(),
        };
        let server = fake.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("an open socket");
                tokio::spawn(server.clone().serve(stream));
            }
        });
        (fake, address)
    }

    /// Acknowledgements heard.
    pub fn acked(&self) -> u64 {
        self.state.lock().expect("no panic elsewhere").acked
    }

    /// Polls answered.
    pub fn polls(&self) -> u64 {
        self.state.lock().expect("no panic elsewhere").polls
    }

    async fn serve(self, mut stream: TcpStream) {
        const UPGRADE: &[u8] = b"GET /v1/connect ";
        let mut start = [0; UPGRADE.len()];
        match stream.peek(&mut start).await {
            Ok(_) if start == UPGRADE => self.hold(stream).await,
            Ok(_) => while self.answer(&mut stream).await.is_some() {},
            Err(_) => {}
        }
    }

    async fn hold(self, stream: TcpStream) {
        let mut socket = tokio_tungstenite::accept_async(stream)
            .await
            .expect("an upgrade");
        let (sender, mut to_send) = mpsc::unbounded_channel();
        loop {
            let heard = tokio::select! {
                heard = socket.next() => heard,
                Some(message) = to_send.recv() => {
                    if socket.send(message).await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            let Some(Ok(message)) = heard else { return };
            let Message::Text(text) = message else {
                continue;
            };
            self.hear(&text, &sender);
        }
    }

    fn hear(&self, text: &str, sender: &mpsc::UnboundedSender<Message>) {
        let mut state = self.state.lock().expect("no panic elsewhere");
        match DeviceFrame::parse(text).expect("a frame of the contract") {
            DeviceFrame::Hello(hello) => {
                let asked = hello.tokens.first().expect("one token");
                let (token, min_syn) = (asked.token.clone(), asked.min_syn);
                let log = state.logs.entry(token.clone()).or_default();
                log.ack(min_syn - 1);
                if self.fault == Fault::Forget {
                    log.pending.clear();
                }
                let _ = sender.send(Message::text(welcome(&token, log.syn)));
                for (syn, send, data) in &log.pending {
                    let _ = sender.send(push(&token, *syn, *send, data));
                }
                log.socket = Some(sender.clone());
            }
            DeviceFrame::Ack { token, syn } => {
                state.acked += 1;
                state.logs.entry(token).or_default().ack(syn);
            }
            _ => {}
        }
    }

    /// Answers one request; `None` when the caller is gone.
    async fn answer(&self, stream: &mut TcpStream) -> Option<()> {
        let (line, body) = read_request(stream).await?;
        let (status, answer) = match line.split(' ').nth(1)? {
            "/metrics" => (200, self.metrics()),
            "/v1/devices" => {
                let id = self.next();
                let made = json!({"device_id": format!("d{id}"), "device_secret": "s"});
                (200, made.to_string())
            }
            path if path.ends_with("/tokens") => (
                200,
                json!({"token": format!("t{}", self.next())}).to_string(),
            ),
            path if path.ends_with("messages:send") => self.send(&body),
            path if path.ends_with("messages:get") => (200, self.poll(&body)),
            "/livez" => (200, "{}".to_owned()),
            _ if line.starts_with("DELETE") => (204, String::new()),
            other => panic!("no such path: {other}"),
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        stream.write_all((head + &answer).as_bytes()).await.ok()
    }

    fn next(&self) -> u64 {
        let mut state = self.state.lock().expect("no panic elsewhere");
        state.made += 1;
        state.made
    }

    fn poll(&self, body: &str) -> String {
        let body: Value = serde_json::from_str(body).expect("is JSON");
        let asked = &body["requests"][0];
        let token = asked["token"].as_str().expect("a token");
        let mut state = self.state.lock().expect("no panic elsewhere");
        state.polls += 1;
        let log = state.logs.entry(token.to_owned()).or_default();
        log.ack(asked["min_syn"].as_u64().expect("a number") - 1);
        let messages = log.pending.iter().map(|(syn, send, data)| {
            json!({"syn": syn, "message_id": format!("m{send}"), "time": 1, "message": {"data": data}})
        });
        let messages: Vec<Value> = messages.collect();
        json!({"by_token": [{"token": token, "messages": messages, "syn_stored": log.syn}]})
            .to_string()
    }

    fn metrics(&self) -> String {
        let started = if self.fault == Fault::Restart {
            self.next()
        } else {
            1
        };
        format!("process_start_time_seconds {started}\nprocess_resident_memory_bytes 5000000\n")
    }

    fn send(&self, body: &str) -> (u16, String) {
        let accepted = (200, r#"{"name":"projects/demo/messages/m"}"#.to_owned());
        let body: Value = serde_json::from_str(body).expect("is JSON");
        if body["validate_only"] == true {
            return accepted;
        }
        let message = &body["message"];
        let send: u64 = message["data"]["send"]
            .as_str()
            .and_then(|send| send.parse().ok())
            .expect("a number");
        let fault = if send == FAULTY_SEND {
            self.fault
        } else {
            Fault::None
        };
        if fault == Fault::Refuse {
            return (503, r#"{"error":{}}"#.to_owned());
        }
        let mut state = self.state.lock().expect("no panic elsewhere");
        let token = message["token"].as_str().expect("a token");
        let log = state.logs.entry(token.to_owned()).or_default();
        log.syn += 1;
        if fault == Fault::Lose {
            return accepted;
        }
        log.pending.push((log.syn, send, message["data"].clone()));
        let text = push(token, log.syn, send, &message["data"]);
        let tell = |message| log.socket.as_ref().map(|socket| socket.send(message));
        match fault {
            Fault::Invert => drop(tell(push(token, 1, send, &message["data"]))),
            Fault::Repeat => drop((tell(text.clone()), tell(text))),
            Fault::Drop => drop((tell(text), tell(Message::Close(None)))),
            _ => drop(tell(text)),
        }
        if fault == Fault::Invent {
            return (400, r#"{"error":{}}"#.to_owned());
        }
        accepted
    }
}

fn welcome(token: &str, syn_stored: u64) -> String {
    let state = TokenState {
        token: token.to_owned(),
        syn_stored: Some(syn_stored),
        error: None,
    };
    ServerFrame::Welcome(Welcome {
        session: "s".into(),
        time: 1,
        ping_interval_ms: 270_000,
        tokens: vec![state],
    })
    .to_text()
}

fn push(token: &str, syn: u64, send: u64, data: &Value) -> Message {
    let mut text = String::new();
    let message = json!({"data": data}).to_string();
    ServerFrame::write_push(&mut text, token, syn, &format!("m{send}"), 1, &message);
    Message::text(text)
}

/// The request line and the body.
async fn read_request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = std::str::from_utf8(&bytes).ok()?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().expect("a number"));
        if body.len() >= length {
            let line = head.lines().next()?;
            return Some((line.to_owned(), body.to_owned()));
        }
    }
}
