//! What a conversation wants done, and the answers it waits for: the words between it and the
//! session that carries it.

use crate::actors::close_reason::CloseReason;
use crate::clock::Millis;
use crate::push::Syn;
use crate::store::region::Epoch;
use crate::store::{Contact, StoreError};
use crate::token::{DeviceId, TokenAddress, TokenId};

/// What the session is to do.
#[derive(Debug)]
pub enum Action {
    /// Send this text frame.
    Send(String),
    /// Ask who else holds the device (at hello) and what the store knows of these tokens; no frame
    /// of the device is read until [`crate::actors::conversation::Conversation::attached`] was called with the answers.
    Attach {
        /// A claim at hello, the claim's number later.
        right: Right,
        /// The tokens, each with the smallest syn the device has not seen.
        tokens: Vec<(TokenAddress, Syn)>,
    },
    /// Let the token's router know that this session no longer wants it; no frame of the device is
    /// read until it does, or it would forget a token that was subscribed again.
    Detach(TokenId),
    /// Acknowledge; no frame of the device is read until
    /// [`crate::actors::conversation::Conversation::acked`] has taken the store's answer.
    Ack(TokenAddress, Syn),
    /// Read a page; [`crate::actors::conversation::Conversation::page`] takes it.
    Read {
        /// Of this token.
        address: TokenAddress,
        /// From here, exclusive.
        after: Syn,
        /// At most this many.
        limit: usize,
    },
    /// A push was written after having been accepted then.
    Delivered {
        /// When it was accepted.
        accepted_at: Millis,
        /// It came over the short way, not out of the store.
        live: bool,
    },
    /// End the session.
    Close(CloseReason),
}

/// By what right a session asks for tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// It is the device's only session from now on.
    Claim(DeviceId),
    /// It has claimed the device before.
    Held(Epoch),
}

/// The answer to [`Action::Attach`].
#[derive(Debug)]
pub struct Attachment {
    /// The number of the session's claim.
    pub epoch: Epoch,
    /// One for each token, in order.
    pub answers: Vec<Attached>,
}

/// How attaching one token ended.
pub type Attached = Result<Contact, StoreError>;
