//! Broken rules of the device socket, and the code each is closed with.

use serde_json::json;

use crate::harness::Server;

#[tokio::test]
async fn rules_have_their_close_codes() {
    let server = Server::start().await;
    let device = server.device().await;
    let mut stranger = device.clone();
    stranger.secret = device.secret.chars().rev().collect();
    let mut socket = server.connect().await;
    socket.hello(&stranger, &[]).await;
    assert_eq!(socket.closed().await.0, 4003);
    let mut socket = server.connect().await;
    socket
        .send(&json!({"type": "ack", "token": "t", "syn": 1}))
        .await;
    assert_eq!(socket.closed().await.0, 1008, "another frame before hello");
    let (mut socket, _) = server.hello(&device, &[]).await;
    socket
        .send(&json!({"type": "ack", "token": "t", "syn": -1}))
        .await;
    assert_eq!(socket.closed().await.0, 1008, "a negative ack");
    let (mut socket, _) = server.hello(&device, &[]).await;
    socket.send_message(vec![1, 2, 3].into()).await;
    assert_eq!(socket.closed().await.0, 1003);
}
