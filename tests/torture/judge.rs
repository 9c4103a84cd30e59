//! The judge: when the dust of a round has settled, every token is read to its end, over HTTP and on
//! a socket, and held against its history.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use crate::crowd::{Crowd, Watched};
use crate::devices::{PAGE, open, parsed, take};
use crate::harness::{Server, Socket, syn_of, text_of};

/// Acks are so far apart: within the window of unacknowledged pushes.
const ACK_EVERY: usize = 40;

/// The code of a close by a newer session.
const REPLACED: u16 = 4009;

/// Numbers in order, by token.
type Expected = HashMap<String, Vec<u64>>;

impl Crowd {
    /// Reads everything, and judges. One device looks a second time, on a socket.
    pub async fn judge(&self, server: &Server, on_socket: usize) {
        server
            .metric_becomes("herald_fan_outs_unfinished", 0.0)
            .await;
        for place in 0..self.devices.len() {
            let expected = self.judge_by_poll(server, place).await;
            if place == on_socket {
                self.judge_by_socket(server, place, expected).await;
            }
        }
        server.books_balance().await;
    }

    /// The end: nothing but one push for each token is left, and none of them expires between the
    /// last look at the metrics and the look at the store.
    pub async fn clear(&self, server: &Server) {
        for watched in &self.tokens {
            let device = &self.devices[watched.device];
            let entry = server.poll_token(device, &watched.token, 1).await;
            let stored = entry["syn_stored"].as_u64().expect("a number");
            server.poll_token(device, &watched.token, stored + 1).await;
            self.send_last(server, watched).await;
        }
        server.books_balance_at(self.tokens.len() as u64).await;
    }

    async fn judge_by_poll(&self, server: &Server, place: usize) -> Expected {
        let mut expected = Expected::new();
        for watched in self.tokens_of(place) {
            watched.history.borrow_mut().clock_is_right();
            let (min_syn, asked) = (watched.history.borrow().wanted(), Instant::now());
            let device = &self.devices[place];
            let entry = server.poll_token(device, &watched.token, min_syn).await;
            assert_eq!(entry["partial_content"], false, "a page holds {PAGE}");
            let pushes = entry["messages"].as_array().expect("messages");
            let mut history = watched.history.borrow_mut();
            history.see_page(min_syn, &entry, asked);
            history.judge_keys(pushes);
            history.judge();
            let lasting = pushes.iter().filter(|push| history.is_lasting(push));
            expected.insert(watched.token.clone(), lasting.map(syn_of).collect());
        }
        expected
    }

    /// A session that takes over from one that does not read is shown all that a page has, and then
    /// what is sent while it is there.
    async fn judge_by_socket(&self, server: &Server, place: usize, expected: Expected) {
        let (device, own) = (&self.devices[place], self.tokens_of(place));
        let old = open(server, device, &own).await;
        let mut old = old.expect("the server is well");
        // It holds its tokens now.
        old.frame().await;
        let new = open(server, device, &own).await;
        let mut new = new.expect("the server is well");
        assert_eq!(old.closed().await.0, REPLACED);
        let mut markers = HashSet::new();
        for watched in &own {
            markers.insert(self.send_last(server, watched).await);
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
