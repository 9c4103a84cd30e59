//! Senders: bursts of pushes for one token or another, some of them short-lived.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use herald::actors::{AppendError, Node, Outgoing, Sent as Outcome};
use herald::clock::Millis;
use herald::push::{CollapseKey, MessageId, NewPush};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::sent::{Answer, Sent, To};
use crate::topics;
use crate::world::World;

const LONG_MS: u64 = 24 * 60 * 60 * 1_000;

/// Fewer than a token may have, lest one key make way for another.
const KEYS: u8 = 3;

/// What is particular about a push.
#[derive(Clone, Copy)]
pub struct Manner {
    pub ttl_ms: Millis,
    pub collapse_key: Option<CollapseKey>,
}

pub const PLAIN: Manner = Manner {
    ttl_ms: LONG_MS,
    collapse_key: None,
};

impl Manner {
    fn choose(random: &mut SmallRng) -> Self {
        let ttl_ms = match random.random_range(0..12) {
            0 => 0,
            1 | 2 => random.random_range(1..3_000),
            _ => LONG_MS,
        };
        let has_key = random.random_range(0..4) == 0;
        let collapse_key = has_key.then(|| [random.random_range(0..KEYS); 16]);
        Self {
            ttl_ms,
            collapse_key,
        }
    }
}

/// Sends until it is to be calm.
pub async fn live(world: Rc<World>, node: Node, mut random: SmallRng) {
    while !world.is_calm() {
        let token = random.random_range(0..world.tokens.len());
        for _ in 0..random.random_range(1..=5) {
            let manner = Manner::choose(&mut random);
            let (world, node) = (Rc::clone(&world), node.clone());
            if random.random_range(0..16) == 0 {
                let own = SmallRng::seed_from_u64(random.random());
                spawn_local(topics::send(world, node, manner, own));
                continue;
            }
            spawn_local(async move { send(&world, &node, token, manner).await });
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
    while send(&world, &node, token, PLAIN).await != Answer::Stored {
        sleep(Duration::from_millis(100)).await;
    }
}

/// Sends some pushes to a token; whether they are taken does not matter.
pub async fn some(world: Rc<World>, node: Node, token: usize) {
    for _ in 0..3 {
        send(&world, &node, token, PLAIN).await;
    }
}

async fn send(world: &World, node: &Node, token: usize, manner: Manner) -> Answer {
    let number = world.next_number();
    let (text, now) = (format!("{{\"n\":{number}}}"), world.clock.now());
    let push = NewPush {
        address: world.tokens[token].address,
        message_id: MessageId::from_bytes(u128::from(number).to_be_bytes()),
        accepted_at: now,
        expires_at: now + manner.ttl_ms,
        collapse_key: manner.collapse_key,
        idempotency: None,
        is_copy: false,
        message: Bytes::from(text.clone()),
    };
    let sent = Sent::new(To::One(token), push.message_id, now, push.expires_at);
    world.judge().sends(&text, sent);
    let outcome = node.send(Outgoing::ToOne(push)).await;
    let answer = answer(outcome);
    world.judge().answered(&text, answer);
    answer
}

/// What became of a send.
pub fn answer(outcome: Result<Outcome, AppendError>) -> Answer {
    match outcome {
        Ok(Outcome::Stored(_)) => Answer::Stored,
        Ok(Outcome::Unregistered) => panic!("promise 1: a token is alive"),
        Err(AppendError::Store(error)) if !error.is_certainly_not_applied() => Answer::Unknown,
        Err(AppendError::TimedOut) => Answer::Unknown,
        Err(_) => Answer::Refused,
    }
}
