//! Session, one per awake device socket: carries messages between a [`Wire`] and a [`Conversation`].
//!
//! Owns: both of them. Hears: events from the registry, its own
//! answers from store and routers. Tells: Routers (claim, attach, detach), the store (contact,
//! read, ack). Limits: its mailbox, the outbox, one hello or subscribe at a time. All decisions are
//! the conversation's; this file only carries and minds deadlines.

mod asking;

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, Waker};

use actix::prelude::*;

use crate::actors::action::Action;
use crate::actors::close_reason::CloseReason;
use crate::actors::conversation::Conversation;
use crate::actors::frames::Incoming;
use crate::actors::messages::SessionEvent;
use crate::actors::missed::Missed;
use crate::actors::registry::{SessionKey, Sessions};
use crate::actors::stream::DeviceStream;
use crate::actors::wire::Wire;

/// Messages taken from one stream before others get their turn.
const MESSAGES_PER_TURN: usize = 32;

/// How long a closing session waits for its peer to close too.
const CLOSE_PATIENCE_MS: u64 = 1_000;

/// The actor.
pub struct Session<S: DeviceStream> {
    key: SessionKey,
    sessions: Rc<Sessions<S>>,
    wire: Wire<S>,
    conversation: Conversation,
    /// Store calls whose answers are still to come.
    asking: usize,
    /// Of these, the ones that come before the device's next frame, so that its frames take effect
    /// in their order.
    ordered: usize,
    opened_ms: u64,
    last_heard_ms: u64,
    last_active_ms: u64,
    closing: Option<Closing>,
    parked: bool,
    stays: bool,
    /// Wakes the pump; set when it first runs.
    waker: Option<Waker>,
    queued: Rc<Cell<usize>>,
    missed: Rc<RefCell<Missed>>,
}

struct Closing {
    reason: CloseReason,
    since_ms: u64,
}

impl<S: DeviceStream> Session<S> {
    /// A session on `stream`, fresh or back from its parking place; `heard_ms` is when the device
    /// was last heard, on the clock of `sessions`.
    #[must_use]
    pub fn new(
        key: SessionKey,
        sessions: Rc<Sessions<S>>,
        stream: S,
        leftover: &[u8],
        conversation: Conversation,
        heard_ms: u64,
    ) -> Self {
        let now = sessions.now_ms();
        Self {
            key,
            sessions,
            wire: Wire::new(stream, leftover),
            conversation,
            asking: 0,
            ordered: 0,
            opened_ms: heard_ms,
            last_heard_ms: heard_ms,
            last_active_ms: now,
            closing: None,
            parked: false,
            stays: false,
            waker: None,
            queued: Rc::default(),
            missed: Rc::default(),
        }
    }

    /// What the registry needs to reach it.
    #[must_use]
    pub fn line(&self) -> (Rc<Cell<usize>>, Rc<RefCell<Missed>>) {
        (Rc::clone(&self.queued), Rc::clone(&self.missed))
    }

    /// When its deadlines want the next look.
    #[must_use]
    pub fn next_check(&self) -> u64 {
        let settings = self.sessions.node().settings();
        let mut next = self.last_heard_ms + settings.silent_after_ms();
        if !self.conversation.is_greeted() {
            next = next.min(self.opened_ms + settings.hello_timeout_ms);
        }
        if let Some(stalled) = self.wire.stalled_since_ms() {
            next = next.min(stalled + settings.write_timeout_ms);
        }
        if let Some(closing) = &self.closing {
            next = next.min(closing.since_ms + CLOSE_PATIENCE_MS);
        }
        // A look for parking notices stalls too; whoever cannot park is looked at for those alone.
        let mut pace = settings.write_timeout_ms;
        if !self.stays || !self.conversation.is_quiet() {
            pace = pace.min(settings.park_after_ms);
        }
        next.min(self.sessions.now_ms() + pace)
    }

    fn has_room(&self) -> bool {
        self.wire.unsent() < self.sessions.node().settings().outbox_bytes
    }

    // --- What the conversation wants ---------------------------------------------------------

    fn perform(&mut self, actions: Vec<Action>, context: &mut Context<Self>) {
        for action in actions {
            match action {
                Action::Send(text) => self.wire.write_text(text),
                Action::Delivered { accepted_at, live } => {
                    self.sessions.node().push_written(accepted_at, live);
                }
                Action::Close(reason) => self.close(reason),
                Action::Detach(token) => self.detach(token, context),
                Action::Attach { right, tokens } => self.attach(right, tokens, context),
                Action::Ack(address, syn) => self.ack(address, syn, context),
                Action::Read {
                    address,
                    after,
                    limit,
                } => self.read(address, after, limit, context),
            }
        }
    }

    fn read_wanted(&mut self, context: &mut Context<Self>) {
        if self.closing.is_none() {
            let wanted = self.conversation.wanted(self.has_room());
            self.perform(wanted, context);
        }
    }

    fn close(&mut self, reason: CloseReason) {
        if self.closing.is_some() {
            return;
        }
        self.wire.write_close(&reason);
        let since_ms = self.sessions.now_ms();
        self.closing = Some(Closing { reason, since_ms });
        self.sessions
            .check_at(self.key, since_ms + CLOSE_PATIENCE_MS);
    }

    // --- To and from the wire ----------------------------------------------------------------

    /// Moves bytes until nothing more can be moved; true once the stream is at its end.
    fn pump(
        &mut self,
        context: &mut Context<Self>,
        cx: &mut TaskContext<'_>,
    ) -> std::io::Result<bool> {
        self.take_missed(context);
        for _ in 0..MESSAGES_PER_TURN {
            self.flush(cx)?;
            self.read_wanted(context);
            if self.conversation.is_opening() || self.ordered > 0 || !self.has_room() {
                return Ok(false);
            }
            if self.closing.is_none() && self.take_message(context) {
                continue;
            }
            match self.wire.poll_fill(cx)? {
                Poll::Ready(0) => return Ok(true),
                Poll::Ready(_) => self.heard(),
                Poll::Pending => return Ok(false),
            }
        }
        // There may be more: come back after the others.
        cx.waker().wake_by_ref();
        Ok(false)
    }

    fn heard(&mut self) {
        if self.closing.is_none() {
            self.last_heard_ms = self.sessions.now_ms();
            self.last_active_ms = self.last_heard_ms;
        }
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> std::io::Result<()> {
        let now = self.sessions.now_ms();
        if self.wire.flush(now, cx)? > 0 {
            self.last_active_ms = now;
        }
        Ok(())
    }

    /// Takes one message from the wire; false when more bytes are needed.
    fn take_message(&mut self, context: &mut Context<Self>) -> bool {
        match self.wire.next_message() {
            Ok(None) => return false,
            Ok(Some(Incoming::Text(text))) => {
                let node = self.sessions.node().clone();
                let actions = self.conversation.on_text(&text, node.keys());
                self.perform(actions, context);
                self.stay_in_contact(context);
            }
            Ok(Some(Incoming::Ping(bytes))) => {
                self.wire.write_pong(bytes);
                self.stay_in_contact(context);
            }
            Ok(Some(Incoming::Pong)) => {}
            Ok(Some(Incoming::Close)) => self.close(CloseReason::Gone),
            Err(reason) => self.close(reason),
        }
        true
    }

    // --- Events and deadlines ----------------------------------------------------------------

    fn take_missed(&mut self, context: &mut Context<Self>) {
        let missed = std::mem::take(&mut *self.missed.borrow_mut());
        if missed.behind {
            self.conversation.on_all_behind();
        }
        let ended = missed.ended.into_iter().map(SessionEvent::Ended);
        let projects = missed
            .ended_projects
            .into_iter()
            .map(SessionEvent::EndProject);
        let replaced = missed.replaced.then_some(SessionEvent::Replaced);
        let restart = missed
            .restart
            .map(|retry_ms| SessionEvent::Restart { retry_ms });
        let check = missed.check.then_some(SessionEvent::Check);
        for event in ended
            .chain(projects)
            .chain(replaced)
            .chain(restart)
            .chain(check)
        {
            self.on_event(event, context);
        }
    }

    fn on_event(&mut self, event: SessionEvent, context: &mut Context<Self>) {
        match event {
            SessionEvent::Check => return self.check(context),
            _ if self.closing.is_some() => return,
            SessionEvent::Deliver(delivery) => {
                let room = self.has_room();
                let node = self.sessions.node();
                let (now, keys) = (node.clock().now(), node.keys());
                let actions = self.conversation.on_delivery(&delivery, room, now, keys);
                self.perform(actions, context);
            }
            SessionEvent::Behind(token) => self.conversation.on_behind(token),
            SessionEvent::Replaced => self.close(CloseReason::Replaced),
            SessionEvent::Restart { retry_ms } => self.close(CloseReason::Restart { retry_ms }),
            SessionEvent::Ended(token) => {
                let keys = self.sessions.node().keys();
                let actions = self.conversation.on_ended(token, keys);
                self.perform(actions, context);
            }
            SessionEvent::EndProject(project) => {
                for token in self.conversation.tokens_of(project) {
                    let keys = self.sessions.node().keys();
                    let actions = self.conversation.on_ended(token, keys);
                    self.perform(actions, context);
                    self.detach(token, context);
                }
            }
        }
        self.last_active_ms = self.sessions.now_ms();
        self.read_wanted(context);
    }

    /// Looks at every deadline, and parks a session that has been idle for long enough.
    fn check(&mut self, context: &mut Context<Self>) {
        let settings = self.sessions.node().settings().clone();
        let now = self.sessions.now_ms();
        if let Some(closing) = &self.closing {
            if now >= closing.since_ms + CLOSE_PATIENCE_MS {
                return context.stop();
            }
        } else if !self.conversation.is_greeted()
            && now >= self.opened_ms + settings.hello_timeout_ms
        {
            self.close(CloseReason::NoHello);
        } else if now >= self.last_heard_ms + settings.silent_after_ms() {
            self.close(CloseReason::Silent);
        } else if self
            .wire
            .stalled_since_ms()
            .is_some_and(|since| now >= since + settings.write_timeout_ms)
        {
            let retry_ms = self.sessions.node().slow_reader_retry_ms();
            self.close(CloseReason::SlowReader { retry_ms });
        } else if now >= self.last_active_ms + settings.park_after_ms {
            self.read_wanted(context);
            if !self.stays && self.park(context) {
                return;
            }
        }
        self.sessions.check_at(self.key, self.next_check());
    }

    /// Leaves the conversation and the socket in the registry and stops. False when something is
    /// still in flight, or the stream cannot leave the runtime.
    fn park(&mut self, context: &mut Context<Self>) -> bool {
        let is_idle = self.conversation.is_quiet()
            && self.asking == 0
            && self.queued.get() == 0
            && self.wire.is_idle();
        if !is_idle {
            return false;
        }
        match self.wire.park() {
            Ok(Some(socket)) => {
                let conversation = std::mem::take(&mut self.conversation);
                self.parked = true;
                self.sessions
                    .park(self.key, socket, self.last_heard_ms, conversation);
                context.stop();
                true
            }
            Ok(None) => {
                self.stays = true;
                false
            }
            Err(error) => {
                tracing::debug!(%error, "a socket broke while it was parked");
                context.stop();
                true
            }
        }
    }
}

impl<S: DeviceStream> Actor for Session<S> {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(self.sessions.node().settings().session_mailbox);
        context.spawn(Pump);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        if !self.parked {
            let reason = self
                .closing
                .take()
                .map_or(CloseReason::Gone, |closing| closing.reason);
            self.sessions.leave(self.key, &self.conversation, &reason);
        }
    }
}

impl<S: DeviceStream> Handler<SessionEvent> for Session<S> {
    type Result = ();

    fn handle(&mut self, event: SessionEvent, context: &mut Self::Context) {
        self.queued.set(self.queued.get().saturating_sub(1));
        self.on_event(event, context);
    }
}

/// Polls the stream whenever the actor is woken, be it by the stream or by a message.
struct Pump;

impl<S: DeviceStream> ActorFuture<Session<S>> for Pump {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        session: &mut Session<S>,
        context: &mut Context<Session<S>>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<()> {
        session.waker.get_or_insert_with(|| cx.waker().clone());
        match session.pump(context, cx) {
            Ok(false) => Poll::Pending,
            Ok(true) | Err(_) => {
                context.stop();
                Poll::Ready(())
            }
        }
    }
}
