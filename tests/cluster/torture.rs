//! Torture of a region: the crowd and the judge of `tests/torture`, at nodes that share their stores,
//! with faults in between that are dealt at random.
//!
//! Senders and devices take another node each time, so that devices are taken over between nodes all
//! the while. By default it is short; to go on for longer, or the same way again:
//!
//! ```sh
//! TORTURE_FOR=900 TORTURE_SEED=7 cargo test --test cluster torture -- --nocapture
//! ```

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;

use crate::cql::Cql;
use crate::crowd::{Crowd, Deck, Phase, Terms, length, seed};
use crate::faults::{DECK, Fault, happen};
use crate::stage::{PATIENCE, Stage, eventually};

/// No round begins after that, unless it is told otherwise.
const SHORT: Duration = Duration::from_secs(15);

/// What is well may still be late or refused for a moment, and senders leave room for what else runs
/// on this machine.
const TERMS: Terms = Terms {
    settles_late: true,
    shown_late: Duration::from_secs(10),
    patience: PATIENCE,
    pause: Duration::from_millis(100),
};

#[tokio::test]
async fn nothing_is_lost_whatever_happens_to_a_region() {
    let stage = Stage::enter().await;
    let (seed, length) = (seed(), length(SHORT));
    eprintln!("TORTURE_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let earlier = stage.record_keys().await;
    let crowd = Crowd::gather(&stage.doors, TERMS).await;
    // Each token has a record once somebody has asked for it.
    crowd.judge(&stage.doors, 0, true, &mut random).await;
    let mut keys: BTreeSet<String> = stage.record_keys().await.into_iter().collect();
    keys.retain(|key| !earlier.contains(key));
    // A short run has no time for what takes long by itself: a dead CQL node that comes back, and a
    // push to many that a dead node has left to another.
    let is_long = length > SHORT;
    let cards = DECK.into_iter();
    let cards: Vec<_> = cards
        .filter(|(fault, _)| is_long || *fault != Fault::KillCqlNode)
        .collect();
    let (begun, mut deck) = (Instant::now(), Deck::of(&cards));
    let mut rounds = 0;
    while begun.elapsed() < length {
        let fault = deck.deal(&mut random);
        eprintln!(
            "{:>4} s, round {rounds}: {fault:?}",
            begun.elapsed().as_secs()
        );
        a_round(&stage, &crowd, fault, &mut random, rounds).await;
        rounds += 1;
    }
    crowd
        .judge(&stage.doors, rounds, is_long, &mut random)
        .await;
    let (sends, seen, renumbered) = crowd.totals();
    eprintln!("{:?}", deck.dealt());
    eprintln!(
        "{rounds} rounds, {sends} sends, {seen} pushes seen, {renumbered} under two numbers, \
         nothing amiss"
    );
    crowd.clear(stage.holding()).await;
    only_the_last_is_left(&stage, &keys).await;
    eprintln!("after {} s", begun.elapsed().as_secs());
}

/// Everybody works until the fault has happened; then everything must be well, and is looked at.
async fn a_round(stage: &Stage, crowd: &Crowd, fault: Fault, random: &mut SmallRng, number: usize) {
    let (phase, seen) = watch::channel(Phase::Work);
    let mut own_random = SmallRng::seed_from_u64(random.random());
    let happening = async {
        let pause = own_random.random_range(300..1_500);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        happen(fault, stage, &mut own_random, &phase).await;
        phase.send_replace(Phase::Over);
    };
    let living = crowd.live(&stage.doors, random, &seen, fault.moves_clock());
    join(living, happening).await;
    let begun = Instant::now();
    stage.region().mend(PATIENCE).await.expect("well again");
    let mended = begun.elapsed();
    // A push to many whose node is gone waits for another one.
    crowd.judge(&stage.doors, number, false, random).await;
    eprintln!(
        "       well after {mended:.1?}, judged after {:.1?}",
        begun.elapsed()
    );
}

/// What was acknowledged, replaced or given up has left nothing: each token has the row of its last
/// push.
async fn only_the_last_is_left(stage: &Stage, keys: &BTreeSet<String>) {
    let cql = Cql::connect(stage).await;
    for key in keys {
        eventually("one row is left of each token", async || {
            (cql.rows(key).await.len() == 1).then_some(())
        })
        .await;
    }
}
