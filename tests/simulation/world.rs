//! One seed: a region's worth of devices and senders, the lives of a node, and the calm at the end.

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use herald::actors::{Node, NodeSettings};
use herald::clock::{Clock, Millis};
use herald::metrics::{CloseLabel, FanOutCopy, Metrics, Shed};
use herald::push::Syn;
use herald::token::{DeviceId, Key, Keyring, ProjectHash, TokenAddress, TokenId};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep};

use crate::judge::Judge;
use crate::store::FaultyStore;
use crate::totals::Totals;
use crate::{alarm, device, poll, sender, topics, worker};

/// When every story begins: the start of a minute.
const BEGIN_MS: Millis = 30_000_000 * 60_000;

/// All tokens are of one project.
pub const PROJECT: ProjectHash = ProjectHash([1; 8]);

pub const PING_INTERVAL_MS: u64 = 1_000;

/// After the last fault every connected device has everything within this time.
const PATIENCE: Duration = Duration::from_secs(15);

/// So often everybody comes at once in the calm.
const CROWDS: usize = 2;

/// Lines of a story that are told when it ends badly.
const TOLD: usize = 200;

/// A token and how it is written.
pub struct Token {
    pub address: TokenAddress,
    pub text: String,
}

/// What outlives a node.
pub struct World {
    pub store: Arc<FaultyStore>,
    pub clock: Clock,
    pub devices: Vec<DeviceId>,
    /// Those of one device stand together.
    pub tokens: Vec<Token>,
    keys: Arc<Keyring>,
    judge: RefCell<Judge>,
    /// The highest number that each token's device has seen.
    seen: RefCell<Vec<Syn>>,
    is_calm: Cell<bool>,
    numbers: Cell<u64>,
    crowds: RefCell<Vec<UnboundedSender<()>>>,
}

/// How a seed went.
#[derive(Debug)]
pub struct Story {
    pub lines: Vec<String>,
    pub totals: Totals,
}

/// Runs a seed; what was wrong with it, and what happened before, if anything was.
pub fn run(seed: u64) -> Result<Story, String> {
    alarm::set();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let story = runtime.block_on(tell(seed));
    drop(runtime);
    alarm::unset();
    match alarm::first() {
        None => Ok(story),
        Some(what) => {
            let last = story.lines.len().saturating_sub(TOLD);
            Err(format!("{}\n{what}", story.lines[last..].join("\n")))
        }
    }
}

async fn tell(seed: u64) -> Story {
    let mut random = SmallRng::seed_from_u64(seed);
    let world = Rc::new(World::new(&mut random));
    for _ in 0..random.random_range(0..3) {
        let lasts = Duration::from_millis(random.random_range(500..4_000));
        let local = LocalSet::new();
        let node = local.run_until(world.live(&mut random)).await;
        local.run_until(sleep(lasts)).await;
        world.count(&node);
        // The node, its actors and all sockets are gone in the middle of whatever they did.
        drop(local);
        world.judge().crashes();
        world.store.crash();
        if alarm::first().is_some() {
            break;
        }
    }
    if alarm::first().is_none() {
        let lasts = Duration::from_millis(random.random_range(500..4_000));
        let local = LocalSet::new();
        let node = local.run_until(world.live(&mut random)).await;
        local.run_until(sleep(lasts)).await;
        world.count(&node);
        // In a task, so that a complaint ends only that.
        let own = SmallRng::seed_from_u64(random.random());
        let rest = Rc::clone(&world).come_to_rest(node, own);
        let _ = local.run_until(async { spawn_local(rest).await }).await;
    }
    let mut judge = world.judge();
    judge.totals.faults = world.store.faults();
    (judge.totals.replaced, judge.totals.dropped) = world.store.ledger().counts();
    judge.totals.expired = judge.expired();
    Story {
        lines: std::mem::take(&mut judge.lines),
        totals: judge.totals.clone(),
    }
}

impl World {
    pub fn new(random: &mut SmallRng) -> Self {
        let begun = Instant::now();
        let clock = Clock::showing(move || {
            BEGIN_MS + u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
        });
        let key = || Key::new(1, &[7; 32]).expect("32 bytes");
        let keys = Arc::new(Keyring::new(&[key()], vec![key()]).expect("keys"));
        let devices: Vec<DeviceId> = (0..random.random_range(2..=3))
            .map(|_| DeviceId(random.random()))
            .collect();
        let mut tokens = Vec::new();
        for device in &devices {
            for _ in 0..2 {
                let address = TokenAddress {
                    id: TokenId(random.random()),
                    device: *device,
                    project: PROJECT,
                    minted_minutes: u32::try_from(BEGIN_MS / 60_000).expect("small"),
                };
                let text = keys.seal(address).to_text();
                tokens.push(Token { address, text });
            }
        }
        let store = Arc::new(FaultyStore::new(random.random()));
        let judge = Judge::new(
            Arc::clone(&store),
            clock.clone(),
            tokens.iter().map(|token| token.address.id).collect(),
            devices.len(),
        );
        Self {
            seen: RefCell::new(vec![0; tokens.len()]),
            store,
            clock,
            devices,
            tokens,
            keys,
            judge: RefCell::new(judge),
            is_calm: Cell::new(false),
            numbers: Cell::new(0),
            crowds: RefCell::default(),
        }
    }

    pub fn judge(&self) -> RefMut<'_, Judge> {
        self.judge.borrow_mut()
    }

    pub fn is_calm(&self) -> bool {
        self.is_calm.get()
    }

    /// In the calm: tells when all devices are to connect again at the same moment.
    pub fn crowds(&self) -> UnboundedReceiver<()> {
        let (call, calls) = unbounded_channel();
        self.crowds.borrow_mut().push(call);
        calls
    }

    /// Never the same twice.
    pub fn next_number(&self) -> u64 {
        self.numbers.set(self.numbers.get() + 1);
        self.numbers.get()
    }

    pub fn tokens_of(&self, device: usize) -> impl Iterator<Item = usize> + '_ {
        let device = self.devices[device];
        let all = self.tokens.iter().enumerate();
        all.filter_map(move |(place, token)| (token.address.device == device).then_some(place))
    }

    pub fn token_named(&self, text: &str) -> usize {
        let place = self.tokens.iter().position(|token| token.text == text);
        place.expect("promise 2: a token that nobody has")
    }

    pub fn seen(&self, token: usize) -> Syn {
        self.seen.borrow()[token]
    }

    pub fn sees(&self, token: usize, syn: Syn) {
        let seen = &mut self.seen.borrow_mut()[token];
        *seen = (*seen).max(syn);
    }

    /// A node begins, with all its workers.
    pub async fn begin(
        self: &Rc<Self>,
        settings: NodeSettings,
        random: &mut SmallRng,
    ) -> (Node, worker::Door) {
        let node = Node::new(
            settings,
            Arc::clone(&self.store) as _,
            self.clock.clone(),
            Arc::clone(&self.keys),
            Arc::new(Metrics::new()),
            Arc::new(|_| true),
            None,
        );
        let door = worker::start_all(self, &node, random);
        node.started().await;
        node.start_fan_outs();
        (node, door)
    }

    /// A node begins to live, and everybody turns to it.
    async fn live(self: &Rc<Self>, random: &mut SmallRng) -> Node {
        let settings = settings(random);
        let (node, door) = self.begin(settings, random).await;
        let mut own = || SmallRng::seed_from_u64(random.random());
        let store = Arc::clone(&self.store);
        spawn_local(async move { store.commit().await });
        for device in 0..self.devices.len() {
            let door = Rc::clone(&door);
            spawn_local(device::live(Rc::clone(self), door, device, own()));
            spawn_local(poll::live(Rc::clone(self), node.clone(), device, own()));
        }
        spawn_local(topics::live(Rc::clone(self), node.clone(), own()));
        for _ in 0..2 {
            spawn_local(sender::live(Rc::clone(self), node.clone(), own()));
        }
        node
    }

    /// What no device can see.
    fn count(&self, node: &Node) {
        let (metrics, totals) = (node.metrics(), &mut self.judge().totals);
        totals.shed += metrics.sheds.get(Shed::MailboxFull);
        totals.repeated += metrics.fan_outs.copies.get(FanOutCopy::Repeated);
        totals.slow += metrics.closes.get(CloseLabel::SlowReader);
    }

    /// Nothing goes wrong any more: soon everybody must have everything.
    async fn come_to_rest(self: Rc<Self>, node: Node, mut random: SmallRng) {
        self.judge().note("calm");
        self.store.be_well();
        self.is_calm.set(true);
        // Before anything new could tell a session that it has missed something.
        self.nothing_is_missing(true).await;
        let until = Instant::now() + PATIENCE;
        let probes = (0..self.tokens.len())
            .map(|token| spawn_local(sender::probe(Rc::clone(&self), node.clone(), token)));
        for probe in probes.collect::<Vec<_>>() {
            let sent = tokio::time::timeout_at(until, probe).await;
            assert_eq!(sent.map(|_| ()), Ok(()), "liveness: sends do not succeed");
        }
        self.nothing_is_missing(false).await;
        for _ in 0..CROWDS {
            self.crowd_in(&node, &mut random).await;
        }
        for token in 0..self.tokens.len() {
            poll::everything(&self, &node, token).await;
        }
    }

    /// All devices connect again at once, some of them twice, and all senders send at once. Nothing
    /// comes after it that could tell a session what it has missed, or a router whose a token is.
    async fn crowd_in(self: &Rc<Self>, node: &Node, random: &mut SmallRng) {
        self.judge().note("a crowd");
        for call in self.crowds.borrow().iter() {
            // Who lived with an earlier node hears nothing any more.
            let _ = call.send(());
        }
        sleep(Duration::from_millis(random.random_range(0..40))).await;
        let own = SmallRng::seed_from_u64(random.random());
        let to_many = topics::send(Rc::clone(self), node.clone(), sender::PLAIN, own);
        let to_many = spawn_local(to_many);
        let burst = (0..random.random_range(4..9)).map(|_| {
            let token = random.random_range(0..self.tokens.len());
            spawn_local(sender::some(Rc::clone(self), node.clone(), token))
        });
        for send in burst.collect::<Vec<_>>() {
            let _ = send.await;
        }
        let _ = to_many.await;
        self.nothing_is_missing(false).await;
        let until = Instant::now() + PATIENCE;
        while node.metrics().fan_outs.unfinished.get() > 0 {
            assert!(
                Instant::now() < until,
                "liveness: pushes to many do not end"
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn nothing_is_missing(&self, only_answered: bool) {
        let until = Instant::now() + PATIENCE;
        loop {
            let missing = self.judge().missing(only_answered);
            if missing.is_empty() || alarm::first().is_some() {
                return;
            }
            assert!(
                Instant::now() < until,
                "promise 1: never shown: {missing:?}"
            );
            sleep(Duration::from_millis(100)).await;
        }
    }
}

pub fn settings(random: &mut SmallRng) -> NodeSettings {
    let mut one_of = |choices: [usize; 3]| choices[random.random_range(0..3)];
    NodeSettings {
        // With more of them than two, one can fill the mailbox of another that is small.
        workers: one_of([1, 2, 4]),
        mailbox: one_of([2, 8, 64]),
        session_mailbox: one_of([1, 2, 16]),
        in_flight_per_token: one_of([1, 4, 16]),
        queued_per_token: one_of([1, 8, 64]),
        fan_outs_per_project: one_of([1, 3, 100]),
        fan_out_copies_per_second: one_of([0, 5, 50]) as u32,
        append_timeout_ms: 2_000,
        sessions_max: 100,
        hello_timeout_ms: 1_000,
        contact_every_ms: one_of([300, 3_000, 60_000]) as u64,
        ping_interval_ms: PING_INTERVAL_MS,
        write_timeout_ms: 600,
        outbox_bytes: one_of([200, 2_000, 60_000]),
        park_after_ms: one_of([300, 1_000, 5_000]) as u64,
        restart_spread_ms: 1_000,
    }
}
