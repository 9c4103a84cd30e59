//! What happened to one token, and what may not have.
//!
//! The promises that are judged here, by their numbers in ARCHITECTURE.md: 1 no loss, 2 no
//! invention, 3 one syn one push, 4 no hole, 6 order, 8 TTL, 9 isolation. That nothing is visible
//! before it is durable (5) shows as a number with two pushes after a crash. Books (11) are audited
//! at the end of a run.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{syn_of, text_of};

/// A machine this busy may show a push so much later than it was written on the socket.
const SHOWN_LATE: Duration = Duration::from_secs(2);

/// What the contract grants beyond a push's life.
const GRACE: Duration = Duration::from_secs(1);

/// How a send was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 200, with the message's name.
    Accepted(String),
    /// Certainly not accepted.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// One send, over all its repeats.
#[derive(Debug)]
struct Sent {
    begun: Instant,
    answered: Option<Instant>,
    answer: Option<Answer>,
    ttl: Option<Duration>,
    key: Option<u8>,
    /// The clock was moved while it was on its way or waiting.
    is_clock_moved: bool,
}

/// Everything that is known of a token.
#[derive(Debug)]
pub struct History {
    token: String,
    sent: HashMap<String, Sent>,
    /// Each number that was ever shown, with its text and name.
    shown: BTreeMap<u64, (String, String)>,
    /// Everything up to here was acknowledged.
    acked: u64,
    /// Numbers that a whole page did not have: they may never be shown again.
    absent_from: u64,
    absent_up_to: u64,
    present: Vec<u64>,
}

impl History {
    pub fn of(token: &str) -> Self {
        Self {
            token: token.to_owned(),
            sent: HashMap::new(),
            shown: BTreeMap::new(),
            acked: 0,
            absent_from: 0,
            absent_up_to: 0,
            present: Vec::new(),
        }
    }

    pub fn sends(&self) -> usize {
        self.sent.len()
    }

    pub fn seen(&self) -> usize {
        self.shown.len()
    }

    /// The smallest number that a reader still wants.
    pub fn wanted(&self) -> u64 {
        self.acked + 1
    }

    /// The clock is about to be moved: what lives for a while only may end early or late.
    pub fn clock_moves(&mut self) {
        for sent in self.sent.values_mut() {
            sent.is_clock_moved = true;
        }
        self.absent_up_to = 0;
    }

    /// Somebody is about to send this text.
    pub fn sends_now(&mut self, text: &str, ttl: Option<Duration>, key: Option<u8>) {
        self.sent.entry(text.to_owned()).or_insert(Sent {
            begun: Instant::now(),
            answered: None,
            answer: None,
            ttl,
            key,
            is_clock_moved: false,
        });
    }

    /// The answer. One with 200 stands, whatever a repeat is told.
    pub fn answered(&mut self, text: &str, answer: Answer) {
        let sent = self.sent.get_mut(text).expect("it was sent");
        match (&sent.answer, &answer) {
            (Some(Answer::Accepted(first)), Answer::Accepted(again)) => {
                assert_eq!(first, again, "{text}: one key, one name");
            }
            (Some(Answer::Accepted(_)), _) | (Some(Answer::Unknown), Answer::Refused) => {}
            _ => {
                sent.answer = Some(answer);
                sent.answered = Some(Instant::now());
            }
        }
    }

    /// A push was shown, on a socket or by a poll.
    pub fn see(&mut self, push: &Value) {
        let (syn, text) = (syn_of(push), text_of(push).to_owned());
        let id = push["message_id"].as_str().expect("an id").to_owned();
        let token = &self.token;
        let Some(sent) = self.sent.get(&text) else {
            panic!("{token}: nobody sent {text} there");
        };
        assert_ne!(sent.answer, Some(Answer::Refused), "{text} was refused");
        if let Some(Answer::Accepted(accepted)) = &sent.answer {
            assert_eq!(*accepted, id, "{text} has one name");
        }
        if let Some(ttl) = sent.ttl.filter(|_| !sent.is_clock_moved) {
            let until = sent.answered.unwrap_or_else(Instant::now) + ttl + GRACE + SHOWN_LATE;
            assert!(Instant::now() <= until, "{text} came after its time");
        }
        let is_gone = (self.absent_from..=self.absent_up_to).contains(&syn);
        assert!(
            !is_gone || self.present.contains(&syn),
            "{token}: {syn} ({text}) appears behind a reader"
        );
        let other = self
            .shown
            .iter()
            .find(|(other, held)| **other != syn && held.0 == text);
        assert_eq!(other, None, "{token}: {text} has {syn}, too");
        let known = self.shown.insert(syn, (text.clone(), id.clone()));
        assert!(
            known.as_ref().is_none_or(|known| *known == (text, id)),
            "{token}: {syn} is two pushes, {known:?}"
        );
    }

    /// The device is done with everything up to here.
    pub fn acks(&mut self, syn: u64) {
        self.acked = self.acked.max(syn);
    }

    /// A whole page from `min_syn` up to the watermark.
    pub fn see_page(&mut self, min_syn: u64, pushes: &[Value], syn_stored: u64) {
        let syns: Vec<u64> = pushes.iter().map(syn_of).collect();
        assert!(
            syns.is_sorted_by(|one, next| one < next),
            "in order: {syns:?}"
        );
        assert!(
            syns.last().is_none_or(|last| *last <= syn_stored),
            "beyond the watermark"
        );
        let highest = self.shown.keys().max().copied().unwrap_or(0);
        assert!(
            syn_stored >= highest,
            "the watermark went back to {syn_stored}"
        );
        pushes.iter().for_each(|push| self.see(push));
        (self.absent_from, self.absent_up_to) = (min_syn, syn_stored);
        self.present = syns;
    }

    /// Everything that was answered 200 has been shown, or has an excuse.
    pub fn judge(&self) {
        for (text, sent) in &self.sent {
            let Some(Answer::Accepted(id)) = &sent.answer else {
                continue;
            };
            let is_shown = self.shown.values().any(|(_, shown)| shown == id);
            assert!(
                is_shown || self.may_be_gone(sent),
                "{}: {text} was answered 200 and is gone",
                self.token
            );
        }
    }

    fn may_be_gone(&self, sent: &Sent) -> bool {
        let has_expired = sent
            .ttl
            .is_some_and(|ttl| sent.is_clock_moved || Instant::now() >= sent.begun + ttl);
        // Any send with its key that may have come after it.
        let is_replaced = sent.key.is_some()
            && self.sent.values().any(|other| {
                other.key == sent.key
                    && other.begun != sent.begun
                    && other.answer != Some(Answer::Refused)
                    && other.answered.is_none_or(|answered| answered >= sent.begun)
            });
        has_expired || is_replaced
    }
}
