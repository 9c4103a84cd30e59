//! How long a push takes to a socket on the sender's node and on another one, printed side by side.
//!
//! `CLUSTER_TEST_RATE=500 cargo test --release --test cluster speed -- --nocapture` measures with
//! the server as it is shipped; the rate by default is what a machine that does much else can do.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};

use crate::harness::{Door, Socket, message, text_of};
use crate::stage::Stage;

const SOCKETS: usize = 20;

const SECONDS: usize = 4;

/// How much slower the way over another node may be, beside the noise of a busy machine.
const TIMES_SLOWER_MAX: u32 = 3;
const NOISE: Duration = Duration::from_millis(30);

/// Times from a send to its push, and to its answer; both sorted.
async fn measure(stage: &Stage, holding: &Door, rate: usize) -> (Vec<Duration>, Vec<Duration>) {
    let (mut tokens, mut sockets) = (Vec::new(), Vec::new());
    for _ in 0..SOCKETS {
        let (device, token) = stage.device().await;
        let (socket, _) = holding.hello(&device, &[(&token, 1)]).await;
        tokens.push(token);
        sockets.push(socket);
    }
    let count = rate * SECONDS / SOCKETS * SOCKETS;
    let sent_at = RefCell::new(vec![None::<Instant>; count]);
    let (delivered, answered) = (RefCell::default(), RefCell::default());
    let start = tokio::time::Instant::now();
    let senders = (0..count).map(|number| {
        let (token, sent_at, answered) = (&tokens[number % SOCKETS], &sent_at, &answered);
        async move {
            let due = Duration::from_secs_f64(number as f64 / rate as f64);
            tokio::time::sleep_until(start + due).await;
            let began = Instant::now();
            sent_at.borrow_mut()[number] = Some(began);
            stage
                .sending()
                .accepted(&message(token, &number.to_string()))
                .await;
            RefCell::<Vec<Duration>>::borrow_mut(answered).push(began.elapsed());
        }
    });
    let readers = sockets.iter_mut().zip(&tokens).map(|(socket, token)| {
        let (sent_at, delivered) = (&sent_at, &delivered);
        async move {
            for _ in 0..count / SOCKETS {
                let push = Socket::push(socket).await;
                let number: usize = text_of(&push).parse().expect("a number");
                let began = sent_at.borrow()[number].expect("sent");
                RefCell::<Vec<Duration>>::borrow_mut(delivered).push(began.elapsed());
                socket
                    .ack(token, push["syn"].as_u64().expect("a syn"))
                    .await;
            }
        }
    });
    join(join_all(senders), join_all(readers)).await;
    let (mut delivered, mut answered) = (delivered.into_inner(), answered.into_inner());
    delivered.sort_unstable();
    answered.sort_unstable();
    (delivered, answered)
}

fn at(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

#[tokio::test]
async fn the_way_over_another_node_is_little_longer() {
    let stage = Stage::enter().await;
    let rate = std::env::var("CLUSTER_TEST_RATE").map_or(100, |it| it.parse().expect("a rate"));
    let mut medians = Vec::new();
    // The first round warms the servers up: Cassandra compiles itself while it runs.
    for (name, holding) in [
        ("warming up", stage.sending()),
        ("one node", stage.sending()),
        ("two nodes", stage.holding()),
    ] {
        let (delivered, answered) = measure(&stage, holding, rate).await;
        eprintln!(
            "{name}, {rate}/s: answered p50 {:?} p99 {:?}, delivered p50 {:?} p99 {:?}",
            at(&answered, 0.5),
            at(&answered, 0.99),
            at(&delivered, 0.5),
            at(&delivered, 0.99),
        );
        medians.push(at(&delivered, 0.5));
    }
    assert!(
        medians[2] <= medians[1] * TIMES_SLOWER_MAX + NOISE,
        "{medians:?}"
    );
}
