//! One story that no seed tells by itself: a node drains while copies of a push to many are under way.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use herald::actors::{Node, NodeSettings, Outgoing, Sent};
use herald::push::MessageId;
use herald::token::{DeviceId, TokenAddress, TokenId};
use herald::topic::{FanOut, Reach, TopicName};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use crate::world::{self, PROJECT, World};

/// More than may be on their way at once, and fewer than are looked at together.
const MEMBERS: usize = 200;

/// Copies that a node has on their way at once.
const AT_ONCE: usize = 128;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_drain_finishes_copies_under_way_and_begins_none() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut random = SmallRng::seed_from_u64(1);
        let world = Rc::new(World::new(&mut random));
        world.store.be_well();
        world.store.looks_at(MEMBERS);
        let members = members(&world, &mut random);
        let first = LocalSet::new();
        first.run_until(drains(&world, &members, &mut random)).await;
        drop(first);
        world.store.crash();
        let second = LocalSet::new();
        second
            .run_until(goes_on(&world, &members, &mut random))
            .await;
    });
}

fn members(world: &World, random: &mut SmallRng) -> Vec<TokenAddress> {
    let like = world.tokens[0].address;
    let member = |_| TokenAddress {
        id: TokenId(random.random()),
        device: DeviceId(random.random()),
        ..like
    };
    (0..MEMBERS).map(member).collect()
}

async fn begin(world: &Rc<World>, random: &mut SmallRng) -> Node {
    let settings = NodeSettings {
        mailbox: 10 * MEMBERS,
        fan_out_copies_per_second: 0,
        ..world::settings(random)
    };
    let (node, _) = world.begin(settings, random).await;
    node
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "never: {what}");
        sleep(Duration::from_millis(1)).await;
    }
}

/// How many members have their copy.
fn copies(world: &World, members: &[TokenAddress]) -> usize {
    let ledger = world.store.ledger();
    let rows = |member: &TokenAddress| ledger.log(member.id).map_or(0, |log| log.rows.len());
    let rows = members.iter().map(rows);
    assert!(rows.clone().all(|rows| rows < 2), "a copy is stored twice");
    rows.sum()
}

async fn drains(world: &Rc<World>, members: &[TokenAddress], random: &mut SmallRng) {
    let node = begin(world, random).await;
    let topic = TopicName::parse("news").expect("a name");
    for member in members {
        let subscribed = node.subscribe(member, &topic).await;
        subscribed.expect("the store is well");
    }
    let now = world.clock.now();
    let fan_out = FanOut {
        message_id: MessageId::from_bytes([1; 16]),
        project: PROJECT,
        reach: Reach::Topic(topic),
        accepted_at: now,
        expires_at: now + 60 * 60 * 1_000,
        collapse_key: None,
        idempotency: None,
        message: Bytes::from_static(b"{}"),
    };
    let (name, store) = (fan_out.message_id, &world.store);
    let sent = node.send(Outgoing::ToMany(fan_out)).await;
    assert_eq!(sent.expect("the store is well"), Sent::Stored(name));

    // Nobody commits, so that copies are under way for as long as is wanted.
    until("copies are under way", || store.staged() == AT_ONCE).await;
    node.start_draining();
    assert_eq!(node.running_sends(), AT_ONCE, "a drain waits for them");
    store.commit_staged();
    let unfinished = || node.metrics().fan_outs.unfinished.get();
    until("the node lets go of it", || {
        assert_eq!(store.staged(), 0, "a copy is begun");
        unfinished() == 0
    })
    .await;
    assert_eq!(node.running_sends(), 0);
    assert_eq!(
        copies(world, members),
        AT_ONCE,
        "those under way are stored"
    );
}

/// The next node makes the rest.
async fn goes_on(world: &Rc<World>, members: &[TokenAddress], random: &mut SmallRng) {
    let node = begin(world, random).await;
    let unfinished = || !world.store.unfinished().is_empty();
    until("everybody has a copy", || {
        world.store.commit_staged();
        !unfinished()
    })
    .await;
    assert_eq!(copies(world, members), MEMBERS);
    drop(node);
}
