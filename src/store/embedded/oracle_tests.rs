//! Drives the embedded store and the memory store with the same random orders and compares every
//! answer. The embedded one is closed and opened again in between, and has no cache to speak of in
//! half of the runs.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::tests::open_at;
use super::{EmbeddedOptions, EmbeddedStore, fsck};
use crate::clock::Millis;
use crate::push::{IdempotencyKey, MessageId, NewPush, Syn};
use crate::store::conformance::{Reports, START, block_on, push, token_of};
use crate::store::counters::{PushCounters, PushCounts};
use crate::store::memory::MemoryStore;
use crate::store::{PageLimit, Store, StoreLimits};
use crate::token::TokenAddress;

const SECOND: Millis = 1_000;

/// Tight, so that a few dozen orders meet every limit.
const LIMITS: StoreLimits = StoreLimits {
    pending_per_token: 5,
    token_ttl_ms: 400 * SECOND,
    topics_per_token: 8,
};

#[derive(Debug, Clone)]
enum Order {
    /// Appends a burst without waiting in between.
    Send {
        token: usize,
        pushes: Vec<(Millis, Option<u8>)>,
        idempotency: Option<u8>,
    },
    Contact {
        token: usize,
        min_syn: Syn,
    },
    Read {
        token: usize,
        after: Syn,
        pushes: usize,
        bytes: usize,
    },
    Ack {
        token: usize,
        up_to: Syn,
    },
    Delete {
        token: usize,
    },
    Claim {
        key: u8,
    },
    Sweep,
    Pass(Millis),
    Reopen,
}

const TOKENS: usize = 3;

fn order() -> impl Strategy<Value = Order> {
    let token = 0..TOKENS;
    let ttl = prop_oneof![Just(0), 1..20 * SECOND, 20 * SECOND..2_000 * SECOND];
    let key = proptest::option::of(0..6u8);
    let pushes = prop::collection::vec((ttl, key), 1..8);
    let idempotency = proptest::option::of(0..4u8);
    prop_oneof![
        8 => (token.clone(), pushes, idempotency)
            .prop_map(|(token, pushes, idempotency)| Order::Send { token, pushes, idempotency }),
        3 => (token.clone(), 0..40u64)
            .prop_map(|(token, min_syn)| Order::Contact { token, min_syn }),
        4 => (token.clone(), 0..40u64, 1..6usize, 0..300usize)
            .prop_map(|(token, after, pushes, bytes)| Order::Read { token, after, pushes, bytes }),
        3 => (token.clone(), 0..40u64).prop_map(|(token, up_to)| Order::Ack { token, up_to }),
        1 => token.prop_map(|token| Order::Delete { token }),
        1 => (0..4u8).prop_map(|key| Order::Claim { key }),
        2 => Just(Order::Sweep),
        4 => prop_oneof![0..5 * SECOND, 0..300 * SECOND].prop_map(Order::Pass),
        1 => (0..30u64).prop_map(|hours| Order::Pass(hours * 3_600 * SECOND)),
        2 => Just(Order::Reopen),
    ]
}

/// Two stores side by side, and what is common to both.
struct Pair {
    oracle: MemoryStore,
    oracle_counters: Arc<PushCounters>,
    embedded: Option<EmbeddedStore>,
    /// What earlier openings of the embedded store counted.
    earlier: PushCounts,
    counters: Arc<PushCounters>,
    directory: tempfile::TempDir,
    ledger_cache_bytes: usize,
    tokens: Vec<TokenAddress>,
    now: Millis,
}

impl Pair {
    fn new(ledger_cache_bytes: usize) -> Self {
        let oracle_counters = Arc::new(PushCounters::default());
        let directory = tempfile::tempdir().expect("a directory");
        let mut pair = Self {
            oracle: MemoryStore::new(LIMITS, oracle_counters.clone()),
            oracle_counters,
            embedded: None,
            earlier: PushCounts::default(),
            counters: Arc::default(),
            directory,
            ledger_cache_bytes,
            tokens: (0..TOKENS).map(|_| token_of("demo")).collect(),
            now: START,
        };
        pair.open();
        pair
    }

    fn open(&mut self) {
        self.counters = Arc::default();
        let options = EmbeddedOptions {
            ledger_cache_bytes: self.ledger_cache_bytes,
            counters: self.counters.clone(),
            fatal: Arc::new(|reason| panic!("{reason}")),
            ..EmbeddedOptions::default()
        };
        self.embedded = Some(open_at(self.directory.path(), LIMITS, options));
    }

    fn close(&mut self) {
        self.embedded = None;
        let counts = self.counters.counts();
        self.earlier.stored += counts.stored;
        self.earlier.acked += counts.acked;
        self.earlier.expired += counts.expired;
        self.earlier.collapsed += counts.collapsed;
        self.earlier.dropped += counts.dropped;
        self.earlier.deleted += counts.deleted;
        self.counters = Arc::default();
    }

    fn embedded(&self) -> &EmbeddedStore {
        self.embedded.as_ref().expect("open")
    }

    async fn obey(&mut self, order: Order) {
        let (oracle, embedded) = (&self.oracle, self.embedded.as_ref().expect("open"));
        let now = self.now;
        match order {
            Order::Send {
                token,
                pushes,
                idempotency,
            } => {
                self.send(token, &pushes, idempotency).await;
            }
            Order::Contact { token, min_syn } => {
                let token = &self.tokens[token];
                let expected = oracle
                    .contact(token, min_syn, None, now)
                    .await
                    .expect("answered");
                let found = embedded
                    .contact(token, min_syn, None, now)
                    .await
                    .expect("answered");
                assert_eq!(found, expected);
            }
            Order::Read {
                token,
                after,
                pushes,
                bytes,
            } => {
                let (token, limit) = (&self.tokens[token], PageLimit { pushes, bytes });
                let expected = oracle.read(token, after, limit, now).await.expect("read");
                let found = embedded.read(token, after, limit, now).await.expect("read");
                assert_eq!(found, expected);
            }
            Order::Ack { token, up_to } => {
                let token = &self.tokens[token];
                let expected = oracle.ack(token, up_to, now).await.expect("taken");
                let found = embedded.ack(token, up_to, now).await.expect("taken");
                assert_eq!(found, expected);
            }
            Order::Delete { token } => {
                let token = &self.tokens[token];
                oracle.delete_token(token, now).await.expect("deleted");
                embedded.delete_token(token, now).await.expect("deleted");
            }
            Order::Claim { key } => {
                let key = IdempotencyKey([key; 16]);
                let proposed = MessageId::generate(now);
                let expected = oracle.claim(key, proposed, now).await.expect("answered");
                let found = embedded.claim(key, proposed, now).await;
                let found = found.expect("answered");
                assert_eq!(found, expected);
            }
            Order::Sweep => {
                oracle.sweep(now).await.expect("swept");
                embedded.sweep(now).await.expect("swept");
            }
            Order::Pass(time) => self.now += time,
            Order::Reopen => {
                self.close();
                self.open();
            }
        }
    }

    async fn send(&self, token: usize, pushes: &[(Millis, Option<u8>)], idempotency: Option<u8>) {
        let mut expected = Reports::new();
        let mut found = Reports::new();
        for (ticket, (ttl, key)) in (0..).zip(pushes) {
            let push = NewPush {
                expires_at: self.now + ttl,
                collapse_key: key.map(|key| [key; 16]),
                idempotency: idempotency.map(|key| IdempotencyKey([key; 16])),
                ..push(self.tokens[token], self.now)
            };
            self.oracle.append(push.clone(), ticket, &expected.sink);
            self.embedded().append(push, ticket, &found.sink);
        }
        for _ in pushes {
            let (expected, found) = (expected.next().await, found.next().await);
            assert_eq!(found.ticket, expected.ticket);
            let expected = expected.outcome.expect("the oracle takes pushes");
            assert_eq!(found.outcome.expect("stored"), expected);
        }
    }

    /// After a last sweep both hold and have counted the same, and the files are in order.
    async fn finish(mut self) {
        // Rounded up to the wake index's step, so that both have swept everything due.
        self.now = self.now.next_multiple_of(5 * SECOND);
        self.obey(Order::Sweep).await;
        for token in 0..TOKENS {
            let (after, pushes, bytes) = (0, 100, usize::MAX);
            self.obey(Order::Read {
                token,
                after,
                pushes,
                bytes,
            })
            .await;
        }
        self.embedded().flush().await.expect("flushed");
        assert_eq!(self.embedded().totals(), self.oracle.totals());
        self.close();
        assert_eq!(self.earlier, self.oracle_counters.counts());
        assert_in_order(self.directory.path(), self.now, &self.oracle);
    }
}

fn assert_in_order(directory: &Path, now: Millis, oracle: &MemoryStore) {
    let report = fsck(directory, now).expect("at rest");
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.pending, oracle.totals().pending);
    assert_eq!(report.expired_unswept, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn it_does_what_the_memory_store_does(
        orders in prop::collection::vec(order(), 1..60),
        has_cache in any::<bool>(),
    ) {
        block_on(async {
            let mut pair = Pair::new(if has_cache { 1 << 20 } else { 0 });
            for order in orders {
                pair.obey(order).await;
            }
            pair.finish().await;
        });
    }
}
