//! One node alone does not reach a backend that its neighbour reaches; or nobody reaches one CQL node
//! that its own kind goes on seeing.

use std::time::{Duration, Instant};

use herald_region::HeraldNode;
use serde_json::json;

use crate::harness::{Door, Socket, syn_of, text_of};
use crate::load::Load;
use crate::stage::Stage;
use crate::witness::Reader::{Poll, Reread, Socket as OnSocket};

/// What a backend that is away may cost a sender: two seconds, and what a busy machine adds.
const ANSWER_MAX: Duration = Duration::from_millis(3_500);

/// A lease lasts six seconds: after that the others take the node for gone.
const LONGER_THAN_A_LEASE: Duration = Duration::from_secs(8);

/// A write that has met a silent CQL node takes longer.
const ONE_TRY: Duration = Duration::from_millis(700);

/// What is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backend {
    Redis,
    Cql,
}

impl Backend {
    fn metric(self) -> &'static str {
        match self {
            Self::Redis => "herald_backend_up{backend=\"redis\"}",
            Self::Cql => "herald_backend_up{backend=\"scylla\"}",
        }
    }

    fn cut_from(self, stage: &Stage, node: &HeraldNode) {
        let region = stage.region();
        match self {
            Self::Redis => region.redis.cut_ways(node),
            Self::Cql => {
                for to in 0..region.cql.node_count() {
                    region.cql.cut_way(node, to).expect("cut");
                }
            }
        }
    }

    fn heal(self, stage: &Stage) {
        match self {
            Self::Redis => stage.region().redis.heal_ways(),
            Self::Cql => stage.region().cql.heal_ways(),
        }
    }
}

/// A sender at the node that is cut: refused in time, and told when to come back.
async fn is_refused(door: &Door, token: &str) {
    let body = json!({"message": {"token": token, "data": {"text": "refused"}}});
    let request = door
        .http()
        .post(door.url("/v1/projects/demo/messages:send"))
        .bearer_auth(door.service_token())
        .json(&body);
    let began = Instant::now();
    let answer = request.send().await.expect("an answer");
    let took = began.elapsed();
    assert!(took < ANSWER_MAX, "{took:?}");
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("Retry-After"), "{answer:?}");
}

/// A device and its senders at the neighbour.
struct Neighbours<'a> {
    door: &'a Door,
    token: String,
    socket: Socket,
    last: u64,
}

impl<'a> Neighbours<'a> {
    async fn of(stage: &'a Stage, node: usize) -> Self {
        let door = &stage.doors[1 - node];
        let (device, token) = stage.device().await;
        let (socket, _) = door.hello(&device, &[(&token, 1)]).await;
        Self {
            door,
            token,
            socket,
            last: 0,
        }
    }

    async fn go_on(&mut self, count: usize) {
        for _ in 0..count {
            self.door.push(&self.token, "beside").await;
            let push = self.socket.push().await;
            assert_eq!(text_of(&push), "beside", "what was refused is shown");
            let syn = syn_of(&push);
            assert!(syn > self.last, "{syn} after {}", self.last);
            self.last = syn;
            self.socket.ack(&self.token, syn).await;
        }
    }
}

/// One node is cut off for a while; at the end everything that was answered 200 anywhere has been seen
/// by its device.
async fn a_node_alone_loses(backend: Backend, node: usize) {
    let stage = Stage::enter().await;
    // Senders prefer the first node, devices the last one.
    let load = Load::on(&stage, &[OnSocket, OnSocket, Poll, Reread]).await;
    let mut neighbours = Neighbours::of(&stage, node).await;
    let (cut, other) = (&stage.doors[node], &stage.doors[1 - node]);
    load.during(&stage, async {
        load.accepts_everywhere(10).await;
        let gone = Instant::now();
        backend.cut_from(&stage, &stage.region().nodes[node]);
        cut.metric_becomes(backend.metric(), 0.0).await;
        assert!(!cut.is_ready().await);
        load.take_slowest();
        while gone.elapsed() < LONGER_THAN_A_LEASE {
            is_refused(cut, &neighbours.token).await;
            neighbours.go_on(5).await;
            if node == 1 {
                // Their senders are at the neighbour.
                load.accepts_everywhere(5).await;
            }
        }
        let slowest = load.take_slowest();
        assert!(slowest < ANSWER_MAX, "{slowest:?}");
        assert!(other.is_ready().await);
        backend.heal(&stage);
        cut.metric_becomes(backend.metric(), 1.0).await;
        load.accepts_everywhere(10).await;
        neighbours.go_on(5).await;
    })
    .await;
    load.assert_sockets_stayed();
}

#[tokio::test]
async fn devices_on_a_node_that_alone_loses_redis_get_everything_afterwards() {
    a_node_alone_loses(Backend::Redis, 1).await;
}

#[tokio::test]
async fn senders_at_a_node_that_alone_loses_redis_are_refused_and_its_neighbours_are_not() {
    a_node_alone_loses(Backend::Redis, 0).await;
}

#[tokio::test]
async fn devices_on_a_node_that_alone_loses_scylla_get_everything_afterwards() {
    a_node_alone_loses(Backend::Cql, 1).await;
}

#[tokio::test]
async fn senders_at_a_node_that_alone_loses_scylla_are_refused_and_its_neighbours_are_not() {
    a_node_alone_loses(Backend::Cql, 0).await;
}

/// By then a silent connection is given up, also on a machine that is busy. Without that it takes a
/// minute.
const FOUND_OUT_WITHIN: Duration = Duration::from_secs(25);

/// Writes that are given to a silent CQL node are late or lost, until the driver has found out. From
/// then on none is.
async fn is_found_out(load: &Load) {
    let failed = || -> usize {
        let refused = load.witnesses.iter().map(|it| it.refused());
        refused.sum::<usize>() + load.timed_out()
    };
    let began = Instant::now();
    loop {
        let before = failed();
        load.take_slowest();
        load.accepts_everywhere(20).await;
        if failed() == before && load.take_slowest() < ONE_TRY {
            return eprintln!("{before} failed, all well after {:?}", began.elapsed());
        }
        assert!(began.elapsed() < FOUND_OUT_WITHIN, "writes still fail");
    }
}

#[tokio::test]
async fn a_cql_node_that_no_node_reaches_is_not_missed_for_long() {
    let stage = Stage::enter().await;
    let cql = &stage.region().cql;
    let load = Load::on(&stage, &[OnSocket, Poll, Reread]).await;
    load.during(&stage, async {
        load.accepts_everywhere(10).await;
        for node in &stage.region().nodes {
            cql.cut_way(node, 1).expect("cut");
        }
        is_found_out(&load).await;
        cql.heal_ways();
        load.accepts_everywhere(10).await;
    })
    .await;
    load.assert_sockets_stayed();
}

/// The node has one way left, and goes it for everything: that CQL node asks the others.
#[tokio::test]
async fn a_node_that_reaches_one_cql_node_only_goes_on() {
    let stage = Stage::enter().await;
    let cql = &stage.region().cql;
    let load = Load::on(&stage, &[OnSocket, Poll, Reread]).await;
    load.during(&stage, async {
        load.accepts_everywhere(10).await;
        for to in [0, 1] {
            cql.cut_way(&stage.region().nodes[0], to).expect("cut");
        }
        is_found_out(&load).await;
        cql.heal_ways();
        load.accepts_everywhere(10).await;
    })
    .await;
    load.assert_sockets_stayed();
}
