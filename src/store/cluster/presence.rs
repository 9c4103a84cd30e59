//! Who holds what in the region: leases of nodes, claims of devices, holders of tokens.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;

use super::backends::{Backends, MENDS_MAX, is_by_another_clock};
use super::healing::Mended;
use super::hints::Notice;
use super::records::Function;
use super::reply::{Reply, Status};
use crate::clock::Millis;
use crate::store::StoreError;
use crate::store::region::{Claimed, Epoch, Held, Hint, Holder, NodeId};
use crate::token::{DeviceId, TokenId};

/// A node that has not renewed its lease for so long is taken for dead.
const LEASE_MS: u64 = 6_000;

/// How often a lease is renewed: two losses in a row are survived.
const RENEW_EVERY: Duration = Duration::from_secs(2);

/// A writer that has not settled its number by then never will.
const SLOW_WRITER_MAX: Duration = Duration::from_millis(4_200);

/// Calls under way while many tokens are looked after.
const AT_ONCE: usize = 64;

impl Backends {
    /// Renews the lease for as long as anybody holds the backends, and learns who else has one.
    pub(super) fn keep_lease(self: &Arc<Self>) {
        let backends = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(backends) = backends.upgrade() {
                if let Err(error) = backends.lease(LEASE_MS).await {
                    tracing::debug!(%error, "the lease of this node could not be renewed");
                }
                drop(backends);
                tokio::time::sleep(RENEW_EVERY).await;
            }
        });
    }

    /// Takes a lease for so long, or ends it with 0.
    pub(super) async fn lease(&self, life_ms: u64) -> Result<(), StoreError> {
        let call = self.records.on_nodes(Function::Lease);
        let call = call.arg(self.node.to_text()).arg(life_ms);
        let reply = self.records.run(call).await?;
        let nodes = reply.words().iter();
        let nodes: Vec<NodeId> = nodes.filter_map(|word| NodeId::from_text(word)).collect();
        self.health.note_nodes(&nodes);
        Ok(())
    }

    pub(super) async fn claim_device(&self, device: DeviceId) -> Result<Claimed, StoreError> {
        let call = self.records.on_device(Function::Claim, device);
        let call = call.arg(self.node.to_text()).arg(self.life_ms());
        let reply = self.records.run(call).await?;
        let previous = NodeId::from_text(reply.word(0)).map(|node| Holder {
            node,
            epoch: reply.number(1),
        });
        Ok(Claimed {
            epoch: reply.number(0),
            previous: previous.filter(|holder| holder.node != self.node),
        })
    }

    pub(super) async fn release_device(&self, device: DeviceId, epoch: Epoch) {
        let call = self.records.on_device(Function::Release, device);
        // Lost, it stands until the next claim, which does not mind.
        let _ = self
            .records
            .run(call.arg(epoch).arg(self.node.to_text()))
            .await;
    }

    pub(super) async fn let_go(&self, token: TokenId, epoch: Epoch) {
        let call = self.records.on_token(Function::Detach, token);
        // Lost, it costs hints to a node that ignores them.
        let _ = self
            .records
            .run(call.arg(epoch).arg(self.node.to_text()))
            .await;
    }

    /// Says again that this node holds tokens; heals their records on the way.
    pub(super) async fn hold(&self, tokens: &[(TokenId, Epoch)], now: Millis) -> Vec<Held> {
        let calls: Vec<_> = tokens
            .iter()
            .map(|(token, epoch)| async {
                let held = self.hold_one(*token, *epoch, now).await;
                held.unwrap_or(Held::Unknown)
            })
            .collect();
        let held = futures_util::stream::iter(calls).buffered(AT_ONCE);
        held.collect().await
    }

    async fn hold_one(
        &self,
        token: TokenId,
        epoch: Epoch,
        now: Millis,
    ) -> Result<Held, StoreError> {
        for _ in 0..MENDS_MAX {
            let reply = self.run_hold(token, epoch, now).await?;
            match reply.status {
                Status::Suspect | Status::Missing => {
                    if let Some(_turn) = self.menders.enter(token).await
                        && self.mend_known(token, &reply, now).await? != Mended::Again
                    {
                        return Ok(Held::Ended);
                    }
                }
                Status::Dead if is_by_another_clock(&reply) => return Ok(Held::Unknown),
                Status::Dead => return Ok(Held::Ended),
                _ if reply.number(6) > epoch => return Ok(Held::ByNewer),
                _ => {
                    self.mind_held_back(token, &reply);
                    return Ok(Held::Here);
                }
            }
        }
        Ok(Held::Unknown)
    }

    /// A live push may be hidden by the number of a writer that has died: once that one's time is
    /// over, the session that holds the token is to look again. `reply` is a contact's.
    pub(super) fn mind_held_back(&self, token: TokenId, reply: &Reply) {
        if reply.number(7) == 0 || !self.held_back.insert(token) {
            return;
        }
        let (held_back, notices) = (Arc::clone(&self.held_back), self.notices.clone());
        tokio::spawn(async move {
            tokio::time::sleep(SLOW_WRITER_MAX).await;
            held_back.remove(&token);
            // What does not fit is told by the next push.
            let _ = notices.try_send(Notice::ForUs(Hint::LookAfter(token)));
        });
    }

    async fn run_hold(
        &self,
        token: TokenId,
        epoch: Epoch,
        now: Millis,
    ) -> Result<Reply, StoreError> {
        let call = self.records.on_token(Function::Contact, token);
        let call = call.arg(1).arg(now).arg(self.ended_if_heard_by(now)).arg(0);
        let reply = self
            .records
            .run(call.arg(epoch).arg(self.node.to_text()))
            .await?;
        self.cleanup.rows(token, &reply.freed);
        Ok(reply)
    }
}
