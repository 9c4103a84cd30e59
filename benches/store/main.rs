//! The embedded store alone.
//!
//! - `cargo bench --bench store -- [PUSHES] [IN_FLIGHT]`: durable appends a second, and how small
//!   the store is once it is empty.
//! - `cargo bench --bench store -- growth [TOKENS]`: what everything costs as the tokens in it grow
//!   from ten thousand to 1,000,000, or to so many.

mod growth;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use herald::clock::{Clock, Millis};
use herald::push::{MessageId, NewPush, Syn};
use herald::store::embedded::{EmbeddedOptions, EmbeddedStore};
use herald::store::{Settled, SettledSink, Store, StoreLimits};
use herald::token::{DeviceId, ProjectHash, TokenAddress};

/// Memory as in the server.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const TOKENS: usize = 20_000;
const MESSAGE_BYTES: usize = 300;
const LIMITS: StoreLimits = StoreLimits {
    pending_per_token: 10_000,
    token_ttl_ms: 30 * 24 * 60 * 60 * 1_000,
    topics_per_token: 2_000,
};

fn main() -> anyhow::Result<()> {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse().ok());
    if std::env::args().any(|argument| argument == "growth") {
        return growth::run(numbers.next().unwrap_or(1_000_000));
    }
    let pushes = numbers.next().unwrap_or(1_000_000);
    let in_flight = numbers.next().unwrap_or(64);
    let directory = tempfile::tempdir()?;
    let now = Clock::system().now();
    let tokens: Vec<_> = (0..TOKENS).map(|index| token(index, now)).collect();

    let commits = Arc::new(AtomicUsize::new(0));
    let store = open(directory.path(), &commits)?;
    let started_at = Instant::now();
    append_all(&store, &tokens, pushes, in_flight, now);
    println!(
        "{pushes} appends, {in_flight} in flight: {:.0} a second, {:.1} a batch",
        pushes as f64 / started_at.elapsed().as_secs_f64(),
        pushes as f64 / commits.load(Ordering::Relaxed) as f64
    );
    report_size("full", &store)?;
    drop(store);

    let started_at = Instant::now();
    let store = open(directory.path(), &commits)?;
    println!(
        "opened with {} pending in {:?}",
        store.totals().pending,
        started_at.elapsed()
    );
    acknowledge_all(&store, &tokens, now)?;
    report_size("acknowledged", &store)?;
    let started_at = Instant::now();
    while store.disk_bytes()? > 80_000_000 && started_at.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("small again after {:?}", started_at.elapsed());
    report_size("empty", &store)
}

fn token(index: usize, now: Millis) -> TokenAddress {
    let device = DeviceId((index as u128).to_be_bytes());
    TokenAddress::mint(device, ProjectHash::of("bench"), now)
}

fn open(directory: &Path, commits: &Arc<AtomicUsize>) -> anyhow::Result<EmbeddedStore> {
    let commits = commits.clone();
    let options = EmbeddedOptions {
        observer: Arc::new(move |_, pushes| {
            commits.fetch_add(usize::from(pushes > 0), Ordering::Relaxed);
        }),
        ..EmbeddedOptions::default()
    };
    Ok(EmbeddedStore::open(directory, LIMITS, options)?)
}

/// One thread sends, and keeps `in_flight` appends unanswered at a time.
fn append_all(
    store: &EmbeddedStore,
    tokens: &[TokenAddress],
    pushes: usize,
    in_flight: usize,
    now: Millis,
) {
    let (sender, settled) = sync_channel(in_flight);
    let sink: SettledSink = Arc::new(move |group: Vec<Settled>| {
        // The listener only goes away when this program ends.
        let _ = sender.send(group.len());
    });
    let message = Bytes::from(vec![b'x'; MESSAGE_BYTES]);
    let mut open = 0;
    for index in 0..pushes {
        while open >= in_flight {
            open -= settled.recv().unwrap_or(open);
        }
        let push = NewPush {
            address: tokens[index % tokens.len()],
            message_id: MessageId::generate(now),
            accepted_at: now,
            expires_at: now + 60 * 60 * 1_000,
            collapse_key: None,
            idempotency: None,
            is_copy: false,
            message: message.clone(),
        };
        store.append(push, 0, &sink);
        open += 1;
    }
    while open > 0 {
        open -= settled.recv().unwrap_or(open);
    }
}

fn acknowledge_all(
    store: &EmbeddedStore,
    tokens: &[TokenAddress],
    now: Millis,
) -> anyhow::Result<()> {
    let started_at = Instant::now();
    for token in tokens {
        while store
            .ack(token, Syn::MAX, now)
            .now_or_never()
            .is_none_or(|acked| acked.is_err())
        {
            std::thread::yield_now();
        }
    }
    println!("acknowledged all in {:?}", started_at.elapsed());
    Ok(())
}

fn report_size(when: &str, store: &EmbeddedStore) -> anyhow::Result<()> {
    let megabytes = store.disk_bytes()? / 1_000_000;
    println!(
        "{when}: {megabytes} MB on disk in {} journals",
        store.journals()
    );
    Ok(())
}
