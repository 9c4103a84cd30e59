//! An acknowledgement ends what it names, and nothing else.

use crate::harness::{Server, syn_of, syns_of};

#[tokio::test]
async fn what_is_not_acknowledged_comes_again_and_only_that() {
    let server = Server::start().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let (mut socket, _) = server.hello(&device, &[(&token, 1)]).await;
    for _ in 0..5 {
        server.push(&token, "once").await;
    }
    for syn in 1..=5 {
        assert_eq!(syn_of(&socket.push().await), syn);
    }
    socket.ack(&token, 3).await;
    socket.subscribe(&token, 1).await;
    let frames = socket.sync().await;
    assert_eq!(
        frames.len(),
        1,
        "nothing twice on one live socket: {frames:?}"
    );
    drop(socket);
    let (mut socket, _) = server.hello(&device, &[(&token, 1)]).await;
    assert_eq!(syn_of(&socket.push().await), 4);
    assert_eq!(syn_of(&socket.push().await), 5);
    assert!(socket.sync().await.is_empty());
    let (mut socket, _) = server.hello(&device, &[(&token, 5)]).await;
    assert_eq!(
        syn_of(&socket.push().await),
        5,
        "min_syn acknowledged the rest"
    );
    assert!(socket.sync().await.is_empty());
    assert_eq!(syns_of(&server.poll_token(&device, &token, 1).await), [5]);
    server.books_balance_at(1).await;
    assert_eq!(server.pushes("acked").await, 4);
    server.stop_and_audit().await;
}

#[tokio::test]
async fn an_ack_beyond_the_watermark_ends_nothing_that_comes_later() {
    let server = Server::start().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let (mut socket, _) = server.hello(&device, &[(&token, 1)]).await;
    server.push(&token, "settled").await;
    assert_eq!(syn_of(&socket.push().await), 1);
    socket.ack(&token, 9_007_199_254_740_991).await;
    socket.sync().await;
    assert!(syns_of(&server.poll_token(&device, &token, 1).await).is_empty());
    server.push(&token, "later").await;
    assert_eq!(syn_of(&socket.push().await), 2);
    let entry = server.poll_token(&device, &token, 1).await;
    assert_eq!(syns_of(&entry), [2]);
    // The same by a poll: min_syn beyond everything.
    let entry = server.poll_token(&device, &token, 1_000).await;
    assert_eq!(
        (syns_of(&entry), entry["syn_stored"].as_u64()),
        (vec![], Some(2))
    );
    server.push(&token, "later still").await;
    assert_eq!(syn_of(&socket.push().await), 3);
    assert_eq!(syns_of(&server.poll_token(&device, &token, 1).await), [3]);
    server.stop_and_audit().await;
}

#[tokio::test]
async fn a_poll_acknowledges_what_is_below_its_min_syn() {
    let server = Server::start().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    for _ in 0..6 {
        server.push(&token, "polled").await;
    }
    assert_eq!(
        syns_of(&server.poll_token(&device, &token, 0).await),
        [1, 2, 3, 4, 5, 6]
    );
    assert_eq!(
        syns_of(&server.poll_token(&device, &token, 4).await),
        [4, 5, 6]
    );
    assert_eq!(
        syns_of(&server.poll_token(&device, &token, 1).await),
        [4, 5, 6]
    );
    server.books_balance_at(3).await;
    assert_eq!(server.pushes("acked").await, 3);
    server.stop_and_audit().await;
}

#[tokio::test]
async fn an_ack_of_another_devices_token_changes_nothing() {
    let server = Server::start().await;
    let (owner, stranger) = (server.device().await, server.device().await);
    let token = server.token(&owner).await;
    server.push(&token, "private").await;
    let (mut socket, _) = server.hello(&stranger, &[]).await;
    socket.ack(&token, 1).await;
    socket.subscribe(&token, 2).await;
    assert_eq!(socket.frame().await["error"], "PERMISSION_DENIED");
    assert!(socket.sync().await.is_empty(), "the socket stays");
    let (mut socket, welcome) = server.hello(&stranger, &[(&token, 2)]).await;
    assert_eq!(welcome["tokens"][0]["error"], "PERMISSION_DENIED");
    assert!(socket.sync().await.is_empty());
    let entry = server.poll_token(&stranger, &token, 2).await;
    assert_eq!(entry["error"]["status"], "PERMISSION_DENIED");
    assert_eq!(syns_of(&server.poll_token(&owner, &token, 1).await), [1]);
    server.books_balance_at(1).await;
    server.stop_and_audit().await;
}

#[tokio::test]
async fn sixty_four_are_in_flight_and_the_rest_follows_the_acks() {
    const TOTAL: u64 = 200;
    let server = Server::start().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let sends = (0..TOTAL).map(|_| server.push(&token, "many"));
    futures_util::future::join_all(sends).await;
    let (mut socket, _) = server.hello(&device, &[(&token, 1)]).await;
    let mut last = 0;
    while last < 64 {
        last += 1;
        assert_eq!(syn_of(&socket.push().await), last);
    }
    assert!(socket.sync().await.is_empty(), "64 are in flight");
    server.push(&token, "live, behind the others").await;
    assert!(socket.sync().await.is_empty(), "and it waits too");
    while last < TOTAL + 1 {
        // One ack opens the window by as many as it ends.
        let opened = (last / 7).min(16) + 1;
        let acked = last - 64 + opened;
        socket.ack(&token, acked).await;
        for _ in 0..opened.min(TOTAL + 1 - last) {
            last += 1;
            assert_eq!(syn_of(&socket.push().await), last);
        }
        assert!(socket.sync().await.is_empty(), "no more than the window");
    }
    socket.ack(&token, last).await;
    socket.sync().await;
    server.books_balance_at(0).await;
    server.stop_and_audit().await;
}
