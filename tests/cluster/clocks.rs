//! Nodes whose clocks are not one.

use crate::harness::{message, syn_of, text_of};
use crate::load::Load;
use crate::stage::{Stage, eventually};
use crate::witness::Reader::{Poll, Reread, Socket as OnSocket};

const HOUR_MS: i64 = 60 * 60 * 1_000;

/// Longer than any token lives.
const YEAR_MS: i64 = 365 * 24 * HOUR_MS;

/// Less than what a clock may be off before anybody minds.
const UNNOTICED_MS: i64 = 600;

/// Devices are on this one, and senders on the other.
const BOTH: [usize; 2] = [1, 0];

/// The clocks of these nodes go wrong, one after the other; what such a node is asked meanwhile it may
/// refuse, and nothing else.
async fn a_clock_is_off_by(by_ms: i64, nodes: &[usize]) {
    let stage = Stage::enter().await;
    let load = Load::on(&stage, &[OnSocket, OnSocket, Poll, Reread]).await;
    load.during(&stage, async {
        for &node in nodes {
            load.accepts_everywhere(10).await;
            let (off, right) = (&stage.doors[node], &stage.doors[1 - node]);
            let (device, known) = stage.device().await;
            let (mut socket, _) = right.hello(&device, &[(&known, 1)]).await;
            stage.region().nodes[node].move_clock(by_ms).expect("moved");
            eventually("the node says that it is not ready", async || {
                (!off.is_ready().await).then_some(())
            })
            .await;
            // Just minted, by a clock that is right, and nobody has asked for it yet.
            let fresh = right.token(&device).await;
            for token in [&known, &fresh] {
                let (status, answer) = off.send(&message(token, "by the wrong clock")).await;
                assert_eq!(status, 503, "{answer}");
                let entry = off.poll_token(&device, token, 1).await;
                assert_eq!(entry["error"]["status"], "UNAVAILABLE", "{entry}");
                right.push(token, "by the right clock").await;
            }
            let push = socket.push().await;
            assert_eq!((syn_of(&push), text_of(&push)), (1, "by the right clock"));
            if node == 1 {
                load.accepts_everywhere(10).await;
            }
            stage.region().nodes[node].move_clock(0).expect("moved");
            eventually("the node is ready again", async || {
                off.is_ready().await.then_some(())
            })
            .await;
            load.accepts_everywhere(10).await;
        }
    })
    .await;
    load.assert_sockets_stayed();
}

#[tokio::test]
async fn a_node_whose_clock_is_ahead_takes_nothing_for_ended() {
    a_clock_is_off_by(HOUR_MS, &BOTH).await;
}

/// Sockets at such a node would pass over what they take for expired, so they are at the other one.
#[tokio::test]
async fn a_node_whose_clock_is_a_year_ahead_ends_no_token() {
    a_clock_is_off_by(YEAR_MS, &[0]).await;
}

#[tokio::test]
async fn a_node_whose_clock_is_behind_takes_nothing_for_alive() {
    a_clock_is_off_by(-HOUR_MS, &BOTH).await;
}

#[tokio::test]
async fn clocks_that_differ_by_less_than_a_second_are_noticed_by_nobody() {
    let stage = Stage::enter().await;
    let load = Load::on(&stage, &[OnSocket, Poll, Reread]).await;
    let [one, other] = &stage.region().nodes[..] else {
        panic!("a region of two nodes");
    };
    load.during(&stage, async {
        for ahead in [one, other] {
            let behind = if ahead.listen() == one.listen() {
                other
            } else {
                one
            };
            ahead.move_clock(UNNOTICED_MS / 2).expect("moved");
            behind.move_clock(-UNNOTICED_MS / 2).expect("moved");
            load.accepts_everywhere(20).await;
        }
    })
    .await;
    load.assert_sockets_stayed();
    let refused: usize = load.witnesses.iter().map(|it| it.refused()).sum();
    assert_eq!(refused, 0, "nobody minds");
}
