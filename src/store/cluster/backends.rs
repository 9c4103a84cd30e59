//! Both backends together, and one step on a token's record: call the function; if the record is
//! missing or not to be believed, mend it from the rows in Scylla and call again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashSet;
use tokio::sync::{Semaphore, mpsc};

use super::cleanup::Cleanup;
use super::clocks::ANOTHER_TIME;
use super::cql::Cql;
use super::healing::Mended;
use super::health::Health;
use super::hints::Notice;
use super::primaries::Primaries;
use super::push_rows::PushRows;
use super::records::{Call, Records};
use super::reply::{Reply, Status};
use super::token_rows::TokenRows;
use super::topic_rows::TopicRows;
use super::turns::Menders;
use crate::clock::Millis;
use crate::store::counters::PushCounters;
use crate::store::lifetimes::{ended_if_heard_by, token_ends_at};
use crate::store::region::NodeId;
use crate::store::{StoreError, StoreLimits};
use crate::token::{TokenAddress, TokenId};

/// A record is mended at most so often for one step: each time, another failover came between.
pub(super) const MENDS_MAX: usize = 5;

/// Subscriptions that are changed at a time: a call may name a thousand tokens, and each takes four
/// round trips. The rest wait for their turn, and their time begins with it.
pub(super) const TOPIC_CHANGES_AT_ONCE: usize = 32;

/// Pause before mending is tried again that a backend did not answer for.
const MEND_PAUSE: Duration = Duration::from_millis(20);

/// Rows of tokens stay this much longer than their tokens, so that it is always `contact_at` that
/// says whether a token has ended.
const ROW_GRACE_MS: Millis = 24 * 60 * 60 * 1_000;

/// A sender has its answer within two seconds; this much of it is for finding the answer.
pub(super) const STEP_MAX: Duration = Duration::from_millis(1_800);

/// Whether a step may be a token's first contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beginning {
    /// It makes the record, if the token was minted just now.
    Allowed,
    /// It does not.
    NotHere,
}

/// How a step on a record ended, mended or not.
#[derive(Debug)]
pub(super) enum Step {
    /// The function answered: done, full, copied, gone or skew.
    Taken(Reply),
    /// The token has ended, or is too old to begin.
    Dead,
    /// The token has no record, and may still begin.
    NotBegun,
}

/// Everything that the verbs need.
pub(super) struct Backends {
    pub(super) node: NodeId,
    pub(super) records: Records,
    pub(super) primaries: Arc<Primaries>,
    pub(super) cql: Arc<Cql>,
    pub(super) pushes: Arc<PushRows>,
    pub(super) tokens: Arc<TokenRows>,
    pub(super) topics: Arc<TopicRows>,
    pub(super) cleanup: Cleanup,
    pub(super) health: Arc<Health>,
    pub(super) limits: StoreLimits,
    pub(super) counters: Arc<PushCounters>,
    /// What nodes are to be told.
    pub(super) notices: mpsc::Sender<Notice>,
    /// Tokens whose sessions look again when a slow writer's time is over.
    pub(super) held_back: Arc<DashSet<TokenId, ahash::RandomState>>,
    /// Who mends a record.
    pub(super) menders: Menders,
    /// Who changes a subscription.
    pub(super) topic_turns: Semaphore,
}

/// Whether a token is taken for too old by a clock that is wrong: what is said of it would be believed
/// for ever.
pub(super) fn is_by_another_clock(dead: &Reply) -> bool {
    let there = dead.number(0);
    there > 0 && !dead.is_of_one_time(there)
}

impl Backends {
    /// Takes a step on a token's record.
    ///
    /// # Errors
    /// One of the backends does not answer.
    pub(super) async fn step(
        self: &Arc<Self>,
        address: &TokenAddress,
        beginning: Beginning,
        now: Millis,
        deadline: Instant,
        call: impl Fn() -> Call,
    ) -> Result<Step, StoreError> {
        for mends in 0..MENDS_MAX {
            let reply = self.records.run(call()).await?;
            self.cleanup.rows(address.id, &reply.freed);
            match reply.status {
                Status::Suspect | Status::Missing => {
                    let is_first_try = mends == 0;
                    let mended =
                        self.mend_by(deadline, address, reply, beginning, is_first_try, now);
                    let mended = match mended.await {
                        // A busy backend may answer the next time; nothing is lost by asking.
                        Err(error) if error.is_retryable() && Instant::now() < deadline => {
                            tokio::time::sleep(MEND_PAUSE).await;
                            continue;
                        }
                        mended => mended?,
                    };
                    match mended {
                        Mended::Again => {}
                        Mended::Dead => return Ok(Step::Dead),
                        Mended::NotBegun => return Ok(Step::NotBegun),
                    }
                }
                Status::Dead if is_by_another_clock(&reply) => {
                    return Err(StoreError::Unavailable(ANOTHER_TIME));
                }
                Status::Dead => return Ok(Step::Dead),
                _ => return Ok(Step::Taken(reply)),
            }
        }
        Err(StoreError::Unavailable("redis changes its mind too often"))
    }

    /// Mends in a task of its own: a record with many rows may take longer than whoever found it
    /// may wait, and is mended all the same. Of those who find it at once one does it.
    async fn mend_by(
        self: &Arc<Self>,
        deadline: Instant,
        address: &TokenAddress,
        refusal: Reply,
        beginning: Beginning,
        is_first_try: bool,
        now: Millis,
    ) -> Result<Mended, StoreError> {
        let (backends, address) = (Arc::clone(self), *address);
        let mending = tokio::spawn(async move {
            let Some(_turn) = backends.menders.enter(address.id).await else {
                return Ok(Mended::Again);
            };
            backends
                .mend(&address, &refusal, beginning, is_first_try, now)
                .await
        });
        match tokio::time::timeout_at(deadline.into(), mending).await {
            Ok(Ok(mended)) => mended,
            Ok(Err(_)) => Err(StoreError::Unavailable("a record could not be mended")),
            Err(_) => Err(StoreError::Unavailable("a record is being mended")),
        }
    }

    /// A record whose last contact is not after this belongs to a token that has ended.
    pub(super) fn ended_if_heard_by(&self, now: Millis) -> Millis {
        ended_if_heard_by(self.limits.token_ttl_ms, now)
    }

    /// How long records and rows of a token stay that was heard of just now.
    pub(super) fn life_ms(&self) -> Millis {
        token_ends_at(0, self.limits.token_ttl_ms).saturating_add(ROW_GRACE_MS)
    }
}

/// When a step that begins now must be over.
pub(super) fn deadline() -> Instant {
    Instant::now() + STEP_MAX
}
