//! Devices that do not read, do not speak, or never say who they are.

use std::time::Duration;

use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Credential, Server, ServerOptions, Socket, syn_of, syns_of};

const WRITE_TIMEOUT_MS: u64 = 1_000;

/// A socket of a device that does not read, with far more waiting for it than buffers hold.
async fn stuck(server: &Server, device: &Credential, tokens: &[String]) -> Socket {
    let url = format!("ws://{}/v1/connect", server.listen());
    let mut socket = Socket::connect_narrow(&server.listen(), &url).await;
    let all: Vec<(&str, u64)> = tokens.iter().map(|token| (token.as_str(), 1)).collect();
    socket.hello(device, &all).await;
    socket
}

/// The largest message there is, about 16 KB: each platform's part may hold 4 KB of its own.
fn large_message(token: &str) -> Value {
    let text = "x".repeat(3_900);
    json!({"message": {
        "token": token,
        "data": {"text": text},
        "apns": {"payload": {"text": text}},
        "webpush": {"data": {"text": text}, "notification": {"text": text}},
    }})
}

#[tokio::test]
async fn a_slow_reader_is_closed_harms_nobody_and_loses_nothing() {
    let settings = vec![
        (
            "HERALD_SOCKET__WRITE_TIMEOUT_MS",
            WRITE_TIMEOUT_MS.to_string(),
        ),
        ("HERALD_SOCKET__OUTBOX_BYTES", "8192".to_owned()),
    ];
    let server = Server::with(ServerOptions { settings }).await;
    let (slow, quick) = (server.device().await, server.device().await);
    // About 6 MB, more than the kernel's buffers take.
    let tokens = join_all((0..6).map(|_| server.token(&slow))).await;
    for token in &tokens {
        let body = large_message(token);
        join_all((0..64).map(|_| server.accepted(&body))).await;
    }
    let quick_token = server.token(&quick).await;
    let (mut quick_socket, _) = server.hello(&quick, &[(&quick_token, 1)]).await;
    let mut codes = Vec::new();
    for attempt in 1..=3 {
        let mut socket = stuck(&server, &slow, &tokens).await;
        let until_closing = Duration::from_millis(WRITE_TIMEOUT_MS + 500);
        let others = async {
            server.push(&quick_token, "unaffected").await;
            assert_eq!(syn_of(&quick_socket.push().await), attempt);
        };
        // The close frame is there between the timeout and a second later.
        join(others, tokio::time::sleep(until_closing)).await;
        let (code, reason) = socket.closed().await;
        codes.push(code);
        let closes = "herald_closes_total{reason=\"slow_reader\"}";
        server.metric_becomes(closes, attempt as f64).await;
        if code == 1013 {
            assert!(reason.contains("retry_ms"), "{reason}");
            break;
        }
    }
    assert!(codes.contains(&1013), "{codes:?}");
    let all: Vec<(&str, u64)> = tokens.iter().map(|token| (token.as_str(), 1)).collect();
    let (mut socket, _) = server.hello(&slow, &all).await;
    let heard = socket.until_closed_or(6 * 64).await;
    assert_eq!(
        (heard.closed, heard.pushes.len()),
        (None, 6 * 64),
        "a reader that reads gets all"
    );
    server.stop_and_audit().await;
}

async fn silent(park_after_ms: u64) {
    let settings = vec![
        ("HERALD_SOCKET__PING_INTERVAL_MS", "400".to_owned()),
        ("HERALD_SOCKET__PARK_AFTER_MS", park_after_ms.to_string()),
    ];
    let server = Server::with(ServerOptions { settings }).await;
    let (device, other) = (server.device().await, server.device().await);
    let (mut lively, welcome) = server.hello(&other, &[]).await;
    assert_eq!(welcome["ping_interval_ms"], 400);
    let token = server.token(&device).await;
    let (mut socket, _) = server.hello(&device, &[(&token, 1)]).await;
    // What the server says does not count as being heard.
    server.push(&token, "is anybody there").await;
    assert_eq!(syn_of(&socket.push().await), 1);
    let keep_alive = async {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(lively.sync().await.is_empty());
        }
    };
    let (code, _) = tokio::select! {
        closed = socket.closed() => closed,
        () = keep_alive => unreachable!("it goes on for ever"),
    };
    assert_eq!(code, 4008);
    assert!(lively.sync().await.is_empty(), "the one that pings stays");
    assert_eq!(syns_of(&server.poll_token(&device, &token, 1).await), [1]);
    server.stop_and_audit().await;
}

#[tokio::test]
async fn a_silent_device_is_closed_while_awake() {
    silent(3_600_000).await;
}

#[tokio::test]
async fn a_silent_device_is_closed_while_parked() {
    silent(0).await;
}

#[tokio::test]
async fn a_device_that_does_not_say_hello_is_closed_whatever_else_it_says() {
    let settings = vec![
        ("HERALD_SOCKET__HELLO_TIMEOUT_MS", "300".to_owned()),
        ("HERALD_SOCKET__PARK_AFTER_MS", "0".to_owned()),
    ];
    let server = Server::with(ServerOptions { settings }).await;
    let mut mute = server.connect().await;
    let mut pinging = server.connect().await;
    let pings = async {
        loop {
            let ping = Message::Ping(tokio_tungstenite::tungstenite::Bytes::from_static(b"hm"));
            pinging.send_message(ping).await;
            match pinging.message().await {
                Some(Message::Pong(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                Some(Message::Text(text)) => assert!(text.contains("DEADLINE_EXCEEDED")),
                Some(Message::Close(Some(close))) => return u16::from(close.code),
                other => panic!("{other:?}"),
            }
        }
    };
    let ((code, _), pinging_code) = join(mute.closed(), pings).await;
    assert_eq!((code, pinging_code), (4001, 4001));
    let mut early = server.connect().await;
    early.send(&json!({"type": "ping"})).await;
    assert_eq!(early.closed().await.0, 1008, "hello comes first");
    server
        .metric_becomes("herald_closes_total{reason=\"no_hello\"}", 2.0)
        .await;
    server.stop_and_audit().await;
}
