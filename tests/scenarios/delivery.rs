//! A push goes from a sender to a device: over the socket, by poll, awake or parked.

use serde_json::json;

use crate::harness::{Server, ServerOptions};

#[tokio::test]
async fn a_push_arrives_over_the_socket_and_is_gone_after_its_ack() {
    let server = Server::start().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let (mut socket, welcome) = server.hello(&device, &[(&token, 1)]).await;
    let welcomes = "herald_handshakes_total{result=\"welcome\"}";
    server.metric_becomes(welcomes, 1.0).await;
    assert_eq!(
        welcome["tokens"],
        json!([{"token": token, "syn_stored": 0}])
    );
    let message_id = server.push(&token, "hello").await;
    let push = socket.push().await;
    assert_eq!(push["syn"], 1);
    assert_eq!(push["token"], token.as_str());
    assert_eq!(push["message_id"], message_id.as_str());
    assert_eq!(push["message"], json!({"data": {"text": "hello"}}));
    socket.ack(&token, 1).await;
    socket.sync().await;
    let entry = server.poll_token(&device, &token, 1).await;
    assert_eq!(entry["messages"], json!([]));
    assert_eq!(entry["syn_stored"], 1);
}

#[tokio::test]
async fn a_parked_session_wakes_for_a_push_and_for_its_device() {
    let settings = vec![("HERALD_SOCKET__PARK_AFTER_MS", "0".to_owned())];
    let server = Server::with(ServerOptions { settings }).await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let (mut socket, _) = server.hello(&device, &[(&token, 1)]).await;
    for round in 1..=20 {
        server.push(&token, "wake up").await;
        assert_eq!(socket.push().await["syn"], round);
        socket.ack(&token, round).await;
        assert!(socket.sync().await.is_empty());
    }
}
