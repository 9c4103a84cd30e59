//! One socket of a device: says hello, acknowledges what it likes, and ends in one of many ways.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::SplitStream;
use futures_util::{SinkExt as _, StreamExt as _};
use herald::clock::Millis;
use herald::push::Syn;
use herald_protocol::{DeviceFrame, Hello, PushFrame, ServerFrame, TokenCursor, TokenState};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use tokio::io::DuplexStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::judge::Seen;
use crate::pipe::{HandedOver, Pipe};
use crate::reader::Reader;
use crate::worker::Door;
use crate::world::{PING_INTERVAL_MS, World};

/// How it ends, unless the server ends it.
#[derive(Debug, Clone, Copy)]
enum Ending {
    HangsUp,
    Closes,
    /// Neither reads nor writes for a while.
    Sleeps,
    /// Reads on, but says nothing any more.
    FallsSilent,
}

/// What the device knows of one of its tokens.
struct Held {
    token: usize,
    is_subscribed: bool,
    asked: Option<Instant>,
    /// Answers that are still to come.
    answers: usize,
}

struct Socket {
    world: Rc<World>,
    device: usize,
    reader: Reader,
    handed_over: Rc<RefCell<HandedOver>>,
    stream: SplitStream<WebSocketStream<DuplexStream>>,
    saying: UnboundedSender<Message>,
    random: SmallRng,
    held: Vec<Held>,
    said: Instant,
    is_greeted: bool,
    is_silent: bool,
    ending: Option<(Instant, Ending)>,
}

/// From the connection to its end.
pub async fn live(world: Rc<World>, door: Door, device: usize, mut random: SmallRng) {
    let room = [64, 256, 4_096][random.random_range(0..3)];
    let (near, far) = tokio::io::duplex(room);
    let entrance = random.random_range(0..door.len());
    let handed_over = Rc::<RefCell<HandedOver>>::default();
    let pipe = Pipe {
        stream: far,
        clock: world.clock.clone(),
        handed_over: Rc::clone(&handed_over),
    };
    let _ = door[entrance].send((pipe, world.devices[device]));
    let id = world.next_number();
    world.judge().totals.sockets += 1;
    let lasts = Duration::from_millis(random.random_range(50..6_000));
    let ending = match random.random_range(0..8) {
        0 => Some(Ending::HangsUp),
        1 => Some(Ending::Closes),
        2 | 3 => Some(Ending::Sleeps),
        4 => Some(Ending::FallsSilent),
        _ => None,
    };
    let held = world.tokens_of(device).map(|token| Held {
        token,
        is_subscribed: false,
        asked: None,
        answers: 0,
    });
    let stream = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
    let (mut sink, stream) = stream.split();
    let (saying, mut said) = unbounded_channel();
    // It reads while it writes, or both sides might wait for the other to read.
    let writer = spawn_local(async move {
        while let Some(message) = said.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
    });
    let mut socket = Socket {
        held: held.collect(),
        stream,
        saying,
        device,
        reader: Reader::new(id),
        handed_over,
        random,
        said: Instant::now(),
        is_greeted: false,
        is_silent: false,
        ending: ending.map(|ending| (Instant::now() + lasts, ending)),
        world: Rc::clone(&world),
    };
    let _ = socket.run().await;
    writer.abort();
    world.judge().gone(device, id);
}

impl Socket {
    fn one_in(&mut self, chance: u32) -> bool {
        self.random.random_range(0..chance) == 0
    }

    fn text_of(&self, token: usize) -> String {
        self.world.tokens[token].text.clone()
    }

    /// Says something; `None` when the socket is over.
    fn say(&mut self, frame: DeviceFrame) -> Option<()> {
        self.said = Instant::now();
        self.note_said(&frame);
        self.saying.send(Message::text(frame.to_text())).ok()
    }

    fn note_said(&self, frame: &DeviceFrame) {
        let token = |text: &str| self.world.token_named(text);
        let said = match frame {
            DeviceFrame::Hello(hello) => {
                let cursors = hello.tokens.iter();
                let cursors: Vec<_> = cursors.map(|it| (token(&it.token), it.min_syn)).collect();
                format!("hello {cursors:?}")
            }
            DeviceFrame::Subscribe(cursor) => {
                format!("subscribe {} from {}", token(&cursor.token), cursor.min_syn)
            }
            DeviceFrame::Unsubscribe { token: text } => format!("unsubscribe {}", token(text)),
            DeviceFrame::Ack { token: text, syn } => format!("ack {} up to {syn}", token(text)),
            DeviceFrame::Ping | DeviceFrame::Unknown => return,
        };
        self.note(&format!("says {said}"));
    }

    fn note(&self, what: &str) {
        let (device, socket) = (self.device, self.reader.id);
        let mut judge = self.world.judge();
        judge.note(&format!("device {device}, socket {socket}: {what}"));
    }

    async fn run(&mut self) -> Option<()> {
        if self.world.is_calm() || !self.one_in(12) {
            self.hello()?;
        } else {
            // Nothing at all, until the server has had enough of it.
            self.is_silent = true;
        }
        loop {
            self.end_in_time().await?;
            let patience = Duration::from_millis(self.random.random_range(20..300));
            match timeout(patience, self.stream.next()).await {
                Err(_) => self.idle()?,
                Ok(Some(Ok(message))) => self.take(&message)?,
                Ok(Some(Err(_)) | None) => return None,
            }
            self.world.judge().looks(self.device);
            let is_due = self.said.elapsed() > Duration::from_millis(PING_INTERVAL_MS / 2);
            if is_due && !self.is_silent {
                self.say(DeviceFrame::Ping)?;
            }
        }
    }

    fn hello(&mut self) -> Option<()> {
        let mut tokens = Vec::new();
        for place in 0..self.held.len() {
            if self.world.is_calm() || !self.one_in(4) {
                tokens.push(self.cursor(place));
            }
        }
        if self.one_in(8) {
            // One of somebody else, which must be refused.
            let token = self.foreign();
            let (token, min_syn) = (self.text_of(token), self.random.random_range(0..5));
            tokens.push(TokenCursor { token, min_syn });
        }
        let hello = Hello {
            tokens,
            ..Hello::default()
        };
        self.say(DeviceFrame::Hello(hello))
    }

    /// What the device has seen counts as acknowledged, if it says so.
    fn cursor(&mut self, place: usize) -> TokenCursor {
        self.held[place].asked = Some(Instant::now());
        self.held[place].answers += 1;
        let token = self.held[place].token;
        let seen = self.world.seen(token);
        let min_syn = if self.one_in(3) { 0 } else { seen + 1 };
        let address = self.world.tokens[token].address;
        let mut ledger = self.world.store.ledger();
        ledger.device_acks(address.id, min_syn.saturating_sub(1));
        drop(ledger);
        TokenCursor {
            token: self.text_of(token),
            min_syn,
        }
    }

    fn foreign(&mut self) -> usize {
        let own = &self.held[0].token;
        let tokens = self.world.tokens.len();
        (own + self.held.len()) % tokens
    }

    fn closed(&self, code: u16) {
        self.note(&format!("is closed with {code}"));
        self.world.judge().totals.closed(code);
    }

    // --- What it hears -----------------------------------------------------------------------

    fn take(&mut self, message: &Message) -> Option<()> {
        let handed_over = self.handed_over.borrow_mut().read(message.len());
        match message {
            Message::Text(text) => return self.hear(text, handed_over),
            Message::Close(Some(close)) => self.closed(close.code.into()),
            _ => {}
        }
        Some(())
    }

    fn hear(&mut self, text: &str, handed_over: Millis) -> Option<()> {
        match ServerFrame::parse(text).expect("a frame of ours") {
            ServerFrame::Welcome(welcome) => {
                self.is_greeted = true;
                self.world.judge().greeted(self.device, self.reader.id);
                welcome.tokens.iter().for_each(|state| self.learn(state));
            }
            ServerFrame::Subscribed(state) => self.learn(&state),
            ServerFrame::Push(frame) => return self.see(&frame, handed_over),
            ServerFrame::Deleted { token, up_to_syn } => {
                let token = self.world.token_named(&token);
                let mut judge = self.world.judge();
                judge.is_told(&mut self.reader, token, up_to_syn);
            }
            ServerFrame::Unregistered { .. } => {
                panic!("promise 1: {text} to device {}", self.device)
            }
            _ => {}
        }
        Some(())
    }

    fn learn(&mut self, state: &TokenState) {
        let token = self.world.token_named(&state.token);
        self.note(&format!("{token} is there, {:?}", state.error));
        let Some(held) = self.held.iter_mut().find(|it| it.token == token) else {
            let refused = state.error.as_deref() == Some("PERMISSION_DENIED");
            assert!(refused, "promise 9: {state:?}");
            return;
        };
        held.is_subscribed = state.error.is_none();
        held.answers -= 1;
    }

    fn see(&mut self, frame: &PushFrame, handed_over: Millis) -> Option<()> {
        let token = self.world.token_named(&frame.token);
        let is_own = self.held.iter().any(|it| it.token == token);
        assert!(is_own, "promise 9: a push of another device");
        let seen = Seen {
            token,
            syn: frame.syn,
            text: frame.message.get(),
            name: &frame.message_id,
            handed_over,
        };
        self.world.judge().sees(&mut self.reader, &seen);
        self.world.sees(token, frame.syn);
        if self.one_in(2) && !self.is_silent {
            self.ack(token, frame.syn)?;
        }
        Some(())
    }

    fn ack(&mut self, token: usize, syn: Syn) -> Option<()> {
        let address = self.world.tokens[token].address;
        self.world.store.ledger().device_acks(address.id, syn);
        let token = self.text_of(token);
        self.say(DeviceFrame::Ack { token, syn })
    }

    // --- What it does by itself --------------------------------------------------------------

    fn idle(&mut self) -> Option<()> {
        if self.is_silent {
            return Some(());
        }
        let place = self.random.random_range(0..self.held.len());
        let held = &self.held[place];
        // Not while an answer is still to come, which would say what is no longer so.
        let may_take_off = held.is_subscribed && held.answers == 0;
        let token = held.token;
        if self.world.is_calm() {
            self.ask_for_all()?;
            return match self.one_in(3) {
                true => self.ack(token, self.world.seen(token)),
                false => Some(()),
            };
        }
        match self.random.random_range(0..12) {
            0..=3 => self.ack(token, self.world.seen(token)),
            4 => {
                let beyond = self.random.random_range(1..4);
                self.ack(token, self.world.seen(token) + beyond)
            }
            5 => {
                let token = self.foreign();
                let (token, syn) = (self.text_of(token), self.random.random_range(1..50));
                self.say(DeviceFrame::Ack { token, syn })
            }
            6 | 7 if may_take_off => {
                self.held[place].is_subscribed = false;
                let token = self.text_of(token);
                self.say(DeviceFrame::Unsubscribe { token })
            }
            6..=8 => {
                let cursor = self.cursor(place);
                self.say(DeviceFrame::Subscribe(cursor))
            }
            _ => Some(()),
        }
    }

    /// Asks for every token that this socket does not have, but not all the time.
    fn ask_for_all(&mut self) -> Option<()> {
        for place in 0..self.held.len() {
            let held = &self.held[place];
            let is_asked = held
                .asked
                .is_some_and(|at| at.elapsed() < Duration::from_secs(1));
            if !held.is_subscribed && !is_asked {
                let cursor = self.cursor(place);
                self.say(DeviceFrame::Subscribe(cursor))?;
            }
        }
        Some(())
    }

    async fn end_in_time(&mut self) -> Option<()> {
        if self.world.is_calm() {
            self.is_silent &= !self.is_greeted;
            return Some(());
        }
        let Some((_, ending)) = self.ending.filter(|(at, _)| *at <= Instant::now()) else {
            return Some(());
        };
        self.ending = None;
        self.note(&format!("{ending:?}"));
        match ending {
            Ending::HangsUp => return None,
            Ending::Closes => {
                let _ = self.saying.send(Message::Close(None));
            }
            Ending::FallsSilent => self.is_silent = true,
            Ending::Sleeps => self.sleep().await,
        }
        Some(())
    }

    async fn sleep(&mut self) {
        self.world.judge().gone(self.device, self.reader.id);
        for _ in 0..self.random.random_range(1..40) {
            if self.world.is_calm() {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}
