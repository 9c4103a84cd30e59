//! Why a socket was closed, and what the device does next.

use serde::{Deserialize, Serialize};

/// Close codes that the server sends. The ranges tell a device whether to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CloseCode {
    /// The device said goodbye, or the server answers its close.
    Normal = 1000,
    /// Broken framing.
    ProtocolError = 1002,
    /// A binary frame: the protocol is text only.
    Unsupported = 1003,
    /// A text message that is not UTF-8.
    BadUtf8 = 1007,
    /// Broken JSON, a frame out of turn, missing or wrong keys.
    RulesBroken = 1008,
    /// A message above [`crate::DEVICE_MESSAGE_BYTES_MAX`].
    TooBig = 1009,
    /// The node restarts; the reason carries a [`RetryAdvice`].
    Restart = 1012,
    /// The node is overloaded, or the device reads too slowly; the reason carries a [`RetryAdvice`].
    TryAgainLater = 1013,
    /// No `hello` in time.
    NoHello = 4001,
    /// The credential was refused: register anew.
    CredentialRefused = 4003,
    /// Silent for longer than 1.5 times the ping interval.
    Silent = 4008,
    /// A newer connection of the same device took over: stay away.
    Replaced = 4009,
}

impl CloseCode {
    /// The number on the wire.
    #[must_use]
    pub const fn as_u16(self) -> u16 {
        self as u16
    }

    /// Whether a device may connect again by itself after this code; unknown codes allow it.
    #[must_use]
    pub fn may_reconnect(code: u16) -> bool {
        code != Self::Replaced.as_u16() && code != Self::CredentialRefused.as_u16()
    }
}

/// The reason text of a close with [`CloseCode::Restart`] or [`CloseCode::TryAgainLater`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryAdvice {
    /// Wait this long, in milliseconds, before connecting again.
    pub retry_ms: u64,
}

impl RetryAdvice {
    /// The reason text, at most 123 bytes as RFC 6455 demands.
    #[must_use]
    pub fn to_reason(self) -> String {
        format!("{{\"retry_ms\":{}}}", self.retry_ms)
    }

    /// Reads a close reason; `None` when it carries no advice.
    #[must_use]
    pub fn from_reason(reason: &str) -> Option<Self> {
        serde_json::from_str(reason).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_survives_the_close_reason() {
        let advice = RetryAdvice { retry_ms: 1234 };
        assert_eq!(RetryAdvice::from_reason(&advice.to_reason()), Some(advice));
        assert_eq!(RetryAdvice::from_reason("going away"), None);
    }

    #[test]
    fn only_a_takeover_and_a_refused_credential_keep_a_device_away() {
        assert!(!CloseCode::may_reconnect(4009));
        assert!(!CloseCode::may_reconnect(4003));
        assert!(CloseCode::may_reconnect(1006));
        assert!(CloseCode::may_reconnect(4001));
    }
}
