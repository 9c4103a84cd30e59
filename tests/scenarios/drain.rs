//! SIGTERM: everybody is told in time, what runs is finished, and nothing is missing afterwards.

use futures_util::future::join;
use serde_json::Value;

use crate::harness::{FaultyDisk, Server, answer, texts_of};

fn settings(park_after_ms: u64) -> Vec<(&'static str, String)> {
    vec![
        ("HERALD_SOCKET__PARK_AFTER_MS", park_after_ms.to_string()),
        ("HERALD_DRAIN__DELAY_MS", "1000".to_owned()),
        ("HERALD_DRAIN__WINDOW_MS", "300".to_owned()),
        ("HERALD_DRAIN__DEADLINE_MS", "20000".to_owned()),
        ("HERALD_DRAIN__RETRY_SPREAD_MS", "700".to_owned()),
    ]
}

async fn readyz(server: &Server) -> (u16, Value) {
    answer(server.http().get(server.admin_url("/readyz"))).await
}

async fn wait_until_not_ready(server: &Server) {
    let not_ready = async {
        while readyz(server).await.0 != 503 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    crate::harness::soon("a readyz of 503", not_ready).await;
}

async fn drain_with_a_send_on_its_way(park_after_ms: u64) {
    let disk = FaultyDisk::new();
    let mut server = Server::with(disk.options(settings(park_after_ms))).await;
    let device = server.device().await;
    let token = server.token(&device).await;
    server.push(&token, "before").await;
    let mut sockets = Vec::new();
    for _ in 0..8 {
        let device = server.device().await;
        sockets.push(server.hello(&device, &[]).await.0);
    }
    disk.stall();
    let send = server.push(&token, "while it drains");
    let drain = async {
        // The send is on its way once the server has read it: the bytes came before these.
        for _ in 0..10 {
            server.poll_token(&device, &token, 1).await;
        }
        server.terminate();
        wait_until_not_ready(&server).await;
        server.poll_token(&device, &token, 1).await;
        for socket in &mut sockets {
            let (code, reason) = socket.closed().await;
            let advice: Value = serde_json::from_str(&reason).expect("advice in JSON");
            let retry_ms = advice["retry_ms"].as_u64();
            assert!(code == 1012 && retry_ms <= Some(700), "{code} {reason}");
            assert!(retry_ms.is_some(), "{reason}");
        }
        let refused = tokio::net::TcpStream::connect(server.listen()).await;
        assert!(refused.is_err(), "no new connections");
        disk.resume();
    };
    join(send, drain).await;
    assert_eq!(server.exit_status().await.code(), Some(0));
    assert_eq!(server.fsck(), 2);
    server.start_again().await;
    let entry = server.poll_token(&device, &token, 1).await;
    assert_eq!(texts_of(&entry), ["before", "while it drains"]);
    server.stop_and_audit().await;
}

#[tokio::test]
async fn a_drain_tells_awake_sessions_and_finishes_sends() {
    drain_with_a_send_on_its_way(3_600_000).await;
}

#[tokio::test]
async fn a_drain_tells_parked_sessions_and_finishes_sends() {
    drain_with_a_send_on_its_way(0).await;
}

#[tokio::test]
async fn what_is_sent_while_it_drains_is_either_refused_or_kept() {
    let mut server = Server::start().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let senders = (0..8).map(|sender| {
        let (server, token) = (&server, &token);
        async move {
            let mut accepted = Vec::new();
            for number in 0.. {
                let text = format!("{sender}/{number}");
                match server
                    .try_send(&crate::harness::message(token, &text))
                    .await
                {
                    Some((200, _)) => accepted.push(text),
                    Some((503, _)) | None => break,
                    Some(other) => panic!("{other:?}"),
                }
                if number == 5 && sender == 0 {
                    server.terminate();
                }
            }
            accepted
        }
    });
    let accepted = futures_util::future::join_all(senders).await.concat();
    assert_eq!(server.exit_status().await.code(), Some(0));
    server.start_again().await;
    let (mut there, mut last) = (Vec::new(), 0);
    while there.len() < accepted.len() {
        let entry = server.poll_token(&device, &token, last + 1).await;
        let texts = texts_of(&entry);
        assert!(
            !texts.is_empty(),
            "{} of {} are there",
            there.len(),
            accepted.len()
        );
        there.extend(texts.into_iter().map(str::to_owned));
        last = *crate::harness::syns_of(&entry).last().expect("a push");
    }
    assert!(accepted.iter().all(|text| there.contains(text)));
    server.stop_and_audit().await;
}
