//! Whose is what: no credential opens more than its own door, on any route.

use serde_json::{Value, json};

use crate::harness::{Server, answer, fcm_error, message, texts_of};

fn status_of(answer: &(u16, Value)) -> (u16, &str) {
    (
        answer.0,
        answer.1["error"]["status"].as_str().unwrap_or_default(),
    )
}

const UNAUTHENTICATED: (u16, &str) = (401, "UNAUTHENTICATED");
const DENIED: (u16, &str) = (403, "PERMISSION_DENIED");

#[tokio::test]
async fn a_sender_reaches_only_its_own_project() {
    let server = Server::start().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let other = server.project("other").await;
    let theirs = server.token_in(&other, &device).await;
    let body = message(&token, "trespass");
    let sent = server.send_as(&other.service_token, "demo", &body).await;
    assert_eq!((status_of(&sent), fcm_error(&sent.1)), (DENIED, ""));
    let sent = server
        .send_as(&other.service_token, "no-such-project", &body)
        .await;
    assert_eq!((status_of(&sent), fcm_error(&sent.1)), (DENIED, ""));
    let sent = server.send_as(&other.service_token, "other", &body).await;
    assert_eq!(
        (status_of(&sent), fcm_error(&sent.1)),
        (DENIED, "SENDER_ID_MISMATCH")
    );
    let mut check_only = body.clone();
    check_only["validate_only"] = true.into();
    let sent = server
        .send_as(&other.service_token, "other", &check_only)
        .await;
    assert_eq!(
        fcm_error(&sent.1),
        "SENDER_ID_MISMATCH",
        "not even whether it lives"
    );
    let sent = server.send(&message(&theirs, "trespass")).await;
    assert_eq!(fcm_error(&sent.1), "SENDER_ID_MISMATCH");
    for secret in [
        &device.secret,
        &device.id,
        &token,
        &server.admin_token(),
        "",
    ] {
        let sent = server.send_as(secret, "demo", &body).await;
        assert_eq!(status_of(&sent), UNAUTHENTICATED, "{sent:?}");
    }
    for path in [
        "/admin/v1/projects",
        "/admin/v1/projects/demo/service-tokens",
    ] {
        let request = server.http().get(server.admin_url(path));
        let listed = answer(request.bearer_auth(&other.service_token)).await;
        assert_eq!(status_of(&listed), UNAUTHENTICATED);
    }
    for (mine, id) in [(&token, "demo"), (&theirs, "other")] {
        let request = json!([{"project_id": id, "token": mine}]);
        let (_, polled) = server.poll(&device, request).await;
        assert!(texts_of(&polled["by_token"][0]).is_empty(), "{polled}");
    }
    server.stop_and_audit().await;
}

#[tokio::test]
async fn a_device_reads_and_ends_only_its_own_tokens() {
    let server = Server::start().await;
    let (owner, stranger) = (server.device().await, server.device().await);
    let token = server.token(&owner).await;
    server.project("other").await;
    server.push(&token, "private").await;
    let (mut socket, welcome) = server.hello(&stranger, &[(&token, 1)]).await;
    assert_eq!(
        welcome["tokens"],
        json!([{"token": token, "error": "PERMISSION_DENIED"}])
    );
    socket.subscribe(&token, 1).await;
    let subscribed = json!({"type": "subscribed", "token": token, "error": "PERMISSION_DENIED"});
    assert_eq!(socket.frame().await, subscribed);
    socket.unsubscribe(&token).await;
    let entry = server.poll_token(&stranger, &token, 1).await;
    assert_eq!(entry["error"]["status"], "PERMISSION_DENIED");
    assert!(entry.get("messages").is_none() && entry.get("syn_stored").is_none());
    assert_eq!(server.delete_token("demo", &stranger, &token).await, 403);
    // Its own device, but under another project's name.
    assert_eq!(server.delete_token("other", &owner, &token).await, 403);
    let request = json!([{"project_id": "other", "token": token}]);
    let (_, polled) = server.poll(&owner, request).await;
    assert_eq!(
        polled["by_token"][0]["error"]["status"],
        "PERMISSION_DENIED"
    );
    server.push(&token, "private too").await;
    assert!(
        socket.sync().await.is_empty(),
        "nothing of it reaches the stranger"
    );
    let entry = server.poll_token(&owner, &token, 1).await;
    assert_eq!(texts_of(&entry), ["private", "private too"]);
    server.stop_and_audit().await;
}

#[tokio::test]
async fn a_push_token_or_half_a_credential_reads_nothing() {
    let server = Server::start().await;
    let (owner, stranger) = (server.device().await, server.device().await);
    let token = server.token(&owner).await;
    server.push(&token, "private").await;
    let poll = |authorization: String| {
        let request = server.http().post(server.url("/v1/projects/messages:get"));
        let body = json!({"requests": [{"project_id": "demo", "token": token}]});
        answer(request.header("Authorization", authorization).json(&body))
    };
    for authorization in [
        String::new(),
        format!("Bearer {token}"),
        format!("Device {token}"),
        format!("Device {}.", owner.id),
        format!("Device {}.{}", owner.id, stranger.secret),
        format!("Device {}.{}", stranger.id, owner.secret),
        format!("Bearer {}", server.service_token()),
        format!("Device {}", server.service_token()),
    ] {
        let polled = poll(authorization.clone()).await;
        assert_eq!(status_of(&polled), UNAUTHENTICATED, "{authorization}");
    }
    for hello in [
        json!({"type": "hello", "tokens": [{"token": token}]}),
        json!({"type": "hello", "device_id": owner.id, "tokens": [{"token": token}]}),
        json!({"type": "hello", "device_id": owner.id, "device_secret": stranger.secret}),
        json!({"type": "hello", "device_id": owner.id, "device_secret": token}),
    ] {
        let mut socket = server.connect().await;
        socket.send(&hello).await;
        assert_eq!(socket.frame().await["status"], "UNAUTHENTICATED");
        assert_eq!(socket.closed().await.0, 4003, "{hello}");
    }
    assert_eq!(
        texts_of(&server.poll_token(&owner, &token, 1).await),
        ["private"]
    );
    server.stop_and_audit().await;
}
