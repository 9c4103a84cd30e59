//! Topics over several nodes of one region: what one has begun another goes on with, and what
//! Redis forgets is not forgotten.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::ClusterStore;
use super::backends::deadline;
use super::clocks::clock_us;
use super::records::Function;
use super::reply::Status;
use super::tests::{TURNS, TURNS_MAX, connect, on_a_runtime, options, servers};
use crate::clock::Millis;
use crate::push::{MessageId, NewPush};
use crate::store::conformance::{LIMITS, Reports, START, block_on};
use crate::store::counters::PushCounters;
use crate::store::region::{NodeId, Region as _};
use crate::store::{
    Appended, PageLimit, Store as _, StoreError, Subscribed, Topics as _, Unsubscribed,
};
use crate::token::{DeviceId, ProjectHash, TokenAddress, TokenId};
use crate::topic::{Checkpoint, FanOut, Place, Reach, TopicName, Walk};

const HOUR: Millis = 60 * 60 * 1_000;

/// Longer than a node needs to be taken for gone.
const PATIENCE: Duration = Duration::from_secs(120);

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Nodes take over from all others, so tests of that take turns.
static TAKERS: Semaphore = Semaphore::const_new(1);

/// Some nodes of one region, and a project of their own.
struct Stage {
    nodes: Vec<ClusterStore>,
    project: ProjectHash,
    turns: Vec<SemaphorePermit<'static>>,
}

impl Stage {
    fn enter(nodes: usize, turns: u32) -> Self {
        let turn = on_a_runtime(|| TURNS.acquire_many(turns)).expect("never closed");
        let node = |_| {
            let options = options(LIMITS, &Arc::new(PushCounters::default()));
            on_a_runtime(|| connect(options))
        };
        Self {
            nodes: (0..nodes).map(node).collect(),
            project: ProjectHash(rand::random()),
            turns: vec![turn],
        }
    }

    /// Nobody else takes anything over meanwhile.
    fn enter_to_take(nodes: usize) -> Self {
        let taking = on_a_runtime(|| TAKERS.acquire()).expect("never closed");
        let mut stage = Self::enter(nodes, 1);
        stage.turns.push(taking);
        stage
    }

    fn token(&self) -> TokenAddress {
        TokenAddress::mint(DeviceId(rand::random()), self.project, START)
    }

    fn fan_out(&self) -> FanOut {
        FanOut {
            message_id: MessageId::generate(START),
            project: self.project,
            reach: Reach::Topic(topic("news")),
            accepted_at: START,
            expires_at: START + HOUR,
            collapse_key: None,
            idempotency: None,
            message: Bytes::from_static(b"{}"),
        }
    }

    /// What a node takes over of this project. There is more: others have died here.
    async fn take(&self, node: &ClusterStore) -> Vec<MessageId> {
        let taken = node.take_fan_outs().await.expect("the store looks");
        let ours = taken.iter().filter(|(_, of)| *of == self.project);
        ours.map(|(id, _)| *id).collect()
    }

    /// Everybody on a walk, in stretches of a few, each on another node than the one before.
    async fn walk(&self, walk: &Walk) -> Vec<TokenId> {
        let (mut met, mut place) = (Vec::new(), Place::default());
        for node in self.nodes.iter().cycle() {
            let stretch = node.walk(self.project, walk, &place, 7).await;
            let stretch = stretch.expect("the store walks");
            met.extend(stretch.met.iter().map(|address| address.id));
            match stretch.next {
                Some(next) => place = next,
                None => break,
            }
        }
        met.sort_unstable();
        met
    }

    async fn members(&self, name: &str) -> Vec<TokenId> {
        self.walk(&Walk::Members(topic(name))).await
    }
}

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).expect("a name")
}

fn checkpoint(copies: u64) -> Checkpoint {
    Checkpoint {
        walk: 0,
        place: Place(vec![3, 1, 4]),
        copies,
    }
}

async fn subscribe(node: &ClusterStore, address: &TokenAddress, name: &str) -> Subscribed {
    let subscribed = node.subscribe(address, &topic(name), START).await;
    subscribed.expect("the store subscribes")
}

async fn unsubscribe(node: &ClusterStore, address: &TokenAddress, name: &str) -> Unsubscribed {
    let unsubscribed = node.unsubscribe(address, &topic(name), START).await;
    unsubscribed.expect("the store unsubscribes")
}

async fn send(node: &ClusterStore, push: NewPush) -> Appended {
    let mut reports = Reports::new();
    node.append(push, 0, &reports.sink);
    let settled = reports.next().await;
    settled.outcome.expect("the store takes pushes")
}

async fn pushes_of(node: &ClusterStore, address: &TokenAddress) -> usize {
    let limit = PageLimit {
        pushes: 100,
        bytes: usize::MAX,
    };
    let page = node.read(address, 0, limit, START).await;
    page.expect("the store reads").pushes.len()
}

fn sorted(mut ids: Vec<TokenId>) -> Vec<TokenId> {
    ids.sort_unstable();
    ids
}

#[test]
fn what_a_node_has_left_is_taken_over_by_one() {
    block_on(async {
        let mut stage = Stage::enter_to_take(3);
        let (left, finished) = (stage.fan_out(), stage.fan_out());
        let token = stage.token();
        let dying = stage.nodes.remove(0);
        for fan_out in [&left, &finished] {
            dying.accept_fan_out(fan_out).await.expect("it is taken");
        }
        let passed = dying
            .pass_checkpoint(left.message_id, &checkpoint(5), &[])
            .await;
        assert!(passed.expect("it passes"));
        let stored = send(&dying, left.copy_for(token)).await;
        assert!(matches!(stored, Appended::Stored { .. }));
        let ended = dying.finish_fan_out(finished.message_id).await;
        ended.expect("it finishes");
        for node in &stage.nodes {
            let found = node.fan_out(left.message_id).await;
            assert_eq!(found.expect("the store finds"), None, "not theirs yet");
        }
        // It dies: nobody renews its lease any more, and it has said nothing.
        drop(dying);

        let begun = Instant::now();
        let mut takers = Vec::new();
        while takers.is_empty() {
            assert!(begun.elapsed() < PATIENCE, "it is taken over in time");
            tokio::time::sleep(LOOK_EVERY).await;
            for node in &stage.nodes {
                let taken = stage.take(node).await;
                assert!(!taken.contains(&finished.message_id), "it is finished");
                if taken.contains(&left.message_id) {
                    takers.push(node);
                }
            }
        }
        assert!(begun.elapsed() > Duration::from_secs(20), "not too early");
        let [taker] = takers[..] else {
            panic!("it is one node's");
        };
        let found = taker.fan_out(left.message_id).await.expect("it is found");
        assert_eq!(found, Some((left.clone(), checkpoint(5))), "where it was");
        let again = send(taker, left.copy_for(token)).await;
        assert_eq!(again, Appended::Repeated, "stored by the node that is gone");
        for node in &stage.nodes {
            assert!(
                !stage.take(node).await.contains(&left.message_id),
                "told once"
            );
        }
        let passed = taker
            .pass_checkpoint(left.message_id, &checkpoint(6), &[token.id])
            .await;
        assert!(passed.expect("it passes"));
        let ended = taker.finish_fan_out(left.message_id).await;
        ended.expect("it finishes");
        let found = taker.fan_out(left.message_id).await;
        assert_eq!(found.expect("the store finds"), None);
    });
}

#[test]
fn what_a_node_leaves_that_says_so_is_taken_over_at_once() {
    block_on(async {
        let stage = Stage::enter_to_take(3);
        let [leaving, rest @ ..] = &stage.nodes[..] else {
            panic!("three nodes");
        };
        let many: Vec<_> = (0..20).map(|_| stage.fan_out()).collect();
        for fan_out in &many {
            leaving.accept_fan_out(fan_out).await.expect("it is taken");
        }
        for node in rest {
            assert_eq!(stage.take(node).await, [], "it has not left yet");
        }
        leaving.leave().await;
        let begun = Instant::now();
        let mut taken = Vec::new();
        while taken.len() < many.len() {
            assert!(begun.elapsed() < PATIENCE, "all are taken over in time");
            let (one, other) = tokio::join!(stage.take(&rest[0]), stage.take(&rest[1]));
            taken.extend([one, other].concat());
        }
        taken.sort_unstable();
        let mut expected: Vec<_> = many.iter().map(|it| it.message_id).collect();
        expected.sort_unstable();
        assert_eq!(taken, expected, "each by one");
        for node in rest {
            assert_eq!(stage.take(node).await, [], "told once");
        }
    });
}

#[test]
fn who_has_lost_a_push_to_many_hears_of_it_at_the_next_checkpoint() {
    block_on(async {
        let stage = Stage::enter(2, 1);
        let [former, owner] = &stage.nodes[..] else {
            panic!("two nodes");
        };
        let (fan_out, token) = (stage.fan_out(), stage.token());
        let id = fan_out.message_id;
        former.accept_fan_out(&fan_out).await.expect("it is taken");
        let stored = send(former, fan_out.copy_for(token)).await;
        assert!(matches!(stored, Appended::Stored { .. }));
        let (cql, us) = (&owner.backends.cql, owner.backends.node);
        let taken = owner
            .fan_outs
            .rows
            .take(cql, id, former.backends.node, us)
            .await;
        taken.expect("it is taken over");
        let passed = former
            .pass_checkpoint(id, &checkpoint(9), &[token.id])
            .await;
        assert!(!passed.expect("an answer"), "not its own any more");
        let again = send(owner, fan_out.copy_for(token)).await;
        assert_eq!(
            again,
            Appended::Repeated,
            "the marks are not its own either"
        );
        let ended = former.finish_fan_out(id).await;
        ended.expect("an answer");
        assert_eq!(former.fan_out(id).await.expect("an answer"), None);
        let found = owner.fan_out(id).await.expect("it is found");
        assert_eq!(found, Some((fan_out, Checkpoint::default())));
    });
}

#[test]
fn one_that_may_have_been_accepted_is_found() {
    block_on(async {
        let stage = Stage::enter_to_take(1);
        let node = &stage.nodes[0];
        let (there, not_there) = (stage.fan_out(), stage.fan_out());
        let written =
            node.fan_outs
                .rows
                .insert(&node.backends.cql, &there, node.backends.node, deadline());
        written.await.expect("a row");
        for fan_out in [&there, &not_there] {
            node.fan_outs.doubt((fan_out.message_id, stage.project));
        }
        assert_eq!(stage.take(node).await, [there.message_id]);
        assert_eq!(stage.take(node).await, []);
    });
}

#[test]
fn an_acceptance_that_is_given_up_is_found_if_it_was_one() {
    block_on(async {
        let stage = Stage::enter_to_take(1);
        let node = &stage.nodes[0];
        let (mut accepted, mut given_up) = (Vec::new(), Vec::new());
        for patience_ms in (0..10).cycle().take(60) {
            let fan_out = stage.fan_out();
            let accepting = node.accept_fan_out(&fan_out);
            let patience = Duration::from_millis(patience_ms);
            match tokio::time::timeout(patience, accepting).await {
                Ok(outcome) => {
                    outcome.expect("it is taken");
                    accepted.push(fan_out.message_id);
                }
                Err(_) => given_up.push(fan_out.message_id),
            }
        }
        let begun = Instant::now();
        let mut told = Vec::new();
        loop {
            let mut unheard_of = Vec::new();
            for id in &given_up {
                let is_there = node.fan_out(*id).await.expect("an answer").is_some();
                if is_there && !told.contains(id) {
                    unheard_of.push(*id);
                }
            }
            if unheard_of.is_empty() {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "never told of {unheard_of:?}");
            told.extend(stage.take(node).await);
        }
        assert!(told.iter().all(|id| !accepted.contains(id)), "told before");
    });
}

#[test]
fn a_copy_is_stored_once_whichever_nodes_try() {
    block_on(async {
        let stage = Stage::enter(3, 1);
        let fan_out = stage.fan_out();
        let tokens: Vec<_> = (0..20).map(|_| stage.token()).collect();
        let tries = tokens.iter().flat_map(|token| {
            let nodes = stage.nodes.iter();
            nodes.map(|node| send(node, fan_out.copy_for(*token)))
        });
        let outcomes = futures_util::future::join_all(tries).await;
        let stored = outcomes
            .iter()
            .filter(|it| matches!(it, Appended::Stored { .. }));
        assert_eq!(stored.count(), tokens.len());
        for (token, node) in tokens.iter().zip(stage.nodes.iter().cycle()) {
            assert_eq!(pushes_of(node, token).await, 1);
        }
    });
}

#[test]
fn a_mark_says_of_a_settle_that_was_healed_away_that_it_was_taken() {
    block_on(async {
        let stage = Stage::enter(1, 1);
        let backends = &stage.nodes[0].backends;
        let (fan_out, token) = (stage.fan_out(), stage.token());
        // The record is made.
        assert_eq!(pushes_of(&stage.nodes[0], &token).await, 0);
        subscribe(&stage.nodes[0], &token, "news").await;
        let push = fan_out.copy_for(token);
        let id = push.message_id.as_bytes().as_slice();
        let alloc = backends.records.on_token(Function::Alloc, token.id);
        let alloc = alloc.arg("nonce").arg(0).arg(clock_us()).arg(id);
        let syn = backends.records.run(alloc).await.expect("a number");
        let syn = syn.number(0);
        let written = backends
            .pushes
            .insert(&backends.cql, &push, syn, deadline());
        written.await.expect("a row");
        let settle = async |nonce: &str, syn: u64| {
            let settle = backends.records.on_token(Function::Settle, token.id);
            let settle = settle.arg(syn).arg(nonce).arg(push.expires_at).arg("");
            let settle = settle.arg(100).arg(START).arg(id);
            backends
                .records
                .run(settle)
                .await
                .expect("an answer")
                .status
        };
        assert_eq!(settle("nonce", syn).await, Status::Done);
        let key = backends.records.key("", &token_text(token.id));
        redis(&key, &["HSET", &key, "e", "another"]);
        assert_eq!(settle("nonce", syn).await, Status::Suspect);
        assert_eq!(pushes_of(&stage.nodes[0], &token).await, 1, "healed");
        assert_eq!(settle("nonce", syn).await, Status::Done, "it was taken");
        assert_eq!(settle("nonce", syn + 1).await, Status::Gone);
        assert_eq!(send(&stage.nodes[0], push).await, Appended::Repeated);
    });
}

#[test]
fn subscriptions_outlive_everything_in_redis() {
    block_on(async {
        let stage = Stage::enter(2, TURNS_MAX);
        let [one, other] = &stage.nodes[..] else {
            panic!("two nodes");
        };
        let tokens: Vec<_> = (0..30).map(|_| stage.token()).collect();
        for token in &tokens {
            assert_eq!(subscribe(one, token, "news").await, Subscribed::Added);
        }
        let ids = sorted(tokens.iter().map(|token| token.id).collect());
        flush_all();
        assert_eq!(stage.members("news").await, ids);
        assert_eq!(stage.walk(&Walk::Everyone).await, ids);
        let (token, sent_to) = (&tokens[0], &tokens[1]);
        assert_eq!(
            subscribe(other, token, "news").await,
            Subscribed::Already(START)
        );
        assert_eq!(
            unsubscribe(other, token, "news").await,
            Unsubscribed::Removed
        );
        let stored = send(one, stage.fan_out().copy_for(*sent_to)).await;
        assert!(matches!(stored, Appended::Stored { .. }), "it lives");
        flush_all();
        let rest = sorted(tokens[1..].iter().map(|token| token.id).collect());
        assert_eq!(stage.members("news").await, rest);
        assert_eq!(subscribe(one, token, "news").await, Subscribed::Added);
        assert_eq!(stage.members("news").await, ids);
    });
}

#[test]
fn the_later_word_counts_whichever_node_says_it() {
    block_on(async {
        let stage = Stage::enter(2, 1);
        let token = stage.token();
        for (node, next) in stage.nodes.iter().zip(stage.nodes.iter().cycle().skip(1)) {
            for _ in 0..10 {
                assert_eq!(subscribe(node, &token, "news").await, Subscribed::Added);
                assert_eq!(stage.members("news").await, [token.id]);
                let removed = unsubscribe(next, &token, "news").await;
                assert_eq!(removed, Unsubscribed::Removed);
                assert_eq!(stage.members("news").await, []);
            }
        }
    });
}

#[test]
fn subscriptions_go_with_their_token_by_themselves() {
    block_on(async {
        let stage = Stage::enter(1, 1);
        let node = &stage.nodes[0];
        let (dead, kept) = (stage.token(), stage.token());
        for token in [&dead, &kept] {
            for name in ["news", "sport"] {
                subscribe(node, token, name).await;
            }
        }
        let deleted = node.delete_token(&dead, START).await;
        deleted.expect("the store deletes");
        node.flush().await.expect("the store flushes");
        assert_eq!(stage.members("news").await, [kept.id]);
        assert_eq!(stage.members("sport").await, [kept.id]);
        // Written by a node that had not heard of the end.
        let (backends, name) = (&node.backends, topic("late"));
        let late = backends
            .topics
            .add(&backends.cql, &dead, &name, START, clock_us(), deadline());
        late.await.expect("a row");
        assert_eq!(stage.members("late").await, [dead.id]);
        let forgotten = node.forget_subscriptions(&dead).await;
        forgotten.expect("the store forgets");
        assert_eq!(stage.members("late").await, []);
        node.delete_tokens_of(stage.project, START)
            .await
            .expect("the store ends the project");
        assert_eq!(
            subscribe(node, &kept, "more").await,
            Subscribed::Unregistered
        );
        let begun = Instant::now();
        while !stage.members("news").await.is_empty() {
            assert!(begun.elapsed() < PATIENCE, "they go in time");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
}

#[test]
fn a_row_without_an_address_is_nobody() {
    block_on(async {
        let stage = Stage::enter(1, 1);
        let node = &stage.nodes[0];
        let (living, dead) = (stage.token(), stage.token());
        for token in [&living, &dead] {
            subscribe(node, token, "news").await;
        }
        let deleted = node.delete_token(&dead, START).await;
        deleted.expect("the store deletes");
        let old = "UPDATE push_token SET project = ?, contact_at = ? WHERE token_id = ?";
        let id: [u8; 16] = rand::random();
        let values = (stage.project.0.as_slice(), 1_i64, id.as_slice());
        let written = node.backends.cql.session.query_unpaged(old, values).await;
        written.expect("a row");
        assert_eq!(stage.walk(&Walk::Everyone).await, [living.id]);
        let nowhere = Place(vec![1, 2, 3]);
        for walk in [Walk::Everyone, Walk::Members(topic("news"))] {
            let lost = node.walk(stage.project, &walk, &nowhere, 7).await;
            assert!(matches!(lost, Err(StoreError::Corrupt(_))), "{walk:?}");
        }
    });
}

#[test]
fn a_node_that_has_begun_more_is_not_forgotten() {
    block_on(async {
        let stage = Stage::enter(1, 1);
        let node = &stage.nodes[0];
        let (rows, cql) = (&node.fan_outs.rows, &node.backends.cql);
        let (stranger, named) = (NodeId::generate(), stage.fan_out());
        let named = (named.message_id, stage.project);
        let before = clock_us();
        let pointed = rows.point(cql, stranger, named, deadline()).await;
        pointed.expect("a pointer");
        let is_known = async || {
            let nodes = rows.nodes(cql).await.expect("nodes");
            nodes.contains(&(stranger, false))
        };
        let removed = rows.remove_node(cql, stranger, before).await;
        removed.expect("an answer");
        assert!(is_known().await, "it has begun another since");
        let pointers = rows.pointers(cql, stranger).await.expect("pointers");
        assert_eq!(pointers, [named]);
        let removed = rows.remove_node(cql, stranger, clock_us()).await;
        removed.expect("an answer");
        assert!(!is_known().await);
    });
}

fn token_text(token: TokenId) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token.0)
}

/// A command to the primary of a key.
fn redis(key: &str, words: &[&str]) {
    on_a_runtime(|| async {
        let cluster = &servers().redis;
        let primary = cluster.primary_of(key).await.expect("a primary");
        let done = cluster.command(primary.node, words).await;
        done.expect("redis does it");
    });
}

fn flush_all() {
    on_a_runtime(|| async {
        let cluster = &servers().redis;
        for primary in cluster.primaries().await.expect("primaries") {
            let flushed = cluster.command(primary.node, &["FLUSHALL"]).await;
            flushed.expect("redis forgets");
        }
    });
}
