//! Who is primary of what, as nodes see it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use anyhow::{Context as _, bail, ensure};

use super::calling::{call_for_text, value_of};
use super::{FRONT_PORT, Node, RedisCluster};

/// A primary as nodes of the cluster see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Primary {
    /// Its number in the cluster.
    pub node: usize,
    /// Where clients reach it: address and port of its link.
    pub address: String,
    /// Its slots.
    pub slots: Vec<RangeInclusive<u16>>,
    /// Numbers of its replicas that are not held for failed.
    pub replicas: Vec<usize>,
}

impl Primary {
    /// Whether a slot is its own.
    #[must_use]
    pub fn has_slot(&self, slot: u16) -> bool {
        self.slots.iter().any(|range| range.contains(&slot))
    }
}

/// One line of `CLUSTER NODES`.
struct Seen<'a> {
    id: &'a str,
    address: Ipv4Addr,
    primary_id: Option<&'a str>,
    is_failed: bool,
    slots: Vec<RangeInclusive<u16>>,
}

impl RedisCluster {
    /// The primaries, as one node sees them.
    ///
    /// # Errors
    /// There is no such node, or it does not answer.
    pub async fn primaries_seen_by(&self, node: usize) -> anyhow::Result<Vec<Primary>> {
        let text = call_for_text(self.node(node)?.back(), &["CLUSTER", "NODES"]).await?;
        self.primaries_in(&text)
    }

    /// The primaries, as the first node sees them that answers.
    ///
    /// # Errors
    /// No node answers.
    pub async fn primaries(&self) -> anyhow::Result<Vec<Primary>> {
        for number in self.awake() {
            if let Ok(primaries) = self.primaries_seen_by(number).await {
                return Ok(primaries);
            }
        }
        bail!("no node answers")
    }

    /// The primary of a key's slot, as the first node sees it that answers.
    ///
    /// # Errors
    /// No node answers, or the slot has none.
    pub async fn primary_of(&self, key: &str) -> anyhow::Result<Primary> {
        let first = self.awake().next().context("no node runs")?;
        let slot = self.command(first, &["CLUSTER", "KEYSLOT", key]).await?;
        let slot: u16 = redis::from_redis_value(slot)?;
        let mut primaries = self.primaries().await?.into_iter();
        primaries
            .find(|primary| primary.has_slot(slot))
            .with_context(|| format!("no primary of slot {slot}"))
    }

    /// Numbers of the nodes that can answer.
    fn awake(&self) -> impl Iterator<Item = usize> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter_map(|(number, node)| node.server.is_awake().then_some(number))
    }

    /// Whether all is well, and what is not; see [`RedisCluster::until_well`].
    pub(super) async fn check(&self) -> anyhow::Result<Vec<Primary>> {
        let mut agreed: Option<Vec<Primary>> = None;
        for number in self.awake() {
            let node = self.node(number)?;
            let info = call_for_text(node.back(), &["CLUSTER", "INFO"]).await?;
            let state = value_of(&info, "cluster_state")?;
            ensure!(state == "ok", "node {number}: cluster_state is {state}");
            let seen = self.primaries_seen_by(number).await?;
            let agreed = agreed.get_or_insert_with(|| seen.clone());
            ensure!(*agreed == seen, "nodes disagree: {agreed:?} and {seen:?}");
        }
        let agreed = agreed.context("no node runs")?;
        for primary in &agreed {
            let node = self.node(primary.node)?;
            ensure!(node.server.is_awake(), "{primary:?} does not run");
            let awake = primary.replicas.iter();
            let awake = awake.filter(|&&replica| self.awake().any(|it| it == replica));
            check_replication(node, awake.count()).await?;
            for &replica in &primary.replicas {
                let replica = self.node(replica)?;
                if replica.server.is_awake() {
                    check_link(replica).await?;
                }
            }
        }
        Ok(agreed)
    }

    fn primaries_in(&self, text: &str) -> anyhow::Result<Vec<Primary>> {
        let seen = text.lines().map(Seen::read);
        let seen: Vec<Seen<'_>> = seen.collect::<anyhow::Result<_>>()?;
        let mut primaries: BTreeMap<&str, Primary> = BTreeMap::new();
        for primary in seen.iter().filter(|seen| !seen.slots.is_empty()) {
            let new = Primary {
                node: self.number_of(primary.address)?,
                address: format!("{}:{FRONT_PORT}", primary.address),
                slots: primary.slots.clone(),
                replicas: Vec::new(),
            };
            primaries.insert(primary.id, new);
        }
        for replica in seen.iter().filter(|seen| !seen.is_failed) {
            let primary = replica.primary_id.and_then(|id| primaries.get_mut(id));
            if let Some(primary) = primary {
                primary.replicas.push(self.number_of(replica.address)?);
            }
        }
        let mut primaries: Vec<Primary> = primaries.into_values().collect();
        primaries.sort_by_key(|primary| primary.node);
        for primary in &mut primaries {
            primary.replicas.sort_unstable();
        }
        Ok(primaries)
    }

    fn number_of(&self, address: Ipv4Addr) -> anyhow::Result<usize> {
        self.nodes
            .iter()
            .position(|node| node.address == address)
            .with_context(|| format!("{address} is no node of this cluster"))
    }
}

/// Whether a primary has heard of so many replicas lately.
async fn check_replication(primary: &Node, count: usize) -> anyhow::Result<()> {
    let address = primary.address;
    let info = call_for_text(primary.back(), &["INFO", "replication"]).await?;
    let role = value_of(&info, "role")?;
    ensure!(role == "master", "{address} is {role}");
    // Only there where a number of replicas is demanded before a write.
    if let Ok(good) = value_of(&info, "min_slaves_good_slaves") {
        let good: usize = good.parse()?;
        ensure!(
            good >= count,
            "{address} hears of {good} replicas of {count}"
        );
    }
    Ok(())
}

async fn check_link(replica: &Node) -> anyhow::Result<()> {
    let info = call_for_text(replica.back(), &["INFO", "replication"]).await?;
    let status = value_of(&info, "master_link_status")?;
    ensure!(status == "up", "{}: its link is {status}", replica.address);
    Ok(())
}

impl<'a> Seen<'a> {
    /// Reads `id ip:port@bus-port flags primary-id ping pong epoch link-state slots…`.
    fn read(line: &'a str) -> anyhow::Result<Self> {
        let mut words = line.split_whitespace();
        let mut next = || words.next().with_context(|| format!("too short: {line}"));
        let (id, address, flags, primary_id) = (next()?, next()?, next()?, next()?);
        let address = address.split(':').next().unwrap_or(address);
        let mut slots = Vec::new();
        // Four words in between are of no use here; slots on the move stand in brackets.
        for range in words.skip(4).filter(|word| !word.starts_with('[')) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            slots.push(first.parse()?..=last.parse()?);
        }
        Ok(Self {
            id,
            address: address.parse().with_context(|| line.to_owned())?,
            primary_id: Some(primary_id).filter(|&id| id != "-"),
            is_failed: flags.split(',').any(|flag| flag == "fail"),
            slots,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_cluster_nodes_are_read() {
        let primary = Seen::read(
            "e7d1 127.77.3.11:17001@17003 myself,master - 0 1426238317239 4 connected \
             0-5460 9000 [93->-292f]",
        )
        .expect("a line");
        assert_eq!(primary.slots, [0..=5460, 9000..=9000]);
        assert_eq!(primary.address, Ipv4Addr::new(127, 77, 3, 11));
        assert!(primary.primary_id.is_none() && !primary.is_failed);
        let replica = Seen::read(
            "6ec2 127.77.3.14:17001@17003,host slave,fail e7d1 0 1426238316232 5 disconnected",
        )
        .expect("a line");
        assert_eq!(replica.primary_id, Some("e7d1"));
        assert!(replica.is_failed && replica.slots.is_empty());
        assert!(Seen::read("e7d1 127.77.3.11:17001@17003").is_err());
        assert!(Seen::read("e7d1 :0@0 master - 0 0 0 connected").is_err());
    }
}
