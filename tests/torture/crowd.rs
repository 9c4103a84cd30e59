//! Everybody at the server, and its senders: of every kind, and some hang up before they are answered.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};

use crate::harness::{Credential, Server, message_id};
use crate::history::{Answer, History};

const DEVICES: usize = 3;
const TOKENS_PER_DEVICE: usize = 2;

/// Collapse keys in use: fewer than a token may have, so that none goes for want of a place.
const COLLAPSE_KEYS: u8 = 3;

/// A sender that loses its patience.
const SHORT_PATIENCE: Duration = Duration::from_millis(3);

/// A token, its device and its history.
pub struct Watched {
    pub token: String,
    pub device: usize,
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

    /// The tokens of a device.
    pub fn tokens_of(&self, device: usize) -> Vec<&Watched> {
        let tokens = self.tokens.iter();
        tokens.filter(|it| it.device == device).collect()
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
                2 => self.send_and_hang_up(server, &mut random).await,
                3..5 => self.send_again(server, &mut random).await,
                _ => self.send_to_one(server, &mut random, moves_clock).await,
            }
        }
    }

    async fn send_to_one(&self, server: &Server, random: &mut SmallRng, moves_clock: bool) {
        let place = random.random_range(0..self.tokens.len());
        let (watched, text) = (&self.tokens[place], self.next_text());
        // The server counts whole seconds.
        let ttl = (!moves_clock && random.random_range(0..6) == 0)
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

    /// Nobody knows what came of it.
    async fn send_and_hang_up(&self, server: &Server, random: &mut SmallRng) {
        let place = random.random_range(0..self.tokens.len());
        let (watched, text) = (&self.tokens[place], self.next_text());
        watched.history.borrow_mut().sends_now(&text, None, None);
        let body = json!({"message": {"token": watched.token, "data": {"text": text}}});
        let sending = tokio::time::timeout(SHORT_PATIENCE, try_send(server, None, &body));
        let answer = judged(sending.await.ok().flatten());
        watched.history.borrow_mut().answered(&text, answer);
    }

    /// A push that must be accepted and arrive.
    pub async fn send_last(&self, server: &Server, watched: &Watched) -> String {
        let text = self.next_text();
        watched.history.borrow_mut().sends_now(&text, None, None);
        let id = server.push(&watched.token, &text).await;
        let answer = Answer::Accepted(id);
        watched.history.borrow_mut().answered(&text, answer);
        text
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
}

// --- Calls that may have no answer -------------------------------------------------------------

async fn try_send(server: &Server, once: Option<&str>, body: &Value) -> Option<(u16, Value)> {
    let path = "/v1/projects/demo/messages:send";
    try_post(server, path, server.service_token(), once, body).await
}

pub async fn try_post(
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

pub fn judged(answer: Option<(u16, Value)>) -> Answer {
    match answer {
        Some((200, answer)) => Answer::Accepted(message_id(&answer)),
        Some((504, _)) | None => Answer::Unknown,
        Some((429 | 503, _)) => Answer::Refused,
        Some((status, answer)) => panic!("{status} {answer}"),
    }
}
