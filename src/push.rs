//! One push: what a sender handed over, and what it becomes once it is numbered and durable.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::clock::Millis;
use crate::token::TokenAddress;

/// A push's number within its token. Grows by one in normal running, is never reused, never goes
/// back. 0 means "before the first".
pub type Syn = u64;

/// Names one push for ever, over every redelivery: a UUID of version 7, so that ids sort by time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Uuid);

impl MessageId {
    /// Length of the text form in bytes.
    pub const TEXT_BYTES: usize = 32;

    /// A new id; `now` is part of it.
    #[must_use]
    pub fn generate(now: Millis) -> Self {
        let mut random = [0; 10];
        rand::fill(&mut random);
        Self(uuid::Builder::from_unix_timestamp_millis(now, &random).into_uuid())
    }

    /// The 16 bytes that the stores keep.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The inverse of [`Self::as_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_simple().fmt(formatter)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// The first 16 bytes of a collapse key's SHA-256: keys may be long, records must stay small.
pub type CollapseKey = [u8; 16];

/// A push on its way in: accepted, not yet numbered.
#[derive(Debug, Clone)]
pub struct NewPush {
    /// Where it goes.
    pub address: TokenAddress,
    /// Its name, chosen at accept.
    pub message_id: MessageId,
    /// When it was accepted.
    pub accepted_at: Millis,
    /// Never handed to a device after this moment. Equal to `accepted_at` for "now or never":
    /// such a push gets a number but no row.
    pub expires_at: Millis,
    /// A newer push of the same token and key replaces an older one.
    pub collapse_key: Option<CollapseKey>,
    /// The idempotency key that the durable outcome is to be remembered under.
    pub idempotency: Option<IdempotencyKey>,
    /// One of the copies of a push to many, all of the same name: stored once for each token.
    pub is_copy: bool,
    /// The message's JSON text, as the device will get it.
    pub message: Bytes,
}

impl NewPush {
    /// "Now or never": delivered to a live socket or not at all.
    #[must_use]
    pub fn is_now_or_never(&self) -> bool {
        self.expires_at <= self.accepted_at
    }
}

/// A push that is durable and has its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// Its number.
    pub syn: Syn,
    /// Its name.
    pub message_id: MessageId,
    /// When it was accepted.
    pub accepted_at: Millis,
    /// Never handed to a device after this moment (one second of grace for "now or never").
    pub expires_at: Millis,
    /// The message's JSON text.
    pub message: Bytes,
}

/// Slack that the contract grants past the expiry, so that "now or never" can happen at all.
pub const EXPIRY_GRACE_MS: u64 = 1_000;

impl Push {
    /// Whether the push may no longer be handed to a device.
    #[must_use]
    pub fn is_expired(&self, now: Millis) -> bool {
        is_expired(self.accepted_at, self.expires_at, now)
    }
}

/// Whether what was accepted and expires then may no longer be handed to a device.
pub(crate) fn is_expired(accepted_at: Millis, expires_at: Millis, now: Millis) -> bool {
    if expires_at <= accepted_at {
        now > expires_at + EXPIRY_GRACE_MS
    } else {
        now >= expires_at
    }
}

/// Names a send of one project for 24 hours: a digest of project and `Idempotency-Key` header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct IdempotencyKey(pub [u8; 16]);

/// A settled push on its way to a session, with what the session needs to judge its place.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The token it is for.
    pub address: TokenAddress,
    /// Everything that is settled and live in `(prev_syn, push.syn]` is this push.
    pub prev_syn: Syn,
    /// The watermark after this push was settled.
    pub syn_stored: Syn,
    /// The pending cap dropped pushes up to here, with this push.
    pub deleted_up_to: Option<Syn>,
    /// The push itself, shared between the actors it passes.
    pub push: Arc<Push>,
}
