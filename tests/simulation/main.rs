//! Simulation: the node with its actors, in virtual time, over a store that delays, refuses, forgets
//! what it was told and crashes; devices and senders that do as they please; and a judge.
//!
//! Everything that happens follows from a seed, and the same again from the same seed. Time stands
//! still while anybody has something to do, so a minute takes milliseconds. What is real: `Node`,
//! Storage, Routers, Registries, Sessions, WebSocket frames and their framing. What is not: sockets
//! are buffers in memory, so sessions never park (the parked set is the kernel's), there is no HTTP,
//! and all workers take turns on one thread, in an order and with pauses that the seed chooses.
//!
//! ```sh
//! SIMULATION_SEED=7 cargo test --test simulation                       # one seed
//! SIMULATION_SEED=1 SIMULATION_SEEDS=100000 cargo test --test simulation
//! ```

mod alarm;
mod device;
mod draining;
mod journal;
mod judge;
mod ledger;
mod members;
mod pages;
mod pipe;
mod poll;
mod reader;
mod sender;
mod sent;
mod socket;
mod store;
mod store_topics;
mod store_verbs;
mod topics;
mod totals;
mod worker;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many seeds are tried unless told otherwise.
const SEEDS: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_promise_is_kept_whatever_the_seed() {
    let given = number("SIMULATION_SEED");
    let count = number("SIMULATION_SEEDS").unwrap_or(if given.is_some() { 1 } else { SEEDS });
    let first = given.unwrap_or(1);
    let (next, found) = (AtomicU64::new(first), Mutex::new(None));
    let totals = Mutex::new(totals::Totals::default());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while found.lock().expect("whole").is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    match world::run(seed) {
                        Ok(story) => totals.lock().expect("whole").add(&story.totals),
                        Err(what) => *found.lock().expect("whole") = Some((seed, what)),
                    }
                }
            });
        }
    });
    println!("{count} seeds: {:?}", totals.lock().expect("whole"));
    if let Some((seed, what)) = found.into_inner().expect("whole") {
        panic!("SIMULATION_SEED={seed}\n{what}");
    }
    if count >= SEEDS {
        totals.into_inner().expect("whole").assert_all_happened();
    }
}

/// Else a seed would be worth nothing to whoever looks for the reason.
#[test]
fn a_seed_tells_the_same_story_twice() {
    for seed in 1..=20 {
        let told = || world::run(seed).expect("nothing found").lines;
        let (once, twice) = (told(), told());
        let differs = once.iter().zip(&twice).position(|(one, two)| one != two);
        assert_eq!(differs.map(|at| (&once[at], &twice[at])), None, "{seed}");
        assert_eq!(once.len(), twice.len(), "{seed}");
    }
}
