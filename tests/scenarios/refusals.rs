//! What senders are told when they are wrong, and that nobody reads or sends what is not theirs.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, ServerOptions, fcm_error, message};

fn error_of(answer: &Value) -> (&Value, &Value) {
    (
        &answer["error"]["status"],
        &answer["error"]["details"][0]["errorCode"],
    )
}

#[tokio::test]
async fn a_send_is_refused_in_the_words_of_fcm() {
    let server = Server::start().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let (status, answer) = server.send(&json!({"message": {"token": "junk"}})).await;
    assert_eq!(status, 400);
    assert_eq!(
        error_of(&answer),
        (&json!("INVALID_ARGUMENT"), &json!("INVALID_ARGUMENT"))
    );
    let (status, answer) = server
        .send(&json!({"message": {"token": token, "nonsense": 1}}))
        .await;
    assert_eq!(status, 400, "{answer}");
    let big = json!({"message": {"token": token, "data": {"a": "x".repeat(5_000)}}});
    assert_eq!(server.send(&big).await.0, 400);
    let huge = json!({"message": {"token": token, "data": {"a": "x".repeat(70_000)}}});
    assert_eq!(server.send(&huge).await.0, 413);
    let url = server.url("/v1/projects/demo/messages:send");
    let bearer = |token: &str| server.http().post(&url).bearer_auth(token).json(&json!({}));
    assert_eq!(
        bearer("herald_0_0")
            .send()
            .await
            .expect("an answer")
            .status(),
        401
    );
    let elsewhere = server.url("/v1/projects/other/messages:send");
    let foreign = server
        .http()
        .post(elsewhere)
        .bearer_auth(server.service_token());
    assert_eq!(
        foreign
            .json(&json!({}))
            .send()
            .await
            .expect("an answer")
            .status(),
        403
    );
    let wrong_method = server.http().get(&url).send().await.expect("an answer");
    assert_eq!(
        (
            wrong_method.status().as_u16(),
            &wrong_method.headers()["allow"]
        ),
        (405, &"POST".parse().expect("a value"))
    );
    let nowhere = server
        .http()
        .get(server.url("/nowhere"))
        .send()
        .await
        .expect("an answer");
    assert_eq!(nowhere.status(), 404);
}

#[tokio::test]
async fn another_project_cannot_send_and_another_device_cannot_read() {
    let server = Server::start().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    server.push(&token, "private").await;
    let project = json!({"project_id": "other", "name": "Other", "package_name": "com.example.other", "cert_sha256": ["AB".repeat(32)]});
    assert_eq!(
        server
            .admin(Method::POST, "/admin/v1/projects", &project)
            .await
            .0,
        201
    );
    let path = "/admin/v1/projects/other/service-tokens";
    let (status, made) = server
        .admin(Method::POST, path, &json!({"name": "ci"}))
        .await;
    assert_eq!(status, 201, "{made}");
    let request = server
        .http()
        .post(server.url("/v1/projects/other/messages:send"))
        .bearer_auth(made["token"].as_str().expect("a token"))
        .json(&json!({"message": {"token": token, "data": {}}}));
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status(), 403);
    let answer: Value = answer.json().await.expect("JSON");
    assert_eq!(
        error_of(&answer),
        (&json!("PERMISSION_DENIED"), &json!("SENDER_ID_MISMATCH"))
    );
    let stranger = server.device().await;
    let entry = server.poll_token(&stranger, &token, 100).await;
    assert_eq!(entry["error"]["code"], 403);
    let (mut socket, welcome) = server.hello(&stranger, &[(&token, 100)]).await;
    assert_eq!(welcome["tokens"][0]["error"], "PERMISSION_DENIED");
    socket.ack(&token, 1).await;
    socket.sync().await;
    let entry = server.poll_token(&device, &token, 1).await;
    assert_eq!(
        entry["messages"].as_array().map(Vec::len),
        Some(1),
        "nothing was acknowledged"
    );
}

#[tokio::test]
async fn a_list_is_not_taken_for_the_object_that_it_would_fill() {
    let server = Server::start().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let post = |path: &str, body: &Value| {
        let request = server.http().post(server.url(path));
        request
            .header("Authorization", device.header())
            .json(body)
            .send()
    };
    let mint = json!(["com.example.app", "91AC"]);
    let answer = post("/v1/projects/demo/tokens", &mint)
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 400);
    let poll = json!({"requests": [["demo", token, 1, 10]]});
    let answer = post("/v1/projects/messages:get", &poll)
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 400);
}

/// The bodies are tested word for word beside their definitions; here, that they are given, when.
#[tokio::test]
async fn used_up_quotas_say_whose_they_are_and_when_to_come_back() {
    let settings = vec![
        ("HERALD_QUOTA__SENDS_PER_MINUTE_PER_TOKEN", "1".to_owned()),
        ("HERALD_QUOTA__SENDS_PER_MINUTE_PER_PROJECT", "2".to_owned()),
    ];
    let server = Server::with(ServerOptions { settings }).await;
    let device = server.device().await;
    let token = server.token(&device).await;
    server.push(&token, "first").await;
    for (reason, subject, seconds_max) in [
        (Value::Null, "device", 60),
        (json!("RATE_LIMIT_EXCEEDED"), "projects/demo", 30),
    ] {
        let url = server.url("/v1/projects/demo/messages:send");
        let request = server.http().post(url).bearer_auth(server.service_token());
        let answer = request.json(&message(&token, "more")).send().await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 429);
        let wait = answer.headers()["retry-after"].to_str().expect("a text");
        let wait: u64 = wait.parse().expect("seconds");
        assert!((1..=seconds_max).contains(&wait), "{subject}: {wait} s");
        let body: Value = answer.json().await.expect("JSON");
        assert_eq!(body["error"]["status"], "RESOURCE_EXHAUSTED");
        assert_eq!(fcm_error(&body), "QUOTA_EXCEEDED");
        let details = &body["error"]["details"];
        assert_eq!(details[1]["violations"][0]["subject"], subject);
        assert_eq!(details[2]["reason"], reason);
    }
    let arrived = server.poll_token(&device, &token, 1).await;
    assert_eq!(arrived["messages"].as_array().map(Vec::len), Some(1));
}
