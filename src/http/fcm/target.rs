//! Whom a message is for.

use super::tree::{Object, Value};
use crate::http::error::ApiError;
use crate::token::SealedToken;
use crate::topic::{Condition, Reach, TOPIC_NAME_BYTES_MAX, TopicName};

/// Whom a message is for. The text is well formed; whether anybody is there is the caller's to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One push token, given as `token` or as `fid`.
    Token(String),
    /// Everybody that a topic or a condition reaches.
    Many(Reach),
}

impl Target {
    /// The target of a message that fits the schema, which sees to it that there is one at most.
    ///
    /// # Errors
    /// 400: there is none, or its text cannot be one.
    pub(super) fn of(message: Option<&Object<'_>>) -> Result<Self, ApiError> {
        let given = message.and_then(|message| message.member_of_oneof("target"));
        let Some((field, Value::Text(text))) = given else {
            return Err(ApiError::invalid_field(
                "message",
                "Recipient of the message is not set.",
            ));
        };
        let text = text.decoded.as_ref();
        match field.name {
            "topic" => topic(text),
            "condition" => match Condition::parse(text) {
                Ok(condition) => Ok(Self::Many(Reach::Condition(condition))),
                Err(error) => Err(ApiError::invalid_condition(error)),
            },
            _ => match SealedToken::from_text(text) {
                Ok(_) => Ok(Self::Token(text.to_owned())),
                Err(error) => Err(ApiError::malformed_token().with_cause(error)),
            },
        }
    }
}

fn topic(name: &str) -> Result<Target, ApiError> {
    if let Some(topic) = TopicName::parse(name) {
        return Ok(Target::Many(Reach::Topic(topic)));
    }
    Err(match name.len() {
        0..=TOPIC_NAME_BYTES_MAX => {
            ApiError::invalid_field("message", "Topic name contains invalid characters.")
        }
        _ => ApiError::invalid_field(
            "message",
            format!("Topic name is longer than {TOPIC_NAME_BYTES_MAX} characters."),
        ),
    })
}
