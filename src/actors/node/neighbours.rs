//! The node among the other nodes of its region: claims that count everywhere, what others tell,
//! and what is done when something they told was lost.

use std::num::NonZeroU32;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::Addr;

use crate::actors::messages::{
    EndToken, ListHeld, ListHeldOf, Route, RouteBehind, Supersede, SupersedeHolder,
};
use crate::actors::router::Router;
use crate::actors::{FastSet, Node};
use crate::push::Delivery;
use crate::store::region::{Epoch, Held, Hint, NodeId, Region};
use crate::token::{DeviceId, TokenId};

/// Hints taken in at a time.
const HINTS_AT_ONCE: usize = 256;

/// Tokens looked after at a time, and the pause after them: about ten thousand a second, so that
/// half a million take a minute and sends go on meanwhile.
const LOOK_AFTER: usize = 500;
const LOOK_AFTER_PAUSE: Duration = Duration::from_millis(50);

/// Tokens that may wait to be looked after by name; with more of them, all are.
const LOOK_AFTER_MAX: usize = 16_384;

/// Pause before tokens are looked after again that the region had no answer for.
const REGION_PAUSE: Duration = Duration::from_millis(500);

impl Node {
    /// Begins to hear what other nodes tell. Does nothing without a region. To be called once, on
    /// the system's own thread.
    pub fn join_region(&self) {
        let Some(region) = self.0.region.clone() else {
            return;
        };
        let Some(mut hints) = region.listen() else {
            return;
        };
        let (resync, resyncs) = tokio::sync::watch::channel(());
        let (look_after, wanted) = tokio::sync::mpsc::channel(LOOK_AFTER_MAX);
        let node = self.clone();
        actix_rt::spawn(async move {
            let mut group = Vec::with_capacity(HINTS_AT_ONCE);
            while hints.recv_many(&mut group, HINTS_AT_ONCE).await > 0 {
                for hint in node.settled_hints(&mut group).await {
                    match hint {
                        Hint::Resync => drop(resync.send(())),
                        Hint::LookAfter(token) => {
                            if look_after.try_send(token).is_err() {
                                let _ = resync.send(());
                            }
                        }
                        other => node.take_hint(other).await,
                    }
                }
            }
        });
        actix_rt::spawn(self.clone().look_after(region, resyncs, wanted));
    }

    /// Hands settled pushes to their routers, a group each; returns the other hints.
    async fn settled_hints(&self, group: &mut Vec<Hint>) -> Vec<Hint> {
        let mut by_worker: Vec<Vec<Delivery>> = Vec::new();
        by_worker.resize_with(self.workers(), Vec::new);
        let mut others = Vec::new();
        for hint in group.drain(..) {
            match hint {
                Hint::Settled(delivery) => {
                    let worker = self.worker_index(delivery.address.id.shard_hash());
                    by_worker[worker].push(delivery);
                }
                other => others.push(other),
            }
        }
        for (worker, deliveries) in by_worker.into_iter().enumerate() {
            let worker = self.0.workers.get(worker).and_then(OnceLock::get);
            if let Some(worker) = worker.filter(|_| !deliveries.is_empty()) {
                self.0.depths.router.add(deliveries.len());
                let _ = worker.router.send(Route(deliveries)).await;
            }
        }
        others
    }

    async fn take_hint(&self, hint: Hint) {
        match hint {
            Hint::Ended(token) => self.end_here(token).await,
            Hint::Replaced(device, epoch) => {
                if let Some(worker) = self.worker_of(device.shard_hash()) {
                    let _ = worker.router.send(Supersede { device, epoch }).await;
                }
            }
            Hint::Settled(_) | Hint::LookAfter(_) | Hint::Resync => {}
        }
    }

    async fn end_here(&self, token: TokenId) {
        if let Some(worker) = self.worker_of(token.shard_hash()) {
            let _ = worker.router.send(EndToken(token)).await;
        }
    }

    /// Looks after all tokens whenever something was lost, and after some whenever that is wanted;
    /// again after those that the region had no answer for. However many losses come meanwhile,
    /// one more round is enough.
    async fn look_after(
        self,
        region: Arc<dyn Region>,
        mut resyncs: tokio::sync::watch::Receiver<()>,
        mut wanted: tokio::sync::mpsc::Receiver<TokenId>,
    ) {
        let mut unknown: FastSet<TokenId> = FastSet::default();
        let mut tokens = Vec::new();
        loop {
            tokio::select! {
                changed = resyncs.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // All includes them.
                    unknown = self.look_after_all(&*region).await;
                }
                count = wanted.recv_many(&mut tokens, LOOK_AFTER) => {
                    if count == 0 {
                        return;
                    }
                    unknown.extend(self.look_after_these(&*region, &mut tokens).await);
                }
                () = tokio::time::sleep(REGION_PAUSE), if !unknown.is_empty() => {
                    tokens.extend(unknown.drain());
                    unknown.extend(self.look_after_these(&*region, &mut tokens).await);
                }
            }
        }
    }

    /// Says again of every token held here that it is, and has its session look into the store.
    async fn look_after_all(&self, region: &dyn Region) -> FastSet<TokenId> {
        let mut unknown = FastSet::default();
        for worker in self.0.workers.iter().filter_map(OnceLock::get) {
            let held = worker.router.send(ListHeld).await.unwrap_or_default();
            unknown.extend(self.look_after_held(region, &worker.router, &held).await);
        }
        unknown
    }

    async fn look_after_these(
        &self,
        region: &dyn Region,
        tokens: &mut Vec<TokenId>,
    ) -> Vec<TokenId> {
        let mut by_worker: Vec<Vec<TokenId>> = Vec::new();
        by_worker.resize_with(self.workers(), Vec::new);
        for token in tokens.drain(..) {
            by_worker[self.worker_index(token.shard_hash())].push(token);
        }
        let mut unknown = Vec::new();
        for (worker, tokens) in self.0.workers.iter().zip(by_worker) {
            if let Some(worker) = worker.get().filter(|_| !tokens.is_empty()) {
                let held = worker.router.send(ListHeldOf(tokens)).await;
                let held = held.unwrap_or_default();
                unknown.extend(self.look_after_held(region, &worker.router, &held).await);
            }
        }
        unknown
    }

    /// The tokens that the region had no answer for.
    async fn look_after_held(
        &self,
        region: &dyn Region,
        router: &Addr<Router>,
        held: &[(TokenId, Epoch)],
    ) -> Vec<TokenId> {
        let mut unknown = Vec::new();
        for some in held.chunks(LOOK_AFTER) {
            let now = self.0.clock.now();
            let mut behind = Vec::with_capacity(some.len());
            for ((token, epoch), outcome) in some.iter().zip(region.hold(some, now).await) {
                match outcome {
                    Held::Here => behind.push(*token),
                    Held::ByNewer => drop(router.send(SupersedeHolder(*token, *epoch)).await),
                    Held::Ended => drop(router.send(EndToken(*token)).await),
                    Held::Unknown => unknown.push(*token),
                }
            }
            let _ = router.send(RouteBehind(behind)).await;
            tokio::time::sleep(LOOK_AFTER_PAUSE).await;
        }
        unknown
    }

    /// Claims a device in the whole region, and tells the node that held it before.
    pub(in crate::actors) async fn claim_in_region(&self, device: DeviceId) -> Epoch {
        let Some(region) = &self.0.region else {
            return self.next_epoch();
        };
        match region.claim(device).await {
            Ok(claimed) => {
                if let Some(previous) = claimed.previous {
                    region.tell(previous.node, Hint::Replaced(device, previous.epoch));
                }
                claimed.epoch
            }
            // The session is heard of in the region once its tokens are looked after.
            Err(_) => self.next_epoch(),
        }
    }

    /// A claim's number without asking anybody: like the region's, microseconds since 1970 unless
    /// that was given already.
    fn next_epoch(&self) -> Epoch {
        let now_us = self.0.clock.now().saturating_mul(1_000);
        let next = |last: Epoch| Some(now_us.max(last + 1));
        let relaxed = Ordering::Relaxed;
        let last = self.0.last_epoch.fetch_update(relaxed, relaxed, next);
        let (Ok(last) | Err(last)) = last;
        now_us.max(last + 1)
    }

    pub(in crate::actors) fn let_go_in_region(&self, token: TokenId, epoch: Epoch) {
        if let Some(region) = self.0.region.clone() {
            actix_rt::spawn(async move { region.let_go(token, epoch).await });
        }
    }

    pub(in crate::actors) fn release_in_region(&self, device: DeviceId, epoch: Epoch) {
        if let Some(region) = self.0.region.clone() {
            actix_rt::spawn(async move { region.release(device, epoch).await });
        }
    }

    pub(in crate::actors) fn tell(&self, node: NodeId, hint: Hint) {
        if let Some(region) = &self.0.region {
            region.tell(node, hint);
        }
    }

    /// How many nodes the region has now, this one included.
    #[must_use]
    pub fn nodes(&self) -> NonZeroU32 {
        let nodes = self.0.region.as_ref().map_or(1, |region| region.nodes());
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        NonZeroU32::new(nodes).unwrap_or(NonZeroU32::MIN)
    }

    /// No other node is to tell this one anything from now on.
    pub async fn leave_region(&self) {
        if let Some(region) = &self.0.region {
            region.leave().await;
        }
    }
}
