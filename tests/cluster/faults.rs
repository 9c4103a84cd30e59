//! What goes wrong in a region, dealt at random.

use std::time::Duration;

use herald_region::{HeraldNode, PRIMARIES, Region};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use tokio::sync::watch;

use crate::crowd::Phase;
use crate::stage::{Stage, eventually};

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing, for once.
    Nothing,
    /// SIGKILL of a node.
    KillNode,
    /// SIGKILL of all nodes at once.
    KillAllNodes,
    /// SIGTERM of a node: a drain in the middle of everything.
    DrainNode,
    /// SIGSTOP of a node, for less than a number stays pending.
    PauseNode,
    /// The same, for longer than a number stays pending, and than a lease holds.
    FreezeNode,
    /// SIGSTOP and SIGCONT of a node, many times.
    StutterNode,
    /// A primary of Redis is killed whose replicas lack its last writes.
    LoseWrites,
    /// A primary of Redis is killed.
    KillPrimary,
    /// SIGSTOP of a primary of Redis: when it wakes, another one may have its place.
    PausePrimary,
    /// A primary of Redis forgets everything.
    FlushPrimary,
    /// No node reaches Redis.
    CutRedis,
    /// No node reaches one primary of Redis, which its own kind goes on seeing.
    CutPrimary,
    /// Bytes to and from Redis take their time.
    SlowRedis,
    /// One node does not reach Redis: for less than its lease holds, or for longer.
    CutNodeFromRedis,
    /// One node does not reach one primary of Redis, which everybody else goes on seeing.
    CutNodeFromPrimary,
    /// SIGKILL of a CQL node.
    KillCqlNode,
    /// SIGSTOP of a CQL node: two of three are enough.
    PauseCqlNode,
    /// SIGSTOP of two CQL nodes: writes time out, and are applied later.
    PauseCqlQuorum,
    /// No node reaches any CQL node.
    CutCql,
    /// No node reaches one CQL node, which its own kind goes on seeing.
    CutCqlNode,
    /// One node reaches no CQL node.
    CutNodeFromCql,
    /// One node reaches one CQL node only, which asks the others for it.
    CutNodeFromMostCqlNodes,
    /// One node's clock is an hour ahead.
    ClockAhead,
    /// One node's clock is an hour behind.
    ClockBehind,
    /// One node's clock goes to and fro by what is not noticed, and by what is.
    ClockAstray,
}

const HOUR_MS: i64 = 60 * 60 * 1_000;

/// All of them, and how often each is in a deck.
pub const DECK: [(Fault, usize); 26] = [
    (Fault::Nothing, 1),
    (Fault::KillNode, 2),
    (Fault::KillAllNodes, 1),
    (Fault::DrainNode, 1),
    (Fault::PauseNode, 1),
    (Fault::FreezeNode, 1),
    (Fault::StutterNode, 1),
    (Fault::LoseWrites, 2),
    (Fault::KillPrimary, 1),
    (Fault::PausePrimary, 1),
    (Fault::FlushPrimary, 1),
    (Fault::CutRedis, 1),
    (Fault::CutPrimary, 1),
    (Fault::SlowRedis, 1),
    (Fault::KillCqlNode, 1),
    (Fault::PauseCqlNode, 1),
    (Fault::PauseCqlQuorum, 1),
    (Fault::CutNodeFromRedis, 2),
    (Fault::CutNodeFromPrimary, 1),
    (Fault::CutCql, 1),
    (Fault::CutCqlNode, 1),
    (Fault::CutNodeFromCql, 2),
    (Fault::CutNodeFromMostCqlNodes, 1),
    (Fault::ClockAhead, 1),
    (Fault::ClockBehind, 1),
    (Fault::ClockAstray, 1),
];

impl Fault {
    /// Whether a node's clock is wrong for a while.
    pub fn moves_clock(self) -> bool {
        matches!(
            self,
            Self::ClockAhead | Self::ClockBehind | Self::ClockAstray
        )
    }
}

/// It happens, and is mended as far as somebody must do that by hand.
pub async fn happen(
    fault: Fault,
    stage: &Stage,
    random: &mut SmallRng,
    phase: &watch::Sender<Phase>,
) {
    let region = stage.region();
    let node = &region.nodes[random.random_range(0..region.nodes.len())];
    match fault {
        Fault::Nothing => {}
        Fault::KillNode => {
            node.kill().expect("killed");
            moment(random, 0..1_500).await;
            node.restart().await.expect("back");
        }
        Fault::KillAllNodes => {
            for node in &region.nodes {
                node.kill().expect("killed");
            }
            for node in &region.nodes {
                node.restart().await.expect("back");
            }
        }
        Fault::DrainNode => {
            let status = node.terminate().await.expect("ended");
            assert_eq!(status.code(), Some(0), "{}", node.log_tail());
            node.restart().await.expect("back");
        }
        Fault::PauseNode => pause(node, random, 300..3_000).await,
        Fault::FreezeNode => pause(node, random, 5_000..9_000).await,
        Fault::StutterNode => {
            for _ in 0..12 {
                pause(node, random, 10..60).await;
                moment(random, 10..60).await;
            }
        }
        Fault::KillCqlNode | Fault::PauseCqlNode | Fault::PauseCqlQuorum => {
            happen_to_cql(fault, region, random).await;
        }
        Fault::CutCql
        | Fault::CutCqlNode
        | Fault::CutNodeFromCql
        | Fault::CutNodeFromMostCqlNodes => cut_from_cql(fault, region, node, random).await,
        Fault::CutNodeFromRedis | Fault::CutNodeFromPrimary => {
            cut_from_redis(fault, region, node, random).await;
        }
        Fault::ClockAhead => move_clock(node, &[HOUR_MS], random).await,
        Fault::ClockBehind => move_clock(node, &[-HOUR_MS], random).await,
        Fault::ClockAstray => move_clock(node, &[700, -700, 3_000, -3_000], random).await,
        Fault::LoseWrites | Fault::KillPrimary => {
            fail_over(region, random, fault == Fault::LoseWrites, phase).await;
        }
        _ => happen_to_redis(fault, region, random).await,
    }
    // What comes right afterwards is a part of it.
    moment(random, 300..1_500).await;
}

async fn pause(node: &HeraldNode, random: &mut SmallRng, millis: std::ops::Range<u64>) {
    node.pause().expect("frozen");
    moment(random, millis).await;
    node.resume().expect("thawed");
}

async fn happen_to_cql(fault: Fault, region: &Region, random: &mut SmallRng) {
    let cql = &region.cql;
    let first = random.random_range(0..cql.node_count());
    if fault == Fault::KillCqlNode {
        cql.kill(first).expect("killed");
        moment(random, 0..2_000).await;
        return cql.restart(first).await.expect("back");
    }
    let count = if fault == Fault::PauseCqlQuorum { 2 } else { 1 };
    let frozen = (first..first + count).map(|node| node % cql.node_count());
    for node in frozen.clone() {
        cql.pause(node).expect("frozen");
    }
    moment(random, 500..4_000).await;
    for node in frozen {
        cql.resume(node).expect("thawed");
    }
}

/// Shorter than a number stays pending, than a lease lasts, or longer than both.
async fn as_long_as_a_cut(random: &mut SmallRng) {
    moment(random, 500..9_000).await;
}

async fn cut_from_cql(fault: Fault, region: &Region, one: &HeraldNode, random: &mut SmallRng) {
    let cql = &region.cql;
    let special = random.random_range(0..cql.node_count());
    for node in &region.nodes {
        let is_concerned = match fault {
            Fault::CutCql | Fault::CutCqlNode => true,
            _ => node.listen() == one.listen(),
        };
        let is_cut = |to: &usize| match fault {
            Fault::CutCqlNode => *to == special,
            Fault::CutNodeFromMostCqlNodes => *to != special,
            _ => true,
        };
        for to in (0..cql.node_count()).filter(|to| is_concerned && is_cut(to)) {
            cql.cut_way(node, to).expect("cut");
        }
    }
    as_long_as_a_cut(random).await;
    cql.heal_ways();
}

async fn cut_from_redis(fault: Fault, region: &Region, one: &HeraldNode, random: &mut SmallRng) {
    let redis = &region.redis;
    if fault == Fault::CutNodeFromPrimary {
        let primary = any_primary(region, random).await;
        redis.cut_way(one, primary).expect("cut");
    } else {
        redis.cut_ways(one);
    }
    as_long_as_a_cut(random).await;
    redis.heal_ways();
}

async fn move_clock(node: &HeraldNode, steps: &[i64], random: &mut SmallRng) {
    for by_ms in steps {
        node.move_clock(*by_ms).expect("moved");
        moment(random, 500..3_000).await;
    }
    node.move_clock(0).expect("right again");
}

async fn any_primary(region: &Region, random: &mut SmallRng) -> usize {
    let primaries = region.redis.primaries().await.expect("primaries");
    primaries[random.random_range(0..primaries.len())].node
}

/// A primary dies, perhaps with writes that none of its replicas has, and comes back as a replica.
async fn fail_over(
    region: &Region,
    random: &mut SmallRng,
    loses_writes: bool,
    phase: &watch::Sender<Phase>,
) {
    let redis = &region.redis;
    let primary = any_primary(region, random).await;
    if loses_writes {
        redis.isolate_replication(primary).expect("cut");
        phase.send_replace(Phase::Look);
        // Less than it takes a primary to notice.
        moment(random, 300..2_000).await;
    }
    redis.kill(primary).expect("killed");
    phase.send_replace(Phase::Work);
    eventually("another primary", async || {
        let now = redis.primaries().await.ok()?;
        let is_there = now.iter().any(|it| it.node == primary);
        (now.len() == PRIMARIES && !is_there).then_some(())
    })
    .await;
    redis.heal_links();
    redis.restart(primary).await.expect("back");
}

async fn happen_to_redis(fault: Fault, region: &Region, random: &mut SmallRng) {
    let redis = &region.redis;
    let primary = any_primary(region, random).await;
    match fault {
        Fault::PausePrimary => {
            redis.pause(primary).expect("frozen");
            moment(random, 500..10_000).await;
            redis.resume(primary).expect("thawed");
        }
        Fault::FlushPrimary => {
            let flushed = redis.command(primary, &["FLUSHALL"]).await;
            flushed.expect("flushed");
        }
        Fault::CutPrimary => {
            redis.cut_clients_of(primary).expect("cut");
            moment(random, 500..5_000).await;
            redis.cut_clients(false);
        }
        Fault::CutRedis => {
            redis.cut_clients(true);
            moment(random, 500..5_000).await;
            redis.cut_clients(false);
        }
        _ => {
            redis.slow_clients(Duration::from_millis(random.random_range(20..400)));
            moment(random, 1_000..4_000).await;
            redis.slow_clients(Duration::ZERO);
        }
    }
}

async fn moment(random: &mut SmallRng, millis: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(random.random_range(millis))).await;
}
