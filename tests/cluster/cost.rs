//! What a push and a poll cost the backends, by the servers' own counters.

use std::time::Instant;

use crate::cql::Cql;
use crate::stage::{Stage, eventually};

const PUSHES: u64 = 100;

/// Calls of functions that all primaries have answered so far.
async fn function_calls(stage: &Stage) -> u64 {
    let redis = &stage.region().redis;
    let mut sum = 0;
    for primary in redis.primaries().await.expect("primaries") {
        let stats = redis
            .info(primary.node, "commandstats")
            .await
            .expect("info");
        let calls = stats.lines().find_map(|line| {
            let calls = line.strip_prefix("cmdstat_fcall:calls=")?;
            calls.split(',').next()?.parse::<u64>().ok()
        });
        sum += calls.unwrap_or(0);
    }
    sum
}

/// Counts what is called while something runs, leases of the nodes apart.
async fn counted(stage: &Stage, cql: &Cql, work: impl Future<Output = ()>) -> (u64, u64, u64) {
    let (calls, (writes, reads)) = (function_calls(stage).await, cql.writes_and_reads().await);
    let began = Instant::now();
    work.await;
    let leases = 2 * (began.elapsed().as_secs() / 2 + 2);
    let (calls_now, (writes_now, reads_now)) =
        (function_calls(stage).await, cql.writes_and_reads().await);
    let calls = (calls_now - calls).saturating_sub(leases);
    (calls, writes_now - writes, reads_now - reads)
}

#[tokio::test]
async fn a_push_is_two_calls_and_a_write_and_an_idle_poll_one_call() {
    let stage = Stage::enter().await;
    let cql = Cql::connect(&stage).await;
    let (device, token, key) = stage.device_with_record().await;
    let (calls, writes, reads) = counted(&stage, &cql, async {
        for _ in 0..PUSHES {
            stage.sending().push(&token, "counted").await;
        }
    })
    .await;
    eprintln!("{PUSHES} pushes: {calls} calls, {writes} writes, {reads} reads");
    assert!(calls <= 2 * PUSHES && calls + 10 > 2 * PUSHES, "{calls}");
    assert_eq!((writes, reads), (PUSHES, 0));

    let last = PUSHES;
    stage.holding().poll_token(&device, &token, last + 1).await;
    // What is acknowledged is deleted a little later.
    eventually("the acknowledged rows are deleted", async || {
        cql.rows(&key).await.is_empty().then_some(())
    })
    .await;
    let (calls, writes, reads) = counted(&stage, &cql, async {
        for _ in 0..PUSHES {
            stage.holding().poll_token(&device, &token, last + 1).await;
        }
    })
    .await;
    eprintln!("{PUSHES} polls with nothing new: {calls} calls, {writes} writes, {reads} reads");
    assert!(calls <= PUSHES, "{calls}");
    assert_eq!((writes, reads), (0, 0));
}
