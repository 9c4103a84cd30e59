//! From nodes that know nothing to a cluster.

use std::time::Duration;

use anyhow::ensure;
use redis::Value;

use super::calling::{call, call_for_text, value_of};
use super::{BUS_PORT, FRONT_PORT, Node, PRIMARIES, RedisCluster};
use crate::waiting::until;

/// Slots of a Redis Cluster.
const SLOTS: usize = 16_384;

/// How long nodes may take to find together. Two seconds of it are Redis's own: a primary that has
/// just started does not write for so long.
const FORM_MAX: Duration = Duration::from_secs(60);

impl RedisCluster {
    /// Makes a cluster of nodes that run and have never met.
    pub(super) async fn form(&self, replicas: usize) -> anyhow::Result<()> {
        let mut ids = Vec::with_capacity(self.nodes.len());
        for (number, node) in self.nodes.iter().enumerate() {
            ids.push(call_for_text(node.back(), &["CLUSTER", "MYID"]).await?);
            // Different from the start, so that nodes need not settle by their ids who gives way.
            let epoch = (number + 1).to_string();
            expect_ok(node, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await?;
        }
        for (number, primary) in self.nodes.iter().take(PRIMARIES).enumerate() {
            let first = (SLOTS * number / PRIMARIES).to_string();
            let last = (SLOTS * (number + 1) / PRIMARIES - 1).to_string();
            expect_ok(primary, &["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await?;
        }
        self.introduce().await?;
        for (number, replica) in self.nodes.iter().enumerate().skip(PRIMARIES) {
            // A replica's number tells its primary: 3, 4 of the first when each has two.
            let primary = (number - PRIMARIES) / replicas;
            let id = ids.get(primary).map_or("", String::as_str);
            // Until the replica has heard of its primary it refuses.
            until("a replica knows its primary", FORM_MAX, async || {
                expect_ok(replica, &["CLUSTER", "REPLICATE", id]).await
            })
            .await?;
        }
        self.until_well(FORM_MAX).await.map(drop)
    }

    /// Every node meets every other: quicker than to wait until gossip has told all of all.
    async fn introduce(&self) -> anyhow::Result<()> {
        let (front, bus) = (FRONT_PORT.to_string(), BUS_PORT.to_string());
        for (number, node) in self.nodes.iter().enumerate() {
            for other in self.nodes.iter().skip(number + 1) {
                let address = other.address.to_string();
                expect_ok(node, &["CLUSTER", "MEET", &address, &front, &bus]).await?;
            }
        }
        let count = self.nodes.len().to_string();
        for node in &self.nodes {
            until("all nodes know each other", FORM_MAX, async || {
                let info = call_for_text(node.back(), &["CLUSTER", "INFO"]).await?;
                let known = value_of(&info, "cluster_known_nodes")?;
                ensure!(known == count, "{known} of {count} known");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

async fn expect_ok(node: &Node, words: &[&str]) -> anyhow::Result<()> {
    let answer = call(node.back(), words).await?;
    ensure!(answer == Value::Okay, "{words:?}: {answer:?}");
    Ok(())
}
