//! Why a session ends: one list that gives the close code, the words for the device and the label
//! for the metrics.

use herald_protocol::{CloseCode, RetryAdvice, ServerFrame};

use crate::metrics::{CloseLabel, Handshake};

/// Why a session ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// The device closed, or its stream ended.
    Gone,
    /// Broken framing.
    ProtocolError(&'static str),
    /// A binary frame.
    Binary,
    /// A text that is not UTF-8.
    BadUtf8,
    /// Broken JSON, a frame out of turn, missing or wrong keys.
    RulesBroken(String),
    /// A message above the limit.
    TooBig,
    /// No hello in time.
    NoHello,
    /// No credential, a wrong one, or two that disagree.
    CredentialRefused,
    /// No frame for longer than 1.5 times the ping interval.
    Silent,
    /// A newer connection of the same device took over.
    Replaced,
    /// The node restarts.
    Restart {
        /// When to come back.
        retry_ms: u64,
    },
    /// The device does not read what is sent to it.
    SlowReader {
        /// When to come back.
        retry_ms: u64,
    },
    /// The node cannot serve this session now.
    Overloaded {
        /// When to come back.
        retry_ms: u64,
    },
}

impl CloseReason {
    /// The code on the wire; `None` when there is nobody to tell.
    #[must_use]
    pub fn code(&self) -> Option<CloseCode> {
        Some(match self {
            Self::Gone => return None,
            Self::ProtocolError(_) => CloseCode::ProtocolError,
            Self::Binary => CloseCode::Unsupported,
            Self::BadUtf8 => CloseCode::BadUtf8,
            Self::RulesBroken(_) => CloseCode::RulesBroken,
            Self::TooBig => CloseCode::TooBig,
            Self::NoHello => CloseCode::NoHello,
            Self::CredentialRefused => CloseCode::CredentialRefused,
            Self::Silent => CloseCode::Silent,
            Self::Replaced => CloseCode::Replaced,
            Self::Restart { .. } => CloseCode::Restart,
            Self::SlowReader { .. } | Self::Overloaded { .. } => CloseCode::TryAgainLater,
        })
    }

    /// The reason text of the close frame: advice on when to come back, or nothing.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Restart { retry_ms }
            | Self::SlowReader { retry_ms }
            | Self::Overloaded { retry_ms } => Some(
                RetryAdvice {
                    retry_ms: *retry_ms,
                }
                .to_reason(),
            ),
            _ => None,
        }
    }

    /// The `error` frame that goes before the close, where the device's developer needs words.
    #[must_use]
    pub fn error_frame(&self) -> Option<ServerFrame> {
        let (status, message) = match self {
            Self::RulesBroken(what) => ("INVALID_ARGUMENT", what.clone()),
            Self::Binary => ("INVALID_ARGUMENT", "frames are text only".to_owned()),
            Self::TooBig => ("INVALID_ARGUMENT", "the message is too big".to_owned()),
            Self::CredentialRefused => (
                "UNAUTHENTICATED",
                "the device credential is missing or wrong".to_owned(),
            ),
            Self::NoHello => ("DEADLINE_EXCEEDED", "no hello came in time".to_owned()),
            _ => return None,
        };
        Some(ServerFrame::Error {
            status: status.to_owned(),
            message,
        })
    }

    /// The `reason` label of `herald_closes_total`.
    #[must_use]
    pub fn label(&self) -> CloseLabel {
        match self {
            Self::Gone => CloseLabel::Gone,
            Self::ProtocolError(_) => CloseLabel::ProtocolError,
            Self::Binary => CloseLabel::Binary,
            Self::BadUtf8 => CloseLabel::BadUtf8,
            Self::RulesBroken(_) => CloseLabel::RulesBroken,
            Self::TooBig => CloseLabel::TooBig,
            Self::NoHello => CloseLabel::NoHello,
            Self::CredentialRefused => CloseLabel::CredentialRefused,
            Self::Silent => CloseLabel::Silent,
            Self::Replaced => CloseLabel::Replaced,
            Self::Restart { .. } => CloseLabel::Restart,
            Self::SlowReader { .. } => CloseLabel::SlowReader,
            Self::Overloaded { .. } => CloseLabel::Overloaded,
        }
    }

    /// The `result` label of `herald_handshakes_total`, for a session that ends before hello.
    #[must_use]
    pub fn handshake_label(&self) -> Handshake {
        match self {
            Self::Gone => Handshake::Gone,
            Self::CredentialRefused => Handshake::CredentialRefused,
            Self::NoHello | Self::Silent => Handshake::NoHello,
            Self::Restart { .. } | Self::SlowReader { .. } | Self::Overloaded { .. } => {
                Handshake::Shed
            }
            _ => Handshake::RulesBroken,
        }
    }
}
