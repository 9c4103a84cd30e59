//! Devices that read as they please, hang up when they please, and try what is not theirs to do.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use herald_protocol::SYN_MAX;
use rand::RngExt as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

use super::{Crowd, LOOK_EVERY, Phase, Watched, any, try_post};
use crate::harness::{Credential, Door, Socket, syn_of};

/// Most pushes of one page.
pub const PAGE: usize = 1_000;

/// Unacknowledged pushes of a token that a socket is shown at most.
const WINDOW: usize = 64;

impl Crowd {
    /// Reads in one way or another until the round is over.
    pub(super) async fn read(
        &self,
        doors: &[Door],
        place: usize,
        mut random: SmallRng,
        phase: &watch::Receiver<Phase>,
    ) {
        let device = &self.devices[place];
        let own = self.tokens_of(place);
        loop {
            let now = *phase.borrow();
            let door = any(doors, &mut random);
            match (now, random.random_range(0..24)) {
                (Phase::Over, _) => return,
                (Phase::Look, _) => look(door, device, &own).await,
                (_, 0..7) => poll(door, device, &own).await,
                (_, 7) => self.acknowledge_the_future(door, place, &mut random).await,
                (_, 8..11) => self.meddle(door, place, &mut random).await,
                (_, 11..14) => {
                    let other = any(doors, &mut random);
                    let holding = hold_two_sockets([door, other], device, &own, &mut random);
                    while_at_work(phase, holding).await;
                }
                (_, 14..16) => while_at_work(phase, hold_slow_socket(door, device, &own)).await,
                (_, kind) => {
                    let habit = if kind < 19 {
                        Acks::Full
                    } else {
                        Acks::ByChance
                    };
                    let holding = hold_socket(door, device, &own, &mut random, habit);
                    while_at_work(phase, holding).await;
                }
            }
            tokio::time::sleep(self.terms.pause).await;
        }
    }

    /// Tries to read and to acknowledge what is another device's. The owner's history shows if it
    /// had an effect; what comes on the socket is judged like anything else.
    async fn meddle(&self, door: &Door, place: usize, random: &mut SmallRng) {
        let device = &self.devices[place];
        let foreign: Vec<&Watched> = self.tokens.iter().filter(|it| it.device != place).collect();
        let foreign = foreign[random.random_range(0..foreign.len())];
        let polled = try_poll(door, device, &[(foreign.token.clone(), SYN_MAX)]).await;
        if let Some(polled) = polled {
            assert_eq!(polled[0]["error"]["code"], 403, "{polled:?}");
        }
        let own = self.tokens_of(place);
        let Some(mut socket) = open(door, device, &own).await else {
            return;
        };
        socket.subscribe(&foreign.token, 1).await;
        socket.ack(&foreign.token, SYN_MAX).await;
        until_pong(&mut socket, &own).await;
    }

    /// Acknowledges a number that is yet to be given: what is there is done with, what comes is not.
    async fn acknowledge_the_future(&self, door: &Door, place: usize, random: &mut SmallRng) {
        let own = self.tokens_of(place);
        let watched = own[random.random_range(0..own.len())];
        let Some(mut socket) = open(door, &self.devices[place], &own).await else {
            return;
        };
        watched.history.borrow_mut().gives_up();
        socket.ack(&watched.token, SYN_MAX).await;
        until_pong(&mut socket, &own).await;
        watched.history.borrow_mut().gives_up();
    }
}

/// Holds a socket until it is done, or the round goes on to something else: what has come and was
/// not read by then was not seen.
async fn while_at_work(phase: &watch::Receiver<Phase>, holding: impl Future<Output = ()>) {
    let mut phase = phase.clone();
    tokio::select! {
        () = holding => {}
        _ = phase.wait_for(|phase| *phase != Phase::Work) => {}
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
pub(super) fn parsed(message: &Message) -> Value {
    let text = message.to_text().unwrap_or_default();
    serde_json::from_str(text).unwrap_or(Value::Null)
}

fn wanted(own: &[&Watched]) -> Vec<(String, u64)> {
    own.iter()
        .map(|it| (it.token.clone(), it.history.borrow().wanted()))
        .collect()
}

fn note(own: &[&Watched], what: &str) {
    for watched in own {
        watched.history.borrow_mut().notes.add(what);
    }
}

/// Polls tokens, each from a number on; their entries if there is an answer.
pub(super) async fn try_poll(
    door: &Door,
    device: &Credential,
    asked: &[(String, u64)],
) -> Option<Vec<Value>> {
    let requests: Vec<Value> = asked
        .iter()
        .map(|(token, min_syn)| {
            json!({"project_id": "demo", "token": token, "min_syn": min_syn, "limit": PAGE})
        })
        .collect();
    let body = json!({"requests": requests});
    let path = "/v1/projects/messages:get";
    match try_post(door, path, device.header(), None, &body).await {
        Some((200, polled)) => polled["by_token"].as_array().cloned(),
        _ => None,
    }
}

/// Polls from the beginning, so that nothing is acknowledged: an ack would have to wait for the disk.
async fn look(door: &Door, device: &Credential, own: &[&Watched]) {
    let all = own.iter().map(|it| (it.token.clone(), 1)).collect();
    poll_from(door, device, own, all).await;
}

async fn poll(door: &Door, device: &Credential, own: &[&Watched]) {
    poll_from(door, device, own, wanted(own)).await;
}

async fn poll_from(door: &Door, device: &Credential, own: &[&Watched], asked: Vec<(String, u64)>) {
    note(own, &format!("polls at {}", door.listen()));
    let at = Instant::now();
    let Some(entries) = try_poll(door, device, &asked).await else {
        return tokio::time::sleep(LOOK_EVERY).await;
    };
    for (watched, mut entry) in own.iter().zip(entries) {
        let mut history = watched.history.borrow_mut();
        let wanted = history.wanted();
        if let Some(pushes) = entry["messages"].as_array_mut() {
            // An ack may be forgotten, but whoever has made it asks for nothing below it.
            pushes.retain(|push| syn_of(push) >= wanted);
            history.see_page(wanted, &entry, at);
        }
    }
}

/// A socket that has said hello, if somebody is there.
pub(super) async fn open(door: &Door, device: &Credential, own: &[&Watched]) -> Option<Socket> {
    note(own, &format!("opens a socket at {}", door.listen()));
    let url = format!("ws://{}/v1/connect", door.listen());
    let mut socket = Socket::try_connect(&url).await?;
    let asked = wanted(own);
    let asked: Vec<(&str, u64)> = asked.iter().map(|(it, min)| (it.as_str(), *min)).collect();
    socket.hello(device, &asked).await;
    Some(socket)
}

/// When a device acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Acks {
    /// Now and then.
    ByChance,
    /// When a token's window is full: what waited behind it then comes together with what is sent.
    Full,
}

/// Reads and acknowledges for a while.
async fn hold_socket(
    door: &Door,
    device: &Credential,
    own: &[&Watched],
    random: &mut SmallRng,
    habit: Acks,
) {
    let Some(mut socket) = open(door, device, own).await else {
        return tokio::time::sleep(LOOK_EVERY).await;
    };
    let until = tokio::time::Instant::now() + Duration::from_millis(random.random_range(50..500));
    let mut last = HashMap::new();
    let mut unacknowledged: HashMap<&str, usize> = HashMap::new();
    while let Ok(Some(message)) = tokio::time::timeout_at(until, socket.message()).await {
        let Some((watched, syn)) = take(&message, own, &mut last) else {
            continue;
        };
        let count = unacknowledged.entry(&watched.token).or_default();
        *count += 1;
        let acknowledges = match habit {
            Acks::ByChance => random.random_range(0..10) == 0,
            Acks::Full => *count >= WINDOW,
        };
        if acknowledges {
            *count = 0;
            watched.history.borrow_mut().acks(syn);
            socket.ack(&watched.token, syn).await;
        }
    }
}

/// A push that came on a socket: its numbers grow.
pub(super) fn take<'a>(
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

/// The second one takes over, perhaps at another node; what either shows is true.
async fn hold_two_sockets(
    doors: [&Door; 2],
    device: &Credential,
    own: &[&Watched],
    random: &mut SmallRng,
) {
    let Some(mut first) = open(doors[0], device, own).await else {
        return;
    };
    tokio::time::sleep(Duration::from_millis(random.random_range(0..50))).await;
    let Some(mut second) = open(doors[1], device, own).await else {
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
async fn hold_slow_socket(door: &Door, device: &Credential, own: &[&Watched]) {
    if let Some(socket) = open(door, device, own).await {
        tokio::time::sleep(Duration::from_millis(150)).await;
        drop(socket);
    }
}
