//! Who has seen everything, and says at once which promise was broken.
//!
//! By their numbers in ARCHITECTURE.md: 1 no loss, 2 no invention, 3 one syn one push, 4 no hole,
//! 5 durable before visible, 6 order, 9 isolation. That nothing is acknowledged but by its own device
//! (7) is watched by the store itself. And: a device has one socket at a time, however many it opens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use herald::clock::{Clock, Millis};
use herald::push::{MessageId, Syn};
use herald_protocol::PushFrame;
use tokio::time::Instant;

use crate::store::FaultyStore;
use crate::world::Totals;

/// So long two sockets of one device may both be open, once both were welcomed.
const CROWDED_MAX: Duration = Duration::from_secs(4);

/// How a send ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Stored,
    Refused,
    Unknown,
}

struct Sent {
    token: usize,
    id: MessageId,
    expires_at: Millis,
    answer: Option<Answer>,
    is_shown: bool,
}

/// What the readers of a token were shown.
#[derive(Default)]
struct Shown {
    texts: BTreeMap<Syn, String>,
    /// The socket of the highest number.
    highest_on: u64,
}

#[derive(Default)]
struct Greeted {
    sockets: BTreeSet<u64>,
    crowded_since: Option<Instant>,
}

/// The judge.
pub struct Judge {
    store: Arc<FaultyStore>,
    clock: Clock,
    started: Instant,
    sent: BTreeMap<String, Sent>,
    shown: Vec<Shown>,
    greeted: Vec<Greeted>,
    pub totals: Totals,
    /// What happened, and when.
    pub lines: Vec<String>,
}

impl Judge {
    pub fn new(store: Arc<FaultyStore>, clock: Clock, tokens: usize, devices: usize) -> Self {
        Self {
            store,
            clock,
            started: Instant::now(),
            sent: BTreeMap::new(),
            shown: (0..tokens).map(|_| Shown::default()).collect(),
            greeted: (0..devices).map(|_| Greeted::default()).collect(),
            totals: Totals::default(),
            lines: Vec::new(),
        }
    }

    pub fn note(&mut self, what: &str) {
        let at = self.started.elapsed().as_millis();
        self.lines.push(format!("{at:>6} {what}"));
    }

    // --- Senders -----------------------------------------------------------------------------

    /// Somebody is about to send `text`.
    pub fn sends(&mut self, text: &str, token: usize, id: MessageId, expires_at: Millis) {
        self.totals.sends += 1;
        self.note(&format!("token {token}: {text} is sent"));
        let sent = Sent {
            token,
            id,
            expires_at,
            answer: None,
            is_shown: false,
        };
        self.sent.insert(text.to_owned(), sent);
    }

    pub fn answered(&mut self, text: &str, answer: Answer) {
        self.note(&format!("{text} is answered {answer:?}"));
        let sent = self.sent.get_mut(text).expect("it was sent");
        sent.answer = Some(answer);
        let syn = self.store.syn_of(sent.id);
        match answer {
            Answer::Stored => {
                self.totals.stored += 1;
                assert!(syn.is_some(), "promise 1: {text} is not durable");
            }
            Answer::Refused => {
                self.totals.refused += 1;
                assert_eq!(syn, None, "promise 2: {text} was refused and is stored");
            }
            Answer::Unknown => self.totals.unknown += 1,
        }
    }

    // --- Devices -----------------------------------------------------------------------------

    /// A device reads a push on a socket that has shown `last` of this token before.
    pub fn sees(&mut self, token: usize, socket: u64, last: Syn, frame: &PushFrame) {
        let (syn, text) = (frame.syn, frame.message.get());
        self.note(&format!(
            "token {token}: {text} is shown as {syn} on socket {socket}"
        ));
        let Some(sent) = self.sent.get_mut(text) else {
            panic!("promise 2: nobody sent {text}");
        };
        assert_eq!(sent.token, token, "promise 9: {text} was for another");
        let is_refused = sent.answer == Some(Answer::Refused);
        assert!(!is_refused, "promise 2: {text} was refused");
        assert_eq!(sent.id.to_string(), frame.message_id, "{text} has one name");
        let stored = self.store.syn_of(sent.id);
        assert!(
            stored.is_some(),
            "promise 5: {text} is shown and not durable"
        );
        assert_eq!(stored, Some(syn), "promise 3: {text} has another number");
        assert!(
            syn > last,
            "promise 6: {syn} after {last} on one socket ({text})"
        );
        sent.is_shown = true;
        // A newer reader may have had reason to pass over what lay in the buffer of an older one.
        let has_expired = self.clock.now() >= sent.expires_at;
        let may_be_passed_over = has_expired || syn <= self.store.acked(sent.id);
        let shown = &mut self.shown[token];
        let highest = shown.texts.keys().next_back().copied().unwrap_or(0);
        match shown.texts.insert(syn, text.to_owned()) {
            Some(known) => {
                assert_eq!(known, text, "promise 3: {syn} is two pushes");
                self.totals.shown_again += 1;
            }
            None => {
                assert!(
                    syn > highest || may_be_passed_over && shown.highest_on != socket,
                    "promise 4: {syn} ({text}) appears after {highest}"
                );
                self.totals.shown += 1;
            }
        }
        if syn > highest {
            shown.highest_on = socket;
        }
    }

    /// A socket of a device was welcomed.
    pub fn greeted(&mut self, device: usize, socket: u64) {
        self.note(&format!("device {device}, socket {socket}: is welcome"));
        let greeted = &mut self.greeted[device];
        greeted.sockets.insert(socket);
        if greeted.sockets.len() > 1 && greeted.crowded_since.is_none() {
            greeted.crowded_since = Some(Instant::now());
        }
    }

    /// It is over, or nobody looks at it any more.
    pub fn gone(&mut self, device: usize, socket: u64) {
        self.note(&format!("device {device}, socket {socket}: is gone"));
        let greeted = &mut self.greeted[device];
        greeted.sockets.remove(&socket);
        if greeted.sockets.len() < 2 {
            greeted.crowded_since = None;
        }
    }

    /// A device looks at its socket.
    pub fn looks(&self, device: usize) {
        let since = self.greeted[device].crowded_since;
        assert!(
            since.is_none_or(|since| since.elapsed() < CROWDED_MAX),
            "takeover: device {device} still has more than one socket"
        );
    }

    // --- Crashes and the end -----------------------------------------------------------------

    /// The node has stopped, and all sockets with it.
    pub fn crashes(&mut self) {
        self.note("crash");
        self.totals.crashes += 1;
        for greeted in &mut self.greeted {
            *greeted = Greeted::default();
        }
        for sent in self.sent.values_mut() {
            sent.answer.get_or_insert(Answer::Unknown);
        }
    }

    /// What is durable, alive and not acknowledged, and was never shown: with every device connected
    /// and nothing going wrong this must become empty.
    /// With `only_answered`, of what was answered 200: for the rest nobody was promised a hint.
    pub fn missing(&self, only_answered: bool) -> Vec<String> {
        let pending: BTreeMap<MessageId, Syn> = self.store.pending().into_iter().collect();
        let now = self.clock.now();
        let waits = |sent: &Sent| {
            let counts = !only_answered || sent.answer == Some(Answer::Stored);
            counts && !sent.is_shown && now < sent.expires_at
        };
        let missing = self.sent.iter().filter(|(_, sent)| waits(sent));
        missing
            .filter_map(|(text, sent)| {
                let (syn, token) = (pending.get(&sent.id)?, sent.token);
                Some(format!("token {token}: {text}, number {syn}"))
            })
            .collect()
    }
}
