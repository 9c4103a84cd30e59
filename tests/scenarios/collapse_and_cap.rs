//! Pushes that make way for newer ones: by collapse key, and by the pending cap.

use serde_json::json;

use crate::harness::{Server, ServerOptions, message_with, syn_of, syns_of, texts_of};

#[tokio::test]
async fn a_newer_push_of_a_key_replaces_the_unacknowledged_one() {
    let mut server = Server::start().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let keyed = |text: &str, key: &str| message_with(&token, text, json!({"collapse_key": key}));
    server.accepted(&keyed("score 1", "score")).await;
    server.push(&token, "plain").await;
    server.accepted(&keyed("mail 1", "mail")).await;
    server.accepted(&keyed("score 2", "score")).await;
    let entry = server.poll_token(&device, &token, 1).await;
    assert_eq!(texts_of(&entry), ["plain", "mail 1", "score 2"]);
    let (mut socket, _) = server.hello(&device, &[(&token, 1)]).await;
    for syn in 2..=4 {
        assert_eq!(syn_of(&socket.push().await), syn);
    }
    server.accepted(&keyed("score 3", "score")).await;
    assert_eq!(syn_of(&socket.push().await), 5);
    server.kill_and_restart().await;
    let entry = server.poll_token(&device, &token, 1).await;
    assert_eq!(texts_of(&entry), ["plain", "mail 1", "score 3"]);
    // An acknowledged one has nothing left to replace.
    server.poll_token(&device, &token, 6).await;
    server.accepted(&keyed("score 4", "score")).await;
    assert_eq!(syns_of(&server.poll_token(&device, &token, 1).await), [6]);
    server.books_balance_at(1).await;
    assert_eq!(server.pushes("collapsed").await, 0, "since the restart");
    server.stop_and_audit().await;
}

#[tokio::test]
async fn a_fifth_key_replaces_the_oldest_push_that_has_one() {
    let server = Server::start().await;
    let device = server.device().await;
    let (token, other) = (server.token(&device).await, server.token(&device).await);
    let keyed = |token: &str, key: &str| message_with(token, key, json!({"collapse_key": key}));
    server.push(&token, "plain").await;
    for key in ["a", "b", "c", "d", "e"] {
        server.accepted(&keyed(&token, key)).await;
    }
    server.accepted(&keyed(&other, "a")).await;
    let entry = server.poll_token(&device, &token, 1).await;
    assert_eq!(texts_of(&entry), ["plain", "b", "c", "d", "e"]);
    assert_eq!(
        texts_of(&server.poll_token(&device, &other, 1).await),
        ["a"]
    );
    server.books_balance_at(6).await;
    assert_eq!(server.pushes("collapsed").await, 1);
    server.stop_and_audit().await;
}

async fn capped() -> Server {
    let settings = vec![("HERALD_LIMITS__PENDING_PER_TOKEN", "5".to_owned())];
    Server::with(ServerOptions { settings }).await
}

#[tokio::test]
async fn past_the_cap_the_oldest_go_and_the_poll_says_so() {
    let mut server = capped().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    for _ in 0..5 {
        server.push(&token, "fits").await;
    }
    let entry = server.poll_token(&device, &token, 1).await;
    assert!(entry.get("deleted_up_to").is_none(), "{entry}");
    for _ in 0..3 {
        server.push(&token, "pushes another out").await;
    }
    server.books_balance_at(5).await;
    assert_eq!(server.pushes("dropped").await, 3);
    server.kill_and_restart().await;
    let entry = server.poll_token(&device, &token, 1).await;
    assert_eq!(
        (syns_of(&entry), entry["deleted_up_to"].as_u64()),
        (vec![4, 5, 6, 7, 8], Some(3))
    );
    let entry = server.poll_token(&device, &token, 4).await;
    assert!(
        entry.get("deleted_up_to").is_none(),
        "min_syn has passed the mark: {entry}"
    );
    assert_eq!(syns_of(&entry), [4, 5, 6, 7, 8]);
    server.stop_and_audit().await;
}

#[tokio::test]
async fn the_socket_hears_of_drops_live_and_at_hello_until_an_ack_has_passed_them() {
    let server = capped().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let (mut socket, _) = server.hello(&device, &[(&token, 1)]).await;
    for syn in 1..=5 {
        server.push(&token, "fits").await;
        assert_eq!(syn_of(&socket.push().await), syn);
    }
    let deleted = |up_to| json!({"type": "deleted", "token": token, "up_to_syn": up_to});
    server.push(&token, "one too many").await;
    assert_eq!(socket.frame().await, deleted(1), "shown or not, it is gone");
    assert_eq!(syn_of(&socket.push().await), 6);
    let (mut socket, _) = server.hello(&device, &[(&token, 1)]).await;
    assert_eq!(socket.frame().await, deleted(1));
    for syn in 2..=6 {
        assert_eq!(syn_of(&socket.push().await), syn);
    }
    socket.ack(&token, 1).await;
    assert!(socket.sync().await.is_empty());
    let (mut socket, _) = server.hello(&device, &[(&token, 1)]).await;
    assert_eq!(
        syn_of(&socket.push().await),
        2,
        "the mark went with the ack"
    );
    server.stop_and_audit().await;
}

#[tokio::test]
async fn a_session_too_busy_to_hear_every_push_still_hears_of_the_drops() {
    let settings = vec![
        ("HERALD_LIMITS__PENDING_PER_TOKEN", "5".to_owned()),
        ("HERALD_SOCKET__MAILBOX", "1".to_owned()),
    ];
    let server = Server::with(ServerOptions { settings }).await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let (mut socket, _) = server.hello(&device, &[(&token, 1)]).await;
    let sends = (0..200).map(|_| server.push(&token, "a flood"));
    futures_util::future::join_all(sends).await;
    let (mut last, mut deleted, mut seen) = (0, 0, 0);
    while last < 200 {
        let frame = socket.frame().await;
        if frame["type"] == "deleted" {
            deleted = frame["up_to_syn"].as_u64().expect("a syn");
        } else {
            let syn = syn_of(&frame);
            assert!(
                syn == last + 1 || deleted + 1 >= syn,
                "a gap that nobody spoke of: {frame}"
            );
            (last, seen) = (syn, seen + 1);
            socket.ack(&token, syn).await;
        }
    }
    assert!(seen >= 5);
    socket.sync().await;
    server.books_balance_at(0).await;
    server.stop_and_audit().await;
}
