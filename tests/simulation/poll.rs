//! A device that polls, be there a socket or not: what `src/http/poll.rs` asks of the node for one
//! entry of a call, in the same order.

use std::rc::Rc;
use std::time::Duration;

use herald::actors::Node;
use herald::push::Syn;
use herald::store::{Contact, PageLimit};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use tokio::time::sleep;

use crate::reader::Reader;
use crate::world::World;

/// Polls now and then, until it is to be calm: then sockets alone must bring everything.
pub async fn live(world: Rc<World>, node: Node, device: usize, mut random: SmallRng) {
    let tokens: Vec<usize> = world.tokens_of(device).collect();
    loop {
        sleep(Duration::from_millis(random.random_range(0..2_500))).await;
        if world.is_calm() {
            return;
        }
        let token = tokens[random.random_range(0..tokens.len())];
        let limit = PageLimit {
            pushes: [1, 3, 100][random.random_range(0..3)],
            bytes: [1, 40, 100_000][random.random_range(0..3)],
        };
        let min_syn = if random.random_range(0..3) == 0 {
            0
        } else {
            world.seen(token) + 1
        };
        poll(&world, &node, token, min_syn, limit).await;
    }
}

/// Polls all that a token has; it must be all that nobody has acknowledged.
pub async fn everything(world: &World, node: &Node, token: usize) {
    let limit = PageLimit {
        pushes: 1_000,
        bytes: 1_000_000,
    };
    let is_answered = poll(world, node, token, 0, limit).await;
    assert!(is_answered, "liveness: a poll does not succeed");
}

async fn poll(world: &World, node: &Node, token: usize, min_syn: Syn, limit: PageLimit) -> bool {
    let mut reader = Reader::new(world.next_number());
    let address = world.tokens[token].address;
    let min_syn = min_syn.max(1);
    world.judge().polls(&reader, token, min_syn);
    world.store.ledger().device_acks(address.id, min_syn - 1);
    let (syn_stored, acked, deleted_up_to) = match node.contact(&address, min_syn).await {
        Err(_) => return false,
        Ok(Contact::Unregistered) => panic!("promise 1: token {token} is dead to a poll"),
        Ok(Contact::Live {
            syn_stored,
            acked,
            deleted_up_to,
        }) => (syn_stored, acked, deleted_up_to),
    };
    let after = acked.max(min_syn - 1);
    if syn_stored <= after {
        if let Some(up_to) = deleted_up_to {
            world.judge().is_told(&mut reader, token, up_to);
        }
        return true;
    }
    let asked = world.judge().asks_for_page(token, after, syn_stored);
    let Ok(page) = node.read(&address, after, limit).await else {
        return false;
    };
    world.judge().pages(&mut reader, &asked, &page);
    if let Some(last) = page.pushes.last() {
        world.sees(token, last.syn);
    }
    true
}
