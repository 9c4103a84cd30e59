//! Who works at the server: senders of every kind, and devices that read as they please.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Credential, Server, Socket, message_id};
use crate::history::{Answer, History};

const DEVICES: usize = 3;
const TOKENS_PER_DEVICE: usize = 2;

/// Collapse keys in use: fewer than a token may have, so that none goes for want of a place.
const COLLAPSE_KEYS: u8 = 3;

/// Most pushes of one page.
const PAGE: usize = 1_000;

/// A token, its device and its history.
pub struct Watched {
    pub token: String,
    device: usize,
    pub history: RefCell<History>,
    is_member: bool,
}

/// Everybody.
pub struct Crowd {
    pub devices: Vec<Credential>,
    pub tokens: Vec<Watched>,
    next: Cell<u64>,
    /// Texts that were sent under a key, to be sent again.
    keyed: RefCell<Vec<(usize, String)>>,
}

const TOPIC: &str = "torture";

impl Crowd {
    /// Devices and tokens; every other token is on the topic.
    pub async fn gather(server: &Server) -> Self {
        let (mut devices, mut tokens) = (Vec::new(), Vec::new());
        for device in 0..DEVICES {
            let credential = server.device().await;
            for place in 0..TOKENS_PER_DEVICE {
                let token = server.token(&credential).await;
                tokens.push(Watched {
                    history: RefCell::new(History::of(&token)),
                    token,
                    device,
                    is_member: place % 2 == 0,
                });
            }
            devices.push(credential);
        }
        let members = tokens.iter().filter(|it| it.is_member);
        let members: Vec<&String> = members.map(|it| &it.token).collect();
        let body = json!({"to": TOPIC, "registration_tokens": members});
        let added = try_post(
            server,
            "/iid/v1:batchAdd",
            server.service_token(),
            None,
            &body,
        );
        assert_eq!(added.await.map(|(status, _)| status), Some(200));
        Self {
            devices,
            tokens,
            next: Cell::new(0),
            keyed: RefCell::default(),
        }
    }

    pub fn begin_round(&self, moves_clock: bool) {
        if moves_clock {
            for watched in &self.tokens {
                watched.history.borrow_mut().clock_moves();
            }
        }
    }

    // --- Senders -----------------------------------------------------------------------------

    /// Sends one thing after another until the round is over.
    pub async fn send(
        &self,
        server: &Server,
        mut random: SmallRng,
        is_over: &Cell<bool>,
        moves_clock: bool,
    ) {
        while !is_over.get() {
            match random.random_range(0..20) {
                0 => self.send_to_topic(server).await,
                1 => self.send_to_nobody(server).await,
                2..4 => self.send_again(server, &mut random).await,
                _ => self.send_to_one(server, &mut random, moves_clock).await,
            }
        }
    }

    async fn send_to_one(&self, server: &Server, random: &mut SmallRng, moves_clock: bool) {
        let place = random.random_range(0..self.tokens.len());
        let (watched, text) = (&self.tokens[place], self.next_text());
        let ttl = (!moves_clock && random.random_range(0..8) == 0)
            .then(|| Duration::from_secs(random.random_range(0..3)));
        let key = (random.random_range(0..6) == 0).then(|| random.random_range(0..COLLAPSE_KEYS));
        let mut android = json!({});
        if let Some(ttl) = ttl {
            android["ttl"] = json!(format!("{}s", ttl.as_secs()));
        }
        if let Some(key) = key {
            android["collapse_key"] = json!(key.to_string());
        }
        watched.history.borrow_mut().sends_now(&text, ttl, key);
        let body = json!({"message": {"token": watched.token, "data": {"text": text},
                                      "android": android}});
        let is_keyed = ttl.is_none() && key.is_none() && random.random_range(0..8) == 0;
        if is_keyed {
            self.keyed.borrow_mut().push((place, text.clone()));
        }
        let once = is_keyed.then_some(text.as_str());
        let answer = judged(try_send(server, once, &body).await);
        watched.history.borrow_mut().answered(&text, answer);
    }

    /// Repeats an earlier send under its key: it must change nothing.
    async fn send_again(&self, server: &Server, random: &mut SmallRng) {
        let count = self.keyed.borrow().len().max(1);
        let chosen = self
            .keyed
            .borrow()
            .get(random.random_range(0..count))
            .cloned();
        let Some((place, text)) = chosen else {
            return self.send_to_topic(server).await;
        };
        let watched = &self.tokens[place];
        let body = json!({"message": {"token": watched.token, "data": {"text": text}}});
        let answer = judged(try_send(server, Some(&text), &body).await);
        watched.history.borrow_mut().answered(&text, answer);
    }

    async fn send_to_topic(&self, server: &Server) {
        let text = self.next_text();
        let members = || self.tokens.iter().filter(|it| it.is_member);
        for watched in members() {
            watched.history.borrow_mut().sends_now(&text, None, None);
        }
        let body = json!({"message": {"topic": TOPIC, "data": {"text": text}}});
        let answer = judged(try_send(server, None, &body).await);
        for watched in members() {
            watched.history.borrow_mut().answered(&text, answer.clone());
        }
    }

    /// What is wrong, or only tried, reaches nobody: no history knows its text.
    async fn send_to_nobody(&self, server: &Server) {
        let (text, token) = (self.next_text(), &self.tokens[0].token);
        let mut tried = json!({"message": {"token": token, "data": {"text": text}}});
        tried["validate_only"] = json!(true);
        try_send(server, None, &tried).await;
        let wrong = json!({"message": {"token": token, "data": {"text": text, "from": "x"}}});
        if let Some((status, answer)) = try_send(server, None, &wrong).await {
            assert_eq!(status, 400, "{answer}");
        }
    }

    fn next_text(&self) -> String {
        let next = self.next.get();
        self.next.set(next + 1);
        next.to_string()
    }

    // --- Devices -----------------------------------------------------------------------------

    /// Reads in one way or another until the round is over.
    pub async fn read(
        &self,
        server: &Server,
        device: &Credential,
        mut random: SmallRng,
        is_over: &Cell<bool>,
    ) {
        let place = self.devices.iter().position(|it| it.id == device.id);
        let own: Vec<&Watched> = self
            .tokens
            .iter()
            .filter(|it| Some(it.device) == place)
            .collect();
        while !is_over.get() {
            match random.random_range(0..6) {
                0 | 1 => poll(server, device, &own).await,
                2 => hold_two_sockets(server, device, &own, &mut random).await,
                3 => hold_slow_socket(server, device, &own).await,
                _ => hold_socket(server, device, &own, &mut random, is_over).await,
            }
        }
    }

    /// Reads every token to its end, and judges.
    pub async fn judge(&self, server: &Server) {
        server
            .metric_becomes("herald_fan_outs_unfinished", 0.0)
            .await;
        for (place, device) in self.devices.iter().enumerate() {
            let own = self.tokens.iter().filter(|it| it.device == place);
            for watched in own {
                let min_syn = watched.history.borrow().wanted();
                let entry = server.poll_token(device, &watched.token, min_syn).await;
                assert_eq!(entry["partial_content"], false, "a page holds {PAGE}");
                let pushes = entry["messages"].as_array().expect("messages");
                let syn_stored = entry["syn_stored"].as_u64().expect("a number");
                let mut history = watched.history.borrow_mut();
                history.see_page(min_syn, pushes, syn_stored);
                history.judge();
                // Pages stay short.
                if pushes.len() > PAGE / 4 {
                    history.acks(syn_stored);
                }
            }
        }
    }
}

fn wanted(own: &[&Watched]) -> Vec<(String, u64)> {
    own.iter()
        .map(|it| (it.token.clone(), it.history.borrow().wanted()))
        .collect()
}

async fn poll(server: &Server, device: &Credential, own: &[&Watched]) {
    let asked = wanted(own);
    let requests: Vec<Value> = asked
        .iter()
        .map(|(token, min_syn)| {
            json!({"project_id": "demo", "token": token, "min_syn": min_syn, "limit": PAGE})
        })
        .collect();
    let body = json!({"requests": requests});
    let path = "/v1/projects/messages:get";
    let polled = try_post(server, path, device.header(), None, &body).await;
    let Some((200, polled)) = polled else {
        return;
    };
    for (watched, entry) in own
        .iter()
        .zip(polled["by_token"].as_array().expect("entries"))
    {
        let Some(pushes) = entry["messages"].as_array() else {
            continue;
        };
        let mut history = watched.history.borrow_mut();
        pushes.iter().for_each(|push| history.see(push));
    }
}

async fn open(server: &Server, device: &Credential, own: &[&Watched]) -> Option<Socket> {
    let url = format!("ws://{}/v1/connect", server.listen());
    let mut socket = Socket::try_connect(&url).await?;
    let asked = wanted(own);
    let asked: Vec<(&str, u64)> = asked.iter().map(|(it, min)| (it.as_str(), *min)).collect();
    socket.hello(device, &asked).await;
    Some(socket)
}

/// Reads and acknowledges for a while.
async fn hold_socket(
    server: &Server,
    device: &Credential,
    own: &[&Watched],
    random: &mut SmallRng,
    is_over: &Cell<bool>,
) {
    let Some(mut socket) = open(server, device, own).await else {
        return tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let until = tokio::time::Instant::now() + Duration::from_millis(random.random_range(50..500));
    let mut last = HashMap::new();
    while !is_over.get() {
        let Ok(Some(message)) = tokio::time::timeout_at(until, socket.message()).await else {
            return;
        };
        let Some((watched, syn)) = take(&message, own, &mut last) else {
            continue;
        };
        if random.random_range(0..10) == 0 {
            watched.history.borrow_mut().acks(syn);
            socket.ack(&watched.token, syn).await;
        }
    }
}

/// A push that came on a socket: its numbers grow.
fn take<'a>(
    message: &Message,
    own: &[&'a Watched],
    last: &mut HashMap<String, u64>,
) -> Option<(&'a Watched, u64)> {
    let frame: Value = serde_json::from_str(message.to_text().ok()?).ok()?;
    if frame["type"] != "push" {
        return None;
    }
    let token = frame["token"].as_str().expect("a token");
    let watched = own.iter().find(|it| it.token == token);
    let watched = watched.expect("a token of this device");
    let syn = frame["syn"].as_u64().expect("a number");
    let before = last.insert(token.to_owned(), syn).unwrap_or(0);
    assert!(before < syn, "{token}: {syn} after {before}");
    watched.history.borrow_mut().see(&frame);
    Some((watched, syn))
}

/// The second one takes over; what either shows is true.
async fn hold_two_sockets(
    server: &Server,
    device: &Credential,
    own: &[&Watched],
    random: &mut SmallRng,
) {
    let Some(mut first) = open(server, device, own).await else {
        return;
    };
    tokio::time::sleep(Duration::from_millis(random.random_range(0..50))).await;
    let Some(mut second) = open(server, device, own).await else {
        return;
    };
    for socket in [&mut first, &mut second] {
        let until = tokio::time::Instant::now() + Duration::from_millis(80);
        let mut last = HashMap::new();
        while let Ok(Some(message)) = tokio::time::timeout_at(until, socket.message()).await {
            take(&message, own, &mut last);
        }
    }
}

/// Says hello and does not listen.
async fn hold_slow_socket(server: &Server, device: &Credential, own: &[&Watched]) {
    if let Some(socket) = open(server, device, own).await {
        tokio::time::sleep(Duration::from_millis(150)).await;
        drop(socket);
    }
}

// --- Calls that may have no answer -------------------------------------------------------------

async fn try_send(server: &Server, once: Option<&str>, body: &Value) -> Option<(u16, Value)> {
    let path = "/v1/projects/demo/messages:send";
    try_post(server, path, server.service_token(), once, body).await
}

async fn try_post(
    server: &Server,
    path: &str,
    credential: String,
    once: Option<&str>,
    body: &Value,
) -> Option<(u16, Value)> {
    let credential = match credential.starts_with("Device ") {
        true => credential,
        false => format!("Bearer {credential}"),
    };
    let mut request = server
        .http()
        .post(server.url(path))
        .header("Authorization", credential)
        .json(body);
    if let Some(key) = once {
        request = request.header("Idempotency-Key", key);
    }
    let answer = crate::harness::soon("an answer or its end", request.send()).await;
    let answer = answer.ok()?;
    let status = answer.status().as_u16();
    let text = answer.text().await.ok()?;
    Some((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
}

fn judged(answer: Option<(u16, Value)>) -> Answer {
    match answer {
        Some((200, answer)) => Answer::Accepted(message_id(&answer)),
        Some((504, _)) | None => Answer::Unknown,
        Some((429 | 503, _)) => Answer::Refused,
        Some((status, answer)) => panic!("{status} {answer}"),
    }
}
