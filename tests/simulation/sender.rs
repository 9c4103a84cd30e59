//! Senders: bursts of pushes for one token or another, some of them short-lived.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use herald::actors::{AppendError, Node, Outgoing, Sent};
use herald::push::{MessageId, NewPush};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::judge::Answer;
use crate::world::World;

const LONG_MS: u64 = 24 * 60 * 60 * 1_000;

/// Sends until it is to be calm.
pub async fn live(world: Rc<World>, node: Node, mut random: SmallRng) {
    while !world.is_calm() {
        let token = random.random_range(0..world.tokens.len());
        for _ in 0..random.random_range(1..=5) {
            let ttl_ms = match random.random_range(0..10) {
                0 => random.random_range(0..3_000),
                _ => LONG_MS,
            };
            let (world, node) = (Rc::clone(&world), node.clone());
            spawn_local(async move { send(&world, &node, token, ttl_ms).await });
            if random.random() {
                sleep(Duration::from_millis(random.random_range(0..30))).await;
            }
        }
        sleep(Duration::from_millis(random.random_range(0..1_500))).await;
    }
}

/// Sends one push after another to a token until one is stored: everything before it must be
/// delivered, too.
pub async fn probe(world: Rc<World>, node: Node, token: usize) {
    while send(&world, &node, token, LONG_MS).await != Answer::Stored {
        sleep(Duration::from_millis(100)).await;
    }
}

async fn send(world: &World, node: &Node, token: usize, ttl_ms: u64) -> Answer {
    let number = world.next_number();
    let (text, now) = (format!("{{\"n\":{number}}}"), world.clock.now());
    let push = NewPush {
        address: world.tokens[token].address,
        message_id: MessageId::from_bytes(u128::from(number).to_be_bytes()),
        accepted_at: now,
        expires_at: now + ttl_ms,
        collapse_key: None,
        idempotency: None,
        is_copy: false,
        message: Bytes::from(text.clone()),
    };
    let (id, expires_at) = (push.message_id, push.expires_at);
    world.judge().sends(&text, token, id, expires_at);
    let answer = match node.send(Outgoing::ToOne(push)).await {
        Ok(Sent::Stored(_)) => Answer::Stored,
        Ok(Sent::Unregistered) => panic!("promise 1: {text}: its token is alive"),
        Err(AppendError::Store(error)) if !error.is_certainly_not_applied() => Answer::Unknown,
        Err(AppendError::TimedOut) => Answer::Unknown,
        Err(_) => Answer::Refused,
    };
    world.judge().answered(&text, answer);
    answer
}
