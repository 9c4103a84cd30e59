//! Senders of every kind; some hang up before they are answered.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rand::RngExt as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::sent::{Answer, Wish};
use super::{Crowd, LOOK_EVERY, Phase, Watched, any, try_post};
use crate::harness::{Door, message, message_id};

/// Collapse keys in use: fewer than a token may have, so that none goes for want of a place.
const COLLAPSE_KEYS: u8 = 3;

/// A sender that loses its patience.
const SHORT_PATIENCE: Duration = Duration::from_millis(3);

/// Pushes that are sent at once: at times more than a session's window of 64 holds.
const BURST: std::ops::Range<usize> = 8..80;

impl Crowd {
    /// Sends one thing after another until the round is over.
    pub(super) async fn send(
        &self,
        doors: &[Door],
        mut random: SmallRng,
        phase: &watch::Receiver<Phase>,
        moves_clock: bool,
    ) {
        while *phase.borrow() != Phase::Over {
            let door = any(doors, &mut random);
            match random.random_range(0..60) {
                0..5 => self.send_to_topic(door).await,
                5..7 => self.send_to_nobody(door).await,
                7..9 => self.send_and_hang_up(door, &mut random).await,
                9..15 => self.send_again(door, &mut random).await,
                15 => self.send_burst(door, &mut random).await,
                _ => self.send_to_one(door, &mut random, moves_clock).await,
            }
            tokio::time::sleep(self.terms.pause).await;
        }
    }

    async fn send_to_one(&self, door: &Door, random: &mut SmallRng, moves_clock: bool) {
        let place = self.any_token(random);
        let (watched, text) = (&self.tokens[place], self.next_text());
        // The server counts whole seconds.
        let ttl = (!moves_clock && random.random_range(0..6) == 0)
            .then(|| Duration::from_secs(random.random_range(0..3)));
        let key = (random.random_range(0..3) == 0).then(|| random.random_range(0..COLLAPSE_KEYS));
        let mut android = json!({});
        if let Some(ttl) = ttl {
            android["ttl"] = json!(format!("{}s", ttl.as_secs()));
        }
        if let Some(key) = key {
            android["collapse_key"] = json!(key.to_string());
        }
        let wish = Wish {
            ttl,
            key,
            is_copy: false,
        };
        watched.history.borrow_mut().sends_now(&text, wish);
        let mut body = message(&watched.token, &text);
        body["message"]["android"] = android;
        let is_keyed = ttl.is_none() && key.is_none() && random.random_range(0..8) == 0;
        if is_keyed {
            self.keyed.borrow_mut().push((place, text.clone()));
        }
        let once = is_keyed.then_some(text.as_str());
        let answer = judged(try_send(door, once, &body).await);
        watched.history.borrow_mut().answered(&text, answer);
    }

    /// Repeats an earlier send under its key: it must change nothing.
    async fn send_again(&self, door: &Door, random: &mut SmallRng) {
        let count = self.keyed.borrow().len().max(1);
        let chosen = self
            .keyed
            .borrow()
            .get(random.random_range(0..count))
            .cloned();
        let Some((place, text)) = chosen else {
            return self.send_to_topic(door).await;
        };
        let watched = &self.tokens[place];
        watched
            .history
            .borrow_mut()
            .sends_now(&text, Wish::default());
        let body = message(&watched.token, &text);
        let answer = judged(try_send(door, Some(&text), &body).await);
        watched.history.borrow_mut().answered(&text, answer);
    }

    async fn send_to_topic(&self, door: &Door) {
        let text = self.next_text();
        for watched in self.members() {
            let wish = Wish {
                is_copy: true,
                ..Wish::default()
            };
            watched.history.borrow_mut().sends_now(&text, wish);
        }
        let body = json!({"message": {"topic": self.topic, "data": {"text": text}}});
        let answer = judged(try_send(door, None, &body).await);
        for watched in self.members() {
            let answer = answer.clone();
            watched.history.borrow_mut().answered(&text, answer);
        }
    }

    /// Nobody knows what came of it.
    async fn send_and_hang_up(&self, door: &Door, random: &mut SmallRng) {
        let watched = &self.tokens[self.any_token(random)];
        let text = self.next_text();
        watched
            .history
            .borrow_mut()
            .sends_now(&text, Wish::default());
        let body = message(&watched.token, &text);
        let sending = tokio::time::timeout(SHORT_PATIENCE, try_send(door, None, &body));
        let answer = judged(sending.await.ok().flatten());
        watched.history.borrow_mut().answered(&text, answer);
    }

    async fn send_burst(&self, door: &Door, random: &mut SmallRng) {
        let watched = &self.tokens[self.any_token(random)];
        let sends = (0..random.random_range(BURST)).map(|_| self.send_plainly(door, watched));
        join_all(sends).await;
    }

    /// The text and whether it was accepted.
    async fn send_plainly(&self, door: &Door, watched: &Watched) -> (String, bool) {
        let text = self.next_text();
        watched
            .history
            .borrow_mut()
            .sends_now(&text, Wish::default());
        let answer = judged(try_send(door, None, &message(&watched.token, &text)).await);
        let is_accepted = matches!(answer, Answer::Accepted(_));
        watched.history.borrow_mut().answered(&text, answer);
        (text, is_accepted)
    }

    /// A push that must be accepted and arrive.
    pub(super) async fn send_last(&self, door: &Door, watched: &Watched) -> String {
        let begun = Instant::now();
        loop {
            let (text, is_accepted) = self.send_plainly(door, watched).await;
            if is_accepted {
                return text;
            }
            let token = &watched.token;
            let is_overdue = begun.elapsed() >= self.terms.patience;
            assert!(
                !is_overdue,
                "{token}: {text} is not accepted, though all is well"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What is wrong, or only tried, reaches nobody: no history knows its text.
    async fn send_to_nobody(&self, door: &Door) {
        let (text, token) = (self.next_text(), &self.tokens[0].token);
        let mut tried = message(token, &text);
        tried["validate_only"] = json!(true);
        try_send(door, None, &tried).await;
        let mut wrong = message(token, &text);
        wrong["message"]["data"]["from"] = json!("x");
        if let Some((status, answer)) = try_send(door, None, &wrong).await {
            assert_eq!(status, 400, "{answer}");
        }
    }

    fn next_text(&self) -> String {
        let next = self.next.get();
        self.next.set(next + 1);
        next.to_string()
    }
}

async fn try_send(door: &Door, once: Option<&str>, body: &Value) -> Option<(u16, Value)> {
    let path = "/v1/projects/demo/messages:send";
    try_post(door, path, door.service_token(), once, body).await
}

fn judged(answer: Option<(u16, Value)>) -> Answer {
    match answer {
        Some((200, answer)) => Answer::Accepted(message_id(&answer)),
        Some((504, _)) | None => Answer::Unknown,
        Some((429 | 503, _)) => Answer::Refused,
        Some((status, answer)) => panic!("{status} {answer}"),
    }
}
