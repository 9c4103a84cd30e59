//! One live session a device, in the whole region.

use crate::harness::syn_of;
use crate::stage::{PATIENCE, Stage, stored_of};

#[tokio::test]
async fn a_newer_session_on_another_node_takes_over_and_a_late_goodbye_removes_nothing() {
    let stage = Stage::enter().await;
    let (device, token) = stage.device().await;
    let (a, b) = (stage.sending(), stage.holding());
    let (mut old, _) = a.hello(&device, &[(&token, 1)]).await;
    a.push(&token, "to the old one").await;
    assert_eq!(syn_of(&old.push().await), 1);
    let (mut new, welcome) = b.hello(&device, &[(&token, 1)]).await;
    assert_eq!(stored_of(&welcome), 1);
    assert_eq!(syn_of(&new.push().await), 1, "it was not acknowledged");
    assert_eq!(old.closed().await.0, 4009);
    drop(old);
    a.metric_becomes("herald_sessions", 0.0).await;
    for syn in 2..=12 {
        // From the node that had it before, and from the one that has it now.
        let node = if syn % 2 == 0 { a } else { b };
        node.push(&token, "after the goodbye").await;
        assert_eq!(syn_of(&new.push().await), syn);
    }
    // Back and forth, faster than goodbyes are said.
    let mut latest = new;
    for round in 0..10_u64 {
        let node = if round % 2 == 0 { a } else { b };
        let (mut newer, _) = node.hello(&device, &[(&token, 13 + round)]).await;
        assert_eq!(latest.closed().await.0, 4009);
        b.push(&token, "to the latest").await;
        assert_eq!(syn_of(&newer.push().await), 13 + round);
        latest = newer;
    }
}

/// The record of who holds the device is lost, so nobody can tell the old holder: it finds out.
#[tokio::test]
async fn a_takeover_that_nobody_could_tell_is_found_out() {
    let stage = Stage::enter().await;
    let redis = &stage.region().redis;
    let (device, token) = stage.device().await;
    let (mut old, _) = stage.sending().hello(&device, &[(&token, 1)]).await;
    for primary in redis.primaries().await.expect("primaries") {
        let flushed = redis.command(primary.node, &["FLUSHALL"]).await;
        flushed.expect("flushed");
    }
    let (mut new, _) = stage.holding().hello(&device, &[(&token, 1)]).await;
    let closed = tokio::time::timeout(PATIENCE, old.closed()).await;
    assert_eq!(closed.expect("closed").0, 4009);
    stage.sending().push(&token, "to the new one").await;
    new.push().await;
}

#[tokio::test]
async fn a_token_deleted_on_one_node_is_unregistered_at_once_on_the_other() {
    let stage = Stage::enter().await;
    let (device, token) = stage.device().await;
    let (a, b) = (stage.sending(), stage.holding());
    let (mut socket, _) = b.hello(&device, &[(&token, 1)]).await;
    assert_eq!(a.delete_token("demo", &device, &token).await, 204);
    let frame = socket.frame().await;
    assert_eq!(frame["type"], "unregistered", "{frame}");
    for node in [a, b] {
        let body = crate::harness::message(&token, "too late");
        assert_eq!(node.send(&body).await.0, 404);
    }
}
