//! Allocations of the server, by its allocator's own count.

use crate::bounds::{ALLOCATIONS_PER_CONNECT, ALLOCATIONS_PER_POLL, ALLOCATIONS_PER_PUSH};
use crate::harness::{Door, Server};
use crate::load::Receiver;
use crate::options;

/// Enough that a look at the metrics, and what the server does on its own, are a small part.
const ROUNDS: usize = 500;

async fn allocations(door: &Door) -> f64 {
    door.metric("herald_alloc_allocations_total").await
}

/// Allocations of one of [`ROUNDS`] rounds of work.
async fn counted(door: &Door, work: impl Future<Output = ()>) -> f64 {
    let before = allocations(door).await;
    work.await;
    (allocations(door).await - before) / ROUNDS as f64
}

#[tokio::test]
async fn a_push_allocates_no_more_than_it_did() {
    let server = Server::with(options(Vec::new())).await;
    let mut receiver = Receiver::connect(&server).await;
    receiver.receive(&server, 100).await;
    let each = counted(&server, receiver.receive(&server, ROUNDS)).await;
    ALLOCATIONS_PER_PUSH.judge(each);
}

#[tokio::test]
async fn a_poll_with_nothing_new_allocates_no_more_than_it_did() {
    let server = Server::with(options(Vec::new())).await;
    let Receiver { device, token, .. } = Receiver::connect(&server).await;
    let polls = async |count: usize| {
        for _ in 0..count {
            server.poll_token(&device, &token, 1).await;
        }
    };
    polls(100).await;
    ALLOCATIONS_PER_POLL.judge(counted(&server, polls(ROUNDS)).await);
}

#[tokio::test]
async fn a_connect_with_hello_allocates_no_more_than_it_did() {
    let server = Server::with(options(Vec::new())).await;
    let Receiver { device, token, .. } = Receiver::connect(&server).await;
    let connects = async |count: usize| {
        for _ in 0..count {
            server.hello(&device, &[(&token, 1)]).await;
        }
    };
    connects(100).await;
    ALLOCATIONS_PER_CONNECT.judge(counted(&server, connects(ROUNDS)).await);
}
