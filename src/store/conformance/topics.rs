//! Subscriptions, walks, and pushes to many.

use super::*;
use crate::store::{Stretch, Subscribed, Unsubscribed};
use crate::token::TokenId;
use crate::topic::{Checkpoint, Condition, FanOut, Place, Reach, TopicName, Walk};

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).expect("a name")
}

/// A project that no other scenario has: walks go over whole projects, and stores may be shared.
fn a_project() -> String {
    format!("project-{:016x}", rand::random::<u64>())
}

fn fan_out(reach: Reach, now: Millis) -> FanOut {
    let message_id = MessageId::generate(now);
    FanOut {
        message_id,
        project: ProjectHash::of("demo"),
        reach,
        accepted_at: now,
        expires_at: now + HOUR,
        collapse_key: Some([7; 16]),
        idempotency: None,
        message: Bytes::from(format!("{{\"id\":\"{message_id}\"}}")),
    }
}

impl Subject {
    async fn subscribe(&self, address: &TokenAddress, name: &str, now: Millis) -> Subscribed {
        let subscribed = self.store.subscribe(address, &topic(name), now).await;
        subscribed.expect("the store subscribes")
    }

    async fn unsubscribe(&self, address: &TokenAddress, name: &str) -> Unsubscribed {
        let unsubscribed = self.store.unsubscribe(address, &topic(name), START).await;
        unsubscribed.expect("the store unsubscribes")
    }

    async fn topics_of(&self, address: &TokenAddress) -> Vec<String> {
        let all = self.store.subscriptions(address.id, "", 100).await;
        let all = all.expect("the store lists");
        all.iter().map(|it| it.topic.to_string()).collect()
    }

    async fn stretch(&self, project: &str, walk: &Walk, from: &Place, limit: usize) -> Stretch {
        let project = ProjectHash::of(project);
        let stretch = self.store.walk(project, walk, from, limit).await;
        stretch.expect("the store walks")
    }

    /// Everybody on a walk, in stretches of a few.
    async fn walk(&self, project: &str, walk: &Walk) -> Vec<TokenId> {
        let (mut met, mut place) = (Vec::new(), Place::default());
        loop {
            let stretch = self.stretch(project, walk, &place, 3).await;
            assert!(stretch.met.len() <= 3, "not more than asked for");
            met.extend(stretch.met.iter().map(|address| address.id));
            match stretch.next {
                Some(next) => place = next,
                None => return met,
            }
        }
    }

    async fn members(&self, project: &str, name: &str) -> Vec<TokenId> {
        let mut members = self.walk(project, &Walk::Members(topic(name))).await;
        members.sort_unstable();
        members
    }

    async fn accept(&self, fan_out: &FanOut) {
        let accepted = self.store.accept_fan_out(fan_out).await;
        accepted.expect("the store takes pushes to many");
    }
}

fn ids(addresses: &[TokenAddress]) -> Vec<TokenId> {
    let mut ids: Vec<TokenId> = addresses.iter().map(|address| address.id).collect();
    ids.sort_unstable();
    ids
}

pub async fn tokens_join_and_leave_topics(open: Open<'_>) {
    let demo = a_project();
    let subject = open(LIMITS);
    let token = token_of(&demo);
    assert_eq!(
        subject.subscribe(&token, "news", START).await,
        Subscribed::Added
    );
    assert_eq!(
        subject.subscribe(&token, "news", START + 5).await,
        Subscribed::Already(START)
    );
    assert_eq!(
        subject.subscribe(&token, "a", START + 7).await,
        Subscribed::Added
    );
    assert_eq!(subject.topics_of(&token).await, ["a", "news"]);
    let after = subject.store.subscriptions(token.id, "a", 100).await;
    let after = after.expect("the store lists");
    assert_eq!(after.len(), 1);
    assert_eq!(
        (after[0].topic.as_str(), after[0].since),
        ("news", START),
        "names go on after a name"
    );
    let first = subject.store.subscriptions(token.id, "", 1).await;
    assert_eq!(first.expect("the store lists")[0].topic.as_str(), "a");
    let asked = ["news", "never", "a"].map(topic);
    let since = subject.store.subscribed_since(token.id, &asked).await;
    assert_eq!(
        since.expect("the store knows"),
        [Some(START), None, Some(START + 7)]
    );
    assert_eq!(
        subject.unsubscribe(&token, "news").await,
        Unsubscribed::Removed
    );
    assert_eq!(
        subject.unsubscribe(&token, "news").await,
        Unsubscribed::NotThere
    );
    assert_eq!(subject.topics_of(&token).await, ["a"]);
    assert_eq!(subject.members(&demo, "news").await, []);
    assert_eq!(
        subject.subscribe(&token, "news", START + 9).await,
        Subscribed::Added
    );
    assert_eq!(subject.members(&demo, "news").await, [token.id]);
}

pub async fn a_token_has_so_many_topics_and_no_more(open: Open<'_>) {
    let demo = a_project();
    let subject = open(StoreLimits {
        topics_per_token: 3,
        ..LIMITS
    });
    let token = token_of(&demo);
    for name in ["a", "b", "c"] {
        assert_eq!(
            subject.subscribe(&token, name, START).await,
            Subscribed::Added
        );
    }
    assert_eq!(
        subject.subscribe(&token, "d", START).await,
        Subscribed::TooMany
    );
    assert_eq!(
        subject.subscribe(&token, "b", START).await,
        Subscribed::Already(START)
    );
    assert_eq!(
        subject.unsubscribe(&token, "a").await,
        Unsubscribed::Removed
    );
    assert_eq!(
        subject.subscribe(&token, "d", START).await,
        Subscribed::Added
    );
    assert_eq!(subject.members(&demo, "a").await, []);
}

pub async fn subscriptions_end_with_their_token(open: Open<'_>) {
    let demo = a_project();
    let subject = open(LIMITS);
    let (token, kept) = (token_of(&demo), token_of(&demo));
    for address in [&token, &kept] {
        subject.subscribe(address, "news", START).await;
    }
    let deleted = subject.store.delete_token(&token, START + 1).await;
    deleted.expect("the store deletes");
    assert_eq!(
        subject.subscribe(&token, "news", START + 2).await,
        Subscribed::Unregistered
    );
    assert_eq!(
        subject.unsubscribe(&token, "news").await,
        Unsubscribed::Unregistered
    );
    let forgotten = subject.store.forget_subscriptions(&token).await;
    forgotten.expect("the store forgets");
    assert_eq!(subject.topics_of(&token).await, Vec::<String>::new());
    assert_eq!(subject.members(&demo, "news").await, [kept.id]);
    let stale = token_of(&demo);
    assert_eq!(
        subject
            .subscribe(&stale, "news", START + FIRST_CONTACT_MS + 60_001)
            .await,
        Subscribed::Unregistered,
        "too old for a first contact"
    );
}

pub async fn walks_meet_everybody_once(open: Open<'_>) {
    let (demo, other) = (a_project(), a_project());
    let subject = open(LIMITS);
    let tokens: Vec<_> = (0..20).map(|_| token_of(&demo)).collect();
    let others: Vec<_> = (0..4).map(|_| token_of(&other)).collect();
    for token in &tokens[..11] {
        subject.subscribe(token, "news", START).await;
    }
    for token in &tokens[5..] {
        subject.subscribe(token, "sport", START).await;
    }
    for token in &others {
        subject.subscribe(token, "news", START).await;
    }
    let silent = token_of(&demo);
    subject.contact(&silent, 1, START).await;
    let flushed = subject.store.flush().await;
    flushed.expect("the store flushes");
    assert_eq!(subject.members(&demo, "news").await, ids(&tokens[..11]));
    assert_eq!(subject.members(&demo, "sport").await, ids(&tokens[5..]));
    assert_eq!(subject.members(&other, "news").await, ids(&others));
    assert_eq!(subject.members(&demo, "nobody").await, []);
    let mut everyone = subject.walk(&demo, &Walk::Everyone).await;
    everyone.sort_unstable();
    let mut expected = ids(&tokens);
    expected.push(silent.id);
    expected.sort_unstable();
    assert_eq!(everyone, expected, "those without topics, too");
    let walk = Walk::Members(topic("news"));
    let stretch = subject.stretch(&demo, &walk, &Place::default(), 100).await;
    let met: Vec<TokenAddress> = stretch.met;
    for address in &met {
        assert!(tokens.contains(address), "whole addresses: {address:?}");
    }
}

pub async fn a_copy_is_stored_once_until_its_checkpoint(open: Open<'_>) {
    let subject = open(LIMITS);
    let (token, other) = (token_of("demo"), token_of("demo"));
    let many = FanOut {
        collapse_key: None,
        ..fan_out(Reach::Topic(topic("news")), START)
    };
    subject.accept(&many).await;
    assert_eq!(subject.send_live(many.copy_for(token)).await, 1);
    assert_eq!(
        subject.send(many.copy_for(token)).await,
        Appended::Repeated,
        "stored before"
    );
    assert_eq!(subject.send_live(many.copy_for(other)).await, 1);
    let acked = subject.store.ack(&token, 1, START + 1).await;
    assert_eq!(acked.expect("the store acks"), 1);
    assert_eq!(
        subject.send(many.copy_for(token)).await,
        Appended::Repeated,
        "acknowledged is stored, too"
    );
    let second = fan_out(Reach::Topic(topic("news")), START);
    subject.accept(&second).await;
    assert_eq!(
        subject.send_live(second.copy_for(token)).await,
        2,
        "another push to many"
    );
    let passed = Checkpoint {
        walk: 0,
        place: Place(vec![1, 2, 3]),
        copies: 2,
    };
    let is_ours = subject
        .store
        .pass_checkpoint(many.message_id, &passed, &[token.id, other.id])
        .await;
    assert!(is_ours.expect("the store passes"));
    let flushed = subject.store.flush().await;
    flushed.expect("the store flushes");
    assert_eq!(
        subject.send_live(many.copy_for(token)).await,
        3,
        "its mark is forgotten: nobody comes back behind a checkpoint"
    );
    assert_eq!(
        subject.send(second.copy_for(token)).await,
        Appended::Repeated
    );
    let dead = token_of("demo");
    let deleted = subject.store.delete_token(&dead, START).await;
    deleted.expect("the store deletes");
    assert_eq!(
        subject.send(many.copy_for(dead)).await,
        Appended::Unregistered
    );
}

pub async fn a_push_to_many_is_kept_until_it_is_finished(open: Open<'_>) {
    let subject = open(LIMITS);
    let condition = "'a' in topics && !('b' in topics)";
    let reach = Reach::Condition(Condition::parse(condition).expect("a condition"));
    let key = IdempotencyKey([9; 16]);
    let many = FanOut {
        idempotency: Some(key),
        ..fan_out(reach, START)
    };
    let claim = subject.store.claim(key, many.message_id, START).await;
    assert_eq!(claim.expect("the store claims"), Claim::Fresh);
    subject.accept(&many).await;
    let claim = subject.store.claim(key, MessageId::generate(START), START);
    assert_eq!(
        claim.await.expect("the store claims"),
        Claim::Answered(many.message_id)
    );
    let kept = subject.store.fan_out(many.message_id).await;
    let (kept, checkpoint) = kept.expect("the store finds").expect("it is there");
    assert_eq!(
        FanOut {
            idempotency: Some(key),
            ..kept
        },
        many
    );
    assert_eq!(checkpoint, Checkpoint::default());
    let checkpoint = Checkpoint {
        walk: 1,
        place: Place(b"here".to_vec()),
        copies: 12,
    };
    let is_ours = subject
        .store
        .pass_checkpoint(many.message_id, &checkpoint, &[]);
    assert!(is_ours.await.expect("the store passes"));
    let flushed = subject.store.flush().await;
    flushed.expect("the store flushes");
    let kept = subject.store.fan_out(many.message_id).await;
    let (_, kept) = kept.expect("the store finds").expect("it is there");
    assert_eq!(kept, checkpoint);
    let finished = subject.store.finish_fan_out(many.message_id).await;
    finished.expect("the store finishes");
    let kept = subject.store.fan_out(many.message_id).await;
    assert_eq!(kept.expect("the store finds"), None);
}
