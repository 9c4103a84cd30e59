//! Time to live: never later than it says, and "now or never" means that.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Server, ServerOptions, message, message_with, syn_of, syns_of, texts_of};

#[tokio::test]
async fn an_expired_push_is_shown_by_no_way() {
    let mut server = Server::start().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let short = json!({"ttl": "1s"});
    server
        .accepted(&message_with(&token, "short", short.clone()))
        .await;
    let sent = Instant::now();
    server.push(&token, "long").await;
    server.kill_and_restart().await;
    // Seen while it lives, or the restart alone took a second.
    let entry = server.poll_token(&device, &token, 1).await;
    assert!(texts_of(&entry) == ["short", "long"] || sent.elapsed() > Duration::from_secs(1));
    loop {
        let entry = server.poll_token(&device, &token, 1).await;
        let asked_late = sent.elapsed() > Duration::from_secs(2);
        if texts_of(&entry) == ["long"] {
            assert!(sent.elapsed() >= Duration::from_millis(900), "too early");
            break;
        }
        assert!(!asked_late, "it outlives its time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (mut socket, welcome) = server.hello(&device, &[(&token, 1)]).await;
    assert_eq!(welcome["tokens"][0]["syn_stored"], 2);
    assert_eq!(syn_of(&socket.push().await), 2);
    assert!(socket.sync().await.is_empty());
    server.metric_becomes("herald_pushes_pending", 1.0).await;
    server.books_balance_at(1).await;
    server.stop_and_audit().await;
}

#[tokio::test]
async fn a_token_lives_while_its_device_is_connected() {
    let lifetime = Duration::from_secs(2);
    let options = ServerOptions {
        settings: vec![("HERALD_LIMITS__TOKEN_TTL_MS", "2000".to_owned())],
    };
    let server = Server::with(options).await;
    let (device, silent) = (server.device().await, server.device().await);
    let token = server.token(&device).await;
    let forgotten = server.token(&silent).await;
    server.push(&forgotten, "never read").await;
    let (mut socket, _) = server.hello(&device, &[(&token, 1)]).await;
    let begun = Instant::now();
    while begun.elapsed() < lifetime * 2 {
        assert!(socket.sync().await.is_empty());
    }
    server.push(&token, "still here").await;
    assert_eq!(syn_of(&socket.push().await), 1);
    let (code, _) = server.send(&message(&forgotten, "too late")).await;
    assert_eq!(code, 404, "nobody has asked for it");
}

#[tokio::test]
async fn a_push_that_expires_behind_a_full_window_is_not_sent() {
    let server = Server::start().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let (mut socket, _) = server.hello(&device, &[(&token, 1)]).await;
    for _ in 0..64 {
        server.push(&token, "fills the window").await;
        socket.push().await;
    }
    let sent = Instant::now();
    let short = json!({"ttl": "1s"});
    server
        .accepted(&message_with(&token, "waits too long", short))
        .await;
    assert!(socket.sync().await.is_empty());
    server.push(&token, "waits").await;
    tokio::time::sleep_until((sent + Duration::from_millis(1_100)).into()).await;
    socket.ack(&token, 64).await;
    assert_eq!(syn_of(&socket.push().await), 66);
    server
        .metric_becomes("herald_pushes_total{state=\"expired\"}", 1.0)
        .await;
    server.books_balance_at(1).await;
    server.stop_and_audit().await;
}

#[tokio::test]
async fn now_or_never() {
    let settings = vec![("HERALD_SOCKET__PARK_AFTER_MS", "0".to_owned())];
    let mut server = Server::with(ServerOptions { settings }).await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let now = |text: &str| message_with(&token, text, json!({"ttl": "0s"}));
    server.accepted(&now("never: nobody is there")).await;
    let entry = server.poll_token(&device, &token, 1).await;
    assert_eq!(
        (syns_of(&entry).len(), entry["syn_stored"].as_u64()),
        (0, Some(1))
    );
    let (mut socket, welcome) = server.hello(&device, &[(&token, 1)]).await;
    assert_eq!(welcome["tokens"][0]["syn_stored"], 1);
    assert!(socket.sync().await.is_empty());
    for syn in 2..=4 {
        server.accepted(&now("now")).await;
        assert_eq!(syn_of(&socket.push().await), syn);
    }
    // Not acknowledged, and gone all the same.
    let (mut socket, _) = server.hello(&device, &[(&token, 1)]).await;
    assert!(socket.sync().await.is_empty());
    assert!(syns_of(&server.poll_token(&device, &token, 1).await).is_empty());
    server.books_balance_at(0).await;
    assert_eq!(server.pushes("expired").await, 4);
    server.kill_and_restart().await;
    let (mut socket, welcome) = server.hello(&device, &[(&token, 1)]).await;
    assert_eq!(
        welcome["tokens"][0]["syn_stored"], 4,
        "their numbers are not given again"
    );
    server.push(&token, "kept").await;
    assert_eq!(syn_of(&socket.push().await), 5);
    server.stop_and_audit().await;
}

#[tokio::test]
async fn now_or_never_behind_a_full_window_is_never() {
    let server = Server::start().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let (mut socket, _) = server.hello(&device, &[(&token, 1)]).await;
    for _ in 0..64 {
        server.push(&token, "fills the window").await;
        socket.push().await;
    }
    server
        .accepted(&message_with(&token, "never", json!({"ttl": "0s"})))
        .await;
    server.push(&token, "later").await;
    socket.ack(&token, 10).await;
    assert_eq!(syn_of(&socket.push().await), 66);
    assert!(socket.sync().await.is_empty());
    server.stop_and_audit().await;
}
