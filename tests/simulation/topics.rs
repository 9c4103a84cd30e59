//! Topics: tokens that join and leave, and pushes to whoever is in.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use herald::actors::{Node, Outgoing};
use herald::push::MessageId;
use herald::store::{Subscribed, Unsubscribed};
use herald::topic::{Condition, FanOut, Reach, TopicName};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use tokio::time::sleep;

use crate::sender::{Manner, answer};
use crate::sent::{Answer, Sent, To};
use crate::world::{PROJECT, World};

const TOPICS: [&str; 2] = ["news", "sport"];

/// Everybody is walked, members of one topic, of two, and of one after the other.
const CONDITIONS: [&str; 4] = [
    "!('news' in topics)",
    "'news' in topics && !('sport' in topics)",
    "'news' in topics && 'sport' in topics",
    "'news' in topics || 'sport' in topics",
];

/// Changes that are made before anybody waits.
const AT_FIRST: usize = 6;

/// Lets tokens join and leave, until it is to be calm.
pub async fn live(world: Rc<World>, node: Node, mut random: SmallRng) {
    for number in 0.. {
        if number > AT_FIRST {
            sleep(Duration::from_millis(random.random_range(0..1_500))).await;
        }
        if world.is_calm() {
            return;
        }
        let token = random.random_range(0..world.tokens.len());
        let topic = topic(TOPICS[random.random_range(0..TOPICS.len())]);
        let joins = number < AT_FIRST || random.random();
        change(&world, &node, token, &topic, joins).await;
    }
}

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).expect("a name")
}

async fn change(world: &World, node: &Node, token: usize, topic: &TopicName, joins: bool) {
    let address = world.tokens[token].address;
    world.judge().changes(token, topic, joins);
    let is_done = if joins {
        let subscribed = node.subscribe(&address, topic).await;
        subscribed.map(|(it, _)| matches!(it, Subscribed::Added | Subscribed::Already(_)))
    } else {
        let unsubscribed = node.unsubscribe(&address, topic).await;
        unsubscribed.map(|it| matches!(it, Unsubscribed::Removed | Unsubscribed::NotThere))
    };
    match is_done {
        Ok(true) => world.judge().changed(token, topic, joins),
        Ok(false) => panic!("promise 1: token {token} is dead, or has too many topics"),
        Err(_) => {}
    }
}

fn any(random: &mut SmallRng) -> Reach {
    match random.random_range(0..TOPICS.len() + CONDITIONS.len()) {
        place if place < TOPICS.len() => Reach::Topic(topic(TOPICS[place])),
        place => {
            let condition = Condition::parse(CONDITIONS[place - TOPICS.len()]);
            Reach::Condition(condition.expect("a condition"))
        }
    }
}

/// Sends one push to many.
pub async fn send(world: Rc<World>, node: Node, manner: Manner, mut random: SmallRng) -> Answer {
    let (number, reach) = (world.next_number(), any(&mut random));
    let (text, now) = (format!("{{\"n\":{number}}}"), world.clock.now());
    let fan_out = FanOut {
        message_id: MessageId::from_bytes(u128::from(number).to_be_bytes()),
        project: PROJECT,
        reach: reach.clone(),
        accepted_at: now,
        expires_at: now + manner.ttl_ms,
        collapse_key: manner.collapse_key,
        idempotency: None,
        message: Bytes::from(text.clone()),
    };
    let (id, expires_at) = (fan_out.message_id, fan_out.expires_at);
    let sent = Sent::new(To::Many(reach), id, now, expires_at);
    world.judge().sends(&text, sent);
    let answer = answer(node.send(Outgoing::ToMany(fan_out)).await);
    world.judge().answered(&text, answer);
    answer
}
