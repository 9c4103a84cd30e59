//! Storage, one per shard of tokens: takes a push, has it numbered and made durable, answers its
//! sender, and hands it to the Router.
//!
//! Owns: the sends of its shard that have not ended. Hears: appends from the HTTP side, settled
//! groups from the store. Tells: the sender, then the Router, once per group. Limits: its mailbox,
//! and [`Admission`] beyond it.

use std::collections::BTreeSet;
use std::sync::Arc;

use actix::prelude::*;
use tokio::sync::{mpsc, oneshot};

use crate::actors::admission::{Admission, AdmissionLimits, Admitted, Ticket};
use crate::actors::messages::{Append, Committed, Route, RouteBehind};
use crate::actors::router::{BEHIND_RETRY, Router};
use crate::actors::{AppendError, FastMap, Node};
use crate::push::{Delivery, NewPush, Push};
use crate::store::region::Hint;
use crate::store::{Appended, Audience, Settled, SettledSink};
use crate::token::TokenId;

/// A send on its way.
struct Sending {
    push: NewPush,
    reply: oneshot::Sender<Result<Appended, AppendError>>,
}

/// The actor.
pub struct Storage {
    node: Node,
    router: Addr<Router>,
    admission: Admission,
    sending: FastMap<Ticket, Sending>,
    next_ticket: Ticket,
    sink: SettledSink,
    settled: Option<mpsc::UnboundedReceiver<Vec<Settled>>>,
    behind: BTreeSet<TokenId>,
}

impl Storage {
    /// With nothing on its way.
    #[must_use]
    pub fn new(node: Node, router: Addr<Router>) -> Self {
        // Not bounded by itself: at most one entry for each admitted send can be in it.
        let (report, settled) = mpsc::unbounded_channel();
        let limits = node.settings();
        let admission = Admission::new(AdmissionLimits {
            in_flight_per_token: limits.in_flight_per_token,
            queued_per_token: limits.queued_per_token,
            total: limits.mailbox,
        });
        Self {
            node,
            router,
            admission,
            sending: FastMap::default(),
            next_ticket: 0,
            sink: Arc::new(move |group| {
                // Nobody listens any more only when the process ends.
                let _ = report.send(group);
            }),
            settled: Some(settled),
            behind: BTreeSet::new(),
        }
    }

    fn start(&mut self, ticket: Ticket) {
        if let Some(sending) = self.sending.get(&ticket) {
            self.node
                .store()
                .append(sending.push.clone(), ticket, &self.sink);
        }
    }

    /// One send ended: answers it and says what is to be delivered.
    fn finish(&mut self, Settled { ticket, outcome }: Settled) -> Option<Delivery> {
        let Sending { push, reply } = self.sending.remove(&ticket)?;
        let token = push.address.id;
        if let Some(next) = self.admission.finish(token) {
            self.node.depths().token.take(1);
            self.start(next);
        }
        let stored = outcome
            .as_ref()
            .ok()
            .and_then(|appended| delivery(push, appended));
        if stored.is_some() {
            self.node.metrics().push_accepted();
        }
        if matches!(outcome, Ok(Appended::Repeated)) {
            // It was stored by an append whose end nobody knew, so perhaps nobody was told of it.
            self.behind.insert(token);
        }
        let delivery = stored.and_then(|(delivery, audience)| match audience {
            Audience::Here => Some(delivery),
            Audience::Elsewhere(holder) => {
                self.node.tell(holder.node, Hint::Settled(delivery));
                None
            }
            Audience::Nobody => None,
        });
        // A sender that has left is no reason not to deliver.
        let _ = reply.send(outcome.map_err(AppendError::Store));
        delivery
    }

    /// Hands settled pushes to the Router. What it cannot take is noted, and told again soon.
    fn route(&mut self, deliveries: Vec<Delivery>, context: &mut Context<Self>) {
        let depth = &self.node.depths().router;
        depth.add(deliveries.len());
        if let Err(SendError::Full(Route(refused))) = self.router.try_send(Route(deliveries)) {
            depth.take(refused.len());
            self.node.shed_deliveries(refused.len());
            self.behind
                .extend(refused.into_iter().map(|delivery| delivery.address.id));
            context.run_later(BEHIND_RETRY, Self::tell_behind);
        }
    }

    fn tell_behind(&mut self, context: &mut Context<Self>) {
        let tokens: Vec<TokenId> = std::mem::take(&mut self.behind).into_iter().collect();
        if tokens.is_empty() {
            return;
        }
        if let Err(SendError::Full(RouteBehind(refused))) =
            self.router.try_send(RouteBehind(tokens))
        {
            self.behind.extend(refused);
            context.run_later(BEHIND_RETRY, Self::tell_behind);
        }
    }
}

fn delivery(push: NewPush, appended: &Appended) -> Option<(Delivery, Audience)> {
    let Appended::Stored {
        syn,
        prev_syn,
        syn_stored,
        deleted_up_to,
        audience,
    } = *appended
    else {
        return None;
    };
    let delivery = Delivery {
        address: push.address,
        prev_syn,
        syn_stored,
        deleted_up_to,
        push: Arc::new(Push {
            syn,
            message_id: push.message_id,
            accepted_at: push.accepted_at,
            expires_at: push.expires_at,
            message: push.message,
        }),
    };
    Some((delivery, audience))
}

impl Actor for Storage {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(self.node.settings().mailbox);
        if let Some(settled) = self.settled.take() {
            context.add_stream(settled_groups(settled));
        }
    }
}

fn settled_groups(
    mut receiver: mpsc::UnboundedReceiver<Vec<Settled>>,
) -> impl futures_util::Stream<Item = Committed> {
    futures_util::stream::poll_fn(move |cx| {
        receiver.poll_recv(cx).map(|group| group.map(Committed))
    })
}

impl Handler<Append> for Storage {
    type Result = ();

    fn handle(&mut self, Append { push, reply }: Append, _: &mut Self::Context) {
        self.node.depths().storage.take(1);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let refusal = match self.admission.admit(push.address.id, ticket) {
            Admitted::Start => {
                self.sending.insert(ticket, Sending { push, reply });
                return self.start(ticket);
            }
            Admitted::Wait => {
                self.node.depths().token.add(1);
                self.sending.insert(ticket, Sending { push, reply });
                return;
            }
            Admitted::TokenFull => AppendError::TokenBusy,
            Admitted::NodeFull => AppendError::NodeBusy,
        };
        let _ = reply.send(Err(refusal));
    }
}

impl StreamHandler<Committed> for Storage {
    fn handle(&mut self, Committed(group): Committed, context: &mut Self::Context) {
        let is_repeated = |settled: &Settled| matches!(settled.outcome, Ok(Appended::Repeated));
        let is_any_repeated = group.iter().any(is_repeated);
        let deliveries: Vec<Delivery> = group
            .into_iter()
            .filter_map(|settled| self.finish(settled))
            .collect();
        if !deliveries.is_empty() {
            self.route(deliveries, context);
        }
        if is_any_repeated {
            self.tell_behind(context);
        }
    }
}
