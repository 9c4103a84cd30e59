//! Bytes of heap that one more parked socket takes.

use std::time::{Duration, Instant};

use crate::bounds::HEAP_PER_SOCKET;
use crate::harness::{Door, PATIENCE, Server};
use crate::load::{Receiver, connect_all, push_to_all};
use crate::options;

/// Sockets at the two points of the slope.
const FEW: usize = 500;
const MANY: usize = 1_500;

/// Devices that come at the same time.
const AT_ONCE: usize = 50;

/// The heap is at rest when it has stayed within [`QUIET_BYTES`], a few dozen a socket, for so long:
/// the store writes its memtable out after three seconds of rest.
const QUIET: Duration = Duration::from_secs(5);
const QUIET_BYTES: f64 = 64.0 * 1024.0;

#[tokio::test]
async fn a_parked_socket_takes_no_more_heap_than_it_did() {
    let park = ("HERALD_SOCKET__PARK_AFTER_MS", "0".to_owned());
    let server = Server::with(options(vec![park])).await;
    let mut crowd = Vec::new();
    grow(&server, &mut crowd, FEW).await;
    let few = heap_at_rest(&server).await;
    grow(&server, &mut crowd, MANY).await;
    let many = heap_at_rest(&server).await;
    HEAP_PER_SOCKET.judge((many - few) / (MANY - FEW) as f64);
}

/// Devices come until there are so many; each receives a push.
async fn grow(door: &Door, crowd: &mut Vec<Receiver>, sockets: usize) {
    while crowd.len() < sockets {
        let mut arrived = connect_all(door, AT_ONCE).await;
        push_to_all(door, &mut arrived, 1).await;
        crowd.extend(arrived);
    }
    door.metric_becomes("herald_sessions", sockets as f64).await;
}

async fn heap_at_rest(door: &Door) -> f64 {
    let deadline = Instant::now() + 2 * PATIENCE;
    let (mut seen, mut since) = (f64::INFINITY, Instant::now());
    loop {
        let heap = door.metric("herald_alloc_allocated_bytes").await;
        if (heap - seen).abs() > QUIET_BYTES {
            (seen, since) = (heap, Instant::now());
        } else if since.elapsed() > QUIET {
            return heap;
        }
        assert!(Instant::now() < deadline, "the heap does not come to rest");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
