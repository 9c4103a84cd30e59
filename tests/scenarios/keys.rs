//! Keys change, and tokens stay: what was sealed before a rotation is as good as before.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, ServerOptions, binary, message};

/// The number of the key that a token is sealed with.
fn key_of(token: &str) -> u8 {
    URL_SAFE_NO_PAD.decode(token).expect("base64url")[1]
}

/// Runs `herald keys …` against a server; what it printed.
fn keys(server: &Server, what: &str) -> String {
    let mut command = Command::new(binary());
    command.args(["keys", what, "--admin-url", &server.admin_url("")]);
    let output = command.arg("--data").arg(server.data()).output();
    let output = output.expect("herald runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("a text")
}

#[tokio::test]
async fn tokens_sealed_before_a_rotation_stay_valid() {
    let mut server = Server::start().await;
    let device = server.device().await;
    let old = server.token(&device).await;
    let (mut socket, _) = server.hello(&device, &[(&old, 1)]).await;
    assert_eq!(keys(&server, "rotate"), "key 2 seals from now on\n");
    let new = server.token(&device).await;
    assert_eq!((key_of(&old), key_of(&new)), (1, 2));
    // On the socket that is open, on one that comes, and by a poll.
    server.push(&old, "one").await;
    let push = socket.push().await;
    assert_eq!((&push["syn"], &push["token"]), (&json!(1), &json!(old)));
    socket.subscribe(&new, 1).await;
    assert_eq!(socket.frame().await["type"], "subscribed");
    server.push(&new, "two").await;
    assert_eq!(socket.push().await["token"], json!(new));
    server.kill_and_restart().await;
    let (mut socket, _) = server.hello(&device, &[(&old, 1), (&new, 1)]).await;
    assert_eq!(socket.push().await["token"], json!(old));
    assert_eq!(socket.push().await["token"], json!(new));
    assert_eq!(server.poll_token(&device, &old, 2).await["syn_stored"], 1);
    assert_eq!(
        key_of(&server.token(&device).await),
        2,
        "after a restart too"
    );
    let listed = keys(&server, "list");
    assert!(
        listed.starts_with("1   opens, ") && listed.contains("\n2   seals and opens, "),
        "{listed}"
    );
    assert_eq!(server.delete_token("demo", &device, &old).await, 204);
    assert_eq!(server.send(&message(&old, "late")).await.0, 404);
}

#[tokio::test]
async fn keys_of_the_settings_rotate_by_the_settings() {
    let generated = |id: &str| {
        let output = Command::new(binary())
            .args(["keys", "generate", id])
            .output();
        let output = output.expect("herald runs");
        assert!(output.status.success());
        let line = String::from_utf8(output.stdout).expect("a text");
        line.trim().to_owned()
    };
    let (first, second) = (generated("10"), generated("11"));
    let options = |keys: String| ServerOptions {
        settings: vec![("HERALD_SECRETS__SEALING_KEYS", keys)],
    };
    let mut server = Server::with(options(first.clone())).await;
    let device = server.device().await;
    let old = server.token(&device).await;
    server.push(&old, "one").await;
    let rotate = server.admin(Method::POST, "/admin/v1/sealing-keys", &Value::Null);
    let (status, refusal) = rotate.await;
    assert_eq!(
        (status, &refusal["error"]["status"]),
        (409, &json!("ABORTED")),
        "{refusal}"
    );
    for (keys, status) in [(format!("{second},{first}"), 200), (second.clone(), 404)] {
        server.kill();
        server.start_again_with(options(keys)).await;
        assert_eq!(key_of(&server.token(&device).await), 11);
        assert_eq!(server.send(&message(&old, "two")).await.0, status);
    }
}

#[tokio::test]
async fn only_operators_rotate_and_no_secret_is_shown() {
    let server = Server::start().await;
    let url = server.admin_url("/admin/v1/sealing-keys");
    for token in ["", "wrong", &server.service_token()] {
        let answer = server.http().post(&url).bearer_auth(token).send().await;
        assert_eq!(answer.expect("an answer").status(), 401);
    }
    let public = server
        .http()
        .post(server.url("/admin/v1/sealing-keys"))
        .send()
        .await;
    assert_eq!(public.expect("an answer").status(), 404);
    let (status, listed) = server
        .admin(Method::GET, "/admin/v1/sealing-keys", &Value::Null)
        .await;
    assert_eq!(status, 200);
    assert_eq!(
        listed,
        json!({"sealing_keys": [{"id": 1, "seals_from": 0, "seals": true}]})
    );
}
