//! Devices that read as they please, hang up when they please, and try what is not theirs to do.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use herald_protocol::SYN_MAX;
use rand::RngExt as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::crowd::{Crowd, Watched, try_post};
use crate::harness::{Credential, Server, Socket};

/// Most pushes of one page.
pub const PAGE: usize = 1_000;

impl Crowd {
    /// Reads in one way or another until the round is over.
    pub async fn read(
        &self,
        server: &Server,
        place: usize,
        mut random: SmallRng,
        is_over: &Cell<bool>,
    ) {
        let device = &self.devices[place];
        let own = self.tokens_of(place);
        while !is_over.get() {
            match random.random_range(0..20) {
                0..7 => poll(server, device, &own).await,
                7..10 => hold_two_sockets(server, device, &own, &mut random).await,
                10..12 => hold_slow_socket(server, device, &own).await,
                12 => {
                    self.acknowledge_the_future(server, place, &mut random)
                        .await
                }
                13..16 => self.meddle(server, place, &mut random).await,
                _ => hold_socket(server, device, &own, &mut random, is_over).await,
            }
        }
    }

    /// Tries to read and to acknowledge what is another device's. The owner's history shows if it
    /// had an effect; what comes on the socket is judged like anything else.
    async fn meddle(&self, server: &Server, place: usize, random: &mut SmallRng) {
        let device = &self.devices[place];
        let foreign: Vec<&Watched> = self.tokens.iter().filter(|it| it.device != place).collect();
        let foreign = foreign[random.random_range(0..foreign.len())];
        let body = json!({"requests": [
            {"project_id": "demo", "token": foreign.token, "min_syn": SYN_MAX, "limit": PAGE},
        ]});
        let path = "/v1/projects/messages:get";
        let polled = try_post(server, path, device.header(), None, &body).await;
        if let Some((200, polled)) = polled {
            assert_eq!(polled["by_token"][0]["error"]["code"], 403, "{polled}");
        }
        let own = self.tokens_of(place);
        let Some(mut socket) = open(server, device, &own).await else {
            return;
        };
        socket.subscribe(&foreign.token, 1).await;
        socket.ack(&foreign.token, SYN_MAX).await;
        until_pong(&mut socket, &own).await;
    }

    /// Acknowledges a number that is yet to be given: what is there is done with, what comes is not.
    async fn acknowledge_the_future(&self, server: &Server, place: usize, random: &mut SmallRng) {
        let own = self.tokens_of(place);
        let watched = own[random.random_range(0..own.len())];
        let Some(mut socket) = open(server, &self.devices[place], &own).await else {
            return;
        };
        watched.history.borrow_mut().gives_up();
        socket.ack(&watched.token, SYN_MAX).await;
        until_pong(&mut socket, &own).await;
        watched.history.borrow_mut().gives_up();
    }
}

/// Everything that was sent before has been taken, or the socket is at its end.
async fn until_pong(socket: &mut Socket, own: &[&Watched]) {
    socket.send(&json!({"type": "ping"})).await;
    let mut last = HashMap::new();
    while let Some(message) = socket.message().await {
        let frame = parsed(&message);
        if frame["type"] == "pong" || message.is_close() {
            return;
        }
        if frame["type"] == "subscribed" {
            assert_eq!(frame["error"], "PERMISSION_DENIED", "{frame}");
        }
        take(&message, own, &mut last);
    }
}

/// A frame; null for what is none.
pub fn parsed(message: &Message) -> Value {
    let text = message.to_text().unwrap_or_default();
    serde_json::from_str(text).unwrap_or(Value::Null)
}

pub fn wanted(own: &[&Watched]) -> Vec<(String, u64)> {
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
    let (path, at) = ("/v1/projects/messages:get", Instant::now());
    let polled = try_post(server, path, device.header(), None, &body).await;
    let Some((200, polled)) = polled else {
        return tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let entries = polled["by_token"].as_array().expect("entries");
    for ((watched, (_, min_syn)), entry) in own.iter().zip(asked).zip(entries) {
        if entry["messages"].is_array() {
            let mut history = watched.history.borrow_mut();
            history.see_page(min_syn, entry, at);
        }
    }
}

pub async fn open(server: &Server, device: &Credential, own: &[&Watched]) -> Option<Socket> {
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
pub fn take<'a>(
    message: &Message,
    own: &[&'a Watched],
    last: &mut HashMap<String, u64>,
) -> Option<(&'a Watched, u64)> {
    let frame = parsed(message);
    if frame["type"] != "push" {
        return None;
    }
    let token = frame["token"].as_str().expect("a token");
    let watched = own.iter().find(|it| it.token == token);
    let watched = watched.expect("a token of this device");
    let syn = frame["syn"].as_u64().expect("a number");
    let mut history = watched.history.borrow_mut();
    let before = last.insert(token.to_owned(), syn);
    let before = before.unwrap_or(history.wanted() - 1);
    assert!(before < syn, "{token}: {syn} after {before}");
    history.see_after(before, &frame);
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
