//! The same Idempotency-Key twice is one push.

use futures_util::future::join_all;

use crate::harness::{FaultyDisk, Server, fcm_error, message, message_id, syn_of, texts_of};

#[tokio::test]
async fn a_repeat_answers_the_first_name_and_sends_nothing() {
    let mut server = Server::start().await;
    let device = server.device().await;
    let (token, other) = (server.token(&device).await, server.token(&device).await);
    let (status, first) = server.send_once("order-7", &message(&token, "first")).await;
    assert_eq!(status, 200, "{first}");
    for _ in 0..2 {
        let repeat = server.send_once("order-7", &message(&token, "first")).await;
        assert_eq!(repeat, (200, first.clone()));
        let repeat = server
            .send_once("order-7", &message(&other, "another body"))
            .await;
        assert_eq!(repeat, (200, first.clone()));
        server.kill_and_restart().await;
    }
    let (status, fresh) = server
        .send_once("order-8", &message(&token, "second"))
        .await;
    assert!(status == 200 && fresh != first);
    assert_eq!(
        texts_of(&server.poll_token(&device, &token, 1).await),
        ["first", "second"]
    );
    assert!(texts_of(&server.poll_token(&device, &other, 1).await).is_empty());
    server.stop_and_audit().await;
}

#[tokio::test]
async fn repeats_that_come_at_once_are_one_push() {
    let disk = FaultyDisk::new();
    let server = Server::with(disk.options(vec![])).await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let (mut socket, _) = server.hello(&device, &[(&token, 1)]).await;
    disk.stall();
    let sends = (0..20).map(|number| {
        let (server, token) = (&server, &token);
        async move {
            let body = message(token, &number.to_string());
            server.send_once("at-once", &body).await
        }
    });
    let (answers, ()) = futures_util::future::join(join_all(sends), async {
        // By then some of them have reached the first, which waits for the disk.
        for _ in 0..20 {
            assert!(socket.sync().await.is_empty());
        }
        disk.resume();
    })
    .await;
    let first = &answers[0];
    assert_eq!(first.0, 200, "{answers:?}");
    assert!(answers.iter().all(|answer| answer == first), "{answers:?}");
    let push = socket.push().await;
    assert_eq!(push["message_id"], message_id(&first.1).as_str());
    server.push(&token, "next").await;
    assert_eq!(syn_of(&socket.push().await), 2);
    server.books_balance_at(2).await;
    server.stop_and_audit().await;
}

#[tokio::test]
async fn a_refused_first_leaves_no_trace() {
    let server = Server::start().await;
    let device = server.device().await;
    let (dead, live) = (server.token(&device).await, server.token(&device).await);
    assert_eq!(server.delete_token("demo", &device, &dead).await, 204);
    let (status, answer) = server.send_once("key", &message(&dead, "refused")).await;
    assert_eq!((status, fcm_error(&answer)), (404, "UNREGISTERED"));
    let (status, answer) = server
        .send_once("key", &message("no token", "refused"))
        .await;
    assert_eq!(status, 400, "{answer}");
    let mut check_only = message(&live, "not sent");
    check_only["validate_only"] = true.into();
    assert_eq!(server.send_once("key", &check_only).await.0, 200);
    let (status, answer) = server.send_once("key", &message(&live, "sent")).await;
    assert_eq!(status, 200);
    let entry = server.poll_token(&device, &live, 1).await;
    assert_eq!(texts_of(&entry), ["sent"]);
    assert_eq!(
        entry["messages"][0]["message_id"],
        message_id(&answer).as_str()
    );
    server.stop_and_audit().await;
}

#[tokio::test]
async fn projects_do_not_share_keys_and_a_bad_key_is_refused() {
    let server = Server::start().await;
    let device = server.device().await;
    let other = server.project("other").await;
    let (ours, theirs) = (
        server.token(&device).await,
        server.token_in(&other, &device).await,
    );
    let (_, first) = server.send_once("shared", &message(&ours, "ours")).await;
    let url = server.url("/v1/projects/other/messages:send");
    let request = server
        .http()
        .post(url)
        .bearer_auth(&other.service_token)
        .header("Idempotency-Key", "shared")
        .json(&message(&theirs, "theirs"));
    let (status, second) = crate::harness::answer(request).await;
    assert!(status == 200 && message_id(&first) != message_id(&second));
    let longest = "k".repeat(128);
    for key in ["", "with space", "umläut", "tab\there", &"k".repeat(129)] {
        let (status, answer) = server.send_once(key, &message(&ours, "refused")).await;
        assert_eq!(
            (status, answer["error"]["status"].as_str()),
            (400, Some("INVALID_ARGUMENT")),
            "{key:?}"
        );
    }
    assert_eq!(
        server
            .send_once(&longest, &message(&ours, "longest"))
            .await
            .0,
        200
    );
    assert_eq!(
        texts_of(&server.poll_token(&device, &ours, 1).await),
        ["ours", "longest"]
    );
    server.stop_and_audit().await;
}
