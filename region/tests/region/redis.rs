//! A Redis Cluster that forms, loses what a test wants lost, and heals.

use std::time::{Duration, Instant};

use herald_region::{Place, Primary, RedisCluster, RedisOptions};
use redis::Value;

use super::{PATIENCE, runs};

const KEY: &str = "key";

async fn get(cluster: &RedisCluster, node: usize) -> Value {
    cluster.command(node, &["GET", KEY]).await.expect("a value")
}

async fn set(cluster: &RedisCluster, node: usize, value: &str) -> anyhow::Result<Value> {
    cluster.command(node, &["SET", KEY, value]).await
}

fn text(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

/// Waits until a replica has the value. (`WAIT` would not do: it counts what its own connection has
/// written, and each command has one of its own.)
async fn until_replicated(cluster: &RedisCluster, replica: usize, value: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let held = cluster.command_on_replica(replica, &["GET", KEY]).await;
        if held.expect("a value") == text(value) {
            return;
        }
        assert!(Instant::now() < deadline, "never replicated");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for a primary of the key that is not the old one.
async fn successor(cluster: &RedisCluster, old: usize) -> Primary {
    cluster.until_well(PATIENCE).await.expect("well again");
    let primary = cluster.primary_of(KEY).await.expect("a primary");
    assert_ne!(primary.node, old);
    primary
}

#[tokio::test]
async fn an_accepted_write_is_lost_with_its_primary_when_replication_is_cut() {
    let place = Place::temporary().expect("a place");
    let options = RedisOptions {
        replicas: 1,
        node_timeout: Duration::from_secs(2),
    };
    let cluster = RedisCluster::start(&place, &options)
        .await
        .expect("started");
    assert_eq!(cluster.urls().len(), 6);

    let old = cluster.primary_of(KEY).await.expect("a primary");
    let [replica] = old.replicas[..] else {
        panic!("one replica: {old:?}")
    };
    set(&cluster, old.node, "kept").await.expect("accepted");
    until_replicated(&cluster, replica, "kept").await;

    cluster.isolate_replication(old.node).expect("isolated");
    set(&cluster, old.node, "lost").await.expect("accepted");
    assert_eq!(get(&cluster, old.node).await, text("lost"));
    let info = cluster.info(replica, "replication").await.expect("info");
    assert!(info.contains("master_link_status:up"), "{info}");
    cluster.kill(old.node).expect("killed");

    let new = successor(&cluster, old.node).await;
    assert_eq!(new.node, replica);
    assert_eq!(get(&cluster, new.node).await, text("kept"));

    cluster.heal_links();
    cluster.restart(old.node).await.expect("restarted");
    let primaries = cluster.until_well(PATIENCE).await.expect("well again");
    let primary = primaries.iter().find(|primary| primary.node == new.node);
    assert_eq!(primary.expect("still primary").replicas, [old.node]);
    set(&cluster, new.node, "more").await.expect("accepted");

    let processes: Vec<u32> = (0..6).filter_map(|node| cluster.process_id(node)).collect();
    assert_eq!(processes.len(), 6);
    drop(cluster);
    assert!(!processes.into_iter().any(runs));
}
