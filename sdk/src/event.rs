//! What a device tells its app.

use std::time::Duration;

use serde_json::value::RawValue;

use crate::state::TokenState;

/// A push, shown to the app once.
#[derive(Debug, Clone)]
pub struct Push {
    /// The token it came to.
    pub token: String,
    /// Its number, for [`crate::Device::ack`].
    pub syn: u64,
    /// Names the push over every redelivery.
    pub message_id: String,
    /// When the server accepted it, milliseconds since 1970.
    pub time: u64,
    /// The message as it was sent, without its target.
    pub message: Box<RawValue>,
}

/// Something the app should know of.
#[derive(Debug, Clone)]
pub enum Event {
    /// The socket is up and the server has greeted this device.
    Connected {
        /// Names the session in the server's logs.
        session: String,
    },
    /// A push. Acknowledge it once it is dealt with.
    Push(Push),
    /// Pushes that were never shown have been dropped by the server, because too many were
    /// waiting: the app should ask its own server for what it missed, then acknowledge
    /// `up_to_syn` like a push.
    Deleted {
        /// The token they were for.
        token: String,
        /// Largest syn dropped.
        up_to_syn: u64,
    },
    /// The token is gone from this device's state; mint a new one if the app still wants pushes.
    Unregistered {
        /// The token that ended.
        token: String,
        /// Why: `UNREGISTERED`, or how the server refused it.
        status: String,
    },
    /// There is no socket; the device comes back by itself.
    Disconnected {
        /// For a developer's eyes.
        reason: String,
        /// When the next attempt is due.
        retry_in: Duration,
    },
    /// The server refused this device's credential, so it registered anew. Its old tokens are
    /// lost: mint new ones, and save the state.
    Registered {
        /// The tokens of the old identity.
        lost: Vec<TokenState>,
    },
    /// Another connection with this device's credential took over. The device stays away until
    /// [`crate::Device::resume`].
    Replaced,
}
