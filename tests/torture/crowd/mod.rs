//! Everybody at a server, or at a region of several: tokens with their histories, senders, devices,
//! and the judge.

mod deck;
mod devices;
mod history;
mod judge;
mod notes;
mod senders;
mod sent;

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::harness::{Credential, Door};
pub use deck::{Deck, length, seed};
pub use history::History;

const DEVICES: usize = 3;
const TOKENS_PER_DEVICE: usize = 2;

/// Senders at a time.
const SENDERS: usize = 6;

/// Between two looks of somebody who waits for something.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a round is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Everybody does as he pleases.
    Work,
    /// What is written just now will be lost. Devices look at what they are shown meanwhile: it must
    /// be true afterwards.
    Look,
    /// Everybody comes to an end.
    Over,
}

/// What holds where the crowd is.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// A send that was answered 504 may be stored a little later; a push whose number was lost
    /// before it was settled comes under another one, perhaps under both.
    pub settles_late: bool,
    /// A machine this busy may show a push so much later than it was written on the socket.
    pub shown_late: Duration,
    /// Whoever is told to come back, though all is well, does so for so long.
    pub patience: Duration,
    /// Between two acts of a sender or a device.
    pub pause: Duration,
}

/// A token, its device and its history.
pub struct Watched {
    pub token: String,
    pub history: RefCell<History>,
    device: usize,
    is_member: bool,
}

/// Everybody.
pub struct Crowd {
    pub tokens: Vec<Watched>,
    pub devices: Vec<Credential>,
    terms: Terms,
    topic: String,
    next: Cell<u64>,
    /// Texts that were sent under a key, to be sent again.
    keyed: RefCell<Vec<(usize, String)>>,
}

impl Crowd {
    /// Devices and tokens; every other token is on the topic. Doors are those of one server, or of
    /// all nodes of a region: everybody takes any of them, each time anew.
    pub async fn gather(doors: &[Door], terms: Terms) -> Self {
        let (mut devices, mut tokens) = (Vec::new(), Vec::new());
        for device in 0..DEVICES {
            let credential = doors[0].device().await;
            for place in 0..TOKENS_PER_DEVICE {
                let token = doors[0].token(&credential).await;
                tokens.push(Watched {
                    history: RefCell::new(History::of(&token, terms)),
                    token,
                    device,
                    is_member: place % 2 == 0,
                });
            }
            devices.push(credential);
        }
        let crowd = Self {
            devices,
            tokens,
            terms,
            topic: format!("torture-{:08x}", rand::random::<u32>()),
            next: Cell::new(0),
            keyed: RefCell::default(),
        };
        crowd.subscribe(&doors[0]).await;
        crowd
    }

    async fn subscribe(&self, door: &Door) {
        let members: Vec<&String> = self.members().map(|it| &it.token).collect();
        let body = json!({"to": self.topic, "registration_tokens": members});
        let begun = Instant::now();
        loop {
            let credential = door.service_token();
            let added = try_post(door, "/iid/v1:batchAdd", credential, None, &body).await;
            let results = added
                .as_ref()
                .and_then(|(_, added)| added["results"].as_array());
            if results.is_some_and(|it| it.iter().all(|one| *one == json!({}))) {
                return;
            }
            assert!(begun.elapsed() < self.terms.patience, "{added:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Senders send and devices read, each in its own way, until the round is over.
    pub async fn live(
        &self,
        doors: &[Door],
        random: &mut SmallRng,
        phase: &watch::Receiver<Phase>,
        moves_clock: bool,
    ) {
        use futures_util::future::{join, join_all};
        use rand::SeedableRng as _;
        if moves_clock {
            for watched in &self.tokens {
                watched.history.borrow_mut().clock_moves();
            }
        }
        let mut own_random = || SmallRng::seed_from_u64(random.random());
        let senders: Vec<SmallRng> = (0..SENDERS).map(|_| own_random()).collect();
        let devices: Vec<SmallRng> = self.devices.iter().map(|_| own_random()).collect();
        let senders = senders
            .into_iter()
            .map(|random| self.send(doors, random, phase, moves_clock));
        let readers = devices.into_iter().enumerate();
        let readers = readers.map(|(place, random)| self.read(doors, place, random, phase));
        join(join_all(senders), join_all(readers)).await;
    }

    /// Sends that were made, pushes that were seen, and pushes that came under several numbers.
    pub fn totals(&self) -> (usize, usize, usize) {
        let total = |count: fn(&History) -> usize| -> usize {
            let tokens = self.tokens.iter();
            tokens.map(|it| count(&it.history.borrow())).sum()
        };
        let (sends, seen) = (total(History::sends), total(History::seen));
        (sends, seen, total(History::renumbered))
    }

    /// The tokens of a device.
    fn tokens_of(&self, device: usize) -> Vec<&Watched> {
        let tokens = self.tokens.iter();
        tokens.filter(|it| it.device == device).collect()
    }

    fn members(&self) -> impl Iterator<Item = &Watched> {
        self.tokens.iter().filter(|it| it.is_member)
    }

    fn any_token(&self, random: &mut SmallRng) -> usize {
        random.random_range(0..self.tokens.len())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let histories: Vec<_> = self.tokens.iter().map(|it| it.history.borrow()).collect();
            let tokens = self.tokens.iter().zip(&histories);
            notes::keep(tokens.map(|(it, history)| (it.token.as_str(), &history.notes)));
        }
    }
}

/// One of them.
fn any<'a>(doors: &'a [Door], random: &mut SmallRng) -> &'a Door {
    &doors[random.random_range(0..doors.len())]
}

/// A call that may have no answer.
async fn try_post(
    door: &Door,
    path: &str,
    credential: String,
    once: Option<&str>,
    body: &Value,
) -> Option<(u16, Value)> {
    let credential = match credential.starts_with("Device ") {
        true => credential,
        false => format!("Bearer {credential}"),
    };
    let mut request = door
        .http()
        .post(door.url(path))
        .header("Authorization", credential)
        .json(body);
    if let Some(key) = once {
        request = request.header("Idempotency-Key", key);
    }
    let answer = crate::harness::soon("an answer or its end", request.send()).await;
    let answer = answer.ok()?;
    let status = answer.status().as_u16();
    let text = answer.text().await.ok()?;
    Some((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
}
