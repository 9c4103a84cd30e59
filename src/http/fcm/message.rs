//! From the body of a send to what the rest of the server needs of it.

use bytes::Bytes;

use super::reader::read_send_request;
use super::rules;
use super::target::Target;
use super::tree::{Object, Value};
use crate::clock::Millis;
use crate::http::error::ApiError;

/// Longest life of a push, and its life unless the sender says otherwise: FCM's four weeks.
pub const TTL_MAX_MS: Millis = 28 * 24 * 60 * 60 * 1_000;

/// Sizes that a message must keep.
#[derive(Debug, Clone, Copy)]
pub struct MessageLimits {
    /// Bytes of the body of a send. Whoever reads bodies should stop there by himself.
    pub body_bytes: usize,
    /// Bytes of what an Android device gets: keys and values of the data and all strings of the
    /// notification.
    pub payload_bytes: usize,
    /// Bytes as JSON of each of `apns.payload`, `webpush.data` and `webpush.notification`.
    pub platform_payload_bytes: usize,
}

impl Default for MessageLimits {
    /// 64 KiB for a body, and FCM's documented 4096 bytes for each payload in it.
    fn default() -> Self {
        Self {
            body_bytes: 64 * 1_024,
            payload_bytes: 4_096,
            platform_payload_bytes: 4_096,
        }
    }
}

/// A send that is in order, as far as its body can tell.
#[derive(Debug, Clone)]
pub struct SendRequest {
    /// Check everything, send nothing.
    pub validate_only: bool,
    /// Whom it is for.
    pub target: Target,
    /// What to send.
    pub message: ParsedMessage,
}

/// A message, and what the server itself must know of it.
#[derive(Clone, PartialEq, Eq)]
pub struct ParsedMessage {
    /// The JSON object that the device gets: names in snake_case, values as sent, no target.
    pub json: Bytes,
    /// How long it may wait, in whole seconds; 0 is "now or never".
    pub ttl_ms: Millis,
    /// A newer push of the same token and key replaces an older one.
    pub collapse_key: Option<String>,
    /// How urgent it is for an Android device.
    pub priority: Priority,
    /// The package that the token must belong to.
    pub restricted_package_name: Option<String>,
    /// What the sender counts it under; Android's own label goes before the message's.
    pub analytics_label: Option<String>,
}

impl std::fmt::Debug for ParsedMessage {
    /// Payloads are never logged.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ParsedMessage")
            .field("json_bytes", &self.json.len())
            .field("ttl_ms", &self.ttl_ms)
            .field("priority", &self.priority)
            .finish_non_exhaustive()
    }
}

/// How urgent a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Need not wake a sleeping device. What a message without a notification has by default.
    Normal,
    /// To be shown at once. What a message with a notification has by default.
    High,
}

/// Reads the body of a send and judges all that can be judged from it alone, in this order: its
/// size, JSON, schema, one target, the target's form, the other fields, the payload's size.
///
/// # Errors
/// 413 for a body above its limit, else 400, with the body that FCM gives where it is known.
pub fn parse_send(body: &[u8], limits: &MessageLimits) -> Result<SendRequest, ApiError> {
    if body.len() > limits.body_bytes {
        return Err(ApiError::payload_too_large(limits.body_bytes));
    }
    let request = read_send_request(body)?;
    let target = Target::of(request.object("message"))?;
    let unset = Object::default();
    let message = request.object("message").unwrap_or(&unset);
    rules::check_fields(message)?;
    rules::check_sizes(message, limits)?;
    Ok(SendRequest {
        validate_only: matches!(request.get("validate_only"), Some(Value::Flag(true))),
        target,
        message: ParsedMessage::of(message, body.len()),
    })
}

impl ParsedMessage {
    /// `size_hint`: the JSON is hardly ever longer than the body it came in.
    fn of(message: &Object<'_>, size_hint: usize) -> Self {
        let mut json = String::with_capacity(size_hint);
        message.write(&mut json);
        let android = android(message);
        let label = |options: Option<&Object<'_>>| {
            let label = options?.object("fcm_options")?.text("analytics_label")?;
            Some(label.to_owned())
        };
        let text = |name: &str| android?.text(name).map(str::to_owned);
        Self {
            json: Bytes::from(json),
            ttl_ms: ttl_ms(android),
            collapse_key: text("collapse_key"),
            priority: priority(message),
            restricted_package_name: text("restricted_package_name"),
            analytics_label: label(android).or_else(|| label(Some(message))),
        }
    }
}

/// The part for Android, in its older or its newer form. The rules allow one of them only.
pub(super) fn android<'m, 'a>(message: &'m Object<'a>) -> Option<&'m Object<'a>> {
    message
        .object("android")
        .or_else(|| message.object("android_v2"))
}

fn ttl_ms(android: Option<&Object<'_>>) -> Millis {
    match android.and_then(|android| android.get("ttl")) {
        Some(Value::Duration { duration, .. }) => {
            duration.whole_seconds.saturating_mul(1_000).min(TTL_MAX_MS)
        }
        _ => TTL_MAX_MS,
    }
}

fn priority(message: &Object<'_>) -> Priority {
    /// The index of `HIGH` in the schema.
    const HIGH: usize = 1;
    let android = android(message);
    match android.and_then(|android| android.get("priority")) {
        Some(Value::Choice { number: HIGH, .. }) => Priority::High,
        Some(_) => Priority::Normal,
        None if rules::has_notification(message) => Priority::High,
        None => Priority::Normal,
    }
}
