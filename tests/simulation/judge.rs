//! Who has seen everything, and says at once which promise was broken.
//!
//! By their numbers in ARCHITECTURE.md: 1 no loss, 2 no invention, 3 one syn one push, 4 no hole,
//! 5 durable before visible, 6 order, 8 TTL, 9 isolation. That nothing is acknowledged but by its own
//! device (7) is watched by the ledger. And: what was replaced is shown to nobody who came afterwards;
//! what the cap has taken is told; a device has one socket at a time, however many it opens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use herald::clock::{Clock, Millis};
use herald::push::Syn;
use herald::token::TokenId;
use herald::topic::{Reach, TopicName};
use tokio::time::Instant;

use crate::ledger::Log;
use crate::members::Members;
use crate::reader::Reader;
use crate::sent::{Answer, Sent, To};
use crate::store::FaultyStore;
use crate::totals::Totals;

/// So long two sockets of one device may both be open, once both were welcomed.
const CROWDED_MAX: Duration = Duration::from_secs(4);

/// A push in a reader's hands.
pub struct Seen<'a> {
    pub token: usize,
    pub syn: Syn,
    pub text: &'a str,
    pub name: &'a str,
    /// Not before then did the server give it up.
    pub handed_over: Millis,
}

/// What the readers of a token were shown.
#[derive(Default)]
struct Shown {
    texts: BTreeMap<Syn, String>,
    /// Who was shown the highest number.
    highest_to: u64,
}

#[derive(Default)]
struct Greeted {
    sockets: BTreeSet<u64>,
    crowded_since: Option<Instant>,
}

/// The judge.
pub struct Judge {
    pub store: Arc<FaultyStore>,
    pub clock: Clock,
    pub tokens: Vec<TokenId>,
    sent: BTreeMap<String, Sent>,
    members: Members,
    started: Instant,
    shown: Vec<Shown>,
    greeted: Vec<Greeted>,
    pub totals: Totals,
    /// What happened, and when.
    pub lines: Vec<String>,
}

impl Judge {
    pub fn new(
        store: Arc<FaultyStore>,
        clock: Clock,
        tokens: Vec<TokenId>,
        devices: usize,
    ) -> Self {
        Self {
            store,
            clock,
            sent: BTreeMap::new(),
            members: Members::new(),
            started: Instant::now(),
            shown: tokens.iter().map(|_| Shown::default()).collect(),
            greeted: (0..devices).map(|_| Greeted::default()).collect(),
            tokens,
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
    pub fn sends(&mut self, text: &str, mut sent: Sent) {
        self.totals.sends += 1;
        let to = match &sent.to {
            To::One(token) => format!("token {token}"),
            To::Many(reach) => {
                self.totals.to_many += 1;
                let mut ledger = self.store.ledger();
                for (token, address) in self.tokens.iter().enumerate() {
                    if ledger.log(*address).is_some_and(Log::is_known) {
                        sent.known.insert(token);
                    }
                    if self.members.is_in_between(token, reach) {
                        ledger.may_come_twice(sent.id, *address);
                    }
                }
                reach.to_text()
            }
        };
        let life = sent.expires_at - sent.accepted_at;
        self.note(&format!("{to}: {text} is sent, for {life} ms"));
        self.sent.insert(text.to_owned(), sent);
    }

    pub fn answered(&mut self, text: &str, answer: Answer) {
        self.note(&format!("{text} is answered {answer:?}"));
        let sent = self.sent.get_mut(text).expect("it was sent");
        sent.answer = Some(answer);
        let ledger = self.store.ledger();
        let syn_for = |token: &TokenId| ledger.syn_of(sent.id, *token);
        match answer {
            Answer::Stored => {
                self.totals.stored += 1;
                if let To::One(token) = sent.to {
                    let syn = syn_for(&self.tokens[token]);
                    assert!(syn.is_some(), "promise 1: {text} is not durable");
                }
            }
            Answer::Refused => {
                self.totals.refused += 1;
                let stored = self.tokens.iter().find_map(syn_for);
                assert_eq!(stored, None, "promise 2: {text} was refused and is stored");
            }
            Answer::Unknown => self.totals.unknown += 1,
        }
    }

    /// A subscription is about to change.
    pub fn changes(&mut self, token: usize, topic: &TopicName, joins: bool) {
        let what = if joins { "joins" } else { "leaves" };
        self.note(&format!("token {token} {what} {topic}"));
        self.members.changes(token, topic);
    }

    /// It has changed.
    pub fn changed(&mut self, token: usize, topic: &TopicName, joins: bool) {
        let what = if joins { "in" } else { "out of" };
        self.note(&format!("token {token} is {what} {topic}"));
        self.members.changed(token, topic, joins);
    }

    // --- Readers -----------------------------------------------------------------------------

    /// A device reads a push, on a socket or in the answer to a poll.
    pub fn sees(&mut self, reader: &mut Reader, seen: &Seen<'_>) {
        let Seen {
            token, syn, text, ..
        } = *seen;
        let id = reader.id;
        self.note(&format!("token {token}: {text} is shown as {syn} to {id}"));
        self.may_be_shown(reader, seen);
        let last = reader.sees(token, syn);
        assert!(
            syn > last,
            "promise 6: {syn} after {last} to one reader ({text})"
        );
        self.is_nothing_dropped_in_silence(reader, token, last, syn);
        let sent = self.sent.get_mut(text).expect("looked at");
        sent.shown_to.insert(token);
        // A newer reader may have had reason to pass over what lay in the buffer of an older one.
        let ledger = self.store.ledger();
        let log = ledger.log(self.tokens[token]).expect("looked at");
        let may_be_passed_over = sent.is_excused(self.clock.now()) || log.is_done_with(syn);
        let shown = &mut self.shown[token];
        let highest = shown.texts.keys().next_back().copied().unwrap_or(0);
        match shown.texts.insert(syn, text.to_owned()) {
            Some(known) => {
                assert_eq!(known, text, "promise 3: {syn} is two pushes");
                self.totals.shown_again += 1;
            }
            None => {
                assert!(
                    syn > highest || may_be_passed_over && shown.highest_to != id,
                    "promise 4: {syn} ({text}) appears after {highest}"
                );
                self.totals.shown += 1;
            }
        }
        if syn > highest {
            shown.highest_to = id;
        }
    }

    fn may_be_shown(&self, reader: &Reader, seen: &Seen<'_>) {
        let Seen {
            token, syn, text, ..
        } = *seen;
        let Some(sent) = self.sent.get(text) else {
            panic!("promise 2: nobody sent {text}");
        };
        let is_for_it = match &sent.to {
            To::One(only) => *only == token,
            To::Many(reach) => self.members.is_reached(token, reach, sent.sent_at) != Some(false),
        };
        assert!(is_for_it, "promise 9: {text} was for others");
        let is_refused = sent.answer == Some(Answer::Refused);
        assert!(!is_refused, "promise 2: {text} was refused");
        assert_eq!(sent.id.to_string(), seen.name, "{text} has one name");
        let (ledger, address) = (self.store.ledger(), self.tokens[token]);
        let stored = ledger.syn_of(sent.id, address);
        assert!(
            stored.is_some(),
            "promise 5: {text} is shown and not durable"
        );
        let is_over = sent.is_over(seen.handed_over);
        assert!(!is_over, "promise 8: {text} is shown too late");
        let row = ledger.log(address).and_then(|log| log.rows.get(&syn));
        let row = row.filter(|row| row.id == sent.id);
        let row = row.expect("promise 3: it has another number");
        assert!(
            row.replaced_at.is_none_or(|at| at >= reader.since) && !row.was_never_to_be_seen,
            "collapse: {text} was replaced before its reader could see it"
        );
    }

    /// Between two numbers that a reader was shown nothing is missing that the cap has taken, unless
    /// it was told so.
    fn is_nothing_dropped_in_silence(&self, reader: &Reader, token: usize, last: Syn, next: Syn) {
        let (ledger, now) = (self.store.ledger(), self.clock.now());
        let log = ledger.log(self.tokens[token]).expect("looked at");
        let from = last.max(log.acked).max(reader.told(token)) + 1;
        if from >= next {
            return;
        }
        let up_to = log.dropped_up_to.min(next - 1);
        for (syn, row) in log.rows.range(from..).take_while(|(syn, _)| **syn <= up_to) {
            let was_shown = self.shown[token].texts.contains_key(syn);
            assert!(
                was_shown || now >= row.expires_at || row.replaced_at.is_some(),
                "cap: {syn} of token {token} was dropped, and its reader is shown {next} untold"
            );
        }
    }

    /// A device is told that pushes were dropped.
    pub fn is_told(&mut self, reader: &mut Reader, token: usize, up_to: Syn) {
        let id = reader.id;
        self.note(&format!(
            "token {token}: {id} is told, dropped up to {up_to}"
        ));
        self.totals.told_dropped += 1;
        reader.is_told(token, up_to);
        let ledger = self.store.ledger();
        let dropped_up_to = |log: &Log| log.dropped_up_to;
        let dropped = ledger.log(self.tokens[token]).map_or(0, dropped_up_to);
        assert!(up_to <= dropped, "cap: {up_to} was not dropped, {dropped}");
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

    /// What nobody has seen who should: with every device connected and nothing going wrong this
    /// must become empty.
    /// With `only_answered`, of what was answered 200: for the rest nobody was promised a hint.
    pub fn missing(&self, only_answered: bool) -> Vec<String> {
        let now = self.clock.now();
        let mut missing = Vec::new();
        for (text, sent) in &self.sent {
            if sent.is_excused(now) || only_answered && sent.answer != Some(Answer::Stored) {
                continue;
            }
            for token in 0..self.tokens.len() {
                if !sent.shown_to.contains(&token)
                    && let Some(what) = self.is_missing(sent, token)
                {
                    missing.push(format!("token {token}: {text}, {what}"));
                }
            }
        }
        missing
    }

    /// How many pushes to one token had become durable and were seen by nobody in time.
    pub fn expired(&self) -> u64 {
        let (now, ledger) = (self.clock.now(), self.store.ledger());
        let is_unseen = |sent: &&Sent| match sent.to {
            To::One(token) => {
                let is_stored = ledger.syn_of(sent.id, self.tokens[token]).is_some();
                is_stored && sent.shown_to.is_empty() && sent.is_over(now)
            }
            To::Many(_) => false,
        };
        self.sent.values().filter(is_unseen).count() as u64
    }

    fn is_missing(&self, sent: &Sent, token: usize) -> Option<String> {
        let ledger = self.store.ledger();
        let Some(syn) = ledger.syn_of(sent.id, self.tokens[token]) else {
            let To::Many(reach) = &sent.to else {
                return None;
            };
            let is_reached = self.members.is_reached(token, reach, sent.sent_at);
            // Only a topic's members are known to the store for certain.
            let is_known = matches!(reach, Reach::Topic(_)) || sent.known.contains(&token);
            let is_answered = sent.answer == Some(Answer::Stored);
            let is_due = is_answered && is_known && is_reached == Some(true);
            return is_due.then(|| "no copy".to_owned());
        };
        let log = ledger.log(self.tokens[token])?;
        (!log.is_done_with(syn)).then(|| format!("number {syn}"))
    }
}
