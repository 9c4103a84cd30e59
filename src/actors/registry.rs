//! Registry, one per worker: finds a session by its key, awake or parked.
//!
//! Owns: the seats of the worker's sessions, their deadlines, the parked sockets. Hears: events for
//! sessions, from every Router. Tells: the session, which it wakes if need be. Limits: its mailbox;
//! the mailbox of each session, past which a note is kept beside the seat.
//!
//! A session is a virtual actor: nearly all sockets are idle nearly always, so an idle session is
//! only a seat with a descriptor and a conversation in it, and becomes an actor again when
//! something happens.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use actix::prelude::*;
use slab::Slab;
use tokio::time::Instant;

use crate::actors::Node;
use crate::actors::close_reason::CloseReason;
use crate::actors::conversation::Conversation;
use crate::actors::messages::{Beat, CloseAll, EndProject, Notify, SessionEvent};
use crate::actors::missed::Missed;
use crate::actors::parking::ParkingLot;
use crate::actors::session::Session;
pub use crate::actors::session_key::{SEATS_MAX, SessionKey, WORKERS_MAX};
use crate::actors::stream::DeviceStream;
use crate::actors::timing_wheel::{TICK_MS, TimingWheel};

/// The registry's line to one awake session.
pub struct Line<S: DeviceStream> {
    addr: Addr<Session<S>>,
    /// Messages in the mailbox: a session with any may not park.
    pub queued: Rc<Cell<usize>>,
    /// What did not fit into it.
    pub missed: Rc<RefCell<Missed>>,
}

/// A parked session: all that is left of it.
pub struct Parked<S: DeviceStream> {
    socket: S::Parked,
    last_heard_ms: u64,
    conversation: Conversation,
}

enum State<S: DeviceStream> {
    /// Only while its actor is being started or stopped.
    Moving,
    Awake(Line<S>),
    Parked(Parked<S>),
}

struct Seat<S: DeviceStream> {
    serial: u32,
    /// When the wheel's note that counts comes up; others of this session are stale.
    noted_ms: u64,
    state: State<S>,
}

/// The sessions of one worker. Shared by the worker's registry and its awake sessions; never
/// leaves the thread.
pub struct Sessions<S: DeviceStream> {
    worker: usize,
    node: Node,
    seats: RefCell<Slab<Seat<S>>>,
    next_serial: Cell<u32>,
    deadlines: RefCell<TimingWheel<SessionKey>>,
    lot: ParkingLot,
    started: Instant,
}

impl<S: DeviceStream> Sessions<S> {
    /// An empty room for worker number `worker`.
    ///
    /// # Errors
    /// When the kernel has no descriptor left.
    pub fn new(worker: usize, node: Node) -> std::io::Result<Rc<Self>> {
        Ok(Rc::new(Self {
            worker,
            node,
            seats: RefCell::default(),
            next_serial: Cell::new(1),
            deadlines: RefCell::new(TimingWheel::new(0)),
            lot: ParkingLot::new()?,
            started: Instant::now(),
        }))
    }

    /// The node these sessions belong to.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Milliseconds since the worker started: deadlines do not follow the wall clock's jumps.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Seats a new session on a stream; `leftover` was read behind the upgrade request.
    pub fn enter(self: &Rc<Self>, stream: S, leftover: &[u8], conversation: Conversation) {
        let serial = self.next_serial.get();
        self.next_serial.set(serial.wrapping_add(1));
        let seat = self.seats.borrow_mut().insert(Seat {
            serial,
            noted_ms: u64::MAX,
            state: State::Moving,
        });
        let key = SessionKey::new(self.worker, seat, serial);
        self.node.session_entered();
        let now = self.now_ms();
        let session = Session::new(key, Rc::clone(self), stream, leftover, conversation, now);
        self.start(key, session);
    }

    fn start(&self, key: SessionKey, session: Session<S>) {
        let (queued, missed) = session.line();
        self.check_at(key, session.next_check());
        let line = Line {
            addr: session.start(),
            queued,
            missed,
        };
        self.replace(key, State::Awake(line));
    }

    /// Puts a session into another state; returns the one it was in, if it is still seated.
    fn replace(&self, key: SessionKey, state: State<S>) -> Option<State<S>> {
        let mut seats = self.seats.borrow_mut();
        let seat = seats
            .get_mut(key.seat())
            .filter(|seat| seat.serial == key.serial())?;
        Some(std::mem::replace(&mut seat.state, state))
    }

    /// Asks for a look at a session's deadlines. A note for an earlier look stands for a later one:
    /// whoever looks asks again, so that a session has one note that counts.
    pub fn check_at(&self, key: SessionKey, at_ms: u64) {
        let mut seats = self.seats.borrow_mut();
        if let Some(seat) = seats.get_mut(key.seat())
            && seat.serial == key.serial()
            && at_ms < seat.noted_ms
        {
            seat.noted_ms = self.deadlines.borrow_mut().insert(at_ms, key);
        }
    }

    /// Takes the note that has come up; false for a stale one.
    fn take_note(&self, key: SessionKey, now_ms: u64) -> bool {
        let mut seats = self.seats.borrow_mut();
        match seats.get_mut(key.seat()) {
            Some(seat) if seat.serial == key.serial() && seat.noted_ms <= now_ms => {
                seat.noted_ms = u64::MAX;
                true
            }
            _ => false,
        }
    }

    /// A session stops being an actor and leaves this behind.
    pub fn park(
        &self,
        key: SessionKey,
        socket: S::Parked,
        last_heard_ms: u64,
        conversation: Conversation,
    ) {
        let watched = S::descriptor(&socket).map(|descriptor| self.lot.add(descriptor, key));
        if let Some(Err(error)) = watched {
            tracing::warn!(%error, "a session could not be parked");
            return self.leave(key, &conversation, &CloseReason::Gone);
        }
        self.replace(
            key,
            State::Parked(Parked {
                socket,
                last_heard_ms,
                conversation,
            }),
        );
        self.check_at(key, last_heard_ms + self.node.settings().silent_after_ms());
    }

    /// A session is over: frees its seat and tells the routers.
    pub fn leave(&self, key: SessionKey, conversation: &Conversation, reason: &CloseReason) {
        let mut seats = self.seats.borrow_mut();
        if seats
            .get(key.seat())
            .is_some_and(|seat| seat.serial == key.serial())
        {
            seats.remove(key.seat());
            drop(seats);
            self.node.session_left(key, conversation, reason);
        }
    }

    /// Makes a parked session an actor again. Nothing to do for one that is awake or gone.
    fn wake(self: &Rc<Self>, key: SessionKey) {
        let parked = match self.replace(key, State::Moving) {
            Some(State::Parked(parked)) => parked,
            Some(other) => {
                self.replace(key, other);
                return;
            }
            None => return,
        };
        let Parked {
            socket,
            last_heard_ms,
            conversation,
        } = parked;
        // The socket must leave the set before the runtime may watch it again.
        let left = S::descriptor(&socket).map_or(Ok(()), |descriptor| self.lot.remove(descriptor));
        match left.and_then(|()| S::wake(socket)) {
            Ok(stream) => {
                let sessions = Rc::clone(self);
                let session = Session::new(key, sessions, stream, &[], conversation, last_heard_ms);
                self.start(key, session);
            }
            Err(error) => {
                tracing::warn!(%error, "a parked session could not be woken");
                self.leave(key, &conversation, &CloseReason::Gone);
            }
        }
    }

    /// Tells one session, waking it if need be.
    fn tell(self: &Rc<Self>, key: SessionKey, event: SessionEvent) {
        self.wake(key);
        let seats = self.seats.borrow();
        let Some(Seat {
            serial,
            state: State::Awake(line),
            ..
        }) = seats.get(key.seat())
        else {
            return;
        };
        if *serial != key.serial() {
            return;
        }
        match line.addr.try_send(event) {
            Ok(()) => line.queued.set(line.queued.get() + 1),
            Err(SendError::Full(event)) => line.missed.borrow_mut().note(event),
            Err(SendError::Closed(_)) => {}
        }
    }

    /// Looks at every session whose deadline may have passed.
    fn check_deadlines(self: &Rc<Self>) {
        let now = self.now_ms();
        let due = self.deadlines.borrow_mut().advance(now);
        for key in due {
            if !self.take_note(key, now) {
                continue;
            }
            match self.parked_deadline(key) {
                Some(deadline) if now < deadline => self.check_at(key, deadline),
                _ => self.tell(key, SessionEvent::Check),
            }
        }
    }

    /// When a parked session has been silent for too long.
    fn parked_deadline(&self, key: SessionKey) -> Option<u64> {
        let seats = self.seats.borrow();
        match seats.get(key.seat()) {
            Some(Seat {
                serial,
                state: State::Parked(parked),
                ..
            }) if *serial == key.serial() => {
                Some(parked.last_heard_ms + self.node.settings().silent_after_ms())
            }
            _ => None,
        }
    }

    fn keys(&self) -> Vec<SessionKey> {
        let seats = self.seats.borrow();
        seats
            .iter()
            .map(|(seat, held)| SessionKey::new(self.worker, seat, held.serial))
            .collect()
    }
}

/// How often a drain closes some sessions.
const CLOSE_TICK: Duration = Duration::from_millis(50);

/// The actor: the way into [`Sessions`] from other threads.
pub struct Registry<S: DeviceStream> {
    sessions: Rc<Sessions<S>>,
}

impl<S: DeviceStream> Registry<S> {
    /// Over the sessions of this worker.
    #[must_use]
    pub fn new(sessions: Rc<Sessions<S>>) -> Self {
        Self { sessions }
    }

    /// Closes `keys` evenly over what is left of the window, a few each tick.
    fn close_some(
        &mut self,
        mut keys: Vec<SessionKey>,
        ticks_left: usize,
        context: &mut Context<Self>,
    ) {
        let now = keys.len().div_ceil(ticks_left.max(1));
        for key in keys.split_off(keys.len() - now) {
            let retry_ms = self.sessions.node().restart_retry_ms();
            self.sessions.tell(key, SessionEvent::Restart { retry_ms });
        }
        if !keys.is_empty() {
            let left = ticks_left.saturating_sub(1);
            context.run_later(CLOSE_TICK, move |registry, context| {
                registry.close_some(keys, left, context);
            });
        }
    }
}

impl<S: DeviceStream> Actor for Registry<S> {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(self.sessions.node().settings().mailbox);
        context.run_interval(Duration::from_millis(TICK_MS), |registry, _| {
            registry.sessions.check_deadlines();
        });
        let sessions = Rc::clone(&self.sessions);
        context.spawn(
            async move {
                loop {
                    match sessions.lot.readable().await {
                        Ok(keys) => keys.into_iter().for_each(|key| sessions.wake(key)),
                        Err(error) => {
                            tracing::error!(%error, "the set of parked sockets is broken");
                            return;
                        }
                    }
                    // A burst of readable sockets shares the worker with everybody else.
                    tokio::task::yield_now().await;
                }
            }
            .into_actor(self),
        );
    }
}

impl<S: DeviceStream> Handler<Notify> for Registry<S> {
    type Result = ();

    fn handle(&mut self, Notify(events): Notify, _: &mut Self::Context) {
        for (key, event) in events {
            self.sessions.tell(key, event);
        }
    }
}

impl<S: DeviceStream> Handler<EndProject> for Registry<S> {
    type Result = ();

    fn handle(&mut self, EndProject(project): EndProject, _: &mut Self::Context) {
        for key in self.sessions.keys() {
            self.sessions.tell(key, SessionEvent::EndProject(project));
        }
    }
}

impl<S: DeviceStream> Handler<CloseAll> for Registry<S> {
    type Result = ();

    fn handle(&mut self, CloseAll { window_ms }: CloseAll, context: &mut Self::Context) {
        let tick_ms = u64::try_from(CLOSE_TICK.as_millis()).unwrap_or(1);
        let ticks = usize::try_from(window_ms / tick_ms).unwrap_or(1);
        self.close_some(self.sessions.keys(), ticks, context);
    }
}

impl<S: DeviceStream> Handler<Beat> for Registry<S> {
    type Result = ();

    fn handle(&mut self, _: Beat, _: &mut Self::Context) {}
}
