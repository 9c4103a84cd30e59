//! Pushes to topics in a region: whoever holds a member gets them, and a node that stops in the
//! middle leaves the rest to another.

use std::collections::BTreeSet;

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::harness::{Credential, Door, answer, message_id, texts_of};
use crate::stage::{PATIENCE, Stage, eventually};

/// Calls of a test's own that are under way.
const AT_ONCE: usize = 32;

/// Enough for several stretches.
const CROWD: usize = 600;

const UNFINISHED: &str = "herald_fan_outs_unfinished";
const STORED: &str = "herald_fan_out_copies_total{result=\"stored\"}";

/// As whoever is told that some were not taken in time says so again.
async fn subscribe(door: &Door, topic: &str, tokens: &[String]) {
    let mut left = tokens.to_vec();
    eventually("all are subscribed", async || {
        let request = door
            .http()
            .post(door.url("/iid/v1:batchAdd"))
            .bearer_auth(door.service_token())
            .json(&json!({"to": topic, "registration_tokens": left}));
        let (status, added) = answer(request).await;
        assert!(matches!(status, 200 | 503), "{added}");
        let results = added["results"].as_array().cloned().unwrap_or_default();
        let mut results = results.iter();
        left.retain(|_| results.next() != Some(&json!({})));
        left.is_empty().then_some(())
    })
    .await;
}

async fn crowd(door: &Door) -> (Credential, Vec<String>) {
    let device = door.device().await;
    let tokens = futures_util::stream::iter(0..CROWD)
        .map(|_| door.token(&device))
        .buffered(AT_ONCE)
        .collect()
        .await;
    (device, tokens)
}

async fn send(door: &Door, target: Value, text: &str) -> String {
    let mut message = target;
    message["data"] = json!({"text": text});
    let (status, sent) = door.send(&json!({"message": message})).await;
    assert_eq!(status, 200, "{sent}");
    message_id(&sent)
}

/// Each token has this message, once.
async fn assert_each_has_it(door: &Door, device: &Credential, tokens: &[String], id: &str) {
    let entries: Vec<Value> = futures_util::stream::iter(tokens)
        .map(|token| door.poll_token(device, token, 1))
        .buffered(AT_ONCE)
        .collect()
        .await;
    for entry in entries {
        let messages = entry["messages"].as_array().expect("messages");
        let ids: Vec<&str> = messages
            .iter()
            .filter_map(|it| it["message_id"].as_str())
            .collect();
        assert_eq!(ids, [id], "{entry}");
    }
}

#[tokio::test]
async fn a_push_to_a_topic_reaches_members_on_every_node() {
    let stage = Stage::enter().await;
    let (here, there) = (stage.sending(), stage.holding());
    let topic = format!("everywhere-{:08x}", rand::random::<u32>());
    let (one, two) = (here.device().await, there.device().await);
    let (first, second) = (here.token(&one).await, there.token(&two).await);
    let outside = there.token(&two).await;
    subscribe(there, &topic, &[first.clone(), second.clone()]).await;
    let (mut near, _) = here.hello(&one, &[(&first, 1)]).await;
    let (mut far, _) = there.hello(&two, &[(&second, 1), (&outside, 1)]).await;
    let id = send(here, json!({"topic": topic}), "to all").await;
    for socket in [&mut near, &mut far] {
        let push = socket.push().await;
        assert_eq!(push["message_id"], json!(id));
    }
    let both = format!("'{topic}' in topics && !('nothing' in topics)");
    send(there, json!({"condition": both}), "by a condition").await;
    for socket in [&mut near, &mut far] {
        assert_eq!(
            socket.push().await["message"]["data"]["text"],
            "by a condition"
        );
    }
    let entry = there.poll_token(&two, &outside, 1).await;
    assert!(texts_of(&entry).is_empty(), "{entry}");
}

/// Copies are stored once, though the node is killed in the middle and another one goes on.
#[tokio::test]
async fn a_node_that_is_killed_leaves_its_push_to_a_topic_to_another() {
    let stage = Stage::enter().await;
    let (accepting, other) = (stage.sending(), stage.holding());
    let topic = format!("left-{:08x}", rand::random::<u32>());
    let (device, tokens) = crowd(other).await;
    subscribe(other, &topic, &tokens).await;
    let before = accepting.metric(STORED).await;
    let id = send(accepting, json!({"topic": topic}), "once each").await;
    eventually("some copies are stored", async || {
        (accepting.metric(STORED).await > before + 50.0).then_some(())
    })
    .await;
    stage.region().nodes[0].kill().expect("killed");
    let resumed = "herald_fan_outs_total{state=\"resumed\"}";
    let earlier = other.metric(resumed).await;
    // A node is taken for gone when nobody has heard of it for half a minute.
    let deadline = std::time::Instant::now() + 2 * PATIENCE;
    while other.metric(resumed).await <= earlier || other.metric(UNFINISHED).await > 0.0 {
        assert!(
            std::time::Instant::now() < deadline,
            "nobody has gone on with it"
        );
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_each_has_it(other, &device, &tokens, &id).await;
    stage.region().nodes[0].restart().await.expect("back");
}

/// A node that is told to stop says so: nobody waits for its lease to end.
#[tokio::test]
async fn a_node_that_drains_hands_its_push_to_a_topic_over_at_once() {
    let stage = Stage::enter().await;
    let (accepting, other) = (stage.sending(), stage.holding());
    let topic = format!("handed-{:08x}", rand::random::<u32>());
    let (device, tokens) = crowd(other).await;
    subscribe(other, &topic, &tokens).await;
    let mut ids = BTreeSet::new();
    // More than a drain leaves time for.
    for number in 0..4 {
        ids.insert(send(accepting, json!({"topic": topic}), &number.to_string()).await);
    }
    let status = stage.region().nodes[0].terminate().await.expect("ended");
    assert_eq!(status.code(), Some(0));
    // What another node goes on with is found piece by piece.
    let mut left = tokens;
    eventually("everybody has everything", async || {
        let mut unfinished = Vec::new();
        for token in left.drain(..) {
            let entry = other.poll_token(&device, &token, 1).await;
            let messages = entry["messages"].as_array().expect("messages");
            let got: BTreeSet<&str> = messages
                .iter()
                .filter_map(|it| it["message_id"].as_str())
                .collect();
            assert!(got.iter().all(|id| ids.contains(*id)), "{entry}");
            assert_eq!(got.len(), messages.len(), "each once: {entry}");
            if got.len() < ids.len() {
                unfinished.push(token);
            }
        }
        left = unfinished;
        left.is_empty().then_some(())
    })
    .await;
    stage.region().nodes[0].restart().await.expect("back");
}
