//! 3. It survives: what every store promises, whatever it is built on.
//!
//! The verbs are outcomes, not steps: how a push gets its number, becomes durable and is settled
//! is the store's own affair. The embedded store numbers under a lock and commits in groups; a
//! cluster store would allocate and settle in one backend and write rows in another. What all of
//! them share is written here, verb by verb, and tested by one suite, `conformance`.
//!
//! Three rules hold for every implementation:
//! 1. `syn_stored` is a watermark: every syn at or below it is settled for ever. Readers never see
//!    past it.
//! 2. A push is visible to readers only after it is durable, and only then is its sender told.
//! 3. A number once given to a push is never given to another, across restarts and failures.

pub mod cluster;
#[cfg(test)]
pub(crate) mod conformance;
pub mod counters;
pub mod embedded;
mod lifetimes;
pub mod memory;

pub use self::lifetimes::contact_refresh;
pub mod region;
mod topics;

pub use self::topics::{Stretch, Subscribed, Subscription, Topics, Unsubscribed};

use std::sync::Arc;

use futures_util::future::BoxFuture;
use thiserror::Error;

use self::region::{Epoch, Holder};
use crate::clock::Millis;
use crate::projects::Project;
use crate::push::{IdempotencyKey, MessageId, NewPush, Push, Syn};
use crate::token::{ProjectHash, TokenAddress};

/// A token that was minted this recently may have its record made at first contact; a missing
/// record of an older token means that it is dead.
pub const FIRST_CONTACT_MS: Millis = 10 * 60 * 1_000;

/// How long an idempotency key is remembered.
pub const IDEMPOTENCY_MS: Millis = 24 * 60 * 60 * 1_000;

/// Different collapse keys that one token may have pending at a time.
pub const COLLAPSE_KEYS_MAX: usize = 4;

/// Limits that a store enforces by itself.
#[derive(Debug, Clone, Copy)]
pub struct StoreLimits {
    /// Unacknowledged pushes a token may hold; beyond it the oldest are dropped one by one.
    pub pending_per_token: usize,
    /// A token lives this long after its device's last contact.
    pub token_ttl_ms: Millis,
    /// Topics that one token may be subscribed to. Calls that run at the same moment may pass it
    /// by one each.
    pub topics_per_token: usize,
}

/// What can go wrong below the verbs.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// The store cannot take this now and has certainly not applied it.
    #[error("the store is unavailable: {0}")]
    Unavailable(&'static str),
    /// The store has as much to do as it may hold; it has certainly not applied it.
    #[error("the store has too much to do")]
    Full,
    /// The store failed after the write was handed to it: it may or may not be applied.
    #[error("the outcome is unknown: {0}")]
    OutcomeUnknown(&'static str),
    /// What was read back is not what was written.
    #[error("the store is corrupt: {0}")]
    Corrupt(String),
}

impl StoreError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Corrupt(_))
    }

    /// Whether the write has certainly left no trace.
    #[must_use]
    pub fn is_certainly_not_applied(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Full)
    }
}

/// A push's way into the log ended well, or its token is dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// Durable and settled.
    Stored {
        /// The push's number.
        syn: Syn,
        /// The watermark before it: nothing live lies between the two.
        prev_syn: Syn,
        /// The watermark after it, at least `syn` unless an older writer is still at work.
        syn_stored: Syn,
        /// Pushes up to here were dropped by the pending cap, if any ever were and no reader has
        /// moved past them.
        deleted_up_to: Option<Syn>,
        /// Who is to hear of it.
        audience: Audience,
    },
    /// A copy that the token has had already: nothing was stored again.
    Repeated,
    /// The token is dead: nothing was stored.
    Unregistered,
}

/// Where the session is that a push is for, as far as the store knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// On this node, if anywhere.
    Here,
    /// On another node of the region.
    Elsewhere(Holder),
    /// The push was replaced by a newer one while it was made durable: nobody may see it.
    Nobody,
}

/// One finished append, named by the ticket its caller chose.
#[derive(Debug)]
pub struct Settled {
    /// The caller's own number for the append.
    pub ticket: u64,
    /// How it ended.
    pub outcome: Result<Appended, StoreError>,
}

/// Where a store reports finished appends: in groups as large as they became durable together, so
/// that the listener is woken once for a group and not once for a push. Must not block.
pub type SettledSink = Arc<dyn Fn(Vec<Settled>) + Send + Sync>;

/// What a reader learns when it shows up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contact {
    /// The token lives.
    Live {
        /// The watermark.
        syn_stored: Syn,
        /// Everything at or below is acknowledged, dropped or never was: start reading after it.
        acked: Syn,
        /// Pushes up to here were dropped by the pending cap, and the reader's `min_syn` has not
        /// passed them.
        deleted_up_to: Option<Syn>,
    },
    /// The token is dead, or was minted too long ago without ever being used.
    Unregistered,
}

/// A stretch of a token's log, in syn order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Live pushes, none expired, in strictly growing syn.
    pub pushes: Vec<Push>,
    /// Everything at or below was looked at: go on reading after it.
    pub read_up_to: Syn,
    /// The watermark when the page was read.
    pub syn_stored: Syn,
    /// Pushes up to here were dropped by the pending cap, and no reader has moved past them: they
    /// may be missing from the page.
    pub deleted_up_to: Option<Syn>,
    /// More live pushes wait behind this page.
    pub more: bool,
}

/// How much of the log one [`Store::read`] may return.
#[derive(Debug, Clone, Copy)]
pub struct PageLimit {
    /// At most this many pushes.
    pub pushes: usize,
    /// Stop after the push that passes this many message bytes; one push is always returned.
    pub bytes: usize,
}

/// An idempotency key before the send: new, or answered already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nobody holds a durable outcome under this key: go ahead.
    Fresh,
    /// A send with this key ended well within the last 24 hours.
    Answered(MessageId),
    /// Another node of the region is at it: ask again.
    Elsewhere,
    /// A send with this key was cut off and may have been stored: go ahead under its message id, so
    /// that a device which has it already recognises it.
    CutOff(MessageId),
}

/// How writing a project ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// Durable.
    Saved,
    /// Somebody else changed it first, or the id was given before: read again.
    Conflict,
}

/// Counts over a whole store, for metrics and for checks at rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Token records.
    pub tokens: u64,
    /// Pushes that are neither acknowledged, expired, collapsed, dropped nor deleted.
    pub pending: u64,
}

/// A durable log of pushes per token, with projects and secrets beside it.
///
/// All verbs may be called from any thread. `now` is the caller's clock.
pub trait Store: Topics + Send + Sync + 'static {
    /// Numbers a push, makes it durable, settles it, and then reports `ticket` to `sink`. A copy of
    /// a push to many is stored once, until a checkpoint has passed it.
    ///
    /// Collapses an older push of the same key, drops the oldest past the pending cap, and
    /// remembers the idempotency key with the message id, all in the same atomic step. Returns at
    /// once; the report always comes.
    fn append(&self, push: NewPush, ticket: u64, sink: &SettledSink);

    /// A device has shown up for a token (hello, subscribe, poll): makes the record at first
    /// contact, prolongs its life, acknowledges everything settled below `min_syn`. With an epoch,
    /// the session of this claim holds the token from now on (of use in a region only).
    fn contact<'a>(
        &'a self,
        address: &'a TokenAddress,
        min_syn: Syn,
        held: Option<Epoch>,
        now: Millis,
    ) -> BoxFuture<'a, Result<Contact, StoreError>>;

    /// Whether an append for this token would be taken now. Changes nothing.
    fn is_registered<'a>(
        &'a self,
        address: &'a TokenAddress,
        now: Millis,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Reads live pushes in `(after, syn_stored]`. A dead token has none.
    fn read<'a>(
        &'a self,
        address: &'a TokenAddress,
        after: Syn,
        limit: PageLimit,
        now: Millis,
    ) -> BoxFuture<'a, Result<Page, StoreError>>;

    /// Forgets everything settled at or below `up_to`; a number beyond the watermark acknowledges
    /// what is settled now and nothing that comes later. Answers with the syn acknowledged. Need
    /// not be durable when it answers: a lost acknowledgement is a repeated push, not a lost one.
    fn ack<'a>(
        &'a self,
        address: &'a TokenAddress,
        up_to: Syn,
        now: Millis,
    ) -> BoxFuture<'a, Result<Syn, StoreError>>;

    /// Ends a token for ever, durably, with all its pushes. Repeating it is harmless.
    fn delete_token<'a>(
        &'a self,
        address: &'a TokenAddress,
        now: Millis,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Looks an idempotency key up, for a send that would be called `proposed`. The caller makes
    /// sure that on this node one key has one send at a time, and appends after
    /// [`Claim::Fresh`] or [`Claim::CutOff`].
    fn claim(
        &self,
        key: IdempotencyKey,
        proposed: MessageId,
        now: Millis,
    ) -> BoxFuture<'_, Result<Claim, StoreError>>;

    /// All projects, deleted ones included (they keep their ids taken).
    fn projects(&self) -> BoxFuture<'_, Result<Vec<Project>, StoreError>>;

    /// Writes a project durably if the stored version is `project.version - 1` (absent counts as
    /// version 0).
    fn save_project<'a>(&'a self, project: &'a Project)
    -> BoxFuture<'a, Result<Saved, StoreError>>;

    /// Ends every token of a project, with all their pushes, in the background.
    fn delete_tokens_of(
        &self,
        project: ProjectHash,
        now: Millis,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Keeps `proposed` under `name` unless something is kept there already; answers with what is
    /// kept. Secrets are made once.
    fn keep_secret<'a>(
        &'a self,
        name: &'a str,
        proposed: &'a [u8],
    ) -> BoxFuture<'a, Result<Vec<u8>, StoreError>>;

    /// What is kept under `name`, if anything is.
    fn kept_secret<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>>;

    /// Removes what has expired by `now`, in bounded steps. Called every few seconds.
    fn sweep(&self, now: Millis) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Counts, cheap enough to call for every scrape of the metrics.
    fn totals(&self) -> Totals;

    /// Whether writes would be taken now.
    fn is_healthy(&self) -> bool;

    /// Waits until everything handed over is durable. Called last in a drain.
    fn flush(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}
