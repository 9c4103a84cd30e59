//! What ends stays ended: tokens, projects, service tokens.

use serde_json::{Value, json};

use crate::harness::{Credential, Project, Server, fcm_error, message, syn_of};

/// Everybody is told that a token of the development project is dead.
async fn assert_dead(server: &Server, device: &Credential, token: &str) {
    let (status, answer) = server.send(&message(token, "too late")).await;
    assert_eq!(
        (status, fcm_error(&answer)),
        (404, "UNREGISTERED"),
        "{answer}"
    );
    let mut check_only = message(token, "too late");
    check_only["validate_only"] = true.into();
    assert_eq!(server.send(&check_only).await.0, 404);
    let entry = server.poll_token(device, token, 1).await;
    assert_eq!(entry["error"]["code"], 404, "{entry}");
    let (mut socket, welcome) = server.hello(device, &[(token, 1)]).await;
    assert_eq!(welcome["tokens"][0]["error"], "UNREGISTERED");
    socket.subscribe(token, 1).await;
    assert_eq!(socket.frame().await["error"], "UNREGISTERED");
    socket.ack(token, 1).await;
    assert!(socket.sync().await.is_empty());
}

#[tokio::test]
async fn a_deleted_token_is_dead_for_everybody_and_for_ever() {
    let mut server = Server::start().await;
    let device = server.device().await;
    let (token, other) = (server.token(&device).await, server.token(&device).await);
    let never_used = server.token(&device).await;
    server.push(&token, "never seen").await;
    let (mut socket, _) = server.hello(&device, &[(&token, 2), (&other, 1)]).await;
    server.push(&token, "pending").await;
    assert_eq!(syn_of(&socket.push().await), 2);
    assert_eq!(server.delete_token("demo", &device, &token).await, 204);
    assert_eq!(
        socket.frame().await,
        json!({"type": "unregistered", "token": token})
    );
    assert_eq!(server.delete_token("demo", &device, &token).await, 204);
    assert_eq!(server.delete_token("demo", &device, &never_used).await, 204);
    server.push(&other, "the session goes on").await;
    assert_eq!(socket.push().await["token"], other.as_str());
    server.books_balance_at(1).await;
    assert_eq!(server.pushes("deleted").await, 1);
    for _ in 0..2 {
        assert_dead(&server, &device, &token).await;
        assert_dead(&server, &device, &never_used).await;
        server.kill_and_restart().await;
    }
    server.stop_and_audit().await;
}

#[tokio::test]
async fn a_deleted_project_takes_its_tokens_with_it() {
    let mut server = Server::start().await;
    let device = server.device().await;
    let doomed: Project = server.project("doomed").await;
    let (token, ours) = (
        server.token_in(&doomed, &device).await,
        server.token(&device).await,
    );
    let (mut socket, _) = server.hello(&device, &[(&token, 1), (&ours, 1)]).await;
    let sent = server
        .send_as(&doomed.service_token, "doomed", &message(&token, "last"))
        .await;
    assert_eq!(sent.0, 200);
    assert_eq!(syn_of(&socket.push().await), 1);
    server.delete_project("doomed").await;
    assert_eq!(
        socket.frame().await,
        json!({"type": "unregistered", "token": token})
    );
    server.push(&ours, "the session goes on").await;
    assert_eq!(socket.push().await["token"], ours.as_str());
    server
        .metric_becomes("herald_pushes_total{state=\"deleted\"}", 1.0)
        .await;
    server.books_balance_at(1).await;
    for _ in 0..2 {
        let sent = server
            .send_as(&doomed.service_token, "doomed", &message(&token, "late"))
            .await;
        assert_eq!(
            (sent.0, sent.1["error"]["status"].as_str()),
            (401, Some("UNAUTHENTICATED"))
        );
        let (_, welcome) = server.hello(&device, &[(&token, 1)]).await;
        assert_eq!(welcome["tokens"][0]["error"], "UNREGISTERED");
        let request = json!([{"project_id": "doomed", "token": token}]);
        let (_, polled) = server.poll(&device, request).await;
        assert_eq!(polled["by_token"][0]["error"]["code"], 404, "{polled}");
        let fingerprint = ["91"; 32].join(":");
        let again = json!({
            "project_id": "doomed",
            "name": "again",
            "package_name": "com.example.app",
            "cert_sha256": [fingerprint],
        });
        let path = "/admin/v1/projects";
        let (status, answer) = server.admin(reqwest::Method::POST, path, &again).await;
        assert_eq!(status, 409, "{answer}");
        server.kill_and_restart().await;
    }
    server.stop_and_audit().await;
}

#[tokio::test]
async fn a_revoked_service_token_is_dead_at_once_and_after_a_restart() {
    let mut server = Server::start().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let path = "/admin/v1/projects/demo/service-tokens";
    let (status, made) = server
        .admin(reqwest::Method::POST, path, &json!({"name": "leaked"}))
        .await;
    assert_eq!(status, 201, "{made}");
    let secret = made["token"].as_str().expect("a token");
    assert_eq!(
        server
            .send_as(secret, "demo", &message(&token, "good"))
            .await
            .0,
        200
    );
    let revoked = format!("{path}/{}", made["id"].as_str().expect("an id"));
    let (status, _) = server
        .admin(reqwest::Method::DELETE, &revoked, &Value::Null)
        .await;
    assert_eq!(status, 204);
    for _ in 0..2 {
        assert_eq!(
            server
                .send_as(secret, "demo", &message(&token, "bad"))
                .await
                .0,
            401
        );
        server.push(&token, "the other one is good").await;
        server.kill_and_restart().await;
    }
    let entry = server.poll_token(&device, &token, 1).await;
    assert_eq!(entry["messages"].as_array().map(Vec::len), Some(3));
    server.stop_and_audit().await;
}
