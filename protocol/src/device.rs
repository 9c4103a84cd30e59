//! Frames from the device to the server.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Object, SYN_MAX, objects};

/// One token a device wants pushes for, and the smallest syn it has not seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCursor {
    /// The sealed push token.
    pub token: String,
    /// Smallest syn wanted; everything settled below it counts as acknowledged. 0 is taken as 1.
    #[serde(default = "first_syn")]
    pub min_syn: u64,
}

fn first_syn() -> u64 {
    1
}

/// The first frame of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The device's public id; may be left out when the upgrade carried the credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// The device's secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_secret: Option<String>,
    /// Tokens of this device.
    #[serde(default, deserialize_with = "objects")]
    pub tokens: Vec<TokenCursor>,
    /// Name and version of the device software, for statistics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

/// A frame from the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceFrame {
    /// Opens the session.
    Hello(Hello),
    /// Adds a token to the session.
    Subscribe(TokenCursor),
    /// Takes a token off the session.
    Unsubscribe {
        /// The sealed push token.
        token: String,
    },
    /// Every settled syn up to `syn` of this token is done with.
    Ack {
        /// The sealed push token.
        token: String,
        /// Largest syn acknowledged.
        syn: u64,
    },
    /// Asks for a pong.
    Ping,
    /// A frame type this version does not know; ignored.
    Unknown,
}

/// Why a text message is no frame of ours. The text goes to the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameError(pub String);

impl std::fmt::Display for FrameError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for FrameError {}

#[derive(Deserialize)]
struct Tag<'a> {
    #[serde(borrow, rename = "type")]
    kind: std::borrow::Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
struct TokenOnly {
    token: String,
}

#[derive(Serialize, Deserialize)]
struct TokenSyn {
    token: String,
    syn: u64,
}

impl DeviceFrame {
    /// Reads one text message.
    ///
    /// # Errors
    /// When it is no JSON object with a `type`, or a known type has missing or wrong keys.
    pub fn parse(text: &str) -> Result<Self, FrameError> {
        let raw: &RawValue = serde_json::from_str(text)
            .map_err(|_| FrameError("the frame is not valid JSON".into()))?;
        let Object(tag): Object<Tag<'_>> = serde_json::from_str(raw.get())
            .map_err(|_| FrameError("the frame is not an object with one \"type\"".into()))?;
        let frame = match tag.kind.as_ref() {
            "hello" => Self::Hello(body("hello", text)?),
            "subscribe" => Self::Subscribe(body("subscribe", text)?),
            "unsubscribe" => {
                let TokenOnly { token } = body("unsubscribe", text)?;
                Self::Unsubscribe { token }
            }
            "ack" => {
                let TokenSyn { token, syn } = body("ack", text)?;
                Self::Ack { token, syn }
            }
            "ping" => Self::Ping,
            _ => Self::Unknown,
        };
        frame.check_numbers()?;
        Ok(frame)
    }

    /// The frame as the device sends it.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Hello(hello) => tagged("hello", hello),
            Self::Subscribe(cursor) => tagged("subscribe", cursor),
            Self::Unsubscribe { token } => tagged(
                "unsubscribe",
                &TokenOnly {
                    token: token.clone(),
                },
            ),
            Self::Ack { token, syn } => tagged(
                "ack",
                &TokenSyn {
                    token: token.clone(),
                    syn: *syn,
                },
            ),
            Self::Ping | Self::Unknown => "{\"type\":\"ping\"}".to_owned(),
        }
    }

    fn check_numbers(&self) -> Result<(), FrameError> {
        let in_range = match self {
            Self::Hello(hello) => hello.tokens.iter().all(|cursor| cursor.min_syn <= SYN_MAX),
            Self::Subscribe(cursor) => cursor.min_syn <= SYN_MAX,
            // An ack beyond everything is legal: it acknowledges what is settled now.
            _ => true,
        };
        if in_range {
            Ok(())
        } else {
            Err(FrameError("\"min_syn\" is out of range".into()))
        }
    }
}

fn body<'a, T: Deserialize<'a>>(kind: &str, text: &'a str) -> Result<T, FrameError> {
    match serde_json::from_str(text) {
        Ok(Object(body)) => Ok(body),
        Err(error) => Err(FrameError(format!(
            "the \"{kind}\" frame is malformed: {error}"
        ))),
    }
}

fn tagged<T: Serialize>(kind: &'static str, body: &T) -> String {
    #[derive(Serialize)]
    struct Tagged<'a, T> {
        #[serde(rename = "type")]
        kind: &'static str,
        #[serde(flatten)]
        body: &'a T,
    }
    serde_json::to_string(&Tagged { kind, body }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_survives_the_wire() {
        let cursor = TokenCursor {
            token: "t".into(),
            min_syn: 7,
        };
        let frames = [
            DeviceFrame::Hello(Hello {
                device_id: Some("d".into()),
                device_secret: Some("s".into()),
                tokens: vec![cursor.clone()],
                client: Some("test/1".into()),
            }),
            DeviceFrame::Subscribe(cursor),
            DeviceFrame::Unsubscribe { token: "t".into() },
            DeviceFrame::Ack {
                token: "t".into(),
                syn: 17,
            },
            DeviceFrame::Ping,
        ];
        for frame in frames {
            assert_eq!(DeviceFrame::parse(&frame.to_text()), Ok(frame));
        }
    }

    #[test]
    fn unknown_types_and_keys_are_ignored() {
        assert_eq!(
            DeviceFrame::parse(r#"{"type":"dance","with":[1,2]}"#),
            Ok(DeviceFrame::Unknown)
        );
        let hello =
            DeviceFrame::parse(r#"{"type":"hello","colour":"red","tokens":[{"token":"a","x":1}]}"#);
        let Ok(DeviceFrame::Hello(hello)) = hello else {
            panic!("a hello with unknown keys is a hello: {hello:?}");
        };
        assert_eq!(hello.tokens[0].min_syn, 1);
    }

    #[test]
    fn malformed_frames_are_refused() {
        for text in [
            "",
            "{",
            "[]",
            "7",
            "{}",
            r#"{"type":5}"#,
            r#"{"type":"ack","token":"t"}"#,
            r#"{"type":"ack","token":"t","syn":-1}"#,
            r#"{"type":"ack","token":"t","syn":1.5}"#,
            r#"{"type":"ack","token":7,"syn":1}"#,
            r#"{"type":"subscribe"}"#,
            r#"{"type":"subscribe","token":"t","min_syn":9007199254740992}"#,
            r#"{"type":"hello","tokens":{}}"#,
            r#"["ping"]"#,
            r#"["ack","t",1]"#,
            r#"{"type":"hello","tokens":[["t",1]]}"#,
        ] {
            assert!(DeviceFrame::parse(text).is_err(), "accepted: {text}");
        }
    }
}
