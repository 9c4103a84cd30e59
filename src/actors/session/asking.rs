//! What a session asks of routers and store, and what it does with their answers.

use actix::prelude::*;

use crate::actors::action::Right;
use crate::actors::opening::Greeting;
use crate::actors::session::Session;
use crate::actors::stream::DeviceStream;
use crate::metrics::Handshake;
use crate::push::Syn;
use crate::store::Contact;
use crate::token::{TokenAddress, TokenId};

impl<S: DeviceStream> Session<S> {
    pub(super) fn attach(
        &mut self,
        right: Right,
        tokens: Vec<(TokenAddress, Syn)>,
        context: &mut Context<Self>,
    ) {
        let (node, key) = (self.sessions.node().clone(), self.key);
        let is_hello = matches!(right, Right::Claim(_));
        self.asking += 1;
        let asked = async move { node.attach(key, right, tokens).await };
        context.spawn(asked.into_actor(self).map(
            move |attachment, session: &mut Self, context| {
                session.answered();
                let node = session.sessions.node();
                let greeting = Greeting {
                    session: format!("{:?}", session.key),
                    time: node.clock().now(),
                    ping_interval_ms: node.settings().ping_interval_ms,
                };
                if session.closing.is_none() {
                    if is_hello {
                        node.metrics().handshakes.count(Handshake::Welcome);
                        let now = session.sessions.now_ms();
                        session.conversation.note_contact(now);
                    }
                    let actions = session
                        .conversation
                        .attached(attachment, greeting, node.keys());
                    session.perform(actions, context);
                    session.read_wanted(context);
                }
            },
        ));
    }

    /// The device was heard, and that counts as contact with all its tokens. It is written down now
    /// and then, so that no token ends whose device is connected.
    pub(super) fn stay_in_contact(&mut self, context: &mut Context<Self>) {
        let node = self.sessions.node().clone();
        let every_ms = node.settings().contact_every_ms;
        let now = self.sessions.now_ms();
        let (tokens, epoch) = self.conversation.due_for_contact(now, every_ms);
        for address in tokens {
            let node = node.clone();
            self.asking += 1;
            let contacted = async move { node.contact_of(&address, 1, Some(epoch)).await };
            context.spawn(contacted.into_actor(self).map(
                move |contact, session: &mut Self, context| {
                    session.answered();
                    if let Ok(Contact::Unregistered) = contact {
                        let node = session.sessions.node().clone();
                        let actions = session.conversation.on_ended(address.id, node.keys());
                        session.perform(actions, context);
                    }
                },
            ));
        }
    }

    pub(super) fn detach(&mut self, token: TokenId, context: &mut Context<Self>) {
        let detaching = self.sessions.node().detach(self.key, None, vec![token]);
        self.asking += 1;
        self.ordered += 1;
        context.spawn(detaching.into_actor(self).map(|_, session: &mut Self, _| {
            session.ordered -= 1;
            session.answered();
        }));
    }

    pub(super) fn ack(&mut self, address: TokenAddress, syn: Syn, context: &mut Context<Self>) {
        let node = self.sessions.node().clone();
        self.asking += 1;
        self.ordered += 1;
        let acked = async move { node.ack(&address, syn).await };
        context.spawn(
            acked
                .into_actor(self)
                .map(move |acked, session: &mut Self, context| {
                    session.ordered -= 1;
                    session.answered();
                    // A lost ack is a repeated push, not a lost one.
                    if let Ok(syn) = acked {
                        session.conversation.acked(address.id, syn);
                        session.read_wanted(context);
                    }
                }),
        );
    }

    pub(super) fn read(
        &mut self,
        address: TokenAddress,
        after: Syn,
        limit: usize,
        context: &mut Context<Self>,
    ) {
        let node = self.sessions.node().clone();
        self.asking += 1;
        let read = async move { node.read_for_session(&address, after, limit).await };
        context.spawn(
            read.into_actor(self)
                .map(move |page, session: &mut Self, context| {
                    session.answered();
                    match page {
                        Ok(page) if session.closing.is_none() => {
                            let node = session.sessions.node();
                            let (now, keys) = (node.clock().now(), node.keys());
                            let actions = session.conversation.page(address.id, page, now, keys);
                            session.perform(actions, context);
                            session.read_wanted(context);
                        }
                        // The next look at the deadlines asks again: not at once, the store has trouble.
                        _ => session.conversation.page_failed(address.id),
                    }
                }),
        );
    }

    /// An answer has come, and with it maybe something to write. The pump may have had its turn in
    /// this poll of the actor already, so it is asked for another.
    fn answered(&mut self) {
        self.asking -= 1;
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}
