//! What happened to one token, and what may not have.
//!
//! The promises that are judged here, by their numbers in ARCHITECTURE.md: 1 no loss, 2 no
//! invention, 3 one syn one push, 4 no hole, 6 order, 7 acks, 8 TTL, 9 isolation. That nothing is
//! visible before it is durable (5) shows as a page beyond its watermark, or as a number with two
//! pushes after a crash. Books (11) are for whoever holds the round.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Terms;
use super::notes::Notes;
use super::sent::{Answer, Sent, Wish};
use crate::harness::{syn_of, text_of};

/// What the contract grants beyond a push's life.
const GRACE: Duration = Duration::from_secs(1);

/// A page is asked for after that, so it needs no grace but for two clocks that are not one.
const PAGE_GRACE: Duration = Duration::from_millis(100);

/// Everything that is known of a token.
#[derive(Debug)]
pub struct History {
    token: String,
    terms: Terms,
    sent: HashMap<String, Sent>,
    /// Each number that was ever shown, with its text and name.
    shown: BTreeMap<u64, (String, String)>,
    /// The first number of each text that was ever shown.
    numbers: HashMap<String, u64>,
    /// Everything up to here was acknowledged.
    acked: u64,
    /// Numbers that a whole page did not have: they may never be shown again.
    absent_from: u64,
    absent_up_to: u64,
    present: Vec<u64>,
    /// What sockets have shown or stepped over: what was not shown may never be.
    stepped_from: u64,
    stepped_up_to: u64,
    /// The server's clock is wrong just now: what has expired by it may come back.
    is_clock_wrong: bool,
    pub notes: Notes,
}

impl History {
    pub fn of(token: &str, terms: Terms) -> Self {
        Self {
            token: token.to_owned(),
            terms,
            sent: HashMap::new(),
            shown: BTreeMap::new(),
            numbers: HashMap::new(),
            acked: 0,
            absent_from: 0,
            absent_up_to: 0,
            present: Vec::new(),
            stepped_from: 0,
            stepped_up_to: 0,
            is_clock_wrong: false,
            notes: Notes::new(),
        }
    }

    pub fn sends(&self) -> usize {
        self.sent.len()
    }

    pub fn seen(&self) -> usize {
        self.shown.len()
    }

    /// Pushes that came under more than one number.
    pub fn renumbered(&self) -> usize {
        self.shown.len() - self.numbers.len()
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
        self.stepped_up_to = 0;
        self.is_clock_wrong = true;
    }

    /// It is right again.
    pub fn clock_is_right(&mut self) {
        self.is_clock_wrong = false;
    }

    /// The device has acknowledged whatever is there: each push that was begun by now may be gone.
    pub fn gives_up(&mut self) {
        self.notes.add("gives up what there is");
        for sent in self.sent.values_mut() {
            sent.is_given_up = true;
        }
    }

    /// Somebody is about to send this text.
    pub fn sends_now(&mut self, text: &str, wish: Wish) {
        self.notes.add(&format!("sends {text}, {wish:?}"));
        let sent = self.sent.entry(text.to_owned()).or_insert(Sent {
            begun: Instant::now(),
            answered: None,
            answer: None,
            under_way: 0,
            wish,
            is_clock_moved: false,
            is_given_up: false,
            is_settled: false,
        });
        sent.under_way += 1;
    }

    /// The answer. One with 200 stands, whatever a repeat is told.
    pub fn answered(&mut self, text: &str, answer: Answer) {
        self.notes.add(&format!("{text}: {answer:?}"));
        let sent = self.sent.get_mut(text).expect("it was sent");
        sent.under_way -= 1;
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
        let is_refused = sent.answer == Some(Answer::Refused) && sent.under_way == 0;
        assert!(!is_refused, "{token}: {text} was refused");
        if let Some(Answer::Accepted(accepted)) = &sent.answer {
            assert_eq!(*accepted, id, "{text} has one name");
        }
        if let Some(ttl) = sent.wish.ttl.filter(|_| !sent.is_clock_moved) {
            let answered = sent.answered.unwrap_or_else(Instant::now);
            let until = answered + ttl + GRACE + self.terms.shown_late;
            assert!(Instant::now() <= until, "{text} came after its time");
        }
        // What was acknowledged unseen may come after all: a crash may forget an ack.
        if !sent.is_given_up {
            self.check_hole(syn, &text);
        }
        let number = *self.numbers.entry(text.clone()).or_insert(syn);
        match self.shown.get(&number) {
            Some(first) if self.terms.settles_late => {
                assert_eq!(first.1, id, "{token}: {text} has two names");
            }
            _ => assert_eq!(number, syn, "{token}: {text} has two numbers"),
        }
        let known = self.shown.insert(syn, (text.clone(), id.clone()));
        if known.is_none() {
            self.notes.add(&format!("{syn} is {text}, {id}"));
        }
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
        let is_behind = (self.stepped_from..=self.stepped_up_to).contains(&syn);
        assert!(
            !is_behind || self.shown.contains_key(&syn),
            "{token}: {syn} ({text}) appears behind a session"
        );
    }

    /// A session that begins at an earlier place is shown again what was not acknowledged.
    fn check_session(&self, between: Range<u64>) {
        // Numbers may change under it: pages are held against texts.
        if self.terms.settles_late {
            return;
        }
        for (syn, (text, _)) in self.shown.range(between) {
            let token = &self.token;
            assert!(
                self.sent[text].may_be_skipped(),
                "{token}: a session has skipped {syn} ({text})"
            );
        }
    }

    /// A whole page has everything that was shown before and not acknowledged. One that was given a
    /// new number may have lost its first one, and not have the new one until it is answered.
    fn check_page(&self, stretch: Range<u64>, pushes: &[Value], asked: Instant) {
        let texts: HashSet<&str> = pushes.iter().map(text_of).collect();
        for (syn, (text, _)) in self.shown.range(stretch) {
            let sent = &self.sent[text];
            let is_open = sent.under_way > 0
                || !matches!(sent.answer, Some(Answer::Accepted(_)))
                || sent.answered.is_none_or(|answered| answered > asked);
            let may_be_renumbered = self.terms.settles_late && is_open;
            let is_there = texts.contains(text.as_str());
            assert!(
                is_there || may_be_renumbered || sent.may_be_skipped(),
                "{}: a page has skipped {syn} ({text})",
                self.token
            );
        }
    }

    /// A push was shown on a socket, the first one of its token after this number: what lies between
    /// and was never shown is gone.
    pub fn see_after(&mut self, before: u64, push: &Value) {
        let syn = syn_of(push);
        self.notes
            .add(&format!("a socket shows {syn} after {before}"));
        self.see(push);
        self.check_session(before + 1..syn);
        if self.is_clock_wrong {
            return;
        }
        // A session begins where an earlier one was, at the latest: there is no gap between them.
        if self.stepped_up_to == 0 {
            self.stepped_from = before + 1;
        }
        self.stepped_up_to = self.stepped_up_to.max(syn);
    }

    /// The device is done with everything up to here.
    pub fn acks(&mut self, syn: u64) {
        self.notes.add(&format!("acknowledges {syn}"));
        self.acked = self.acked.max(syn);
    }

    /// A poll's entry from `min_syn` on, asked for at this moment. Whoever calls it has read all that
    /// its device was sent before.
    pub fn see_page(&mut self, min_syn: u64, entry: &Value, asked: Instant) {
        let pushes = entry["messages"].as_array().expect("messages");
        let syn_stored = entry["syn_stored"].as_u64().expect("a number");
        let syns: Vec<u64> = pushes.iter().map(syn_of).collect();
        let (count, ends) = (syns.len(), (syns.first(), syns.last()));
        self.notes.add(&format!(
            "page {min_syn}..={syn_stored}: {count} pushes, {ends:?}"
        ));
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
            self.check_page(min_syn..syn_stored + 1, pushes, asked);
            (self.absent_from, self.absent_up_to) = (min_syn, syn_stored);
            self.present = syns;
        }
    }

    fn check_life(&self, text: &str, asked: Instant) {
        let sent = &self.sent[text];
        let Some((ttl, answered)) = sent.wish.ttl.zip(sent.answered) else {
            return;
        };
        assert!(
            sent.is_clock_moved || asked <= answered + ttl + PAGE_GRACE,
            "{text} had expired when the page was asked for"
        );
    }

    /// Nobody is sending: of each collapse key there is one push.
    pub fn judge_keys(&self, pushes: &[Value]) {
        let mut held: HashMap<u8, HashSet<&str>> = HashMap::new();
        for text in pushes.iter().map(text_of) {
            if let Some(key) = self.sent[text].wish.key {
                held.entry(key).or_default().insert(text);
            }
        }
        let token = &self.token;
        assert!(
            held.values().all(|texts| texts.len() == 1),
            "{token}: {held:?} by key"
        );
    }

    /// Whether it lives until it is acknowledged.
    pub fn is_lasting(&self, push: &Value) -> bool {
        let wish = self.sent[text_of(push)].wish;
        // A send whose outcome nobody knows may yet replace it.
        let is_safe = wish.key.is_none() || !self.terms.settles_late;
        wish.ttl.is_none() && is_safe
    }

    /// What was answered 200, was not shown, and has no excuse.
    pub fn missing(&mut self, has_copies: bool) -> Vec<String> {
        let (mut settled, mut missing) = (Vec::new(), Vec::new());
        for (text, sent) in self.sent.iter().filter(|(_, sent)| !sent.is_settled) {
            let Some(Answer::Accepted(id)) = &sent.answer else {
                continue;
            };
            let shown = self.numbers.get(text).map(|syn| &self.shown[syn].1);
            if shown == Some(id) || self.may_be_gone(sent) {
                settled.push(text.clone());
            } else if has_copies || !sent.wish.is_copy {
                missing.push(format!("{text}: {sent:?}"));
            }
        }
        for text in settled {
            self.sent.get_mut(&text).expect("it was sent").is_settled = true;
        }
        missing
    }

    fn may_be_gone(&self, sent: &Sent) -> bool {
        let wish = sent.wish;
        let has_expired = wish
            .ttl
            .is_some_and(|ttl| sent.is_clock_moved || Instant::now() >= sent.begun + ttl);
        // Any send with its key that may have come after it.
        let is_replaced = wish.key.is_some()
            && self.sent.values().any(|other| {
                other.wish.key == wish.key
                    && other.begun != sent.begun
                    && other.answer != Some(Answer::Refused)
                    && other.answered.is_none_or(|answered| answered >= sent.begun)
            });
        has_expired || is_replaced || sent.is_given_up
    }
}
