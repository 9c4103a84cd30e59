//! Redis that loses what it has acknowledged, forgets everything, or is out of reach.

use std::time::{Duration, Instant};

use futures_util::future::join;

use crate::cql::Cql;
use crate::harness::{Socket, syn_of, syns_of};
use crate::load::Load;
use crate::stage::{PATIENCE, Stage, eventually};
use crate::witness::Reader::{self, Poll, Reread, Socket as OnSocket};
use crate::witness::Witness;

/// What a backend that is away may cost a sender: two seconds, and what a busy machine adds.
const ANSWER_MAX: Duration = Duration::from_millis(3_500);

/// A writer that died between its number and its settle holds up others so long, and what a busy
/// machine adds.
const HOLD_UP_MAX: Duration = Duration::from_secs(8);

/// Tokens of which one of each reader has its record on this node, with their keys; the last
/// one's record is elsewhere.
async fn load_on(stage: &Stage, node: usize) -> (Load, Vec<String>) {
    let (mut witnesses, mut keys, mut elsewhere) = (Vec::new(), Vec::new(), None);
    let mut wanted = vec![OnSocket, Poll, Reread];
    while !wanted.is_empty() || elsewhere.is_none() {
        let (device, token, key) = stage.device_with_record().await;
        let primary = stage.region().redis.primary_of(&key).await;
        if primary.expect("a primary").node != node {
            elsewhere.get_or_insert_with(|| Witness::new(device, token, OnSocket));
        } else if let Some(reader) = wanted.pop() {
            keys.push(key);
            witnesses.push(Witness::new(device, token, reader));
        }
    }
    witnesses.extend(elsewhere);
    (Load::of(witnesses), keys)
}

/// A token to which nobody else sends, whose pushes are acknowledged at once: no row is left to
/// tell which numbers were given.
struct Quiet {
    token: String,
    key: String,
    socket: Socket,
    last: u64,
    rows: Cql,
}

impl Quiet {
    /// Its record is on this node.
    async fn on(stage: &Stage, node: usize) -> Self {
        loop {
            let (device, token, key) = stage.device_with_record().await;
            let primary = stage.region().redis.primary_of(&key).await;
            if primary.expect("a primary").node == node {
                let (socket, _) = stage.holding().hello(&device, &[(&token, 1)]).await;
                let (last, rows) = (0, Cql::connect(stage).await);
                return Self {
                    token,
                    key,
                    socket,
                    last,
                    rows,
                };
            }
        }
    }

    async fn pushes_are_seen(&mut self, stage: &Stage, count: usize) {
        for _ in 0..count {
            stage.sending().push(&self.token, "quiet").await;
            let syn = syn_of(&self.socket.push().await);
            assert!(syn > self.last, "{syn} after {}", self.last);
            self.last = syn;
            self.socket.ack(&self.token, syn).await;
        }
    }

    async fn leaves_no_rows(&self) {
        eventually("acknowledged rows are deleted", async || {
            self.rows.rows(&self.key).await.is_empty().then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn increments_that_a_failover_loses_cost_no_push_and_no_number() {
    let stage = Stage::enter().await;
    let redis = &stage.region().redis;
    // The shard that also has the list of nodes: as bad as it gets.
    let old = redis.primary_of("herald:{nodes}").await.expect("a primary");
    let (load, mut keys) = load_on(&stage, old.node).await;
    let mut quiet = Quiet::on(&stage, old.node).await;
    keys.push(quiet.key.clone());
    load.during(&stage, async {
        quiet.pushes_are_seen(&stage, 5).await;
        load.accepts_everywhere(10).await;
        eventually("replicas know the numbers", async || {
            let replica = *old.replicas.first()?;
            (stage.record_field(replica, &quiet.key, "s").await == 5).then_some(())
        })
        .await;
        redis.isolate_replication(old.node).expect("cut");
        quiet.pushes_are_seen(&stage, 10).await;
        quiet.leaves_no_rows().await;
        load.accepts_everywhere(5).await;
        let mut lost = Vec::new();
        for key in &keys {
            let mut known = 0;
            for replica in &old.replicas {
                known = known.max(stage.record_field(*replica, key, "s").await);
            }
            lost.push((key, known, stage.record_field(old.node, key, "s").await));
        }
        redis.kill(old.node).expect("killed");
        eprintln!("numbers that replicas know, and that were given: {lost:?}");
        for (key, known, given) in &lost {
            assert!(known + 3 <= *given, "nothing of {key} would be lost");
        }
        let new = eventually("another primary", async || {
            let primary = redis.primary_of(&keys[0]).await.ok()?;
            (primary.node != old.node).then_some(primary.node)
        })
        .await;
        // Until somebody asks for it, a record that lost something is as the replica had it.
        load.accepts_everywhere(10).await;
        quiet.pushes_are_seen(&stage, 3).await;
        for (key, _, given) in lost {
            let healed = stage.record_field(new, key, "s").await;
            assert!(healed > given, "{key}: {healed} after {given}");
        }
        redis.heal_links();
        redis.restart(old.node).await.expect("back");
        redis.until_well(PATIENCE).await.expect("well again");
        load.accepts_everywhere(10).await;
    })
    .await;
    load.assert_sockets_stayed();
    // Numbers that were lost had been answered and seen: the check meant something.
    assert!(load.witnesses.iter().all(|it| it.accepted() > 30));
}

#[tokio::test]
async fn a_shard_that_is_away_stops_nobody_elses_sends() {
    let stage = Stage::enter().await;
    let redis = &stage.region().redis;
    // Whoever asks the nodes in their order asks this one first.
    let first = redis.primaries().await.expect("primaries");
    let first = first
        .iter()
        .min_by_key(|primary| primary.node)
        .expect("one")
        .node;
    let (load, _) = load_on(&stage, first).await;
    let elsewhere = load.witnesses.last().expect("one of another shard");
    load.during(&stage, async {
        load.accepts_everywhere(5).await;
        redis.pause(first).expect("frozen");
        // Nobody has its slots for as long as the others need to agree that it is dead, and by now
        // every node has noticed.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (began, wanted) = (Instant::now(), elsewhere.accepted() + 20);
        eventually("sends to another shard", async || {
            (elsewhere.accepted() >= wanted).then_some(())
        })
        .await;
        eprintln!("20 sends to another shard took {:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(3));
        redis.kill(first).expect("killed");
        load.accepts_everywhere(10).await;
        redis.restart(first).await.expect("back");
        redis.until_well(PATIENCE).await.expect("well again");
        load.accepts_everywhere(5).await;
    })
    .await;
    load.assert_sockets_stayed();
}

#[tokio::test]
async fn a_primary_that_forgets_everything_costs_no_push() {
    let stage = Stage::enter().await;
    let redis = &stage.region().redis;
    let victim = redis.primary_of("herald:{nodes}").await.expect("a primary");
    let (load, keys) = load_on(&stage, victim.node).await;
    load.during(&stage, async {
        for _ in 0..2 {
            load.accepts_everywhere(10).await;
            let flushed = redis.command(victim.node, &["FLUSHALL"]).await;
            flushed.expect("flushed");
        }
        load.accepts_everywhere(10).await;
        for key in &keys {
            // Numbers go on above all that can have been given.
            assert!(stage.record_field(victim.node, key, "s").await > 1 << 40);
        }
    })
    .await;
    load.assert_sockets_stayed();
}

/// One push after everything was forgotten reaches a live socket, without another one after it.
#[tokio::test]
async fn a_socket_whose_record_was_forgotten_gets_the_next_push() {
    let stage = Stage::enter().await;
    let redis = &stage.region().redis;
    let (device, token) = stage.device().await;
    let (mut socket, _) = stage.holding().hello(&device, &[(&token, 1)]).await;
    for primary in redis.primaries().await.expect("primaries") {
        let flushed = redis.command(primary.node, &["FLUSHALL"]).await;
        flushed.expect("flushed");
    }
    stage.sending().push(&token, "once").await;
    let push = socket.push().await;
    stage.sending().push(&token, "twice").await;
    assert!(syn_of(&socket.push().await) > syn_of(&push));
}

/// Between its row and its settle a push loses its number: it is sent under another one, and the
/// first is never shown to anybody.
#[tokio::test]
async fn a_number_that_is_lost_before_its_settle_is_given_up() {
    let stage = Stage::enter().await;
    let (cql, redis) = (&stage.region().cql, &stage.region().redis);
    let rows = Cql::connect(&stage).await;
    let (device, token, key) = stage.device_with_record().await;
    let (mut socket, _) = stage.holding().hello(&device, &[(&token, 1)]).await;
    let primary = redis.primary_of(&key).await.expect("a primary").node;
    let writers = format!("{key}:w");
    for node in [1, 2] {
        cql.pause(node).expect("frozen");
    }
    let sent = stage.sending().push(&token, "renumbered");
    let lost = async {
        eventually("the number is given", async || {
            let deleted = redis.command(primary, &["DEL", &writers]).await;
            (deleted.ok()? == ::redis::Value::Int(1)).then_some(())
        })
        .await;
        for node in [1, 2] {
            cql.resume(node).expect("thawed");
        }
    };
    let (id, ()) = join(sent, lost).await;
    let push = socket.push().await;
    assert_eq!(
        (syn_of(&push), push["message_id"].as_str()),
        (2, Some(id.as_str()))
    );
    stage.sending().push(&token, "next").await;
    assert_eq!(syn_of(&socket.push().await), 3);
    let entry = stage.holding().poll_token(&device, &token, 1).await;
    assert_eq!(syns_of(&entry), [2, 3]);
    eventually("the row of the first number is deleted", async || {
        let syns: Vec<u64> = rows.rows(&key).await.iter().map(|row| row.0).collect();
        (syns == [2, 3]).then_some(())
    })
    .await;
}

/// Sends one push while a dead writer's number is pending; the time until the socket has it.
async fn held_up(stage: &Stage, token: &str, socket: &mut Socket) -> Duration {
    let began = Instant::now();
    stage.sending().push(token, "held up").await;
    socket.push().await;
    began.elapsed()
}

#[tokio::test]
async fn a_dead_writer_holds_up_a_live_socket_for_seconds_only() {
    let stage = Stage::enter().await;
    let (device, token, key) = stage.device_with_record().await;
    let (mut socket, _) = stage.holding().hello(&device, &[(&token, 1)]).await;
    stage.dead_writer(&key, "0000000000000001").await;
    let took = held_up(&stage, &token, &mut socket).await;
    eprintln!("held up for {took:?}");
    assert!(took < HOLD_UP_MAX, "{took:?}");
    // A second one dies while the session's node still waits for the first's time to be over.
    stage.dead_writer(&key, "0000000000000002").await;
    stage.sending().push(&token, "behind the second").await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        // The time between two deaths is what matters here.
        assert!(socket.sync().await.is_empty());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stage.dead_writer(&key, "0000000000000003").await;
    stage.sending().push(&token, "behind the third").await;
    let first = syn_of(&socket.push().await);
    let second = syn_of(&socket.push().await);
    assert_eq!(second, first + 2);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(3) + HOLD_UP_MAX, "{took:?}");
}

#[tokio::test]
async fn a_socket_that_comes_while_a_dead_writer_is_pending_waits_no_longer() {
    let stage = Stage::enter().await;
    let (device, token, key) = stage.device_with_record().await;
    stage.dead_writer(&key, "0000000000000001").await;
    stage.sending().push(&token, "held up").await;
    let began = Instant::now();
    let (mut socket, _) = stage.holding().hello(&device, &[(&token, 1)]).await;
    assert_eq!(syn_of(&socket.push().await), 2);
    assert!(began.elapsed() < HOLD_UP_MAX, "{:?}", began.elapsed());
}

#[tokio::test]
async fn redis_out_of_reach_is_said_at_once_and_heals_by_itself() {
    let stage = Stage::enter().await;
    let readers: [Reader; 4] = [OnSocket, OnSocket, Poll, Reread];
    let load = Load::on(&stage, &readers).await;
    load.during(&stage, async {
        load.accepts_everywhere(10).await;
        load.take_slowest();
        stage.region().redis.cut_clients(true);
        let up = "herald_backend_up{backend=\"redis\"}";
        let gone = Instant::now();
        let (sending, holding) = (stage.sending(), stage.holding());
        join(
            sending.metric_becomes(up, 0.0),
            holding.metric_becomes(up, 0.0),
        )
        .await;
        eprintln!("noticed after {:?}", gone.elapsed());
        assert!(!sending.is_ready().await);
        let answered = load.answers();
        // Time that passes is the fault here.
        tokio::time::sleep(Duration::from_secs(5).saturating_sub(gone.elapsed())).await;
        let slowest = load.take_slowest();
        assert!(slowest < ANSWER_MAX, "{slowest:?}");
        assert!(
            load.answers() > answered + 20,
            "senders are answered meanwhile"
        );
        stage.region().redis.cut_clients(false);
        join(
            sending.metric_becomes(up, 1.0),
            holding.metric_becomes(up, 1.0),
        )
        .await;
        load.accepts_everywhere(10).await;
    })
    .await;
    assert!(load.witnesses.iter().any(|it| it.refused() > 0));
    load.assert_sockets_stayed();
}
