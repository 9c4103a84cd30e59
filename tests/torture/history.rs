//! What happened to one token, and what may not have.
//!
//! The promises that are judged here, by their numbers in ARCHITECTURE.md: 1 no loss, 2 no
//! invention, 3 one syn one push, 4 no hole, 6 order, 7 acks, 8 TTL, 9 isolation. That nothing is
//! visible before it is durable (5) shows as a page beyond its watermark, or as a number with two
//! pushes after a crash. Books (11) are audited after every round.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{syn_of, text_of};

/// A machine this busy may show a push so much later than it was written on the socket.
const SHOWN_LATE: Duration = Duration::from_secs(2);

/// What the contract grants beyond a push's life.
const GRACE: Duration = Duration::from_secs(1);

/// A page is asked for after that, so it needs no grace but for two clocks that are not one.
const PAGE_GRACE: Duration = Duration::from_millis(100);

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
    /// An ack of everything may have met it.
    is_given_up: bool,
    /// It was shown or has an excuse, which stands.
    is_settled: bool,
}

/// Everything that is known of a token.
#[derive(Debug)]
pub struct History {
    token: String,
    sent: HashMap<String, Sent>,
    /// Each number that was ever shown, with its text and name.
    shown: BTreeMap<u64, (String, String)>,
    /// The number of each text that was ever shown.
    numbers: HashMap<String, u64>,
    /// Everything up to here was acknowledged.
    acked: u64,
    /// Numbers that a whole page did not have: they may never be shown again.
    absent_from: u64,
    absent_up_to: u64,
    present: Vec<u64>,
    /// Numbers that a socket has stepped over unseen: nor may these.
    stepped_over: BTreeSet<u64>,
    /// The server's clock is wrong just now: what has expired by it may come back.
    is_clock_wrong: bool,
}

impl History {
    pub fn of(token: &str) -> Self {
        Self {
            token: token.to_owned(),
            sent: HashMap::new(),
            shown: BTreeMap::new(),
            numbers: HashMap::new(),
            acked: 0,
            absent_from: 0,
            absent_up_to: 0,
            present: Vec::new(),
            stepped_over: BTreeSet::new(),
            is_clock_wrong: false,
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
        self.stepped_over.clear();
        self.is_clock_wrong = true;
    }

    /// It is right again.
    pub fn clock_is_right(&mut self) {
        self.is_clock_wrong = false;
    }

    /// The device has acknowledged whatever is there: each push that was begun by now may be gone.
    pub fn gives_up(&mut self) {
        for sent in self.sent.values_mut() {
            sent.is_given_up = true;
        }
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
            is_given_up: false,
            is_settled: false,
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
        // What was acknowledged unseen may come after all: a crash may forget an ack.
        if !sent.is_given_up {
            self.check_hole(syn, &text);
        }
        let number = *self.numbers.entry(text.clone()).or_insert(syn);
        assert_eq!(number, syn, "{token}: {text} has two numbers");
        let known = self.shown.insert(syn, (text.clone(), id.clone()));
        assert!(
            known.as_ref().is_none_or(|known| *known == (text, id)),
            "{token}: {syn} is two pushes, {known:?}"
        );
    }

    fn check_hole(&self, syn: u64, text: &str) {
        let token = &self.token;
        let is_absent = (self.absent_from..=self.absent_up_to).contains(&syn);
        assert!(
            !is_absent || self.present.contains(&syn),
            "{token}: {syn} ({text}) appears behind a reader"
        );
        assert!(
            !self.stepped_over.contains(&syn),
            "{token}: {syn} ({text}) appears behind a session"
        );
    }

    /// A push was shown on a socket, the first one of its token after this number: what lies between
    /// and was never shown is gone.
    pub fn see_after(&mut self, before: u64, push: &Value) {
        self.see(push);
        if !self.is_clock_wrong {
            let between = before + 1..syn_of(push);
            let unseen = between.filter(|syn| !self.shown.contains_key(syn));
            self.stepped_over.extend(unseen);
        }
    }

    /// The device is done with everything up to here.
    pub fn acks(&mut self, syn: u64) {
        self.acked = self.acked.max(syn);
    }

    /// A poll's entry from `min_syn` on, asked for at this moment. Whoever calls it has read all that
    /// its device was sent before.
    pub fn see_page(&mut self, min_syn: u64, entry: &Value, asked: Instant) {
        let pushes = entry["messages"].as_array().expect("messages");
        let syn_stored = entry["syn_stored"].as_u64().expect("a number");
        let syns: Vec<u64> = pushes.iter().map(syn_of).collect();
        assert!(
            syns.is_sorted_by(|one, next| one < next),
            "in order: {syns:?}"
        );
        assert!(
            syns.first().is_none_or(|first| *first >= min_syn),
            "below what was asked for"
        );
        assert!(
            syns.last().is_none_or(|last| *last <= syn_stored),
            "beyond the watermark"
        );
        let highest = self.shown.keys().max().copied().unwrap_or(0);
        assert!(
            syn_stored >= highest,
            "{}: the watermark went back to {syn_stored} from {highest}",
            self.token
        );
        for push in pushes {
            self.see(push);
            self.check_life(text_of(push), asked);
        }
        if !self.is_clock_wrong && entry["partial_content"] == false {
            (self.absent_from, self.absent_up_to) = (min_syn, syn_stored);
            self.present = syns;
        }
    }

    fn check_life(&self, text: &str, asked: Instant) {
        let sent = &self.sent[text];
        let Some((ttl, answered)) = sent.ttl.zip(sent.answered) else {
            return;
        };
        assert!(
            sent.is_clock_moved || asked <= answered + ttl + PAGE_GRACE,
            "{text} had expired when the page was asked for"
        );
    }

    /// Nobody is sending: of each collapse key there is one push.
    pub fn judge_keys(&self, pushes: &[Value]) {
        let keys = pushes
            .iter()
            .filter_map(|push| self.sent[text_of(push)].key);
        let mut count: HashMap<u8, usize> = HashMap::new();
        keys.for_each(|key| *count.entry(key).or_default() += 1);
        let token = &self.token;
        assert!(
            count.values().all(|count| *count == 1),
            "{token}: {count:?} by key"
        );
    }

    /// Whether it lives until it is acknowledged or replaced.
    pub fn is_lasting(&self, push: &Value) -> bool {
        self.sent[text_of(push)].ttl.is_none()
    }

    /// Everything that was answered 200 has been shown, or has an excuse.
    pub fn judge(&mut self) {
        let mut settled = Vec::new();
        for (text, sent) in self.sent.iter().filter(|(_, sent)| !sent.is_settled) {
            let Some(Answer::Accepted(id)) = &sent.answer else {
                continue;
            };
            let shown = self.numbers.get(text).map(|syn| &self.shown[syn].1);
            assert!(
                shown == Some(id) || self.may_be_gone(sent),
                "{}: {text} was answered 200 and is gone: {sent:?}",
                self.token
            );
            settled.push(text.clone());
        }
        for text in settled {
            self.sent.get_mut(&text).expect("it was sent").is_settled = true;
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
        has_expired || is_replaced || sent.is_given_up
    }
}
