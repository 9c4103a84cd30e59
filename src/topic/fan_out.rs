//! A push to many, from its acceptance to its last copy.

use std::fmt;

use bytes::Bytes;

use super::Reach;
use crate::clock::Millis;
use crate::push::{self, CollapseKey, IdempotencyKey, MessageId, NewPush};
use crate::token::{ProjectHash, TokenAddress};

/// A push to everybody that a topic or a condition reaches.
#[derive(Clone, PartialEq, Eq)]
pub struct FanOut {
    /// Its name, and that of every copy.
    pub message_id: MessageId,
    /// The project whose tokens it reaches.
    pub project: ProjectHash,
    /// Which of them.
    pub reach: Reach,
    /// When it was accepted.
    pub accepted_at: Millis,
    /// No copy is handed to a device after this moment.
    pub expires_at: Millis,
    /// A copy replaces an older push of its token with the same key.
    pub collapse_key: Option<CollapseKey>,
    /// The idempotency key that its acceptance is to be remembered under.
    pub idempotency: Option<IdempotencyKey>,
    /// The message's JSON text, as devices will get it.
    pub message: Bytes,
}

impl FanOut {
    /// Whether no copy may be handed to a device any more.
    #[must_use]
    pub fn is_expired(&self, now: Millis) -> bool {
        push::is_expired(self.accepted_at, self.expires_at, now)
    }

    /// The copy for one token.
    #[must_use]
    pub fn copy_for(&self, address: TokenAddress) -> NewPush {
        NewPush {
            address,
            message_id: self.message_id,
            accepted_at: self.accepted_at,
            expires_at: self.expires_at,
            collapse_key: self.collapse_key,
            idempotency: None,
            is_copy: true,
            message: self.message.clone(),
        }
    }
}

impl fmt::Debug for FanOut {
    /// Payloads are never logged.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("FanOut")
            .field("message_id", &self.message_id)
            .field("reach", &self.reach)
            .finish_non_exhaustive()
    }
}

/// How far a walk has come, in the store's own words. Empty at the beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place(pub Vec<u8>);

/// How far a fan-out has come: everybody before it has a copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which of the walks it is on.
    pub walk: usize,
    /// How far it has come on that.
    pub place: Place,
    /// Copies stored so far.
    pub copies: u64,
}
