//! What must never be logged is not, however much is logged.

use serde_json::{Value, json};

use crate::harness::{Server, ServerOptions, Socket, answer, message_with, syn_of};

const CANARY: &str = "canary-in-the-payload";

/// A bit of everything, good and bad; answers with all secrets that were used.
async fn live_a_little(server: &Server) -> Vec<(&'static str, String)> {
    let project = server.project("other").await;
    let (device, stranger) = (server.device().await, server.device().await);
    let (token, theirs) = (
        server.token(&device).await,
        server.token_in(&project, &device).await,
    );
    let mut socket =
        Socket::connect_as(&format!("ws://{}/v1/connect", server.listen()), &device).await;
    socket.hello(&device, &[(&token, 1), (&theirs, 1)]).await;
    assert_eq!(socket.frame().await["type"], "welcome");
    let keyed = message_with(&token, CANARY, json!({"collapse_key": CANARY}));
    server.accepted(&keyed).await;
    assert_eq!(syn_of(&socket.push().await), 1);
    server.accepted(&keyed).await;
    socket.ack(&token, 1).await;
    server
        .send_as(
            &project.service_token,
            "other",
            &message_with(&theirs, CANARY, json!({})),
        )
        .await;
    server
        .send_as(
            &project.service_token,
            "other",
            &message_with(&token, CANARY, json!({})),
        )
        .await;
    server
        .send_as(
            &project.service_token,
            "demo",
            &message_with(&token, CANARY, json!({})),
        )
        .await;
    server
        .send(&json!({"message": {"token": token, "data": {"text": 7, CANARY: null}}}))
        .await;
    server
        .send(&json!({"message": {"token": token, "data": {"text": CANARY.repeat(300)}}}))
        .await;
    server
        .send_once("a-key", &message_with(&token, CANARY, json!({})))
        .await;
    server.poll_token(&device, &token, 1).await;
    server.poll_token(&stranger, &token, 1).await;
    socket
        .send(&json!({"type": "ack", "token": token, "syn": "wrong"}))
        .await;
    socket.closed().await;
    let mut socket = server.connect().await;
    socket
        .send(&json!({"type": "hello", "device_id": device.id, "device_secret": stranger.secret}))
        .await;
    socket.closed().await;
    assert_eq!(server.delete_token("other", &device, &theirs).await, 204);
    assert_eq!(server.delete_token("demo", &stranger, &token).await, 403);
    let path = "/admin/v1/projects/other/service-tokens";
    let (_, made) = server
        .admin(reqwest::Method::POST, path, &json!({"name": "second"}))
        .await;
    server.admin(reqwest::Method::GET, path, &Value::Null).await;
    let made = made["token"].as_str().expect("a token").to_owned();
    vec![
        ("the payload", CANARY.to_owned()),
        ("a push token", token),
        ("another push token", theirs),
        ("a device secret", device.secret),
        ("another device secret", stranger.secret),
        ("a service token", server.service_token()),
        ("another service token", project.service_token),
        ("a third service token", made),
        ("the admin token", server.admin_token()),
    ]
}

#[tokio::test]
async fn no_secret_is_in_the_log_even_when_everything_is_logged() {
    let settings = vec![("HERALD_LOG__FILTER", "trace".to_owned())];
    let mut server = Server::with(ServerOptions { settings }).await;
    let mut secrets = live_a_little(&server).await;
    server.kill_and_restart().await;
    secrets.extend(live_again(&server).await);
    server.terminate();
    assert_eq!(server.exit_status().await.code(), Some(0));
    let log = server.log();
    assert!(log.lines().count() > 100, "everything was logged");
    for (what, secret) in secrets {
        assert!(secret.len() >= 16, "{what} is long enough to be looked for");
        if let Some(line) = log.lines().find(|line| line.contains(&secret)) {
            panic!("{what} is in the log: {line}");
        }
    }
}

/// What a recovered server says about what it finds.
async fn live_again(server: &Server) -> Vec<(&'static str, String)> {
    let device = server.device().await;
    let token = server.token(&device).await;
    server.push(&token, CANARY).await;
    let (mut socket, _) = server.hello(&device, &[(&token, 1)]).await;
    assert_eq!(syn_of(&socket.push().await), 1);
    // Who knows a proof in time can have its device.
    let proof = "a-proof-that-nobody-may-see:1";
    let request = server.http().post(server.url("/v1/devices"));
    let request = request.header("Herald-Proof", proof).json(&json!({}));
    assert_eq!(answer(request).await.0, 200);
    vec![
        ("a proof of work", proof.to_owned()),
        ("a later push token", token),
        ("a later device secret", device.secret),
    ]
}
