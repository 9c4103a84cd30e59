//! Torture: a random day of senders and devices at the real binary, with faults in between, and a
//! judge who has seen everything.
//!
//! A run begins with a seed, which it prints, and goes in rounds: everybody works, a fault happens,
//! and when the dust has settled every token's log is held against its history. By default it is
//! short. To go on for an hour, or the same way again:
//!
//! ```sh
//! TORTURE_FOR=3600 TORTURE_SEED=7 cargo test --test torture -- --nocapture
//! ```
//!
//! The seed fixes who does what and which faults come; the machine has its own say in when.

mod crowd;
mod faults;
#[path = "../scenarios/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "scenarios use the rest of it")]
mod harness;
mod history;

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crowd::Crowd;
use faults::{Fault, Machine};

/// How long a run goes on unless it is told otherwise.
const SHORT: Duration = Duration::from_secs(25);

const SENDERS: usize = 6;

#[tokio::test]
async fn nothing_is_lost_whatever_happens() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seed = number("TORTURE_SEED").unwrap_or_else(rand::random);
    let length = number("TORTURE_FOR").map_or(SHORT, Duration::from_secs);
    println!("TORTURE_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut machine = Machine::start().await;
    let crowd = Crowd::gather(&machine.server).await;
    let begun = Instant::now();
    let mut rounds = 0;
    let mut faults = Fault::deck(&mut random);
    while begun.elapsed() < length {
        let fault = faults.pop().unwrap_or_else(|| {
            faults = Fault::deck(&mut random);
            Fault::Nothing
        });
        a_round(&mut machine, &crowd, fault, &mut random).await;
        rounds += 1;
    }
    let sends: usize = crowd
        .tokens
        .iter()
        .map(|it| it.history.borrow().sends())
        .sum();
    let seen: usize = crowd
        .tokens
        .iter()
        .map(|it| it.history.borrow().seen())
        .sum();
    println!("{rounds} rounds, {sends} sends, {seen} pushes seen, nothing amiss");
    machine.server.stop_and_audit().await;
}

/// Everybody works until the fault has happened; then everything is looked at.
async fn a_round(machine: &mut Machine, crowd: &Crowd, fault: Fault, random: &mut SmallRng) {
    let is_over = Cell::new(false);
    let moves_clock = matches!(fault, Fault::ClockForward | Fault::ClockBack);
    crowd.begin_round(moves_clock);
    let mut seeds = || SmallRng::seed_from_u64(random.random());
    let randoms: Vec<SmallRng> = (0..SENDERS + crowd.devices.len())
        .map(|_| seeds())
        .collect();
    let (for_senders, for_readers) = randoms.split_at(SENDERS);
    let senders = for_senders.iter().map(|random| {
        let random = random.clone();
        crowd.send(&machine.server, random, &is_over, moves_clock)
    });
    let readers = crowd
        .devices
        .iter()
        .zip(for_readers)
        .map(|(device, random)| crowd.read(&machine.server, device, random.clone(), &is_over));
    let pause = Duration::from_millis(random.random_range(50..700));
    let (server, faults) = (&machine.server, &machine.faults);
    let happening = async {
        tokio::time::sleep(pause).await;
        faults.happen(fault, server).await;
        is_over.set(true);
    };
    join(join(join_all(senders), join_all(readers)), happening).await;
    machine.recover(fault, random).await;
    crowd.judge(&machine.server).await;
}
