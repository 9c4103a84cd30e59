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
mod plants;

use std::time::{Duration, Instant};

use futures_util::future::join;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;

use crowd::{Crowd, Deck, Phase, Terms, length, seed};
use faults::{DECK, Fault, Machine};
use harness::{Door, Server};

/// How long a run goes on unless it is told otherwise.
const SHORT: Duration = Duration::from_secs(25);

/// One server says what is so: its answers are final.
const TERMS: Terms = Terms {
    settles_late: false,
    shown_late: Duration::from_secs(2),
    patience: Duration::ZERO,
    pause: Duration::ZERO,
};

/// Rounds from one look at memory and descriptors to the next.
const REPORT_EVERY: usize = 100;

#[tokio::test]
async fn nothing_is_lost_whatever_happens() {
    let (seed, length) = (seed(), length(SHORT));
    println!("TORTURE_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut machine = Machine::start().await;
    let crowd = Crowd::gather(doors(&machine.server), TERMS).await;
    let (begun, mut deck) = (Instant::now(), Deck::of(&DECK));
    let mut rounds = 0;
    while begun.elapsed() < length {
        let fault = deck.deal(&mut random);
        println!("round {rounds}: {fault:?}");
        a_round(&mut machine, &crowd, fault, &mut random, rounds).await;
        if rounds.is_multiple_of(REPORT_EVERY) {
            report_process(&machine.server, rounds).await;
        }
        rounds += 1;
    }
    report_process(&machine.server, rounds).await;
    let (sends, seen, _) = crowd.totals();
    let kills: usize = deck
        .dealt()
        .iter()
        .map(|(it, count)| it.kills() * count)
        .sum();
    println!("{:?}", deck.dealt());
    println!("{rounds} rounds, {kills} kills, {sends} sends, {seen} pushes seen, nothing amiss");
    crowd.clear(&machine.server).await;
    let left = crowd.tokens.len();
    machine.server.books_balance_at(left as u64).await;
    machine.server.stop_and_audit().await;
}

fn doors(server: &Server) -> &[Door] {
    std::slice::from_ref(server)
}

/// What the process has taken, for whoever looks for a leak.
async fn report_process(server: &Server, rounds: usize) {
    let metrics = server.metrics().await;
    let (memory, files) = (
        metrics["process_resident_memory_bytes"] / 1024.0 / 1024.0,
        metrics["process_open_fds"],
    );
    println!("after {rounds} rounds: {memory:.0} MiB resident, {files} descriptors");
}

/// Everybody works until the fault has happened; then everything is looked at.
async fn a_round(
    machine: &mut Machine,
    crowd: &Crowd,
    fault: Fault,
    random: &mut SmallRng,
    number: usize,
) {
    let (phase, seen) = watch::channel(Phase::Work);
    let pause = Duration::from_millis(random.random_range(50..700));
    let (server, faults) = (&machine.server, &machine.faults);
    let happening = async {
        tokio::time::sleep(pause).await;
        faults.happen(fault, server, &phase).await;
        phase.send_replace(Phase::Over);
    };
    let living = crowd.live(doors(server), random, &seen, fault.moves_clock());
    join(living, happening).await;
    machine.recover(fault, random).await;
    let server = &machine.server;
    server
        .metric_becomes("herald_fan_outs_unfinished", 0.0)
        .await;
    crowd.judge(doors(server), number, true, random).await;
    server.books_balance().await;
}
