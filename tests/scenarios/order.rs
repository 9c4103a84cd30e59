//! Readers beside writers: no hole, no inversion, and a hand-over from catch-up to live that is
//! exact.

use std::cell::Cell;

use futures_util::future::{join, join_all};

use crate::harness::{Credential, Server, ServerOptions, Socket, syn_of, syns_of};

/// Sends `count` pushes from each of `senders` senders at once.
async fn crowd(server: &Server, token: &str, senders: usize, count: usize) {
    join_all((0..senders).map(|sender| async move {
        for number in 0..count {
            server.push(token, &format!("{sender}/{number}")).await;
        }
    }))
    .await;
}

#[tokio::test]
async fn a_poll_beside_64_senders_steps_over_nothing() {
    const TOTAL: u64 = 64 * 12;
    let server = Server::start().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let reader = async {
        let (mut last, mut largest_page) = (0, 0);
        while last < TOTAL {
            let entry = server.poll_token(&device, &token, last + 1).await;
            let syns = syns_of(&entry);
            largest_page = largest_page.max(syns.len());
            for syn in syns {
                assert_eq!(syn, last + 1, "the numbers of a healthy store are dense");
                last = syn;
            }
            assert!(entry["syn_stored"].as_u64() >= Some(last));
        }
        largest_page
    };
    let (largest_page, ()) = join(reader, crowd(&server, &token, 64, 12)).await;
    assert!(largest_page > 1, "the reader met commits of several pushes");
    assert_eq!(
        server.poll_token(&device, &token, 1).await["syn_stored"],
        TOTAL
    );
    server.poll_token(&device, &token, TOTAL + 1).await;
    server.books_balance_at(0).await;
    assert_eq!(server.pushes("acked").await, TOTAL);
    server.stop_and_audit().await;
}

/// Reads pushes that must follow each other without a gap, from `last` on, until `enough` says so.
async fn read_dense(socket: &mut Socket, last: &mut u64, enough: impl Fn(u64) -> bool) {
    while !enough(*last) {
        let push = socket.push().await;
        assert_eq!(syn_of(&push), *last + 1, "no gap, no repeat, no inversion");
        *last += 1;
    }
}

/// Comes back again and again while pushes keep coming, each time from where it was.
async fn read_over_many_sessions(
    server: &Server,
    device: &Credential,
    token: &str,
    is_sending: &Cell<bool>,
) -> u64 {
    let (mut last, mut rounds) = (0, 0);
    while is_sending.get() {
        rounds += 1;
        let mut socket = server.connect().await;
        let by_subscribe = rounds % 2 == 0;
        let tokens = if by_subscribe {
            vec![]
        } else {
            vec![(token, last + 1)]
        };
        socket.hello(device, &tokens).await;
        assert_eq!(socket.frame().await["type"], "welcome");
        if by_subscribe {
            socket.subscribe(token, last + 1).await;
            assert_eq!(socket.frame().await["type"], "subscribed");
        }
        let goal = last + 1 + rounds % 5;
        read_dense(&mut socket, &mut last, |last| {
            last >= goal || !is_sending.get()
        })
        .await;
    }
    assert!(rounds > 20, "{rounds} rounds raced with the senders");
    last
}

#[tokio::test]
async fn hello_and_subscribe_race_with_a_sender_and_lose_nothing() {
    const TOTAL: u64 = 4 * 120;
    let server = Server::start().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let is_sending = Cell::new(true);
    let sender = async {
        crowd(&server, &token, 4, 119).await;
        is_sending.set(false);
        // The reader may wait for one more push to notice.
        crowd(&server, &token, 4, 1).await;
    };
    let reader = read_over_many_sessions(&server, &device, &token, &is_sending);
    let (mut last, ()) = join(reader, sender).await;
    let (mut socket, welcome) = server.hello(&device, &[(&token, last + 1)]).await;
    assert_eq!(welcome["tokens"][0]["syn_stored"], TOTAL);
    while last < TOTAL {
        let next = last + 1;
        read_dense(&mut socket, &mut last, |last| last == next).await;
        socket.ack(&token, last).await;
    }
    assert!(socket.sync().await.is_empty());
    server.stop_and_audit().await;
}

#[tokio::test]
async fn a_session_with_no_room_for_deliveries_reads_up_what_it_missed() {
    const TOTAL: u64 = 64 * 20;
    let settings = vec![("HERALD_SOCKET__MAILBOX", "1".to_owned())];
    let server = Server::with(ServerOptions { settings }).await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let (mut socket, _) = server.hello(&device, &[(&token, 1)]).await;
    let reader = async {
        let mut last = 0;
        while last < TOTAL {
            let next = last + 1;
            read_dense(&mut socket, &mut last, |last| last == next).await;
            socket.ack(&token, last).await;
        }
    };
    join(reader, crowd(&server, &token, 64, 20)).await;
    assert!(socket.sync().await.is_empty());
    server.stop_and_audit().await;
}

#[tokio::test]
async fn a_token_taken_off_and_put_back_in_one_breath_is_live() {
    let server = Server::start().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let (mut socket, _) = server.hello(&device, &[(&token, 1)]).await;
    for round in 1..=50 {
        socket.unsubscribe(&token).await;
        socket.subscribe(&token, round).await;
        assert_eq!(socket.frame().await["type"], "subscribed");
        server.push(&token, "live").await;
        assert_eq!(syn_of(&socket.push().await), round);
        socket.ack(&token, round).await;
    }
    socket.unsubscribe(&token).await;
    assert!(socket.sync().await.is_empty());
    server.push(&token, "for later").await;
    assert!(socket.sync().await.is_empty(), "it was taken off");
    socket.subscribe(&token, 1).await;
    assert_eq!(socket.frame().await["syn_stored"], 51);
    assert_eq!(syn_of(&socket.push().await), 51);
    server.stop_and_audit().await;
}

#[tokio::test]
async fn nothing_is_visible_before_it_is_durable() {
    let disk = crate::harness::FaultyDisk::new();
    let server = Server::with(disk.options(vec![])).await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let (mut socket, _) = server.hello(&device, &[(&token, 1)]).await;
    server.push(&token, "before").await;
    assert_eq!(syn_of(&socket.push().await), 1);
    disk.stall();
    let is_answered = Cell::new(false);
    let send = async {
        server.push(&token, "stalled").await;
        is_answered.set(true);
    };
    let look = async {
        for _ in 0..50 {
            assert!(
                socket.sync().await.is_empty(),
                "shown before it was durable"
            );
            let entry = server.poll_token(&device, &token, 1).await;
            assert_eq!(syns_of(&entry), [1]);
            assert_eq!(entry["syn_stored"], 1);
            assert!(!is_answered.get(), "answered before it was durable");
        }
        disk.resume();
        assert_eq!(syn_of(&socket.push().await), 2);
    };
    join(send, look).await;
    server.stop_and_audit().await;
}
