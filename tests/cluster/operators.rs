//! What is changed on one node holds on all of them; what is sent on two nodes at once under one
//! idempotency key is one push.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Door, fcm_error, message, syn_of};
use crate::stage::{Stage, eventually};

/// The contract, and what a busy machine adds.
const EVERYWHERE_WITHIN: Duration = Duration::from_secs(5 + 2);

/// Waits for a status of a send on this node.
async fn becomes(
    door: &Door,
    status: u16,
    service_token: &str,
    project: &str,
    token: &str,
) -> Value {
    eventually("a change is known", async || {
        let body = json!({"message": message(token, "a try")["message"], "validate_only": true});
        let (answered, answer) = door.send_as(service_token, project, &body).await;
        (answered == status).then_some(answer)
    })
    .await
}

#[tokio::test]
async fn a_revoked_service_token_is_dead_everywhere_within_seconds() {
    let stage = Stage::enter().await;
    let (a, b) = (stage.sending(), stage.holding());
    let (_, token) = stage.device().await;
    let path = "/admin/v1/projects/demo/service-tokens";
    let post = reqwest::Method::POST;
    let (status, made) = a.admin(post, path, &json!({"name": "short-lived"})).await;
    assert_eq!(status, 201, "{made}");
    let secret = made["token"].as_str().expect("a token");
    becomes(b, 200, secret, "demo", &token).await;
    let one = format!("{path}/{}", made["id"].as_str().expect("an id"));
    let revoked = a.admin(reqwest::Method::DELETE, &one, &Value::Null).await;
    assert_eq!(revoked.0, 204);
    let began = Instant::now();
    assert_eq!(
        a.send_as(secret, "demo", &message(&token, "late")).await.0,
        401
    );
    becomes(b, 401, secret, "demo", &token).await;
    eprintln!("revoked everywhere after {:?}", began.elapsed());
    assert!(began.elapsed() < EVERYWHERE_WITHIN);
}

#[tokio::test]
async fn a_project_deleted_on_one_node_is_dead_on_the_other() {
    let stage = Stage::enter().await;
    let (a, b) = (stage.sending(), stage.holding());
    let project = a.project(&format!("gone-{}", std::process::id())).await;
    let device = b.device().await;
    let token = a.token_in(&project, &device).await;
    let secret = &project.service_token;
    becomes(b, 200, secret, &project.id, &token).await;
    let (mut socket, _) = b.hello(&device, &[(&token, 1)]).await;
    let sent = b
        .send_as(secret, &project.id, &message(&token, "alive"))
        .await;
    assert_eq!(sent.0, 200, "{}", sent.1);
    assert_eq!(syn_of(&socket.push().await), 1);
    a.delete_project(&project.id).await;
    let began = Instant::now();
    let frame = socket.frame().await;
    assert_eq!(frame["type"], "unregistered", "{frame}");
    becomes(b, 401, secret, &project.id, &token).await;
    assert!(began.elapsed() < EVERYWHERE_WITHIN, "{:?}", began.elapsed());
    let entry = b
        .poll(&device, json!([{"project_id": project.id, "token": token}]))
        .await
        .1;
    assert_eq!(entry["by_token"][0]["error"]["code"], 404, "{entry}");
}

#[tokio::test]
async fn one_idempotency_key_on_two_nodes_at_once_is_one_push() {
    let stage = Stage::enter().await;
    let (device, token) = stage.device().await;
    for round in 0..10 {
        let key = format!("{token}/{round}").replace('=', "");
        let key = &key[key.len().saturating_sub(100)..];
        // They get in each other's way until none may wait any longer, and try again as senders do.
        let answers = eventually("somebody is answered 200", async || {
            let sends = (0..6).map(|number| {
                let (stage, token) = (&stage, &token);
                async move {
                    let body = message(token, &format!("{round}/{number}"));
                    stage.doors[number % 2].send_once(key, &body).await
                }
            });
            let answers = join_all(sends).await;
            let is_accepted = answers.iter().any(|answer| answer.0 == 200);
            is_accepted.then_some(answers)
        })
        .await;
        let accepted: Vec<&(u16, Value)> =
            answers.iter().filter(|answer| answer.0 == 200).collect();
        assert!(
            accepted.iter().all(|answer| *answer == accepted[0]),
            "{answers:?}"
        );
        for (status, answer) in &answers {
            // Whoever may not wait any longer is told so; nothing else is an answer here.
            assert!(
                [200, 503, 504, 429].contains(status),
                "{status} {}",
                fcm_error(answer)
            );
        }
    }
    let entry = stage.holding().poll_token(&device, &token, 1).await;
    assert_eq!(
        entry["messages"].as_array().map(Vec::len),
        Some(10),
        "{entry}"
    );
}
