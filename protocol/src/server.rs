//! Frames from the server to the device.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Answer to `hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Names this session in logs; means nothing to the device.
    pub session: String,
    /// The server's clock, milliseconds since 1970.
    pub time: u64,
    /// Send some frame at least once in 1.5 times this many milliseconds.
    pub ping_interval_ms: u64,
    /// One entry for each token of the hello, in its order.
    pub tokens: Vec<TokenState>,
}

/// What the server knows of one token of a hello or subscribe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenState {
    /// The sealed push token as the device gave it.
    pub token: String,
    /// Every syn up to here is settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syn_stored: Option<u64>,
    /// Why this token has no part in the session: `UNREGISTERED`, `INVALID_ARGUMENT`,
    /// `PERMISSION_DENIED`, `RESOURCE_EXHAUSTED` or `UNAVAILABLE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A push as a device gets it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PushFrame {
    /// The sealed push token.
    pub token: String,
    /// Its number.
    pub syn: u64,
    /// Constant over redeliveries; a device drops what it has seen.
    pub message_id: String,
    /// When the server accepted it, milliseconds since 1970.
    pub time: u64,
    /// The message as it was sent, without its target.
    pub message: Box<RawValue>,
}

/// A frame from the server.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerFrame {
    /// Answer to `hello`.
    Welcome(Welcome),
    /// Answer to `subscribe`.
    Subscribed(TokenState),
    /// A push.
    Push(PushFrame),
    /// Unacknowledged pushes up to here were dropped by the pending cap.
    Deleted {
        /// The sealed push token.
        token: String,
        /// Largest syn dropped.
        up_to_syn: u64,
    },
    /// The token ended while connected.
    Unregistered {
        /// The sealed push token.
        token: String,
    },
    /// Answer to `ping`.
    Pong,
    /// What was wrong, before the close.
    Error {
        /// A google.rpc code.
        status: String,
        /// For a developer's eyes.
        message: String,
    },
    /// A frame type this version does not know; ignored.
    Unknown,
}

impl ServerFrame {
    /// The frame as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads one text message.
    ///
    /// # Errors
    /// When it is no JSON object with a `type`, or a known type has missing or wrong keys.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        // By hand, because serde's tagged enums cannot carry a raw value.
        let tag: Tag<'_> = serde_json::from_str(text)?;
        Ok(match tag.kind.as_ref() {
            "push" => Self::Push(serde_json::from_str(text)?),
            "welcome" => Self::Welcome(serde_json::from_str(text)?),
            "subscribed" => Self::Subscribed(serde_json::from_str(text)?),
            "deleted" => {
                let Deleted { token, up_to_syn } = serde_json::from_str(text)?;
                Self::Deleted { token, up_to_syn }
            }
            "unregistered" => {
                let Unregistered { token } = serde_json::from_str(text)?;
                Self::Unregistered { token }
            }
            "pong" => Self::Pong,
            "error" => {
                let Failure { status, message } = serde_json::from_str(text)?;
                Self::Error { status, message }
            }
            _ => Self::Unknown,
        })
    }

    /// Writes a push frame without building its parts first: `message` must be JSON text.
    /// This is the frame of the hot path.
    pub fn write_push(
        out: &mut String,
        token: &str,
        syn: u64,
        message_id: &str,
        time: u64,
        message: &str,
    ) {
        use std::fmt::Write as _;
        // Tokens and message ids are made of characters that need no escape.
        let _ = write!(
            out,
            "{{\"type\":\"push\",\"token\":\"{token}\",\"syn\":{syn},\"message_id\":\"{message_id}\",\"time\":{time},\"message\":{message}}}"
        );
    }
}

#[derive(Deserialize)]
struct Tag<'a> {
    #[serde(borrow, rename = "type")]
    kind: std::borrow::Cow<'a, str>,
}

#[derive(Deserialize)]
struct Deleted {
    token: String,
    up_to_syn: u64,
}

#[derive(Deserialize)]
struct Unregistered {
    token: String,
}

#[derive(Deserialize)]
struct Failure {
    status: String,
    message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_push_reads_back() -> Result<(), serde_json::Error> {
        let mut text = String::new();
        ServerFrame::write_push(&mut text, "tok", 17, "m-1", 99, r#"{"data":{"a":"ü\n"}}"#);
        let ServerFrame::Push(push) = ServerFrame::parse(&text)? else {
            panic!("not a push: {text}");
        };
        assert_eq!((push.token.as_str(), push.syn, push.time), ("tok", 17, 99));
        assert_eq!(push.message_id, "m-1");
        assert_eq!(push.message.get(), r#"{"data":{"a":"ü\n"}}"#);
        Ok(())
    }

    #[test]
    fn frames_have_the_contracts_shape() {
        let frame = ServerFrame::Subscribed(TokenState {
            token: "t".into(),
            syn_stored: Some(145),
            error: None,
        });
        assert_eq!(
            frame.to_text(),
            r#"{"type":"subscribed","token":"t","syn_stored":145}"#
        );
        assert_eq!(ServerFrame::Pong.to_text(), r#"{"type":"pong"}"#);
        let deleted = ServerFrame::Deleted {
            token: "t".into(),
            up_to_syn: 40,
        };
        assert_eq!(
            deleted.to_text(),
            r#"{"type":"deleted","token":"t","up_to_syn":40}"#
        );
        assert!(matches!(
            ServerFrame::parse(r#"{"type":"novel","x":1}"#),
            Ok(ServerFrame::Unknown)
        ));
    }
}
