//! A sync that fails ends the process: what was not durable was neither answered nor shown.

use futures_util::future::join_all;

use crate::harness::{FaultyDisk, Server, message, syn_of, syns_of, texts_of};

#[tokio::test]
async fn a_failed_sync_ends_the_process_and_loses_nothing_that_was_answered() {
    let disk = FaultyDisk::new();
    let mut server = Server::with(disk.options(vec![])).await;
    let device = server.device().await;
    let (token, other) = (server.token(&device).await, server.token(&device).await);
    let (mut socket, _) = server.hello(&device, &[(&token, 1)]).await;
    for syn in 1..=10 {
        server.push(&token, "answered").await;
        assert_eq!(syn_of(&socket.push().await), syn);
    }
    server.push(&other, "answered").await;
    disk.fail();
    let bodies: Vec<_> = (0..8)
        .map(|_| message(&token, "on a broken disk"))
        .collect();
    let outcomes = join_all(bodies.iter().map(|body| server.try_send(body))).await;
    let is_unknown = |status: u16| status == 504 || status == 503;
    for outcome in outcomes.iter().flatten() {
        assert!(is_unknown(outcome.0), "{outcome:?}");
    }
    let heard = socket.until_closed_or(usize::MAX).await;
    assert!(heard.pushes.is_empty(), "shown before it was durable");
    assert_eq!(server.exit_status().await.code(), Some(70));
    server.fsck();
    disk.mend();
    server.start_again().await;
    let entry = server.poll_token(&device, &token, 1).await;
    let syns = syns_of(&entry);
    assert_eq!(syns[..10], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert!(
        texts_of(&entry)[10..]
            .iter()
            .all(|text| *text == "on a broken disk")
    );
    assert_eq!(
        texts_of(&server.poll_token(&device, &other, 1).await),
        ["answered"]
    );
    let (mut socket, _) = server
        .hello(&device, &[(&token, syns.len() as u64 + 1)])
        .await;
    server.push(&token, "on a mended disk").await;
    assert!(syn_of(&socket.push().await) > *syns.last().expect("pushes"));
    server.stop_and_audit().await;
}

#[tokio::test]
async fn the_end_of_a_token_is_not_answered_before_it_is_durable() {
    let disk = FaultyDisk::new();
    let mut server = Server::with(disk.options(vec![])).await;
    let device = server.device().await;
    let token = server.token(&device).await;
    server.push(&token, "still there").await;
    disk.fail();
    let url = server.url(&format!("/v1/projects/demo/tokens/{token}"));
    let request = server.http().delete(url);
    let outcome = request
        .header("Authorization", device.header())
        .send()
        .await;
    if let Ok(answer) = outcome {
        assert!(answer.status().is_server_error(), "{}", answer.status());
    }
    assert_eq!(server.exit_status().await.code(), Some(70));
}
