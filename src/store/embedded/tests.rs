//! What only the embedded store promises: it survives being closed, killed and failed, costs no
//! reads when nothing is new, and is small again when it is empty.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::engine::{Engine, Op};
use super::record::{
    Record, answer_key, encode_answer, encode_ending, ending_key, row_key, token_key, wake_key,
};
use super::topic_record::{copy_key, encode_since, member_key, subscription_key};
use super::{EmbeddedOptions, EmbeddedStore, OpenError, fsck};
use crate::push::{IdempotencyKey, MessageId, NewPush, Syn};
use crate::store::conformance::{
    Books, LIMITS, Reports, START, Subject, block_on, push, suite, token_of,
};
use crate::store::counters::{PushCounters, PushCounts};
use crate::store::{
    Appended, Contact, PageLimit, Settled, SettledSink, Store, StoreError, StoreLimits,
};
use crate::token::ProjectHash;

fn options(counters: Arc<PushCounters>) -> EmbeddedOptions {
    EmbeddedOptions {
        counters,
        fatal: Arc::new(|reason| panic!("{reason}")),
        ..EmbeddedOptions::default()
    }
}

pub(super) fn open_at(
    directory: &Path,
    limits: StoreLimits,
    options: EmbeddedOptions,
) -> EmbeddedStore {
    EmbeddedStore::open(directory, limits, options).expect("the store opens")
}

/// A store in a directory of its own.
fn subject(limits: StoreLimits, change: impl FnOnce(&mut EmbeddedOptions)) -> Subject {
    let directory = tempfile::tempdir().expect("a directory");
    let counters = Arc::new(PushCounters::default());
    let mut options = options(counters.clone());
    change(&mut options);
    Subject {
        store: Arc::new(open_at(directory.path(), limits, options)),
        counters,
        books: Books::Exact,
        keep: Box::new(directory),
    }
}

fn open(limits: StoreLimits) -> Subject {
    subject(limits, |_| ())
}

mod with_room {
    use super::*;

    suite!(open);
}

/// A cache that forgets at once shows whether disk knows everything that memory knows.
mod without_cache {
    use super::*;

    fn open_without_cache(limits: StoreLimits) -> Subject {
        subject(limits, |options| options.ledger_cache_bytes = 0)
    }

    suite!(open_without_cache);
}

/// The store in a directory, opened anew with counters of its own.
struct Reopened {
    store: EmbeddedStore,
    counters: Arc<PushCounters>,
}

fn reopen(directory: &Path) -> Reopened {
    let counters = Arc::new(PushCounters::default());
    let store = open_at(directory, LIMITS, options(counters.clone()));
    Reopened { store, counters }
}

async fn send_all(store: &dyn Store, pushes: impl Iterator<Item = NewPush>) -> Vec<Settled> {
    let mut reports = Reports::new();
    let mut count = 0;
    for push in pushes {
        store.append(push, count, &reports.sink);
        count += 1;
    }
    let mut settled = Vec::new();
    for _ in 0..count {
        settled.push(reports.next().await);
    }
    settled
}

async fn syns(store: &dyn Store, address: &crate::token::TokenAddress) -> Vec<Syn> {
    let limit = PageLimit {
        pushes: 100_000,
        bytes: usize::MAX,
    };
    let page = store
        .read(address, 0, limit, START)
        .await
        .expect("readable");
    page.pushes.iter().map(|push| push.syn).collect()
}

#[test]
fn what_is_found_expired_was_not_recovered_and_does_not_expire_again() {
    block_on(async {
        let directory = tempfile::tempdir().expect("a directory");
        let (brief, lasting) = (token_of("demo"), token_of("demo"));
        {
            let Reopened { store, .. } = reopen(directory.path());
            let short_lived = (0..3).map(|_| NewPush {
                expires_at: START + 1_000,
                ..push(brief, START)
            });
            send_all(&store, short_lived).await;
            send_all(&store, std::iter::once(push(lasting, START))).await;
        }
        let counters = Arc::new(PushCounters::default());
        let options = EmbeddedOptions {
            now: START + 10_000,
            ..options(counters.clone())
        };
        let store = open_at(directory.path(), LIMITS, options);
        let counts = counters.counts();
        assert_eq!((counts.recovered, counts.expired), (1, 0));
        assert_eq!(store.totals().pending, 1);
    });
}

#[test]
fn what_comes_late_is_swept_too() {
    block_on(async {
        let directory = tempfile::tempdir().expect("a directory");
        let Reopened { store, .. } = reopen(directory.path());
        let hour = 60 * 60 * 1_000;
        store.sweep(START + hour).await.expect("swept");
        // The clock was set back.
        let brief = NewPush {
            expires_at: START + 1_000,
            ..push(token_of("demo"), START)
        };
        send_all(&store, std::iter::once(brief)).await;
        assert_eq!(store.totals().pending, 1);
        store.sweep(START + 10_000).await.expect("swept");
        assert_eq!(store.totals().pending, 0);
    });
}

#[test]
fn a_push_to_a_known_token_writes_its_row_alone() {
    block_on(async {
        let directory = tempfile::tempdir().expect("a directory");
        let token = token_of("demo");
        let record_after = async |pushes: usize, ack: Syn| {
            let Reopened { store, .. } = reopen(directory.path());
            send_all(&store, (0..pushes).map(|_| push(token, START))).await;
            store.ack(&token, ack, START).await.expect("acknowledged");
            drop(store);
            let engine = Engine::open(directory.path(), 1 << 20).expect("opened");
            let record = engine.get(&token_key(token.id)).expect("readable");
            Record::decode(&record.expect("a record")).expect("decodes")
        };
        let known = record_after(1, 1).await;
        assert_eq!(record_after(1, 0).await, known);
        let Reopened { store, .. } = reopen(directory.path());
        assert_eq!(syns(&store, &token).await, [2]);
    });
}

#[test]
fn a_key_that_is_written_once_and_removed_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(directory.path(), 1 << 20).expect("opened");
    let token = token_of("demo").id;
    let keys: Vec<_> = (1..=1_000).map(|syn| row_key(token, syn)).collect();
    let puts = keys.iter().map(|key| Op::Put(key.clone(), [7].into()));
    engine.commit(puts, true).expect("written");
    let removals = keys.iter().map(|key| Op::RemoveSingle(key.clone()));
    engine.commit(removals, true).expect("removed");
    engine.write_memtable_out().expect("begun");
    while engine.is_writing_memtables_out() {
        std::thread::yield_now();
    }
    assert_eq!(engine.tombstones(), 0);
    assert!(engine.get(&keys[0]).expect("readable").is_none());
}

#[test]
fn everything_is_there_after_a_restart() {
    block_on(async {
        let directory = tempfile::tempdir().expect("a directory");
        let (token, deleted) = (token_of("demo"), token_of("demo"));
        {
            let Reopened { store, counters } = reopen(directory.path());
            send_all(&store, (0..5).map(|_| push(token, START))).await;
            send_all(&store, (0..2).map(|_| push(deleted, START))).await;
            store.ack(&token, 2, START).await.expect("acknowledged");
            store.delete_token(&deleted, START).await.expect("deleted");
            assert_eq!(counters.counts().recovered, 0);
        }
        let Reopened { store, counters } = reopen(directory.path());
        assert_eq!(counters.counts().recovered, 3);
        assert_eq!((store.totals().tokens, store.totals().pending), (1, 3));
        assert_eq!(syns(&store, &token).await, [3, 4, 5]);
        let dead = store
            .contact(&deleted, 1, None, START)
            .await
            .expect("answered");
        assert_eq!(dead, Contact::Unregistered);
        store.ack(&token, 5, START).await.expect("acknowledged");
        drop(store);
        let Reopened { store, .. } = reopen(directory.path());
        let next = send_all(&store, std::iter::once(push(token, START))).await;
        assert!(
            matches!(
                next[0].outcome,
                Ok(Appended::Stored {
                    syn: 6,
                    prev_syn: 5,
                    ..
                })
            ),
            "numbers are not given again, though their rows are gone: {next:?}"
        );
    });
}

/// A copy of the files of a running store is what a killed process leaves behind.
#[test]
fn what_was_reported_stored_survives_a_kill() {
    block_on(async {
        let directory = tempfile::tempdir().expect("a directory");
        let Reopened { store, .. } = reopen(directory.path());
        let token = token_of("demo");
        send_all(&store, (0..90).map(|_| push(token, START))).await;
        let copy = tempfile::tempdir().expect("a directory");
        copy_all(directory.path(), copy.path());
        let report = fsck(copy.path(), START).expect("checked");
        assert!(report.is_clean(), "{report}");
        let killed = reopen(copy.path());
        assert_eq!(killed.counters.counts().recovered, 90);
        assert_eq!(syns(&killed.store, &token).await.len(), 90);
        let next = send_all(&killed.store, std::iter::once(push(token, START))).await;
        assert!(matches!(
            next[0].outcome,
            Ok(Appended::Stored { syn: 91, .. })
        ));
    });
}

fn copy_all(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            std::fs::create_dir(&target).expect("made");
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("copied");
        }
    }
}

#[test]
fn a_failed_commit_is_fatal_and_leaks_nothing() {
    block_on(async {
        let directory = tempfile::tempdir().expect("a directory");
        let reasons: Arc<Mutex<Vec<String>>> = Arc::default();
        let told = reasons.clone();
        let options = EmbeddedOptions {
            fatal: Arc::new(move |reason| told.lock().expect("unpoisoned").push(reason.to_owned())),
            ..EmbeddedOptions::default()
        };
        let store = open_at(directory.path(), LIMITS, options);
        let token = token_of("demo");
        send_all(&store, std::iter::once(push(token, START))).await;
        store
            .engine
            .fails_next_commit
            .store(true, Ordering::Relaxed);

        let failed = send_all(&store, std::iter::once(push(token, START))).await;
        assert!(matches!(
            failed[0].outcome,
            Err(StoreError::OutcomeUnknown(_))
        ));
        assert_eq!(reasons.lock().expect("unpoisoned").len(), 1);
        assert!(!store.is_healthy());
        assert_eq!(syns(&store, &token).await, [1], "what failed is never seen");
        let limit = PageLimit {
            pushes: 9,
            bytes: 9,
        };
        let page = store.read(&token, 0, limit, START).await.expect("readable");
        assert_eq!((page.syn_stored, page.read_up_to), (1, 1));

        let refused = send_all(&store, std::iter::once(push(token, START))).await;
        let error = refused[0].outcome.as_ref().expect_err("refused");
        assert!(error.is_certainly_not_applied());
        assert!(store.flush().await.is_err());
        assert!(store.delete_token(&token, START).await.is_err());
        assert!(store.sweep(START).await.is_err() || !store.is_healthy());
    });
}

#[test]
fn a_full_queue_refuses_and_keeps_what_it_took() {
    block_on(async {
        let subject = subject(LIMITS, |options| options.queue_bytes = 1);
        let token = token_of("demo");
        let settled = send_all(&*subject.store, (0..90).map(|_| push(token, START))).await;
        let mut stored = 0;
        for settled in settled {
            match settled.outcome {
                Ok(Appended::Stored { .. }) => stored += 1,
                Err(error) => assert!(error.is_certainly_not_applied() && error.is_retryable()),
                Ok(refusal) => panic!("the token lives: {refusal:?}"),
            }
        }
        assert!(stored < 90, "something was refused");
        let expected: Vec<Syn> = (1..=stored).collect();
        assert_eq!(syns(&*subject.store, &token).await, expected);
        subject.assert_conserved(stored).await;
    });
}

#[test]
fn a_poll_with_nothing_new_touches_no_disk() {
    block_on(async {
        let directory = tempfile::tempdir().expect("a directory");
        let Reopened { store, .. } = reopen(directory.path());
        let (token, idle) = (token_of("demo"), token_of("demo"));
        send_all(&store, (0..3).map(|_| push(token, START))).await;
        for token in [&token, &idle] {
            store
                .contact(token, 4, None, START)
                .await
                .expect("answered");
        }
        store.flush().await.expect("flushed");
        let reads = store.engine_reads();
        let round = store.queue.committed();
        for _ in 0..100 {
            for (token, stored) in [(&token, 3), (&idle, 0)] {
                store
                    .contact(token, stored + 1, None, START)
                    .await
                    .expect("answered");
                assert!(syns(&store, token).await.is_empty());
            }
        }
        assert_eq!(store.engine_reads(), reads);
        store.flush().await.expect("flushed");
        assert_eq!(
            store.queue.committed(),
            round + 1,
            "nothing was staged but the flush"
        );
    });
}

#[test]
fn the_cache_of_ledgers_is_bounded() {
    const CACHE_BYTES: usize = 64 * 1024;
    block_on(async {
        let directory = tempfile::tempdir().expect("a directory");
        let options = EmbeddedOptions {
            ledger_cache_bytes: CACHE_BYTES,
            ..options(Arc::default())
        };
        let store = open_at(directory.path(), LIMITS, options);
        let tokens: Vec<_> = (0..5_000).map(|_| token_of("demo")).collect();
        for _ in 0..2 {
            for chunk in tokens.chunks(500) {
                let settled = send_all(&store, chunk.iter().map(|token| push(*token, START))).await;
                assert!(settled.iter().all(|settled| settled.outcome.is_ok()));
            }
        }
        for token in &tokens {
            assert_eq!(syns(&store, token).await, [1, 2]);
        }
        let weight = store.logs.ledgers.weight();
        assert!(weight <= CACHE_BYTES + CACHE_BYTES / 2, "{weight}");
    });
}

#[test]
fn sinks_hear_in_groups_of_their_own() {
    block_on(async {
        let subject = open(LIMITS);
        let groups = Arc::new(AtomicUsize::new(0));
        let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let sinks: Vec<SettledSink> = (0..2)
            .map(|own: u64| -> SettledSink {
                let (groups, sender) = (groups.clone(), sender.clone());
                Arc::new(move |group: Vec<Settled>| {
                    groups.fetch_add(1, Ordering::Relaxed);
                    assert!(group.iter().all(|settled| settled.ticket % 2 == own));
                    let tickets = group.iter().map(|settled| settled.ticket);
                    sender.send(tickets.collect::<Vec<_>>()).expect("heard");
                })
            })
            .collect();
        for ticket in 0..2_000 {
            let sink = &sinks[usize::try_from(ticket % 2).expect("small")];
            subject
                .store
                .append(push(token_of("demo"), START), ticket, sink);
        }
        let mut tickets = Vec::new();
        while tickets.len() < 2_000 {
            tickets.extend(heard.recv().await.expect("heard"));
        }
        tickets.sort_unstable();
        assert_eq!(tickets, (0..2_000).collect::<Vec<u64>>());
        assert!(
            groups.load(Ordering::Relaxed) < 1_000,
            "woken for groups, not for pushes"
        );
    });
}

#[test]
fn a_directory_is_held_by_one_store() {
    let directory = tempfile::tempdir().expect("a directory");
    let held = reopen(directory.path());
    let second = EmbeddedStore::open(directory.path(), LIMITS, EmbeddedOptions::default());
    assert!(matches!(second.err(), Some(OpenError::InUse(_))));
    assert!(matches!(
        fsck(directory.path(), START),
        Err(OpenError::InUse(_))
    ));
    drop(held);
    assert!(fsck(directory.path(), START).expect("at rest").is_clean());
    let empty = tempfile::tempdir().expect("a directory");
    assert!(matches!(
        fsck(empty.path(), START),
        Err(OpenError::Absent(_))
    ));
}

#[test]
fn another_format_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(directory.path(), 1 << 20).expect("opened");
    let version = Op::Put(super::record::VERSION_KEY.into(), [9].into());
    engine
        .commit(std::iter::once(version), true)
        .expect("written");
    drop(engine);
    let opened = EmbeddedStore::open(directory.path(), LIMITS, EmbeddedOptions::default());
    let error = opened.err().expect("refused").to_string();
    assert!(error.contains("format 9"), "{error}");
}

#[test]
fn fsck_counts_and_finds_faults() {
    block_on(async {
        let directory = tempfile::tempdir().expect("a directory");
        let (token, deleted) = (token_of("demo"), token_of("demo"));
        {
            let Reopened { store, .. } = reopen(directory.path());
            let short = NewPush {
                expires_at: START + 1,
                ..push(token, START)
            };
            let sent = [
                push(token, START),
                short,
                push(token, START),
                push(deleted, START),
            ];
            send_all(&store, sent.into_iter()).await;
            store.ack(&token, 1, START).await.expect("acknowledged");
            store.delete_token(&deleted, START).await.expect("deleted");
        }
        let report = fsck(directory.path(), START + 1).expect("checked");
        assert!(report.is_clean(), "{report}");
        let counted = (
            report.tokens,
            report.tombstones,
            report.pending,
            report.expired_unswept,
        );
        assert_eq!(counted, (1, 1, 2, 1));

        let plant = |op| {
            let engine = Engine::open(directory.path(), 1 << 20).expect("opened");
            engine.commit(std::iter::once(op), true).expect("written");
            drop(engine);
            fsck(directory.path(), START).expect("checked")
        };
        let stray = token_of("demo").id;
        for (fault, op) in [
            ("has no record", Op::Put(row_key(stray, 1), [].into())),
            ("does not decode", Op::Put(token_key(stray), [1].into())),
            ("entries for", Op::Put(wake_key(7, stray), [].into())),
            ("should be gone", Op::Put(row_key(token.id, 1), [].into())),
            ("the totals say", Op::Remove(row_key(token.id, 3))),
        ] {
            let report = plant(op);
            let is_named = report.faults.iter().any(|found| found.contains(fault));
            assert!(is_named, "{fault}: {report}");
        }
    });
}

#[test]
fn fsck_names_what_is_missing_on_either_side() {
    block_on(async {
        let directory = tempfile::tempdir().expect("a directory");
        let (token, other) = (token_of("demo"), token_of("demo"));
        {
            let Reopened { store, .. } = reopen(directory.path());
            let sent = [push(token, START), push(other, START)];
            send_all(&store, sent.into_iter()).await;
        }
        let open = || Engine::open(directory.path(), 1 << 20).expect("opened");
        let record = open().get(&token_key(token.id)).expect("read");
        let record = Record::decode(&record.expect("a record")).expect("decoded");
        let fan_out = MessageId::generate(START);
        let put = |key, value: &[u8]| Op::Put(key, value.into());
        let subscribed = put(subscription_key(token.id, "news"), &encode_since(START));
        let member = member_key(ProjectHash::of("another"), [7; 16], token.id);
        let answered = encode_answer(fan_out, START);
        let plants = [
            // As many places as records, and one of them is another's.
            ("not in the wake index", put(wake_key(7, token.id), &[])),
            (
                "not in the wake index",
                Op::Remove(wake_key(record.wake, token.id)),
            ),
            (
                "would never be",
                put(answer_key(IdempotencyKey([7; 16])), &answered),
            ),
            ("topics have 0 members, tokens 1", subscribed),
            ("its topic news does not know it", put(member, &[0; 20])),
            ("the mark of a copy", put(copy_key(fan_out, token.id), &[])),
            ("has no record", Op::Remove(token_key(other.id))),
        ];
        for (nth, (fault, op)) in plants.into_iter().enumerate() {
            open().commit(std::iter::once(op), true).expect("written");
            let report = fsck(directory.path(), START).expect("checked");
            let is_named = report.faults.iter().any(|found| found.contains(fault));
            assert_eq!(is_named, nth > 0, "{fault}: {report}");
        }
    });
}

#[test]
fn an_interrupted_end_of_a_project_goes_on_after_a_restart() {
    block_on(async {
        let directory = tempfile::tempdir().expect("a directory");
        let token = token_of("ended");
        {
            let Reopened { store, .. } = reopen(directory.path());
            send_all(&store, std::iter::once(push(token, START))).await;
            let note = Op::Put(
                ending_key(ProjectHash::of("ended")),
                encode_ending(START).into(),
            );
            store.commit_now(note).await.expect("noted");
        }
        let Reopened { store, counters } = reopen(directory.path());
        until(|| store.totals().tokens == 0).await;
        assert_eq!(
            counters.counts(),
            PushCounts {
                recovered: 1,
                deleted: 1,
                ..PushCounts::default()
            }
        );
        let contact = store
            .contact(&token, 1, None, START)
            .await
            .expect("answered");
        assert_eq!(contact, Contact::Unregistered);
    });
}

#[test]
fn a_store_that_was_full_and_is_empty_is_small_again() {
    const TOKENS: usize = 1_000;
    const PUSHES: usize = 60_000;
    block_on(async {
        let directory = tempfile::tempdir().expect("a directory");
        let Reopened { store, .. } = reopen(directory.path());
        let tokens: Vec<_> = (0..TOKENS).map(|_| token_of("demo")).collect();
        let message: bytes::Bytes = "x".repeat(1_000).into();
        for _ in 0..PUSHES / 10_000 {
            let pushes = (0..10_000).map(|index| NewPush {
                message: message.clone(),
                ..push(tokens[index % TOKENS], START)
            });
            send_all(&store, pushes).await;
        }
        for token in &tokens {
            store
                .ack(token, Syn::MAX, START)
                .await
                .expect("acknowledged");
        }
        store.flush().await.expect("flushed");
        assert_eq!(store.totals().pending, 0);
        until(|| store.journals() == 1 && store.engine.table_bytes() < GARBAGE_BYTES_MAX).await;
        assert!(store.disk_bytes().expect("known") < JOURNAL_BYTES_MAX);
    });
}

#[test]
fn an_idle_store_keeps_no_memtable() {
    const MEMTABLE_BYTES_MAX: u64 = 128 * 1024;
    block_on(async {
        let directory = tempfile::tempdir().expect("a directory");
        let Reopened { store, .. } = reopen(directory.path());
        let token = token_of("demo");
        let message: bytes::Bytes = "x".repeat(1_000).into();
        let pushes = (0..1_000).map(|_| NewPush {
            message: message.clone(),
            ..push(token, START)
        });
        send_all(&store, pushes).await;
        assert!(store.engine.memtable_bytes() > MEMTABLE_BYTES_MAX);
        // The sweeps of an idle node go on.
        until_swept(&store, || {
            store.engine.memtable_bytes() < MEMTABLE_BYTES_MAX
        })
        .await;
    });
}

/// As [`until`], with a sweep between two looks.
async fn until_swept(store: &EmbeddedStore, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "it happens in time");
        store.sweep(START).await.expect("swept");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Rows of 1,000 bytes that are too few to be worth a walk: a tenth of what was there. A store that
/// found a quiet second while they were removed leaves as many.
const GARBAGE_BYTES_MAX: u64 = 6_000_000;

/// The engine begins a new journal after the first memtable past 64 MB.
const JOURNAL_BYTES_MAX: u64 = 80 * 1024 * 1024;

/// Waits for something that happens on another thread.
async fn until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !is_so() {
        assert!(Instant::now() < deadline, "it happens in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
