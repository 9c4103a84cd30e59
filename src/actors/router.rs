//! Router, one per shard of tokens: knows which session holds a token.
//!
//! Owns: the routing table of its shard. Hears: claims, attaches and detaches of sessions, settled
//! pushes from Storage. Tells: the registries of the workers, once per worker and batch. Limits:
//! its mailbox; a registry that is full makes a note for later, never a loss, because the push is
//! in the store.

use std::collections::hash_map::Entry;
use std::time::Duration;

use actix::prelude::*;

use crate::actors::messages::{
    Attach, Claim, Detach, EndToken, ListHeld, ListHeldOf, Notify, Route, RouteBehind,
    SessionEvent, Supersede, SupersedeHolder,
};
use crate::actors::registry::SessionKey;
use crate::actors::routing_table::RoutingTable;
use crate::actors::{FastMap, Node};
use crate::push::Delivery;
use crate::token::TokenId;

/// How long a session may stay behind after its registry was full.
pub const BEHIND_RETRY: Duration = Duration::from_millis(100);

/// In a region, a writer that has not settled its number by then never will.
const SLOW_WRITER_MAX: Duration = Duration::from_millis(4_200);

/// Sessions told at a time that they are behind.
const BEHIND_CHUNK: usize = 1_000;

/// The actor.
pub struct Router {
    node: Node,
    table: RoutingTable,
    /// Tokens whose sessions are to look again after a slow writer's time is over; true when
    /// another push was held back since, perhaps by a later writer.
    held_back: FastMap<TokenId, bool>,
    retrying: bool,
}

impl Router {
    /// With an empty table.
    #[must_use]
    pub fn new(node: Node) -> Self {
        Self {
            node,
            table: RoutingTable::default(),
            held_back: FastMap::default(),
            retrying: false,
        }
    }

    /// Hands events to the workers whose sessions they are for.
    fn notify(&mut self, events: Vec<(SessionKey, SessionEvent)>, context: &mut Context<Self>) {
        let mut batches: Vec<Vec<(SessionKey, SessionEvent)>> = Vec::new();
        batches.resize_with(self.node.workers(), Vec::new);
        for (session, event) in events {
            if let Some(batch) = batches.get_mut(session.worker()) {
                batch.push((session, event));
            }
        }
        for (worker, batch) in batches.into_iter().enumerate() {
            if !batch.is_empty()
                && let Err(Notify(refused)) = self.node.notify(worker, Notify(batch))
            {
                self.keep_refused(refused, context);
            }
        }
    }

    /// A full registry: sessions are told later that they are behind; a takeover or an end is
    /// repeated until it is heard.
    fn keep_refused(
        &mut self,
        refused: Vec<(SessionKey, SessionEvent)>,
        context: &mut Context<Self>,
    ) {
        self.node.shed_deliveries(refused.len());
        let mut repeat = Vec::new();
        for (session, event) in refused {
            match event {
                SessionEvent::Deliver(delivery) => self.table.note_behind(delivery.address.id),
                SessionEvent::Behind(token) => self.table.note_behind(token),
                other => repeat.push((session, other)),
            }
        }
        if !repeat.is_empty() {
            context.run_later(BEHIND_RETRY, move |router, context| {
                router.notify(repeat, context)
            });
        }
        self.retry_later(context);
    }

    fn retry_later(&mut self, context: &mut Context<Self>) {
        if !self.retrying {
            self.retrying = true;
            context.run_later(BEHIND_RETRY, Self::tell_behind);
        }
    }

    /// A push above its watermark may not be shown yet: an older one is still being written, maybe
    /// by a node that has died at it. Once its time is over, its session looks again.
    fn mind_slow_writers(&mut self, deliveries: &[Delivery], context: &mut Context<Self>) {
        let held_back = |it: &&Delivery| it.syn_stored < it.push.syn;
        for token in deliveries.iter().filter(held_back).map(|it| it.address.id) {
            match self.held_back.entry(token) {
                Entry::Occupied(mut again) => *again.get_mut() = true,
                Entry::Vacant(entry) => {
                    entry.insert(false);
                    self.look_again_later(token, context);
                }
            }
        }
    }

    fn look_again_later(&self, token: TokenId, context: &mut Context<Self>) {
        context.run_later(SLOW_WRITER_MAX, move |router, context| {
            router.table.note_behind(token);
            router.retry_later(context);
            if let Some(true) = router.held_back.insert(token, false) {
                return router.look_again_later(token, context);
            }
            router.held_back.remove(&token);
        });
    }

    fn tell_behind(&mut self, context: &mut Context<Self>) {
        self.retrying = false;
        let behind = self.table.take_behind(BEHIND_CHUNK);
        if behind.is_empty() {
            return;
        }
        let events = behind
            .into_iter()
            .map(|(token, session)| (session, SessionEvent::Behind(token)))
            .collect();
        self.notify(events, context);
        self.retry_later(context);
    }
}

impl Actor for Router {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(self.node.settings().mailbox);
    }
}

impl Handler<Claim> for Router {
    type Result = ();

    fn handle(
        &mut self,
        Claim {
            device,
            session,
            epoch,
        }: Claim,
        context: &mut Self::Context,
    ) {
        if let Some(replaced) = self.table.claim(device, session, epoch) {
            self.notify(vec![(replaced, SessionEvent::Replaced)], context);
        }
    }
}

impl Handler<Supersede> for Router {
    type Result = ();

    fn handle(&mut self, Supersede { device, epoch }: Supersede, context: &mut Self::Context) {
        if let Some(replaced) = self.table.supersede(device, epoch) {
            self.notify(vec![(replaced, SessionEvent::Replaced)], context);
        }
    }
}

impl Handler<ListHeld> for Router {
    type Result = MessageResult<ListHeld>;

    fn handle(&mut self, _: ListHeld, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.table.held())
    }
}

impl Handler<ListHeldOf> for Router {
    type Result = MessageResult<ListHeldOf>;

    fn handle(&mut self, ListHeldOf(tokens): ListHeldOf, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.table.held_of(&tokens))
    }
}

impl Handler<SupersedeHolder> for Router {
    type Result = ();

    fn handle(
        &mut self,
        SupersedeHolder(token, epoch): SupersedeHolder,
        context: &mut Self::Context,
    ) {
        if let Some(replaced) = self.table.supersede_holder(token, epoch) {
            self.notify(vec![(replaced, SessionEvent::Replaced)], context);
        }
    }
}

impl Handler<Attach> for Router {
    type Result = ();

    fn handle(
        &mut self,
        Attach {
            session,
            epoch,
            tokens,
        }: Attach,
        _: &mut Self::Context,
    ) {
        for token in tokens {
            self.table.attach(token, session, epoch);
        }
    }
}

impl Handler<Detach> for Router {
    type Result = ();

    fn handle(
        &mut self,
        Detach {
            session,
            device,
            tokens,
        }: Detach,
        _: &mut Self::Context,
    ) {
        for token in tokens {
            if let Some(epoch) = self.table.detach(token, session) {
                self.node.let_go_in_region(token, epoch);
            }
        }
        if let Some(device) = device
            && let Some(epoch) = self.table.release(device, session)
        {
            self.node.release_in_region(device, epoch);
        }
    }
}

impl Handler<Route> for Router {
    type Result = ();

    fn handle(&mut self, Route(deliveries): Route, context: &mut Self::Context) {
        self.node.depths().router.take(deliveries.len());
        self.mind_slow_writers(&deliveries, context);
        let events: Vec<_> = deliveries
            .into_iter()
            .filter_map(|delivery| {
                let session = self.table.session_of(delivery.address.id)?;
                Some((session, SessionEvent::Deliver(delivery)))
            })
            .collect();
        self.notify(events, context);
    }
}

impl Handler<RouteBehind> for Router {
    type Result = ();

    fn handle(&mut self, RouteBehind(tokens): RouteBehind, context: &mut Self::Context) {
        for token in tokens {
            self.table.note_behind(token);
        }
        self.tell_behind(context);
    }
}

impl Handler<EndToken> for Router {
    type Result = ();

    fn handle(&mut self, EndToken(token): EndToken, context: &mut Self::Context) {
        if let Some(session) = self.table.end(token) {
            self.notify(vec![(session, SessionEvent::Ended(token))], context);
        }
    }
}
