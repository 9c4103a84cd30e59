//! Bodies and paths of every route, right at first and then changed: each is answered in the words of
//! the contract, and none is a failure of the server's.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Credential, Server, soon};

/// One request as it should be.
struct Sound {
    method: Method,
    url: String,
    authorization: String,
    body: Vec<u8>,
}

/// One of each kind.
fn sound(server: &Server, device: &Credential, token: &str) -> Vec<Sound> {
    let sender = format!("Bearer {}", server.service_token());
    let operator = format!("Bearer {}", server.admin_token());
    let public = |method, path: &str, authorization: &str, body: Value| Sound {
        method,
        url: server.url(path),
        authorization: authorization.to_owned(),
        body: body.to_string().into_bytes(),
    };
    let admin = |method, path: &str, body: Value| Sound {
        url: server.admin_url(path),
        ..public(method, path, &operator, body)
    };
    let app = json!({"package_name": "com.example.app", "cert_sha256": "91".repeat(32)});
    let project = json!({
        "project_id": "new", "name": "New", "package_name": "com.example.new",
        "cert_sha256": ["AB".repeat(32)],
    });
    let poll = json!({"requests": [
        {"project_id": "demo", "token": token, "min_syn": 1, "limit": 10},
        {"project_id": "demo", "token": "junk"},
    ]});
    let batch = json!({"to": "/topics/news", "registration_tokens": [token, "junk"]});
    let message = json!({"message": {"token": token, "data": {"a": "b"}}});
    let topics = format!("/v1/projects/demo/registrations/{token}/topicSubscriptions");
    let post = || Method::POST;
    vec![
        public(post(), "/v1/projects/demo/messages:send", &sender, message),
        public(post(), "/v1/projects/messages:get", &device.header(), poll),
        public(
            post(),
            "/v1/devices",
            "",
            json!({"colour": [1, {"a": null}]}),
        ),
        public(post(), "/v1/projects/demo/tokens", &device.header(), app),
        public(post(), "/iid/v1:batchAdd", &sender, batch.clone()),
        public(post(), "/iid/v1:batchRemove", &sender, batch),
        public(
            post(),
            &format!("{topics}?topicName=news"),
            &sender,
            json!({}),
        ),
        public(Method::GET, &topics, &sender, json!({})),
        public(
            Method::GET,
            &format!("/iid/info/{token}?details=true"),
            &sender,
            json!({}),
        ),
        admin(post(), "/admin/v1/projects", project),
        admin(
            post(),
            "/admin/v1/projects/demo/service-tokens",
            json!({"name": "ci"}),
        ),
        admin(Method::GET, "/admin/v1/projects/demo", json!({})),
    ]
}

/// What is changed: a byte of the body becomes another or goes, and likewise one of the path.
type Changes = (Vec<(Index, Option<u8>)>, Option<(Index, char)>);

fn changes() -> impl Strategy<Value = Changes> {
    let letters = proptest::sample::select(
        "{}[]\":,\\0-.eE u\u{1f}\u{7f}\n'"
            .chars()
            .collect::<Vec<_>>(),
    );
    let byte = prop_oneof![any::<u8>(), letters.prop_map(|letter| letter as u8)];
    let in_path = (any::<Index>(), any::<char>());
    (
        vec((any::<Index>(), proptest::option::of(byte)), 0..6),
        proptest::option::weighted(0.2, in_path),
    )
}

fn changed(sound: &Sound, (of_body, of_path): &Changes) -> (String, Vec<u8>) {
    let (mut url, mut body) = (sound.url.clone(), sound.body.clone());
    for (place, byte) in of_body {
        if body.is_empty() {
            break;
        }
        let place = place.index(body.len());
        match byte {
            Some(byte) => body[place] = *byte,
            None => drop(body.remove(place)),
        }
    }
    if let Some((place, letter)) = of_path {
        // Behind the host and its slash.
        let path = url.match_indices('/').nth(2).map_or(0, |(at, _)| at + 1);
        url.insert(path + place.index(url.len() - path + 1), *letter);
    }
    (url, body)
}

async fn assert_answered(server: &Server, sound: &Sound, changes: &Changes) {
    let (url, body) = changed(sound, changes);
    let request = server.http().request(sound.method.clone(), &url);
    let request = request
        .header("Authorization", &sound.authorization)
        .header("Content-Type", "application/json")
        .header("access_token_auth", "true")
        .body(body.clone());
    let what = || format!("{} {url} {}", sound.method, String::from_utf8_lossy(&body));
    let Ok(answer) = soon("an answer", request.send()).await else {
        panic!("no answer to {}", what());
    };
    let status = answer.status().as_u16();
    assert!((200..500).contains(&status), "{status} for {}", what());
    let text = answer.text().await.expect("a body");
    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
    let is_told = (status == 204 && text.is_empty()) || answer.is_object();
    assert!(is_told, "{status} {text:?} for {}", what());
    assert_eq!(
        answer.get("error").is_some(),
        status >= 400,
        "{text} for {}",
        what()
    );
}

#[test]
fn whatever_is_asked_is_answered() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let server = Server::start().await;
        let device = server.device().await;
        let token = server.token(&device).await;
        let sound = sound(&server, &device, &token);
        let mut runner = TestRunner::new(Config::default());
        let changes = (0..sound.len(), changes());
        let outcome = tokio::task::block_in_place(|| {
            runner.run(&changes, |(which, changes)| {
                let answered = assert_answered(&server, &sound[which], &changes);
                tokio::runtime::Handle::current().block_on(answered);
                Ok(())
            })
        });
        if let Err(failure) = outcome {
            panic!("{failure}");
        }
        let log = server.log();
        assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
        server.stop_and_audit().await;
    });
}
