//! What every store must do, written once: [`suite!`](crate::store::conformance::suite) makes a
//! test of each scenario for the store that a constructor opens.
//!
//! Scenarios own their time: `now` is whatever they say it is.

mod lifetimes;
mod log;
mod projects;
mod topics;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::counters::PushCounters;
use super::{
    Appended, Audience, COLLAPSE_KEYS_MAX, Claim, Contact, FIRST_CONTACT_MS, IDEMPOTENCY_MS, Page,
    PageLimit, Saved, Settled, SettledSink, Store, StoreLimits,
};
use crate::clock::Millis;
use crate::projects::Project;
use crate::push::{IdempotencyKey, MessageId, NewPush, Push, Syn};
use crate::token::{DeviceId, ProjectHash, TokenAddress};

/// A whole minute, so that tokens minted then are minted then.
pub const START: Millis = 1_732_200_000_000;

/// What scenarios use unless they need tighter ones.
pub const LIMITS: StoreLimits = StoreLimits {
    pending_per_token: 100,
    token_ttl_ms: 30 * DAY,
    topics_per_token: 8,
};

const DAY: Millis = 24 * 60 * 60 * 1_000;
const HOUR: Millis = 60 * 60 * 1_000;

/// Longer than anything here takes; a scenario that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(180);

/// Whether a store knows of every push how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Books {
    /// It does, so that its counts can be held against each other.
    Exact,
    /// Rows expire unseen, and other nodes end what this one has stored.
    Partial,
}

/// Between two looks at what a store does in the background.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A store under test, with what it counts into, and what must live as long as it does.
pub struct Subject {
    pub store: Arc<dyn Store>,
    pub counters: Arc<PushCounters>,
    pub books: Books,
    #[expect(dead_code, reason = "only dropped")]
    pub keep: Box<dyn Any>,
}

pub use self::lifetimes::*;
pub use self::log::*;
pub use self::projects::*;
pub use self::topics::*;

/// Makes a test of every scenario; `$open` is a `fn(StoreLimits) -> Subject`.
macro_rules! suite {
    ($open:path) => {
        $crate::store::conformance::suite!($open:
            pushes_are_numbered_and_read_in_order,
            pages_are_cut_by_count_and_by_bytes,
            acks_bite_what_is_settled_and_nothing_later,
            expired_pushes_are_never_read,
            now_or_never_gets_a_number_and_no_row,
            a_newer_push_replaces_one_of_its_collapse_key,
            a_fifth_collapse_key_replaces_the_oldest,
            the_cap_drops_the_oldest_and_says_so,
            expired_pushes_make_way_before_live_ones,
            an_idempotency_key_answers_for_a_day,
            a_record_is_made_at_first_contact_only,
            a_deleted_token_stays_dead,
            a_token_lives_while_it_is_heard_of,
            a_silent_token_ends_with_its_pushes,
            projects_are_written_in_turn,
            secrets_are_made_once,
            deleting_a_project_ends_its_tokens_only,
            a_sweep_over_many_tokens_misses_none,
            readers_skip_nothing_while_senders_race,
            tokens_join_and_leave_topics,
            a_token_has_so_many_topics_and_no_more,
            subscriptions_end_with_their_token,
            walks_meet_everybody_once,
            a_copy_is_stored_once_until_its_checkpoint,
            a_push_to_many_is_kept_until_it_is_finished,
        );
    };
    ($open:path: $($scenario:ident,)+) => {
        $(
            #[test]
            fn $scenario() {
                let run = |limits| $open(limits);
                $crate::store::conformance::block_on($crate::store::conformance::$scenario(&run));
            }
        )+
    };
}
pub(crate) use suite;

/// Runs a scenario on a runtime of its own.
pub fn block_on(scenario: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let in_time = tokio::time::timeout(PATIENCE, scenario).await;
        in_time.expect("the scenario ends in time");
    });
}

/// A fresh token of a project, minted at [`START`].
pub fn token_of(project: &str) -> TokenAddress {
    let mut device = [0; 16];
    rand::fill(&mut device);
    TokenAddress::mint(DeviceId(device), ProjectHash::of(project), START)
}

/// A push that lives for an hour.
pub fn push(address: TokenAddress, now: Millis) -> NewPush {
    let message_id = MessageId::generate(now);
    NewPush {
        address,
        message_id,
        accepted_at: now,
        expires_at: now + HOUR,
        collapse_key: None,
        idempotency: None,
        is_copy: false,
        message: Bytes::from(format!("{{\"id\":\"{message_id}\"}}")),
    }
}

fn keyed(address: TokenAddress, now: Millis, key: u8) -> NewPush {
    NewPush {
        collapse_key: Some([key; 16]),
        ..push(address, now)
    }
}

/// Where a scenario hears how its appends ended.
pub struct Reports {
    /// To be handed to the store.
    pub sink: SettledSink,
    reports: mpsc::UnboundedReceiver<Settled>,
}

impl Reports {
    /// Listens with a new sink.
    pub fn new() -> Self {
        let (sender, reports) = mpsc::unbounded_channel();
        let sink: SettledSink = Arc::new(move |group: Vec<Settled>| {
            assert!(!group.is_empty(), "nobody is woken for nothing");
            for settled in group {
                sender.send(settled).expect("the scenario listens");
            }
        });
        Self { sink, reports }
    }

    /// The next report.
    pub async fn next(&mut self) -> Settled {
        self.reports.recv().await.expect("the report comes")
    }
}

impl Subject {
    /// Appends and waits for the outcome.
    pub async fn send(&self, push: NewPush) -> Appended {
        let mut reports = Reports::new();
        self.store.append(push, 7, &reports.sink);
        let settled = reports.next().await;
        assert_eq!(settled.ticket, 7, "the caller's own ticket");
        settled.outcome.expect("the store takes pushes")
    }

    /// Appends, and answers with the number.
    pub async fn send_live(&self, push: NewPush) -> Syn {
        match self.send(push).await {
            Appended::Stored { syn, .. } => syn,
            refusal => panic!("the token lives and has none yet: {refusal:?}"),
        }
    }

    /// Everything live after `after`, as one page.
    pub async fn read(&self, address: &TokenAddress, after: Syn, now: Millis) -> Vec<Push> {
        let page = self.page(address, after, 1_000, usize::MAX, now).await;
        assert!(!page.more, "one page is enough");
        page.pushes
    }

    async fn page(
        &self,
        address: &TokenAddress,
        after: Syn,
        pushes: usize,
        bytes: usize,
        now: Millis,
    ) -> Page {
        let limit = PageLimit { pushes, bytes };
        let page = self.store.read(address, after, limit, now).await;
        page.expect("the store reads")
    }

    async fn syns(&self, address: &TokenAddress, now: Millis) -> Vec<Syn> {
        syns_of(&self.read(address, 0, now).await)
    }

    async fn contact(&self, address: &TokenAddress, min_syn: Syn, now: Millis) -> Contact {
        let contact = self.store.contact(address, min_syn, None, now).await;
        contact.expect("the store answers")
    }

    async fn ack(&self, address: &TokenAddress, up_to: Syn, now: Millis) -> Syn {
        let acked = self.store.ack(address, up_to, now).await;
        acked.expect("the store takes acknowledgements")
    }

    async fn delete(&self, address: &TokenAddress, now: Millis) {
        let deleted = self.store.delete_token(address, now).await;
        deleted.expect("the store deletes");
    }

    async fn sweep(&self, now: Millis) {
        self.store.sweep(now).await.expect("the store sweeps");
    }

    async fn claim(&self, key: IdempotencyKey, now: Millis) -> Claim {
        let claim = self.store.claim(key, MessageId::generate(now), now).await;
        claim.expect("the store looks up")
    }

    async fn save(&self, project: &Project) -> Saved {
        let saved = self.store.save_project(project).await;
        saved.expect("the store saves")
    }

    /// Every accepted push is accounted for, exactly once.
    pub async fn assert_conserved(&self, accepted: u64) {
        self.store.flush().await.expect("the store flushes");
        let counts = self.counters.counts();
        assert_eq!(counts.stored, accepted, "{counts:?}");
        if self.books == Books::Partial {
            return;
        }
        let pending = self.store.totals().pending;
        assert_eq!(
            accepted + counts.recovered,
            counts.ended() + pending,
            "{counts:?}, {pending} pending"
        );
    }

    /// So many tokens live, and so many pushes are pending.
    fn assert_totals(&self, tokens: u64, pending: u64) {
        if self.books == Books::Exact {
            let totals = self.store.totals();
            assert_eq!((totals.tokens, totals.pending), (tokens, pending));
        }
    }

    /// So many pushes were found to have expired, by a sweep that nobody else has looked at.
    fn assert_swept(&self, expired: u64) {
        if self.books == Books::Exact {
            assert_eq!(self.counters.counts().expired, expired);
        }
    }

    /// Waits until so many pushes have gone with their tokens, and so many tokens are left.
    async fn await_deleted(&self, deleted: u64, left: u64) {
        let deadline = Instant::now() + PATIENCE;
        let is_done = || {
            self.counters.counts().deleted == deleted
                && (self.books == Books::Partial || self.store.totals().tokens == left)
        };
        while !is_done() {
            assert!(Instant::now() < deadline, "the tokens end in time");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

type Open<'a> = &'a dyn Fn(StoreLimits) -> Subject;

fn syns_of(pushes: &[Push]) -> Vec<Syn> {
    pushes.iter().map(|push| push.syn).collect()
}

fn live(syn_stored: Syn, acked: Syn) -> Contact {
    Contact::Live {
        syn_stored,
        acked,
        deleted_up_to: None,
    }
}
