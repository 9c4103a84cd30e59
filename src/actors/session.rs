//! Session, one per awake device socket: carries bytes between a stream and a [`Conversation`].
//!
//! Owns: the stream and what is half read or half written. Hears: events from the registry, its own
//! answers from store and routers. Tells: Routers (claim, attach, detach), the store (contact,
//! read, ack). Limits: its mailbox, the outbox, one hello or subscribe at a time. All decisions are
//! the conversation's; this file only moves bytes and minds deadlines.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, Waker};

use actix::prelude::*;
use bytes::{Buf, BytesMut};

use crate::actors::close_reason::CloseReason;
use crate::actors::conversation::{Action, Conversation, Greeting, Right};
use crate::actors::frames::{Framing, Incoming};
use crate::actors::messages::SessionEvent;
use crate::actors::registry::{Missed, SessionKey, Sessions};
use crate::actors::stream::{DeviceStream, NotParked};
use crate::metrics::Handshake;
use crate::push::Syn;
use crate::token::{TokenAddress, TokenId};

/// Bytes read from a stream at a time: a device's frames are small.
const READ_BYTES: usize = 2 * 1024;

/// Messages taken from one stream before others get their turn.
const MESSAGES_PER_TURN: usize = 32;

/// How long a closing session waits for its peer to close too.
const CLOSE_PATIENCE_MS: u64 = 1_000;

/// The actor.
pub struct Session<S: DeviceStream> {
    key: SessionKey,
    sessions: Rc<Sessions<S>>,
    stream: Option<S>,
    framing: Framing,
    input: BytesMut,
    output: BytesMut,
    conversation: Conversation,
    /// Store calls whose answers are still to come.
    asking: usize,
    /// Of these, the routers' that have not yet heard of a token's end.
    detaching: usize,
    opened_ms: u64,
    last_heard_ms: u64,
    last_active_ms: u64,
    /// Since when the stream takes no bytes.
    stalled_since_ms: Option<u64>,
    closing: Option<Closing>,
    parked: bool,
    /// Wakes the pump; set when it first runs.
    waker: Option<Waker>,
    queued: Rc<Cell<usize>>,
    missed: Rc<RefCell<Missed>>,
}

struct Closing {
    reason: CloseReason,
    since_ms: u64,
    /// Our side of the stream is shut; only the peer's end is awaited.
    shut: bool,
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
            stream: Some(stream),
            framing: Framing::default(),
            input: BytesMut::from(leftover),
            output: BytesMut::new(),
            conversation,
            asking: 0,
            detaching: 0,
            opened_ms: heard_ms,
            last_heard_ms: heard_ms,
            last_active_ms: now,
            stalled_since_ms: None,
            closing: None,
            parked: false,
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
        if let Some(stalled) = self.stalled_since_ms {
            next = next.min(stalled + settings.write_timeout_ms);
        }
        if let Some(closing) = &self.closing {
            next = next.min(closing.since_ms + CLOSE_PATIENCE_MS);
        }
        // A look for parking also notices a stall that began since the last look.
        let pace = settings.park_after_ms.min(settings.write_timeout_ms);
        next.min(self.sessions.now_ms() + pace)
    }

    fn has_room(&self) -> bool {
        self.output.len() < self.sessions.node().settings().outbox_bytes
    }

    // --- What the conversation wants ---------------------------------------------------------

    fn perform(&mut self, actions: Vec<Action>, context: &mut Context<Self>) {
        for action in actions {
            match action {
                Action::Send(text) => self.framing.write_text(text, &mut self.output),
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

    fn attach(
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
                    }
                    let actions = session.conversation.attached(attachment, greeting);
                    session.perform(actions, context);
                    session.read_wanted(context);
                }
            },
        ));
    }

    fn detach(&mut self, token: TokenId, context: &mut Context<Self>) {
        let detaching = self.sessions.node().detach(self.key, None, vec![token]);
        self.asking += 1;
        self.detaching += 1;
        context.spawn(detaching.into_actor(self).map(|_, session: &mut Self, _| {
            session.answered();
            session.detaching -= 1;
        }));
    }

    fn ack(&mut self, address: TokenAddress, syn: Syn, context: &mut Context<Self>) {
        let node = self.sessions.node().clone();
        self.asking += 1;
        let acked = async move { node.ack(&address, syn).await };
        context.spawn(
            acked
                .into_actor(self)
                .map(move |acked, session: &mut Self, context| {
                    session.answered();
                    // A lost ack is a repeated push, not a lost one.
                    if let Ok(syn) = acked {
                        session.conversation.acked(address.id, syn);
                        session.read_wanted(context);
                    }
                }),
        );
    }

    fn read(
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
                            let now = session.sessions.node().clock().now();
                            let actions = session.conversation.page(address.id, page, now);
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
        if let Some(frame) = reason.error_frame() {
            self.framing.write_text(frame.to_text(), &mut self.output);
        }
        self.framing.write_close(&reason, &mut self.output);
        let since_ms = self.sessions.now_ms();
        self.closing = Some(Closing {
            reason,
            since_ms,
            shut: false,
        });
        self.sessions
            .check_at(self.key, since_ms + CLOSE_PATIENCE_MS);
    }

    // --- Bytes -------------------------------------------------------------------------------

    /// Moves bytes until nothing more can be moved. `Break` means that the stream is at its end.
    fn pump(
        &mut self,
        context: &mut Context<Self>,
        cx: &mut TaskContext<'_>,
    ) -> std::io::Result<bool> {
        self.take_missed(context);
        for _ in 0..MESSAGES_PER_TURN {
            self.flush(cx)?;
            self.read_wanted(context);
            if self.conversation.is_opening() || self.detaching > 0 || !self.has_room() {
                return Ok(false);
            }
            if self.closing.is_none() && self.take_message(context) {
                continue;
            }
            match self.fill(cx)? {
                Poll::Ready(0) => return Ok(true),
                Poll::Ready(_) => {}
                Poll::Pending => return Ok(false),
            }
        }
        // There may be more: come back after the others.
        cx.waker().wake_by_ref();
        Ok(false)
    }

    /// Reads some bytes; 0 at the end of the stream.
    fn fill(&mut self, cx: &mut TaskContext<'_>) -> std::io::Result<Poll<usize>> {
        let Some(stream) = self.stream.as_mut() else {
            return Ok(Poll::Pending);
        };
        let mut bytes = [0; READ_BYTES];
        let mut buffer = tokio::io::ReadBuf::new(&mut bytes);
        match Pin::new(stream).poll_read(cx, &mut buffer)? {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(()) => {
                let filled = buffer.filled();
                // What a peer says after our close is only read to let it finish.
                if self.closing.is_none() {
                    self.input.extend_from_slice(filled);
                    self.last_heard_ms = self.sessions.now_ms();
                    self.last_active_ms = self.last_heard_ms;
                }
                Ok(Poll::Ready(filled.len()))
            }
        }
    }

    /// Takes one message out of what was read; false when more bytes are needed.
    fn take_message(&mut self, context: &mut Context<Self>) -> bool {
        match self.framing.read(&mut self.input) {
            Ok(None) => {
                if self.input.is_empty() {
                    // The buffer of a burst is not kept by an idle session.
                    self.input = BytesMut::new();
                }
                return false;
            }
            Ok(Some(Incoming::Text(text))) => {
                let node = self.sessions.node().clone();
                let actions = self.conversation.on_text(&text, node.keys());
                self.perform(actions, context);
            }
            Ok(Some(Incoming::Ping(bytes))) => self.framing.write_pong(bytes, &mut self.output),
            Ok(Some(Incoming::Pong)) => {}
            Ok(Some(Incoming::Close)) => self.close(CloseReason::Gone),
            Err(reason) => self.close(reason),
        }
        true
    }

    /// Writes what waits; shuts the stream after the last byte of a closing session.
    fn flush(&mut self, cx: &mut TaskContext<'_>) -> std::io::Result<()> {
        let Some(stream) = self.stream.as_mut() else {
            return Ok(());
        };
        let now = self.sessions.now_ms();
        while !self.output.is_empty() {
            match Pin::new(&mut *stream).poll_write(cx, &self.output)? {
                Poll::Ready(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => {
                    self.output.advance(written);
                    self.stalled_since_ms = None;
                    self.last_active_ms = now;
                }
                Poll::Pending => {
                    self.stalled_since_ms.get_or_insert(now);
                    return Ok(());
                }
            }
        }
        self.output = BytesMut::new();
        let flushed = Pin::new(&mut *stream).poll_flush(cx)?;
        if let Some(closing) = &mut self.closing
            && !closing.shut
            && flushed.is_ready()
            && Pin::new(stream).poll_shutdown(cx)?.is_ready()
        {
            closing.shut = true;
        }
        Ok(())
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
                let now = self.sessions.node().clock().now();
                let actions = self
                    .conversation
                    .on_delivery(&delivery, self.has_room(), now);
                self.perform(actions, context);
            }
            SessionEvent::Behind(token) => self.conversation.on_behind(token),
            SessionEvent::Replaced => self.close(CloseReason::Replaced),
            SessionEvent::Restart { retry_ms } => self.close(CloseReason::Restart { retry_ms }),
            SessionEvent::Ended(token) => {
                let actions = self.conversation.on_ended(token);
                self.perform(actions, context);
            }
            SessionEvent::EndProject(project) => {
                for token in self.conversation.tokens_of(project) {
                    let actions = self.conversation.on_ended(token);
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
            .stalled_since_ms
            .is_some_and(|since| now >= since + settings.write_timeout_ms)
        {
            let retry_ms = self.sessions.node().slow_reader_retry_ms();
            self.close(CloseReason::SlowReader { retry_ms });
        } else if now >= self.last_active_ms + settings.park_after_ms {
            self.read_wanted(context);
            if self.park(context) {
                return;
            }
        }
        self.sessions.check_at(self.key, self.next_check());
    }

    /// Leaves the conversation and the socket in the registry and stops. False when something is
    /// still in flight, or the stream cannot leave the runtime.
    fn park(&mut self, context: &mut Context<Self>) -> bool {
        let idle = self.conversation.is_quiet()
            && self.asking == 0
            && self.queued.get() == 0
            && self.input.is_empty()
            && self.output.is_empty()
            && self.framing.is_empty();
        let Some(stream) = self.stream.take_if(|_| idle) else {
            return false;
        };
        match stream.park() {
            Ok(socket) => {
                let conversation = std::mem::take(&mut self.conversation);
                self.parked = true;
                self.sessions
                    .park(self.key, socket, self.last_heard_ms, conversation);
                context.stop();
                true
            }
            Err(NotParked::Stays(stream)) => {
                self.stream = Some(stream);
                self.last_active_ms = self.sessions.now_ms();
                false
            }
            Err(NotParked::Broken(error)) => {
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
