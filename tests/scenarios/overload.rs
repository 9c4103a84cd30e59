//! More than the server can take: refused at once, in so many words, and never delivered.

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::harness::{FaultyDisk, Server, ServerOptions, fcm_error, message, soon, text_of};

/// Far above what a refusal takes, far below what a stalled send does.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Sends one push to each token while the disk stalls, and lets the disk go on once so many were
/// refused. Answers with the texts that were accepted; every refusal has this status.
async fn flood(
    server: &Server,
    disk: &FaultyDisk,
    bodies: &[(String, String)],
    refusals_wanted: usize,
    status: u16,
) -> Vec<String> {
    let (refused, mut refusals) = tokio::sync::mpsc::unbounded_channel();
    disk.stall();
    let started = Instant::now();
    let sends = bodies.iter().map(|(token, text)| {
        let refused = refused.clone();
        async move {
            let url = server.url("/v1/projects/demo/messages:send");
            let request = server.http().post(url).bearer_auth(server.service_token());
            let answer = request
                .json(&message(token, text))
                .send()
                .await
                .expect("an answer");
            if answer.status().as_u16() == 200 {
                return Some(text.clone());
            }
            assert_eq!(answer.status().as_u16(), status);
            let retry_after = answer.headers().get("Retry-After").expect("advice");
            let seconds: u64 = retry_after
                .to_str()
                .ok()
                .and_then(|it| it.parse().ok())
                .expect("seconds");
            assert!(seconds > 0);
            assert!(started.elapsed() < AT_ONCE, "refused, but late");
            let _ = refused.send(());
            None
        }
    });
    let patience = async {
        for _ in 0..refusals_wanted {
            crate::harness::soon("a refusal", refusals.recv())
                .await
                .expect("a refusal");
        }
        while_full(server).await;
        disk.resume();
    };
    let (outcomes, ()) = join(join_all(sends), patience).await;
    outcomes.into_iter().flatten().collect()
}

/// Nothing moves, so the metrics show what waits: the lengths of queues are no secret.
async fn while_full(server: &Server) {
    let limit = |queue| format!("herald_queue_depth{{queue=\"{queue}\"}}");
    for queue in ["storage", "router"] {
        server.metric_becomes(&limit(queue), 0.0).await;
    }
    assert!(server.metric(&limit("commit")).await + server.metric(&limit("token")).await > 0.0);
}

/// Exactly these texts are in the store.
async fn assert_stored(
    server: &Server,
    device: &crate::harness::Credential,
    bodies: &[(String, String)],
    accepted: &[String],
) {
    let mut stored = Vec::new();
    let tokens: std::collections::BTreeSet<&str> =
        bodies.iter().map(|(token, _)| token.as_str()).collect();
    for token in tokens {
        let entry = server.poll_token(device, token, 1).await;
        let pushes = entry["messages"].as_array().expect("messages");
        stored.extend(pushes.iter().map(|push| text_of(push).to_owned()));
    }
    stored.sort();
    let mut accepted = accepted.to_vec();
    accepted.sort();
    assert_eq!(stored, accepted);
    server.books_balance_at(accepted.len() as u64).await;
}

#[tokio::test]
async fn a_token_with_too_many_sends_waiting_refuses_more() {
    let disk = FaultyDisk::new();
    let settings = vec![
        ("HERALD_LIMITS__IN_FLIGHT_PER_TOKEN", "2".to_owned()),
        ("HERALD_LIMITS__QUEUED_PER_TOKEN", "3".to_owned()),
    ];
    let server = Server::with(disk.options(settings)).await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let (mut socket, _) = server.hello(&device, &[(&token, 1)]).await;
    let bodies: Vec<_> = (0..30)
        .map(|number| (token.clone(), number.to_string()))
        .collect();
    let accepted = flood(&server, &disk, &bodies, 25, 429).await;
    assert_eq!(accepted.len(), 5);
    let heard = socket.until_closed_or(5).await;
    assert!(
        heard
            .pushes
            .iter()
            .all(|push| accepted.iter().any(|text| text == text_of(push)))
    );
    assert!(socket.sync().await.is_empty());
    assert_stored(&server, &device, &bodies, &accepted).await;
    let shed = server
        .metric("herald_shed_total{reason=\"token_queue_full\"}")
        .await;
    let waiting = "herald_queue_depth{queue=\"token\"}";
    server.metric_becomes(waiting, 0.0).await;
    assert!((shed - 25.0).abs() < 0.5);
    server.stop_and_audit().await;
}

/// One push to each of so many tokens.
async fn spread(
    server: &Server,
    device: &crate::harness::Credential,
    count: usize,
    text: &str,
) -> Vec<(String, String)> {
    let tokens = join_all((0..count).map(|_| server.token(device))).await;
    let bodies = tokens.into_iter().enumerate();
    bodies
        .map(|(number, token)| (token, format!("{number} {text}")))
        .collect()
}

#[tokio::test]
async fn a_node_with_too_many_sends_waiting_refuses_more() {
    let disk = FaultyDisk::new();
    let settings = vec![
        ("HERALD_HTTP__WORKERS", "1".to_owned()),
        ("HERALD_LIMITS__MAILBOX", "8".to_owned()),
    ];
    let server = Server::with(disk.options(settings)).await;
    let device = server.device().await;
    let bodies = spread(&server, &device, 60, "").await;
    let accepted = flood(&server, &disk, &bodies, 40, 503).await;
    assert!(
        (8..=20).contains(&accepted.len()),
        "{} were taken",
        accepted.len()
    );
    assert_stored(&server, &device, &bodies, &accepted).await;
    server.stop_and_audit().await;
}

#[tokio::test]
async fn a_store_with_too_many_bytes_waiting_refuses_more() {
    let disk = FaultyDisk::new();
    let settings = vec![("HERALD_STORE__QUEUE_BYTES", "65536".to_owned())];
    let server = Server::with(disk.options(settings)).await;
    let device = server.device().await;
    let bodies = spread(&server, &device, 80, &"x".repeat(3_900)).await;
    let accepted = flood(&server, &disk, &bodies, 20, 503).await;
    assert!(accepted.len() >= 10, "{} were taken", accepted.len());
    assert_stored(&server, &device, &bodies, &accepted).await;
    let shed = server
        .metric("herald_shed_total{reason=\"store_queue_full\"}")
        .await;
    assert!(shed >= 20.0);
    server.stop_and_audit().await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_in_the_words_of_fcm() {
    let settings = vec![("HERALD_HTTP__CONNECTIONS_MAX", "1".to_owned())];
    let server = Server::with(ServerOptions { settings }).await;
    let device = server.device().await;
    let token = server.token(&device).await;
    // The first client keeps its connection, so there is none left. Nobody waits for a request.
    let mut other = TcpStream::connect(server.listen()).await.expect("accepted");
    let mut answer = String::new();
    soon("an end", other.read_to_string(&mut answer))
        .await
        .expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(body["error"]["status"], "UNAVAILABLE");
    assert_eq!(fcm_error(&body), "UNAVAILABLE");
    server.push(&token, "the first goes on").await;
}
