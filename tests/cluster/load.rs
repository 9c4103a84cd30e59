//! Senders and readers that go on while something breaks, and what they must find at the end.

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Door, Socket, message};
use crate::stage::{PATIENCE, Stage};
use crate::witness::{Reader, Witness};

/// Senders of one token.
const SENDERS: usize = 2;

/// Between two sends of one sender: what is wanted is pushes at every moment, not as many as can be.
/// All of a token's must fit a page, however long a failover takes.
const SEND_EVERY: Duration = Duration::from_millis(100);

/// Between two polls of one reader.
const POLL_EVERY: Duration = Duration::from_millis(60);

/// A request may take this long before whoever made it goes to another node.
const ANSWER_MAX: Duration = Duration::from_secs(8);

/// A socket that says nothing, not even a pong, for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// How often a silent socket is asked, and the end of the load is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Tokens with their senders and readers.
pub struct Load {
    pub witnesses: Vec<Witness>,
    senders_end: Cell<bool>,
    slowest_us: Cell<u128>,
    answers: Cell<usize>,
    timed_out: Cell<usize>,
}

impl Load {
    /// On new tokens, read so.
    pub async fn on(stage: &Stage, readers: &[Reader]) -> Self {
        let mut witnesses = Vec::new();
        for reader in readers {
            let (device, token) = stage.device().await;
            witnesses.push(Witness::new(device, token, *reader));
        }
        Self::of(witnesses)
    }

    /// On these tokens.
    pub fn of(witnesses: Vec<Witness>) -> Self {
        Self {
            witnesses,
            senders_end: Cell::new(false),
            slowest_us: Cell::new(0),
            answers: Cell::new(0),
            timed_out: Cell::new(0),
        }
    }

    /// Sends and reads while the script runs; then nobody sends any more, and everything that was
    /// answered 200 must be seen.
    pub async fn during(&self, stage: &Stage, script: impl Future<Output = ()>) {
        self.senders_end.set(false);
        let script = async {
            script.await;
            self.senders_end.set(true);
        };
        let senders = join_all(
            self.witnesses
                .iter()
                .enumerate()
                .flat_map(|(place, witness)| {
                    (0..SENDERS)
                        .map(move |sender| self.send(stage, witness, place * SENDERS + sender))
                }),
        );
        let readers = join_all(self.witnesses.iter().map(|it| self.read(stage, it)));
        let began = Instant::now();
        futures_util::future::join3(script, senders, readers).await;
        self.report(began.elapsed());
    }

    fn report(&self, took: Duration) {
        let sum = |count: fn(&Witness) -> usize| self.witnesses.iter().map(count).sum::<usize>();
        eprintln!(
            "{} accepted, {} refused, {} unknown, {} under two numbers, slowest answer {} ms, in {} s",
            sum(Witness::accepted),
            sum(Witness::refused),
            sum(Witness::unknown),
            sum(Witness::renumbered),
            self.slowest_us.get() / 1_000,
            took.as_secs(),
        );
    }

    /// Waits until so many more sends of every token were accepted.
    pub async fn accepts_everywhere(&self, more: usize) {
        let wanted: Vec<usize> = self
            .witnesses
            .iter()
            .map(|it| it.accepted() + more)
            .collect();
        let deadline = Instant::now() + PATIENCE;
        for (witness, wanted) in self.witnesses.iter().zip(wanted) {
            while witness.accepted() < wanted {
                assert!(Instant::now() < deadline, "sends are not accepted");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// The slowest answer so far; forgets it.
    pub fn take_slowest(&self) -> Duration {
        let slowest = self.slowest_us.replace(0);
        Duration::from_micros(u64::try_from(slowest).expect("a short time"))
    }

    /// How many answers senders have had so far.
    pub fn answers(&self) -> usize {
        self.answers.get()
    }

    /// How many of them said that the outcome is unknown.
    pub fn timed_out(&self) -> usize {
        self.timed_out.get()
    }

    /// No socket had to be opened a second time.
    pub fn assert_sockets_stayed(&self) {
        let sockets = self
            .witnesses
            .iter()
            .filter(|it| it.reader == Reader::Socket);
        for witness in sockets {
            assert_eq!(witness.sockets.get(), 1, "a socket was closed");
        }
    }

    async fn send(&self, stage: &Stage, witness: &Witness, name: usize) {
        let mut ticks = tokio::time::interval(SEND_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut node = 0;
        for number in 0.. {
            ticks.tick().await;
            if self.senders_end.get() {
                return;
            }
            let text = format!("{name}/{number}/{}", witness.accepted());
            witness.tries(&text);
            let began = Instant::now();
            let sent = try_send(&stage.doors[node], &message(&witness.token, &text)).await;
            let took = began.elapsed().as_micros();
            let Some((status, answer)) = sent else {
                node = (node + 1) % stage.doors.len();
                continue;
            };
            self.slowest_us.set(self.slowest_us.get().max(took));
            self.answers.set(self.answers.get() + 1);
            match status {
                200 => witness.accepts(&text, &answer),
                429 | 503 => witness.refuses(&text),
                504 => self.timed_out.set(self.timed_out.get() + 1),
                _ => panic!("{status} {answer}"),
            }
        }
    }

    fn is_over(&self, witness: &Witness) -> bool {
        self.senders_end.get() && witness.missing().is_empty()
    }

    async fn read(&self, stage: &Stage, witness: &Witness) {
        let reading = async {
            match witness.reader {
                Reader::Socket => self.read_sockets(stage, witness).await,
                Reader::Poll | Reader::Reread => self.read_polls(stage, witness).await,
            }
        };
        let overdue = async {
            while !self.senders_end.get() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            tokio::time::sleep(PATIENCE).await;
        };
        tokio::select! {
            () = reading => {}
            () = overdue => {
                let (missing, last) = (witness.missing(), witness.last.get());
                panic!("{:?} has seen {last}, not {missing:?}", witness.reader);
            }
        }
    }

    async fn read_polls(&self, stage: &Stage, witness: &Witness) {
        let mut ticks = tokio::time::interval(POLL_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Devices live on the last node, as long as it lives.
        let mut node = stage.doors.len() - 1;
        loop {
            ticks.tick().await;
            // Looked at before the poll, so that the last one is after the last send.
            let is_over = self.is_over(witness);
            let min_syn = match witness.reader {
                Reader::Reread => 1,
                _ => witness.last.get() + 1,
            };
            let Some(entry) = try_poll(&stage.doors[node], witness, min_syn).await else {
                node = (node + 1) % stage.doors.len();
                continue;
            };
            if let Some(error) = entry.get("error") {
                assert_eq!(error["status"], "UNAVAILABLE", "{entry}");
                continue;
            }
            let pushes = entry["messages"].as_array().expect("messages");
            match witness.reader {
                Reader::Reread if entry["partial_content"] == true => panic!("too many pushes"),
                Reader::Reread => witness.sees_all(pushes),
                _ => pushes.iter().for_each(|push| witness.sees_next(push)),
            }
            assert!(entry["syn_stored"].as_u64() >= Some(witness.last.get()));
            if is_over {
                return;
            }
        }
    }

    async fn read_sockets(&self, stage: &Stage, witness: &Witness) {
        let mut node = stage.doors.len() - 1;
        while !self.is_over(witness) {
            let url = format!("ws://{}/v1/connect", stage.doors[node].listen());
            let connecting = tokio::time::timeout(ANSWER_MAX, try_connect(&url)).await;
            if let Ok(Some(mut socket)) = connecting {
                self.read_socket(witness, &mut socket).await;
            }
            if !self.is_over(witness) {
                node = (node + 1) % stage.doors.len();
                tokio::time::sleep(POLL_EVERY).await;
            }
        }
    }

    /// Reads until the end of the socket, or of the load.
    async fn read_socket(&self, witness: &Witness, socket: &mut Socket) {
        let next = witness.last.get() + 1;
        socket
            .hello(&witness.device, &[(&witness.token, next)])
            .await;
        let mut heard_at = Instant::now();
        while !self.is_over(witness) && heard_at.elapsed() < SILENCE_MAX {
            let Ok(frame) = tokio::time::timeout(LOOK_EVERY, try_frame(socket)).await else {
                socket.send(&json!({"type": "ping"})).await;
                continue;
            };
            let Some(frame) = frame else {
                return;
            };
            heard_at = Instant::now();
            match frame["type"].as_str() {
                Some("push") => {
                    witness.sees_next(&frame);
                    socket.ack(&witness.token, witness.last.get()).await;
                }
                Some("welcome") => match frame["tokens"][0].get("error") {
                    Some(error) => {
                        assert_eq!(error, "UNAVAILABLE", "{frame}");
                        return;
                    }
                    None => witness.sockets.set(witness.sockets.get() + 1),
                },
                Some("pong") => {}
                _ => panic!("{frame}"),
            }
        }
    }
}

/// Opens a socket at a node that may be gone.
async fn try_connect(url: &str) -> Option<Socket> {
    let connecting = tokio_tungstenite::connect_async_with_config(url, None, true);
    let (stream, _) = connecting.await.ok()?;
    Some(Socket { stream })
}

/// The next text frame; `None` when the socket ends.
async fn try_frame(socket: &mut Socket) -> Option<Value> {
    loop {
        match socket.stream.next().await?.ok()? {
            Message::Text(text) => return serde_json::from_str(&text).ok(),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}

/// Sends; `None` without an answer.
async fn try_send(door: &Door, body: &Value) -> Option<(u16, Value)> {
    let sent = tokio::time::timeout(ANSWER_MAX, door.try_send(body)).await;
    sent.ok().flatten()
}

async fn try_poll(door: &Door, witness: &Witness, min_syn: u64) -> Option<Value> {
    let requests = json!([{
        "project_id": "demo", "token": witness.token, "min_syn": min_syn, "limit": 1000,
    }]);
    let request = door
        .http()
        .post(door.url("/v1/projects/messages:get"))
        .header("Authorization", witness.device.header())
        .json(&json!({"requests": requests}))
        .timeout(ANSWER_MAX);
    let sent = request.send().await.ok()?;
    if sent.status() == 503 {
        return None;
    }
    assert_eq!(sent.status(), 200);
    let text = sent.text().await.ok()?;
    let mut answer: Value = serde_json::from_str(&text).ok()?;
    Some(answer["by_token"][0].take())
}
