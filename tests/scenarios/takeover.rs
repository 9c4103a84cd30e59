//! One live session a device: a newer one takes over, and an older one's goodbye harms nobody.

use futures_util::future::join;

use crate::harness::{Server, syn_of};

#[tokio::test]
async fn a_newer_session_gets_everything_and_a_late_goodbye_removes_nothing() {
    let server = Server::start().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let (mut old, _) = server.hello(&device, &[(&token, 1)]).await;
    server.push(&token, "to the old one").await;
    assert_eq!(syn_of(&old.push().await), 1);
    let (mut new, _) = server.hello(&device, &[(&token, 1)]).await;
    assert_eq!(syn_of(&new.push().await), 1, "it was not acknowledged");
    assert_eq!(old.closed().await.0, 4009);
    server.push(&token, "while the old one lingers").await;
    assert_eq!(syn_of(&new.push().await), 2);
    drop(old);
    server.metric_becomes("herald_sessions", 1.0).await;
    let closes = "herald_closes_total{reason=\"replaced\"}";
    server.metric_becomes(closes, 1.0).await;
    for syn in 3..=10 {
        server.push(&token, "after its goodbye").await;
        assert_eq!(syn_of(&new.push().await), syn);
    }
    server.stop_and_audit().await;
}

#[tokio::test]
async fn a_parked_session_is_replaced_too() {
    let settings = vec![("HERALD_SOCKET__PARK_AFTER_MS", "0".to_owned())];
    let server = Server::with(crate::harness::ServerOptions { settings }).await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let (mut old, _) = server.hello(&device, &[(&token, 1)]).await;
    let (mut new, _) = server.hello(&device, &[(&token, 1)]).await;
    assert_eq!(old.closed().await.0, 4009);
    server.push(&token, "to the new one").await;
    assert_eq!(syn_of(&new.push().await), 1);
    server.stop_and_audit().await;
}

#[tokio::test]
async fn of_two_that_come_at_once_one_lives_and_is_reached() {
    let server = Server::start().await;
    let device = server.device().await;
    // Several tokens, so that every shard has some.
    let mut tokens = Vec::new();
    for _ in 0..6 {
        tokens.push(server.token(&device).await);
    }
    let mut lived = server.connect().await;
    for syn in 1..=50 {
        let all: Vec<(&str, u64)> = tokens.iter().map(|token| (token.as_str(), syn)).collect();
        let (mut one, mut other) = join(server.connect(), server.connect()).await;
        join(one.hello(&device, &all), other.hello(&device, &all)).await;
        let (code, survivor) = tokio::select! {
            (code, _) = one.closed() => (code, other),
            (code, _) = other.closed() => (code, one),
        };
        assert_eq!(code, 4009);
        lived = survivor;
        for token in &tokens {
            server.push(token, "who is it").await;
        }
        let heard = lived.until_closed_or(tokens.len()).await;
        assert_eq!((heard.closed, heard.pushes.len()), (None, tokens.len()));
        assert!(heard.pushes.iter().all(|push| syn_of(push) == syn));
    }
    server.metric_becomes("herald_sessions", 1.0).await;
    assert!(lived.sync().await.is_empty());
    server.stop_and_audit().await;
}
