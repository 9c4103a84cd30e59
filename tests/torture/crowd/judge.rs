//! The judge: when the dust of a round has settled, every token is read to its end, over HTTP and on
//! a socket, and held against its history.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use rand::rngs::SmallRng;
use serde_json::Value;

use super::devices::{PAGE, open, parsed, take, try_poll};
use super::{Crowd, LOOK_EVERY, Watched, any};
use crate::harness::{Door, Socket, syn_of, text_of};

/// Acks are so far apart: within the window of unacknowledged pushes.
const ACK_EVERY: usize = 40;

/// The code of a close by a newer session.
const REPLACED: u16 = 4009;

/// Numbers in order, by token.
type Expected = HashMap<String, Vec<u64>>;

impl Crowd {
    /// Reads everything at every door, and judges. One device looks a second time, on a socket.
    /// `has_copies`: pushes to many have reached everybody, too.
    pub async fn judge(
        &self,
        doors: &[Door],
        on_socket: usize,
        has_copies: bool,
        random: &mut SmallRng,
    ) {
        for place in 0..self.devices.len() {
            let expected = self.judge_by_poll(doors, place, has_copies).await;
            if place == on_socket % self.devices.len() {
                self.judge_by_socket(doors, place, expected, random).await;
            }
        }
    }

    /// The end: nothing but one push for each token is left, and none of them expires.
    pub async fn clear(&self, door: &Door) {
        for watched in &self.tokens {
            let entry = self.entry(door, watched, 1).await;
            let stored = entry["syn_stored"].as_u64().expect("a number");
            self.entry(door, watched, stored + 1).await;
            self.send_last(door, watched).await;
        }
    }

    async fn judge_by_poll(&self, doors: &[Door], place: usize, has_copies: bool) -> Expected {
        let mut expected = Expected::new();
        for watched in self.tokens_of(place) {
            watched.history.borrow_mut().clock_is_right();
            let begun = Instant::now();
            let pushes = loop {
                let mut pushes = Vec::new();
                for door in doors {
                    pushes = self.look(door, watched).await;
                }
                let missing = watched.history.borrow_mut().missing(has_copies);
                if missing.is_empty() {
                    break pushes;
                }
                let is_overdue = begun.elapsed() >= self.terms.patience;
                assert!(
                    !is_overdue,
                    "{}: answered 200 and gone: {missing:?}",
                    watched.token
                );
                tokio::time::sleep(LOOK_EVERY).await;
            };
            let history = watched.history.borrow();
            history.judge_keys(&pushes);
            let lasting = pushes.iter().filter(|push| history.is_lasting(push));
            expected.insert(watched.token.clone(), lasting.map(syn_of).collect());
        }
        expected
    }

    /// A token's page, to its end.
    async fn look(&self, door: &Door, watched: &Watched) -> Vec<Value> {
        let what = format!("the judge looks at {}", door.listen());
        watched.history.borrow_mut().notes.add(&what);
        let (min_syn, asked) = (watched.history.borrow().wanted(), Instant::now());
        let entry = self.entry(door, watched, min_syn).await;
        assert_eq!(entry["partial_content"], false, "a page holds {PAGE}");
        let mut history = watched.history.borrow_mut();
        history.see_page(min_syn, &entry, asked);
        entry["messages"].as_array().cloned().unwrap_or_default()
    }

    async fn entry(&self, door: &Door, watched: &Watched, min_syn: u64) -> Value {
        let begun = Instant::now();
        let device = &self.devices[watched.device];
        let asked = [(watched.token.clone(), min_syn)];
        loop {
            let entries = try_poll(door, device, &asked).await;
            match entries.as_ref().and_then(|entries| entries.first()) {
                Some(entry) if entry["messages"].is_array() => return entry.clone(),
                _ => {}
            }
            let is_overdue = begun.elapsed() >= self.terms.patience;
            assert!(!is_overdue, "no page, though all is well: {entries:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// A session that takes over from one that does not read is shown all that a page has, and then
    /// what is sent while it is there.
    async fn judge_by_socket(
        &self,
        doors: &[Door],
        place: usize,
        expected: Expected,
        random: &mut SmallRng,
    ) {
        let own = self.tokens_of(place);
        let mut old = self.welcomed(any(doors, random), place).await;
        let mut new = self.welcomed(any(doors, random), place).await;
        assert_eq!(old.closed().await.0, REPLACED);
        let mut markers = HashSet::new();
        for watched in &own {
            markers.insert(self.send_last(any(doors, random), watched).await);
        }
        let seen = read_until(&mut new, &own, markers).await;
        for (token, syns) in expected {
            let missing: Vec<&u64> = syns
                .iter()
                .filter(|syn| !seen[&token].contains(syn))
                .collect();
            assert!(missing.is_empty(), "{token}: {missing:?} did not come");
        }
    }

    /// A session that holds all tokens of its device.
    async fn welcomed(&self, door: &Door, place: usize) -> Socket {
        let (begun, own) = (Instant::now(), self.tokens_of(place));
        loop {
            let mut welcome = Value::Null;
            if let Some(mut socket) = open(door, &self.devices[place], &own).await {
                welcome = socket.frame().await;
                let tokens = welcome["tokens"].as_array();
                if tokens.is_some_and(|it| it.iter().all(|one| one["error"].is_null())) {
                    return socket;
                }
            }
            let is_overdue = begun.elapsed() >= self.terms.patience;
            assert!(!is_overdue, "not welcome, though all is well: {welcome}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Reads and acknowledges until the markers have come; what came, by token.
async fn read_until(
    socket: &mut Socket,
    own: &[&Watched],
    mut markers: HashSet<String>,
) -> Expected {
    let mut seen = Expected::new();
    let mut last = HashMap::new();
    while !markers.is_empty() {
        let message = socket.message().await.expect("nothing ends this socket");
        let Some((watched, syn)) = take(&message, own, &mut last) else {
            continue;
        };
        let is_marker = markers.remove(text_of(&parsed(&message)));
        let seen = seen.entry(watched.token.clone()).or_default();
        seen.push(syn);
        if is_marker || seen.len().is_multiple_of(ACK_EVERY) {
            watched.history.borrow_mut().acks(syn);
            socket.ack(&watched.token, syn).await;
        }
    }
    seen
}
