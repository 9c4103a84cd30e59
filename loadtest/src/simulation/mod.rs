//! The server's own Session, Registry and Router actors, parking and store in the swarm's process,
//! over streams in memory: as many sessions as memory holds, without a file descriptor each.
//!
//! This is the only place where the swarm knows the server. Everywhere else it must not, so that
//! the server is tested by code that does not share its mistakes; here there is nothing to be tested
//! but the server's own actors. The devices at the other end are still the swarm's: they know
//! `protocol` and nothing more.

mod device;
mod population;
mod sending;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::join_all;
use herald::actors::{Node, NodeSettings};
use herald::clock::Clock;
use herald::config::Config;
use herald::metrics::Metrics;
use herald::server::node_settings;
use herald::store::embedded::{EmbeddedOptions, EmbeddedStore};
use herald::store::memory::MemoryStore;
use herald::store::{Store, StoreLimits};
use herald::token::{Key, Keyring};
use tokio::time::{Instant, sleep};

use crate::arrivals::{ArrivalCounts, SendSet};
use crate::clock::{monotonic_ns, thread_cpu_ns};
use crate::latency::Latencies;
use crate::memory::{peak_bytes, resident_bytes};
use crate::pacing::Schedule;
use crate::progress::Stage;
use crate::sender::SendTally;
use device::Counts;
use population::Population;
use worker::Worker;

/// How often the simulation is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Devices of a simulation do not ping: their sessions are never silent for too long.
const PING_INTERVAL_MS: u64 = 30 * 24 * 60 * 60 * 1_000;

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Sessions, each of a device with one token.
    pub sessions: u64,
    /// Share of them that never park.
    pub awake_share: f64,
    /// Worker threads.
    pub workers: usize,
    /// How long a session is idle before it parks.
    pub park_after: Duration,
    /// Pushes in all.
    pub pushes: u64,
    /// Pushes a second.
    pub rate: f64,
    /// Bytes of padding in each.
    pub payload: usize,
    /// Resident memory beyond which no more sessions are made.
    pub memory_max: u64,
    /// Where the embedded store is; in memory if left out.
    pub store: Option<PathBuf>,
    /// Waits this long at most for sessions to park, and for pushes on their way.
    pub patience: Duration,
}

/// What came of it.
pub struct Outcome {
    /// Sessions that were welcomed.
    pub welcomed: u64,
    /// How long that took.
    pub welcoming: Duration,
    /// Of these, the ones that were parked before the first send.
    pub parked: u64,
    /// The sends.
    pub sends: SendTally,
    /// How long they took.
    pub sending: Duration,
    /// Share of a processor that the sending thread used.
    pub cpu_share: f64,
    /// Which sends arrived.
    pub seen: SendSet,
    /// How they arrived.
    pub arrivals: ArrivalCounts,
    /// Arrivals that were acknowledged.
    pub acked: u64,
    /// From intended send to arrival.
    pub delivery: Latencies,
    /// Resident memory before the first session, with all of them at rest, at the end, and at most.
    pub rss_before: u64,
    pub rss_at_rest: u64,
    pub rss_at_end: u64,
    pub rss_max: u64,
    /// What a device was told that no device should be told.
    pub fault: Option<String>,
}

/// Runs a simulation. Must not be called on a runtime.
///
/// # Errors
/// When the store cannot be opened, or a session could not be made.
pub fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    actix_rt::System::new().block_on(simulate(plan))
}

async fn simulate(plan: &Plan) -> anyhow::Result<Outcome> {
    let node = node(plan)?;
    let rss_before = resident_bytes();
    let population = Population {
        devices: plan.sessions,
        workers: plan.workers,
        awake_share: plan.awake_share,
    };
    let begun = Instant::now();
    let mut workers: Vec<Worker> = (0..plan.workers)
        .map(|index| Worker::launch(&node, index, population))
        .collect();
    fill(plan, &mut workers).await?;
    let welcoming = begun.elapsed();
    let welcomed = sum(&workers, |counts| &counts.welcomed);
    let parked = rest(plan, &workers, population).await;
    let rss_at_rest = resident_bytes();

    // Who was not welcomed is not sent to: the workers took in their devices in turn.
    let fewest = workers.iter().map(Worker::welcomed).min().unwrap_or(0);
    let met = Population {
        devices: population.devices.min(fewest * plan.workers as u64),
        ..population
    };
    let mut sends = SendTally::new();
    let (cpu_before, begun) = (thread_cpu_ns(), Instant::now());
    let pushes = if met.devices > 0 { plan.pushes } else { 0 };
    let schedule = Schedule::new(monotonic_ns(), plan.rate, pushes);
    let mut stage = Stage::begin("send", pushes);
    let show = |sent: u64| {
        if sent.is_multiple_of(1_000) {
            stage.at(sent, "");
        }
    };
    sending::send_all(&node, met, schedule, plan.payload, &mut sends, show).await?;
    let sending = begun.elapsed();
    let used = Duration::from_nanos(thread_cpu_ns() - cpu_before);
    drain(plan, &workers, sends.ledger.accepted()).await;
    stage.end(sends.ledger.sent(), "");
    let (rss_at_end, rss_max) = (resident_bytes(), peak_bytes());
    let acked = sum(&workers, |counts| &counts.acked);
    let mut outcome = Outcome {
        welcomed,
        welcoming,
        parked,
        sends,
        sending,
        cpu_share: used.as_secs_f64() / sending.as_secs_f64().max(f64::MIN_POSITIVE),
        seen: SendSet::default(),
        arrivals: ArrivalCounts::default(),
        acked,
        delivery: Latencies::new(),
        rss_before,
        rss_at_rest,
        rss_at_end,
        rss_max,
        fault: None,
    };
    for seen in join_all(workers.into_iter().map(Worker::collect)).await {
        let seen = seen?;
        outcome.arrivals.add(seen.counts);
        outcome.arrivals.duplicated += outcome.seen.merge(&seen.sends);
        outcome.delivery.merge(&seen.delivery);
        outcome.fault = outcome.fault.or(seen.fault);
    }
    Ok(outcome)
}

/// The node, with the server's default settings but for what the plan says.
fn node(plan: &Plan) -> anyhow::Result<Node> {
    let config = Config::default();
    let limits = StoreLimits {
        pending_per_token: config.limits.pending_per_token,
        token_ttl_ms: config.limits.token_ttl_ms,
        topics_per_token: config.limits.topics_per_token,
    };
    let clock = Clock::system();
    let store: Arc<dyn Store> = match &plan.store {
        None => Arc::new(MemoryStore::new(limits, Arc::default())),
        Some(directory) => {
            let options = EmbeddedOptions {
                now: clock.now(),
                ..EmbeddedOptions::default()
            };
            let store = EmbeddedStore::open(directory, limits, options);
            Arc::new(store.with_context(|| format!("cannot open {}", directory.display()))?)
        }
    };
    let key = Key::new(1, &Key::random_bytes()[..]).context("a key has 32 bytes")?;
    let keys = Keyring::new(std::slice::from_ref(&key), vec![key.clone()]);
    let settings = NodeSettings {
        workers: plan.workers,
        sessions_max: usize::try_from(plan.sessions)?,
        ping_interval_ms: PING_INTERVAL_MS,
        park_after_ms: u64::try_from(plan.park_after.as_millis())?,
        ..node_settings(&config)
    };
    Ok(Node::new(
        settings,
        store,
        clock,
        Arc::new(keys.context("a keyring has keys")?),
        Arc::new(Metrics::new()),
        Arc::new(|_| true),
        None,
    ))
}

fn sum(workers: &[Worker], count: impl Fn(&Counts) -> &AtomicU64) -> u64 {
    let counts = workers.iter().map(|worker| count(&worker.counts));
    counts.map(|count| count.load(Ordering::Relaxed)).sum()
}

/// Waits until every session is there, or memory is at its limit.
async fn fill(plan: &Plan, workers: &mut [Worker]) -> anyhow::Result<()> {
    let counts: Vec<Arc<Counts>> = workers.iter().map(|it| Arc::clone(&it.counts)).collect();
    let enough: Vec<_> = workers.iter().map(|it| Arc::clone(&it.enough)).collect();
    let filled = join_all(workers.iter_mut().map(Worker::filled));
    tokio::pin!(filled);
    let mut stage = Stage::begin("connect", plan.sessions);
    let welcomed = || -> u64 {
        let each = counts.iter().map(|counts| &counts.welcomed);
        each.map(|count| count.load(Ordering::Relaxed)).sum()
    };
    loop {
        tokio::select! {
            outcomes = &mut filled => {
                stage.end(welcomed(), "");
                return outcomes.into_iter().collect();
            }
            () = sleep(LOOK_EVERY) => {
                stage.at(welcomed(), "");
                if resident_bytes() > plan.memory_max {
                    enough.iter().for_each(|enough| enough.store(true, Ordering::Relaxed));
                }
            }
        }
    }
}

/// Waits until every session that parks is parked; how many are.
async fn rest(plan: &Plan, workers: &[Worker], population: Population) -> u64 {
    let mut wanted = 0;
    for (index, worker) in workers.iter().enumerate() {
        let welcomed = usize::try_from(worker.welcomed()).unwrap_or(usize::MAX);
        let met = population.of_worker(index).take(welcomed);
        wanted += met.filter(|number| population.parks(*number)).count() as u64;
    }
    let parked = || sum(workers, |counts| &counts.parked);
    let deadline = Instant::now() + plan.park_after + plan.patience;
    let mut stage = Stage::begin("park", wanted);
    while parked() < wanted && Instant::now() < deadline {
        sleep(LOOK_EVERY).await;
        stage.at(parked(), "");
    }
    stage.end(parked(), "");
    parked()
}

/// Waits until everything that was accepted has arrived.
async fn drain(plan: &Plan, workers: &[Worker], accepted: u64) {
    let deadline = Instant::now() + plan.patience;
    while sum(workers, |counts| &counts.delivered) < accepted && Instant::now() < deadline {
        sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            sessions: 300,
            awake_share: 0.2,
            workers: 2,
            park_after: Duration::from_millis(50),
            pushes: 1_000,
            rate: 20_000.0,
            payload: 50,
            memory_max: u64::MAX,
            store: None,
            patience: Duration::from_secs(20),
        }
    }

    fn assert_all_is_well(outcome: &Outcome) {
        assert_eq!(outcome.fault, None);
        assert_eq!(outcome.welcomed, 300);
        assert_eq!(outcome.sends.ledger.accepted(), 1_000);
        let verdict = outcome.sends.ledger.judge(&outcome.seen);
        assert_eq!((verdict.lost, verdict.invented), (0, 0));
        assert_eq!(outcome.arrivals.duplicated, 0);
        assert_eq!(outcome.arrivals.out_of_order, 0);
        assert_eq!((outcome.seen.len(), outcome.acked), (1_000, 1_000));
    }

    #[test]
    fn parked_and_awake_sessions_get_every_push() {
        let outcome = run(&plan()).expect("runs");
        assert_all_is_well(&outcome);
        assert!((200..280).contains(&outcome.parked), "{}", outcome.parked);
        assert!(outcome.rss_before < outcome.rss_max);
    }

    #[test]
    fn the_embedded_store_serves_a_simulation_too() {
        let directory =
            std::env::temp_dir().join(format!("swarm-simulation-{}", std::process::id()));
        let plan = Plan {
            store: Some(directory.clone()),
            ..plan()
        };
        let outcome = run(&plan).expect("runs");
        std::fs::remove_dir_all(&directory).expect("cleans up");
        assert_all_is_well(&outcome);
    }

    #[test]
    fn there_are_no_more_sessions_than_memory_allows() {
        let plan = Plan {
            sessions: 1_000_000,
            memory_max: 1,
            pushes: 10,
            ..plan()
        };
        let outcome = run(&plan).expect("runs");
        assert!(
            (1..500_000).contains(&outcome.welcomed),
            "{}",
            outcome.welcomed
        );
    }
}
