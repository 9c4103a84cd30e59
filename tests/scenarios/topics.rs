//! Topics: who is subscribed to what, and pushes to all of them, also across a crash.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{
    Credential, Door, FaultyDisk, Server, ServerOptions, answer, fcm_error, message_id, soon,
    syns_of, texts_of,
};

async fn server_with(settings: &[(&'static str, &str)]) -> Server {
    let owned = |(name, value): &(&'static str, &str)| (*name, (*value).to_owned());
    Server::with(ServerOptions {
        settings: settings.iter().map(owned).collect(),
    })
    .await
}

const NOT_FOUND: (u16, &str) = (404, "NOT_FOUND");

fn status_of(answer: &(u16, Value)) -> (u16, &str) {
    (
        answer.0,
        answer.1["error"]["status"].as_str().unwrap_or_default(),
    )
}

fn to_topic(topic: &str, text: &str) -> Value {
    json!({"message": {"topic": topic, "data": {"text": text}}})
}

fn to_condition(condition: &str, text: &str) -> Value {
    json!({"message": {"condition": condition, "data": {"text": text}}})
}

impl Door {
    /// A call of FCM v1's topic management; status and JSON answer.
    async fn topics(&self, method: Method, token: &str, rest: &str) -> (u16, Value) {
        let path = format!("/v1/projects/demo/registrations/{token}/topicSubscriptions{rest}");
        let request = self.http().request(method, self.url(&path));
        answer(request.bearer_auth(self.service_token())).await
    }

    /// A call of the Instance ID service; status and JSON answer.
    async fn instance_id(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let request = self.http().request(method, self.url(path));
        let request = request
            .bearer_auth(self.service_token())
            .header("access_token_auth", "true");
        answer(match body {
            Value::Null => request,
            body => request.json(body),
        })
        .await
    }

    /// Subscribes many tokens, a thousand a call.
    async fn subscribe_all(&self, tokens: &[String], topic: &str) {
        for tokens in tokens.chunks(1_000) {
            let body = json!({"to": format!("/topics/{topic}"), "registration_tokens": tokens});
            let added = self.instance_id(Method::POST, "/iid/v1:batchAdd", &body);
            let (status, added) = added.await;
            assert_eq!(status, 200, "{added}");
            let results = added["results"].as_array().expect("results");
            assert!(results.iter().all(|result| *result == json!({})), "{added}");
        }
    }

    /// Many tokens on one device.
    async fn tokens(&self, device: &Credential, count: usize) -> Vec<String> {
        join_all((0..count).map(|_| self.token(device))).await
    }

    /// Waits until no push to many is on its way.
    async fn fan_outs_end(&self) {
        self.metric_becomes("herald_fan_outs_unfinished", 0.0).await;
    }
}

#[tokio::test]
async fn a_token_joins_and_leaves_by_fcm_v1() {
    let server = Server::start().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let (status, made) = server
        .topics(Method::POST, &token, "?topic_name=news")
        .await;
    assert_eq!(status, 200, "{made}");
    let name = format!("projects/demo/registrations/{token}/topicSubscriptions/news");
    assert_eq!(made["name"], name.as_str());
    assert_eq!(made["topicName"], "news");
    let created = made["createTime"].as_str().expect("a time");
    assert!(created.ends_with('Z') && created.len() == 24, "{created}");
    let again = server.topics(Method::POST, &token, "?topicName=news").await;
    assert_eq!(status_of(&again), (409, "ALREADY_EXISTS"));
    let (_, found) = server.topics(Method::GET, &token, "/news").await;
    assert_eq!(found, made);
    for (method, rest, status) in [
        (Method::GET, "/sport", NOT_FOUND),
        (Method::DELETE, "/sport", NOT_FOUND),
        (Method::DELETE, "/sport?allow_missing=false", NOT_FOUND),
        (Method::PATCH, "/sport", NOT_FOUND),
        (Method::POST, "", (400, "INVALID_ARGUMENT")),
        (Method::POST, "?topicName=a%20b", (400, "INVALID_ARGUMENT")),
        (Method::GET, "?pageSize=-1", (400, "INVALID_ARGUMENT")),
        (Method::GET, "?pageToken=*", (400, "INVALID_ARGUMENT")),
        (
            Method::DELETE,
            "/news?allowMissing=2",
            (400, "INVALID_ARGUMENT"),
        ),
        (Method::PUT, "/news", (405, "INVALID_ARGUMENT")),
    ] {
        let refused = server.topics(method.clone(), &token, rest).await;
        assert_eq!(status_of(&refused), status, "{method} {rest}");
    }
    let missing = server
        .topics(Method::DELETE, &token, "/sport?allow_missing=true")
        .await;
    assert_eq!(missing, (200, json!({})));
    let (status, made) = server
        .topics(Method::PATCH, &token, "/a~b%2525?allowMissing=true")
        .await;
    assert_eq!((status, &made["topicName"]), (200, &json!("a~b%25")));
    let (_, page) = server.topics(Method::GET, &token, "?pageSize=1").await;
    assert_eq!(page["topicSubscriptions"][0]["topicName"], "a~b%25");
    let next = page["nextPageToken"].as_str().expect("more");
    let (_, page) = server
        .topics(Method::GET, &token, &format!("?page_token={next}"))
        .await;
    assert_eq!(page["topicSubscriptions"][0]["name"], name.as_str());
    assert_eq!(page["nextPageToken"], Value::Null);
    let gone = server.topics(Method::DELETE, &token, "/news").await;
    assert_eq!(gone, (200, json!({})));
    let gone = server.topics(Method::GET, &token, "/news").await;
    assert_eq!(status_of(&gone), NOT_FOUND);
    server.stop_and_audit().await;
}

#[tokio::test]
async fn many_tokens_join_and_leave_by_instance_id() {
    let server = Server::start().await;
    let device = server.device().await;
    let other = server.project("other").await;
    let (one, two) = (server.token(&device).await, server.token(&device).await);
    let theirs = server.token_in(&other, &device).await;
    let dead = server.token(&device).await;
    server.delete_token("demo", &device, &dead).await;
    let batch =
        |topic: &str, tokens: &[&String]| json!({"to": topic, "registration_tokens": tokens});
    let body = batch(
        "/topics/news",
        &[&one, &dead, &theirs, &"x".to_owned(), &two],
    );
    let (status, added) = server
        .instance_id(Method::POST, "/iid/v1:batchAdd", &body)
        .await;
    assert_eq!(status, 200);
    let expected = json!({"results": [{}, {"error": "NOT_FOUND"}, {"error": "PERMISSION_DENIED"},
                                      {"error": "INVALID_ARGUMENT"}, {}]});
    assert_eq!(added, expected);
    let single = format!("/iid/v1/{one}/rel/topics/sport");
    let added = server
        .instance_id(Method::POST, &single, &Value::Null)
        .await;
    assert_eq!(added, (200, json!({})));
    let info = format!("/iid/info/{one}");
    let (_, known) = server
        .instance_id(Method::GET, &format!("{info}?details=true"), &Value::Null)
        .await;
    assert_eq!(known["authorizedEntity"], "demo");
    assert_eq!(known["application"], "com.example.app");
    let topics = known["rel"]["topics"].as_object().expect("topics");
    assert_eq!(topics.keys().collect::<Vec<_>>(), ["news", "sport"]);
    assert_eq!(topics["news"]["addDate"].as_str().map(str::len), Some(10));
    let (_, known) = server.instance_id(Method::GET, &info, &Value::Null).await;
    assert_eq!(known["rel"], Value::Null);
    let removed = server
        .instance_id(Method::POST, "/iid/v1:batchRemove", &batch("news", &[&one]))
        .await;
    assert_eq!(removed, (200, json!({"results": [{}]})));
    let removed = server
        .instance_id(Method::DELETE, &single, &Value::Null)
        .await;
    assert_eq!(removed, (200, json!({})));
    let (_, page) = server.topics(Method::GET, &one, "").await;
    assert_eq!(page["topicSubscriptions"], json!([]));
    for (path, body, status) in [
        ("/iid/v1:batchAdd", batch("/topics/a b", &[&one]), 400),
        ("/iid/v1:batchAdd", batch("news", &[]), 400),
        ("/iid/v1:batchAdd", batch("news", &[&one; 1_001]), 400),
        ("/iid/v1:batchAdd", json!({"to": "news"}), 400),
        ("/iid/v1/x/rel/topics/a", Value::Null, 400),
        (&format!("/iid/v1/{dead}/rel/topics/a"), Value::Null, 404),
        (&format!("/iid/v1/{theirs}/rel/topics/a"), Value::Null, 403),
    ] {
        let refused = server.instance_id(Method::POST, path, &body).await;
        assert_eq!(refused.0, status, "{path}: {}", refused.1);
        assert!(refused.1["error"].is_string(), "flat: {}", refused.1);
    }
    let request = server.http().get(server.url(&info)).bearer_auth("wrong");
    let refused = answer(request).await;
    assert_eq!(refused.0, 401);
    assert!(refused.1["error"].is_string());
    server.stop_and_audit().await;
}

#[tokio::test]
async fn a_push_to_a_topic_reaches_its_members_and_nobody_else() {
    let server = Server::start().await;
    let (live, away) = (server.device().await, server.device().await);
    let (here, there) = (server.token(&live).await, server.token(&away).await);
    let outside = server.token(&live).await;
    let other = server.project("other").await;
    let foreign = server.token_in(&other, &live).await;
    server
        .subscribe_all(&[here.clone(), there.clone()], "news")
        .await;
    let (mut socket, _) = server
        .hello(&live, &[(&here, 1), (&outside, 1), (&foreign, 1)])
        .await;
    let id = server.accepted(&to_topic("news", "to all")).await;
    let push = socket.push().await;
    assert_eq!(
        (&push["token"], &push["message_id"]),
        (&json!(here), &json!(id))
    );
    assert_eq!(
        push["message"],
        json!({"data": {"text": "to all"}}),
        "no target"
    );
    server.fan_outs_end().await;
    let entry = server.poll_token(&away, &there, 1).await;
    assert_eq!(entry["messages"][0]["message_id"], json!(id));
    assert_eq!(texts_of(&entry), ["to all"]);
    let sent = server
        .send_as(&other.service_token, "other", &to_topic("news", "theirs"))
        .await;
    assert_eq!(sent.0, 200, "another project's topic of that name");
    let mut check_only = to_topic("news", "a check");
    check_only["validate_only"] = true.into();
    assert_eq!(server.send(&check_only).await.0, 200);
    server.accepted(&to_topic("nobody", "unheard")).await;
    for refused in [
        to_topic("a b", "refused"),
        to_condition("'news' in topics &&", "refused"),
        to_topic("news", &"x".repeat(4_097)),
    ] {
        assert_eq!(server.send(&refused).await.0, 400);
    }
    server.fan_outs_end().await;
    server.push(&here, "last").await;
    assert_eq!(socket.push().await["message"]["data"]["text"], "last");
    let entry = server.poll_token(&live, &outside, 1).await;
    assert!(texts_of(&entry).is_empty());
    assert_eq!(server.poll_token(&away, &there, 1).await["syn_stored"], 1);
    server.stop_and_audit().await;
}

#[tokio::test]
async fn conditions_reach_those_they_hold_for() {
    let server = Server::start().await;
    let device = server.device().await;
    let tokens = server.tokens(&device, 4).await;
    for (token, topics) in tokens.iter().zip([&["a"][..], &["a", "b"], &["b"], &[]]) {
        for topic in topics {
            server
                .subscribe_all(std::slice::from_ref(token), topic)
                .await;
        }
        server.poll_token(&device, token, 1).await;
    }
    let conditions = [
        ("'a' in topics || 'b' in topics", "1110"),
        ("'a' in topics && 'b' in topics", "0100"),
        ("'a' in topics && !('b' in topics)", "1000"),
        ("!('a' in topics)", "0011"),
        ("!('a' in topics) && !('b' in topics)", "0001"),
        ("'a' in topics && !('a' in topics)", "0000"),
    ];
    for (condition, _) in conditions {
        server.accepted(&to_condition(condition, condition)).await;
        server.fan_outs_end().await;
    }
    for (place, token) in tokens.iter().enumerate() {
        let entry = server.poll_token(&device, token, 1).await;
        let expected: Vec<&str> = conditions
            .iter()
            .filter(|(_, reached)| reached.as_bytes()[place] == b'1')
            .map(|(condition, _)| *condition)
            .collect();
        assert_eq!(texts_of(&entry), expected, "token {place}");
    }
    server.stop_and_audit().await;
}

#[tokio::test]
async fn pushes_to_a_topic_keep_their_order_and_their_rules() {
    let server = Server::start().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    server
        .subscribe_all(std::slice::from_ref(&token), "news")
        .await;
    for number in 0..20 {
        server
            .accepted(&to_topic("news", &number.to_string()))
            .await;
    }
    let keyed = |text: &str| {
        let mut body = to_topic("news", text);
        body["message"]["android"] = json!({"collapse_key": "k"});
        body
    };
    server.accepted(&keyed("old")).await;
    server.accepted(&keyed("new")).await;
    let mut fleeting = to_topic("news", "now or never");
    fleeting["message"]["android"] = json!({"ttl": "0s"});
    server.accepted(&fleeting).await;
    let once = to_topic("news", "once");
    let first = server.send_once("key", &once).await;
    let second = server.send_once("key", &once).await;
    assert_eq!(first, second, "one name for both");
    assert_eq!(first.0, 200);
    server.fan_outs_end().await;
    let entry = server.poll_token(&device, &token, 1).await;
    let mut expected: Vec<String> = (0..20).map(|number: u32| number.to_string()).collect();
    expected.extend(["new", "once"].map(str::to_owned));
    assert_eq!(texts_of(&entry), expected);
    assert_eq!(
        entry["messages"][21]["message_id"],
        json!(message_id(&first.1))
    );
    server.stop_and_audit().await;
}

#[tokio::test]
async fn quotas_of_topics_are_kept() {
    let server = server_with(&[
        ("HERALD_QUOTA__TOPIC_CHANGES_PER_SECOND_PER_PROJECT", "2"),
        ("HERALD_LIMITS__TOPICS_PER_TOKEN", "3"),
    ])
    .await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let batch = json!({"to": "news", "registration_tokens": [token, token]});
    let added = server.instance_id(Method::POST, "/iid/v1:batchAdd", &batch);
    assert_eq!(added.await.0, 200);
    let refused = server.topics(Method::POST, &token, "?topic_name=a").await;
    assert_eq!(status_of(&refused), (429, "RESOURCE_EXHAUSTED"));
    assert_eq!(fcm_error(&refused.1), "QUOTA_EXCEEDED");
    let (status, refused) = server
        .instance_id(Method::POST, "/iid/v1:batchAdd", &batch)
        .await;
    assert_eq!(
        (status, refused),
        (429, json!({"error": "RESOURCE_EXHAUSTED"}))
    );
    server.stop_and_audit().await;
    let server = server_with(&[("HERALD_LIMITS__TOPICS_PER_TOKEN", "2")]).await;
    let device = server.device().await;
    let token = server.token(&device).await;
    for (topic, status) in [("a", 200), ("b", 200), ("b", 409), ("c", 400)] {
        let made = server
            .topics(Method::POST, &token, &format!("?topic_name={topic}"))
            .await;
        assert_eq!(made.0, status, "{topic}: {}", made.1);
    }
    let batch = json!({"to": "d", "registration_tokens": [token]});
    let (_, refused) = server
        .instance_id(Method::POST, "/iid/v1:batchAdd", &batch)
        .await;
    assert_eq!(refused, json!({"results": [{"error": "TOO_MANY_TOPICS"}]}));
    server.stop_and_audit().await;
}

#[tokio::test]
async fn a_dead_token_has_no_topics() {
    let mut server = Server::start().await;
    let device = server.device().await;
    let (token, kept) = (server.token(&device).await, server.token(&device).await);
    server
        .subscribe_all(&[token.clone(), kept.clone()], "news")
        .await;
    server.delete_token("demo", &device, &token).await;
    let refused = server.topics(Method::GET, &token, "").await;
    assert_eq!(fcm_error(&refused.1), "UNREGISTERED");
    server.kill_and_restart().await;
    server.accepted(&to_topic("news", "to the living")).await;
    server.fan_outs_end().await;
    let stored = server.metric("herald_fan_out_copies_total{result=\"stored\"}");
    assert_eq!(stored.await as u64, 1);
    let dead = server.metric("herald_fan_out_copies_total{result=\"unregistered\"}");
    assert_eq!(dead.await as u64, 0, "its subscriptions went with it");
    let entry = server.poll_token(&device, &kept, 1).await;
    assert_eq!(texts_of(&entry), ["to the living"]);
    server.stop_and_audit().await;
}

/// Enough tokens for several stretches at this pace, so that a crash comes between them.
const CROWD: usize = 1_500;

#[tokio::test]
async fn a_push_to_a_topic_survives_kill_9_and_comes_once() {
    let mut server = server_with(&[("HERALD_LIMITS__FAN_OUT_COPIES_PER_SECOND", "1000")]).await;
    let device = server.device().await;
    let tokens = server.tokens(&device, CROWD).await;
    server.subscribe_all(&tokens, "news").await;
    let id = server.accepted(&to_topic("news", "once each")).await;
    let mut resumed = 0;
    for _ in 0..3 {
        let copies = "herald_fan_out_copies_total{result=\"stored\"}";
        soon("some copies", async {
            while server.metric(copies).await < 100.0 {
                if server.metric("herald_fan_outs_unfinished").await < 0.5 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        server.kill_and_restart().await;
        resumed += server
            .metric("herald_fan_outs_total{state=\"resumed\"}")
            .await as u64;
    }
    assert!(resumed >= 2, "a crash came before the end: {resumed}");
    server.fan_outs_end().await;
    for token in &tokens {
        let entry = server.poll_token(&device, token, 1).await;
        assert_eq!(syns_of(&entry), [1], "one copy, no number skipped");
        assert_eq!(entry["messages"][0]["message_id"], json!(id));
    }
    server.stop_and_audit().await;
}

#[tokio::test]
async fn single_sends_go_on_beside_a_push_to_many() {
    let server = Server::start().await;
    let device = server.device().await;
    let tokens = server.tokens(&device, 2_000).await;
    server.subscribe_all(&tokens, "news").await;
    let alone = server.token(&device).await;
    let (mut socket, _) = server.hello(&device, &[(&alone, 1)]).await;
    server.accepted(&to_topic("news", "to many")).await;
    server.accepted(&to_topic("news", "and again")).await;
    let mut beside = HashMap::new();
    for number in 0..20 {
        let id = server.push(&alone, &number.to_string()).await;
        let push = socket.push().await;
        beside.insert(id, push["message_id"].clone());
    }
    assert!(beside.iter().all(|(id, heard)| *heard == json!(id)));
    server.fan_outs_end().await;
    server.books_balance_at(4_020).await;
    server.stop_and_audit().await;
}

#[tokio::test]
async fn a_push_to_a_topic_goes_on_when_its_sender_has_waited_long_enough() {
    let disk = FaultyDisk::new();
    let patience = ("HERALD_LIMITS__APPEND_TIMEOUT_MS", "300".to_owned());
    let server = Server::with(disk.options(vec![patience])).await;
    let device = server.device().await;
    let token = server.token(&device).await;
    server
        .subscribe_all(std::slice::from_ref(&token), "news")
        .await;
    disk.stall();
    let sent = server.send(&to_topic("news", "late")).await;
    assert_eq!(sent.0, 504, "nobody knows: {}", sent.1);
    disk.resume();
    server
        .metric_becomes("herald_fan_outs_total{state=\"finished\"}", 1.0)
        .await;
    server.fan_outs_end().await;
    let entry = server.poll_token(&device, &token, 1).await;
    assert_eq!(texts_of(&entry), ["late"]);
    server.stop_and_audit().await;
}
