//! kill -9 in the middle of everything: what was answered 200 is there, and no number has two
//! bodies.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use futures_util::future::{join, join_all};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::harness::{
    Credential, Server, ServerOptions, message, message_id, syn_of, syns_of, text_of, texts_of,
};

/// What a test remembers of one token, over all crashes.
#[derive(Default)]
struct History {
    /// Bodies that somebody tried to send.
    tried: HashSet<String>,
    /// Bodies of sends that were answered 200, by message id.
    accepted: HashMap<String, String>,
    /// Every number ever shown, with its body and message id.
    shown: HashMap<u64, (String, String)>,
    /// Everything at or below was acknowledged.
    acked: u64,
}

impl History {
    /// A push was shown: its number has one body for ever, and the body one number.
    fn see(&mut self, push: &Value) {
        let (syn, text) = (syn_of(push), text_of(push).to_owned());
        let id = push["message_id"].as_str().expect("an id").to_owned();
        assert!(self.tried.contains(&text), "nobody sent {text}");
        if let Some(accepted) = self.accepted.get(&id) {
            assert_eq!(*accepted, text, "a message id has one body");
        }
        let is_elsewhere =
            |(other, body): (&u64, &(String, String))| *other != syn && body.0 == text;
        assert!(
            !self.shown.iter().any(is_elsewhere),
            "{text} has two numbers"
        );
        let earlier = self.shown.insert(syn, (text.clone(), id.clone()));
        assert!(
            earlier.is_none_or(|earlier| earlier == (text, id)),
            "syn {syn} has two bodies"
        );
    }

    /// What a poll says must hold everything that was accepted or shown and not acknowledged.
    fn check(&mut self, entry: &Value) {
        let pushes = entry["messages"].as_array().expect("messages");
        pushes.iter().for_each(|push| self.see(push));
        let syns = syns_of(entry);
        assert!(
            syns.is_sorted_by(|one, next| one < next),
            "in order, each once"
        );
        for syn in self.shown.keys().filter(|syn| **syn > self.acked) {
            assert!(syns.contains(syn), "{syn} was shown and is gone");
        }
        let shown: HashSet<&str> = self.shown.values().map(|(_, id)| id.as_str()).collect();
        for id in self.accepted.keys() {
            assert!(
                shown.contains(id.as_str()),
                "{id} was answered 200 and is gone"
            );
        }
        assert!(entry["syn_stored"].as_u64() >= self.shown.keys().max().copied());
    }
}

/// One token with its history.
struct Witness {
    token: String,
    history: RefCell<History>,
}

/// Sends until the server is gone, telling of every 200.
async fn send_until_it_dies(
    server: &Server,
    witness: &Witness,
    name: String,
    accepted: mpsc::UnboundedSender<()>,
) {
    for number in 0.. {
        let text = format!("{name}/{number}");
        witness.history.borrow_mut().tried.insert(text.clone());
        match server.try_send(&message(&witness.token, &text)).await {
            Some((200, answer)) => {
                let id = message_id(&answer);
                witness.history.borrow_mut().accepted.insert(id, text);
                let _ = accepted.send(());
            }
            Some((status, answer)) => panic!("{status} {answer}"),
            None => return,
        }
    }
}

/// Reads a socket until the server is gone.
async fn read_until_it_dies(server: &Server, device: &Credential, witnesses: &[Witness]) {
    let cursor = |witness: &Witness| witness.history.borrow().acked + 1;
    let tokens: Vec<(&str, u64)> = witnesses
        .iter()
        .map(|witness| (witness.token.as_str(), cursor(witness)))
        .collect();
    let mut socket = server.connect().await;
    socket.hello(device, &tokens).await;
    for push in socket.until_closed_or(usize::MAX).await.pushes {
        let witness = witnesses
            .iter()
            .find(|witness| push["token"] == witness.token.as_str());
        let witness = witness.expect("a token of the hello");
        witness.history.borrow_mut().see(&push);
    }
}

#[tokio::test]
async fn twenty_kills_lose_nothing_and_reuse_no_number() {
    let mut server = Server::start().await;
    let device = server.device().await;
    let mut witnesses = Vec::new();
    for _ in 0..4 {
        let (token, history) = (server.token(&device).await, RefCell::default());
        witnesses.push(Witness { token, history });
    }
    for round in 0..20_usize {
        let (accepted, mut heard) = mpsc::unbounded_channel();
        let killer = async {
            for _ in 0..5 + round * 7 % 23 {
                heard.recv().await.expect("the server takes sends");
            }
            kill(server.pid(), Signal::SIGKILL).expect("killed");
        };
        // Five of the eight senders share the first token.
        let senders = (0..8_usize).map(|sender| {
            let witness = &witnesses[sender.saturating_sub(4)];
            send_until_it_dies(
                &server,
                witness,
                format!("{round}/{sender}"),
                accepted.clone(),
            )
        });
        let reader = read_until_it_dies(&server, &device, &witnesses);
        join(join(join_all(senders), reader), killer).await;
        server.kill_and_restart().await;
        for (place, witness) in witnesses.iter().enumerate() {
            let acked = witness.history.borrow().acked;
            let entry = server.poll_token(&device, &witness.token, acked + 1).await;
            let mut history = witness.history.borrow_mut();
            history.check(&entry);
            // The hot token is acknowledged never, the others now and then.
            if place > 0 && round % 3 == place - 1 {
                history.acked = history.shown.keys().max().copied().unwrap_or(0);
            }
        }
    }
    for witness in &witnesses {
        let acked = witness.history.borrow().acked;
        server.poll_token(&device, &witness.token, acked + 1).await;
    }
    server.stop_and_audit().await;
}

#[tokio::test]
async fn sessions_of_both_kinds_survive_a_crash_and_a_clean_restart() {
    let settings = vec![("HERALD_SOCKET__PARK_AFTER_MS", "0".to_owned())];
    let mut server = Server::with(ServerOptions { settings }).await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let mut syn = 0;
    for is_crash in [true, false, true] {
        let (mut socket, welcome) = server.hello(&device, &[(&token, syn + 1)]).await;
        assert_eq!(welcome["tokens"][0]["syn_stored"], syn);
        for _ in 0..3 {
            server.push(&token, "seen").await;
            syn += 1;
            assert_eq!(syn_of(&socket.push().await), syn);
        }
        if is_crash {
            server.kill();
            assert_eq!(socket.closed().await.0, 1006);
        } else {
            server.books_balance().await;
            server.terminate();
            assert_eq!(socket.closed().await.0, 1012);
            assert_eq!(server.exit_status().await.code(), Some(0));
        }
        let pending = server.fsck();
        server.start_again().await;
        server.books_balance_at(pending).await;
        let entry = server.poll_token(&device, &token, syn - 2).await;
        assert_eq!(syns_of(&entry), [syn - 2, syn - 1, syn]);
    }
    server.stop_and_audit().await;
}

/// The journal with its last bytes, without the zeros that are still to be written over.
fn journal_of(server: &Server) -> (PathBuf, Vec<u8>) {
    let files = std::fs::read_dir(server.data().join("store")).expect("a store");
    let mut paths = files.map(|file| file.expect("an entry").path());
    let journal = paths.find(|path| path.extension().is_some_and(|it| it == "jnl"));
    let journal = journal.expect("a journal");
    let mut bytes = std::fs::read(&journal).expect("its bytes");
    let end = bytes.iter().rposition(|byte| *byte != 0);
    bytes.truncate(end.expect("something written") + 1);
    (journal, bytes)
}

#[tokio::test]
async fn a_journal_torn_at_any_byte_is_read_up_to_there() {
    let mut server = Server::start().await;
    let device = server.device().await;
    let token = server.token(&device).await;
    for text in ["one", "two", "torn"] {
        server.push(&token, text).await;
    }
    server.kill();
    let (journal, bytes) = journal_of(&server);
    let length = std::fs::metadata(&journal).expect("its length").len();
    // The last commit is a little longer than that.
    for torn in 1..=150 {
        std::fs::write(&journal, &bytes[..bytes.len() - torn]).expect("torn");
        let file = std::fs::File::options().write(true).open(&journal);
        file.and_then(|file| file.set_len(length)).expect("zeros");
        assert_eq!(server.fsck(), 2, "{torn} bytes torn off");
    }
    server.start_again().await;
    assert_eq!(server.push(&token, "again").await.len(), 32);
    let entry = server.poll_token(&device, &token, 1).await;
    assert_eq!(texts_of(&entry), ["one", "two", "again"]);
    server.stop_and_audit().await;
}
