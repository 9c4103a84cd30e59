//! What was sent to one token and what of it was seen: every promise that a reader can check.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::harness::{Credential, message_id, syn_of, syns_of, text_of};

/// How a token is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Over a socket, which acknowledges everything.
    Socket,
    /// By polls, each from the number after the last: what such a reader skips is lost to it.
    Poll,
    /// By polls of everything, never acknowledged: no smaller number may appear, none vanish.
    Reread,
}

/// One token with its history.
pub struct Witness {
    pub device: Credential,
    pub token: String,
    pub reader: Reader,
    /// The highest number that its reader has seen.
    pub last: Cell<u64>,
    /// Sockets that were opened for it.
    pub sockets: Cell<usize>,
    history: RefCell<History>,
}

#[derive(Default)]
struct History {
    /// Bodies that somebody tried to send.
    tried: HashSet<String>,
    /// Bodies of sends that were refused for certain.
    refused: HashSet<String>,
    /// Bodies of sends that were answered 200, by message id.
    accepted: HashMap<String, String>,
    /// Every number ever shown, with its body and message id.
    shown: HashMap<u64, (String, String)>,
    shown_ids: HashSet<String>,
    shown_texts: HashSet<String>,
}

impl Witness {
    pub fn new(device: Credential, token: String, reader: Reader) -> Self {
        Self {
            device,
            token,
            reader,
            last: Cell::new(0),
            sockets: Cell::new(0),
            history: RefCell::default(),
        }
    }

    /// Somebody is about to send this.
    pub fn tries(&self, text: &str) {
        assert!(self.history.borrow_mut().tried.insert(text.to_owned()));
    }

    /// The send was answered 200.
    pub fn accepts(&self, text: &str, answer: &Value) {
        let mut history = self.history.borrow_mut();
        let earlier = history.accepted.insert(message_id(answer), text.to_owned());
        assert!(earlier.is_none(), "{earlier:?} and {text} have one id");
    }

    /// The send was refused, so it must never arrive.
    pub fn refuses(&self, text: &str) {
        let mut history = self.history.borrow_mut();
        assert!(!history.shown_texts.contains(text), "{text} was refused");
        history.refused.insert(text.to_owned());
    }

    /// Its reader was shown this push, for the first time unless it rereads.
    pub fn sees(&self, push: &Value) {
        let (syn, text) = (syn_of(push), text_of(push).to_owned());
        let id = push["message_id"].as_str().expect("an id").to_owned();
        let mut history = self.history.borrow_mut();
        assert!(history.tried.contains(&text), "nobody sent {text}");
        assert!(!history.refused.contains(&text), "{text} was refused");
        if let Some(accepted) = history.accepted.get(&id) {
            assert_eq!(*accepted, text, "a message id has one body");
        }
        let shown = (text.clone(), id.clone());
        let earlier = history.shown.insert(syn, shown.clone());
        assert!(
            earlier.as_ref().is_none_or(|earlier| *earlier == shown),
            "syn {syn} has two bodies: {earlier:?} and {shown:?}"
        );
        history.shown_ids.insert(id);
        history.shown_texts.insert(text);
    }

    /// Its reader goes on: every number is higher than the last.
    pub fn sees_next(&self, push: &Value) {
        let (syn, last) = (syn_of(push), self.last.get());
        assert!(syn > last, "{syn} after {last}");
        self.sees(push);
        self.last.set(syn);
    }

    /// Its reader was shown everything that there is.
    pub fn sees_all(&self, pushes: &[Value]) {
        let entry = serde_json::json!({"messages": pushes});
        let syns = syns_of(&entry);
        assert!(syns.is_sorted_by(|one, next| one < next), "{syns:?}");
        let last = self.last.get();
        for syn in syns.iter().filter(|syn| **syn <= last) {
            let history = self.history.borrow();
            assert!(
                history.shown.contains_key(syn),
                "{syn} appears below {last}"
            );
        }
        pushes.iter().for_each(|push| self.sees(push));
        let ids: HashSet<&str> = pushes
            .iter()
            .filter_map(|push| push["message_id"].as_str())
            .collect();
        for (id, text) in &self.history.borrow().accepted {
            // Answered 200 a moment ago, it may be in the next poll only.
            let was_shown = self.history.borrow().shown_ids.contains(id);
            assert!(!was_shown || ids.contains(id.as_str()), "{text} is gone");
        }
        self.last
            .set(syns.last().copied().unwrap_or(last).max(last));
    }

    /// What was answered 200 and not seen yet.
    pub fn missing(&self) -> Vec<String> {
        let history = self.history.borrow();
        let missing = history
            .accepted
            .iter()
            .filter(|(id, _)| !history.shown_ids.contains(*id));
        missing.map(|(_, text)| text.clone()).collect()
    }

    /// Message ids of the sends that were answered 200.
    pub fn accepted_ids(&self) -> Vec<String> {
        self.history.borrow().accepted.keys().cloned().collect()
    }

    /// How many sends were answered 200.
    pub fn accepted(&self) -> usize {
        self.history.borrow().accepted.len()
    }

    /// How many sends were refused for certain.
    pub fn refused(&self) -> usize {
        self.history.borrow().refused.len()
    }

    /// How many sends have an unknown outcome.
    pub fn unknown(&self) -> usize {
        let history = self.history.borrow();
        history.tried.len() - history.accepted.len() - history.refused.len()
    }

    /// How many pushes came under more than one number.
    pub fn renumbered(&self) -> usize {
        let history = self.history.borrow();
        history.shown.len() - history.shown_ids.len()
    }
}
