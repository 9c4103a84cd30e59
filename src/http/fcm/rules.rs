//! The rules that a message must keep beyond the schema.

use super::message::{MessageLimits, TTL_MAX_MS, android};
use super::tree::{Object, Value};
use crate::http::error::ApiError;
use crate::topic::is_topic_name;

/// Length of an analytics label in bytes.
const ANALYTICS_LABEL_BYTES_MAX: usize = 50;

/// Data keys that mean something to FCM's own client library, and so may not be sent.
const RESERVED_KEYS: &[&str] = &["from", "gcm", "message_type"];

/// What such keys may not begin with either.
const RESERVED_PREFIXES: &[&str] = &["google.", "gcm.notification."];

/// The rules for single fields.
///
/// # Errors
/// 400: the first one that is broken.
pub fn check_fields(message: &Object<'_>) -> Result<(), ApiError> {
    check_one_android(message)?;
    check_ttl(message)?;
    check_data_keys(message)?;
    check_color(message)?;
    check_lights(message)?;
    check_analytics_labels(message)?;
    check_webpush(message)
}

fn check_one_android(message: &Object<'_>) -> Result<(), ApiError> {
    if message.object("android").is_some() && message.object("android_v2").is_some() {
        return Err(ApiError::invalid_field(
            "message",
            "Only one of android and android_v2 may be set.",
        ));
    }
    Ok(())
}

fn check_ttl(message: &Object<'_>) -> Result<(), ApiError> {
    const SECONDS_MAX: u64 = TTL_MAX_MS / 1_000;
    let android = message.object("android");
    match android.and_then(|android| android.get("ttl")) {
        Some(Value::Duration { duration, .. })
            if duration.is_negative || duration.whole_seconds > SECONDS_MAX =>
        {
            Err(ApiError::invalid_field(
                "message.android.ttl",
                format!("The ttl must be from 0s to {SECONDS_MAX}s, which is four weeks."),
            ))
        }
        _ => Ok(()),
    }
}

fn check_data_keys(message: &Object<'_>) -> Result<(), ApiError> {
    let holders = [
        ("message.data", Some(message)),
        ("message.android.data", message.object("android")),
        ("message.android_v2.data", message.object("android_v2")),
        ("message.webpush.data", message.object("webpush")),
    ];
    for (path, holder) in holders {
        let data = holder.and_then(|holder| holder.text_map("data"));
        for (index, (key, _)) in data.unwrap_or_default().iter().enumerate() {
            if is_reserved(&key.decoded) {
                return Err(ApiError::invalid_field(
                    format!("{path}[{index}].key"),
                    format!("Invalid data payload key: {}", key.decoded),
                ));
            }
        }
    }
    Ok(())
}

fn is_reserved(key: &str) -> bool {
    RESERVED_KEYS.contains(&key)
        || RESERVED_PREFIXES
            .iter()
            .any(|prefix| key.starts_with(prefix))
}

/// The notification made for Android alone, and its path.
fn android_notification<'m, 'a>(message: &'m Object<'a>) -> Option<(&'static str, &'m Object<'a>)> {
    if let Some(android) = message.object("android") {
        let notification = android.object("notification")?;
        return Some(("message.android.notification", notification));
    }
    let remote = message
        .object("android_v2")?
        .object("remote_notification")?;
    let path = "message.android_v2.remote_notification.notification";
    Some((path, remote.object("notification")?))
}

/// Whether an Android device gets something to show.
pub fn has_notification(message: &Object<'_>) -> bool {
    message.object("notification").is_some() || android_notification(message).is_some()
}

fn check_color(message: &Object<'_>) -> Result<(), ApiError> {
    let Some((path, notification)) = android_notification(message) else {
        return Ok(());
    };
    match notification.text("color") {
        Some(color) if !is_color(color) => Err(ApiError::invalid_field(
            format!("{path}.color"),
            "The color must be in the form #rrggbb.",
        )),
        _ => Ok(()),
    }
}

fn is_color(text: &str) -> bool {
    text.strip_prefix('#')
        .is_some_and(|digits| digits.len() == 6 && digits.bytes().all(|d| d.is_ascii_hexdigit()))
}

/// The lights need a color and both durations, and parts of a color are from 0 to 1.
fn check_lights(message: &Object<'_>) -> Result<(), ApiError> {
    let Some((path, notification)) = android_notification(message) else {
        return Ok(());
    };
    let Some(lights) = notification.object("light_settings") else {
        return Ok(());
    };
    for required in ["color", "light_on_duration", "light_off_duration"] {
        if lights.get(required).is_none() {
            return Err(ApiError::invalid_field(
                format!("{path}.light_settings.{required}"),
                format!("The light settings need a {required}."),
            ));
        }
    }
    for part in ["red", "green", "blue", "alpha"] {
        let value = lights.object("color").and_then(|color| color.get(part));
        if let Some(Value::Number { value, .. }) = value
            && !(0.0..=1.0).contains(value)
        {
            return Err(ApiError::invalid_field(
                format!("{path}.light_settings.color.{part}"),
                format!("The {part} of a color must be from 0 to 1."),
            ));
        }
    }
    Ok(())
}

fn check_analytics_labels(message: &Object<'_>) -> Result<(), ApiError> {
    let holders = [
        ("message", Some(message)),
        ("message.android", message.object("android")),
        ("message.android_v2", message.object("android_v2")),
        ("message.webpush", message.object("webpush")),
        ("message.apns", message.object("apns")),
    ];
    for (path, holder) in holders {
        let options = holder.and_then(|holder| holder.object("fcm_options"));
        let label = options.and_then(|options| options.text("analytics_label"));
        if label.is_some_and(|label| !is_analytics_label(label)) {
            return Err(ApiError::invalid_field(
                format!("{path}.fcm_options.analytics_label"),
                format!(
                    "The analytics label must be 1 to {ANALYTICS_LABEL_BYTES_MAX} characters \
                     from a-z, A-Z, 0-9 and -_.~%."
                ),
            ));
        }
    }
    Ok(())
}

/// `[a-zA-Z0-9-_.~%]{1,50}`.
fn is_analytics_label(label: &str) -> bool {
    label.len() <= ANALYTICS_LABEL_BYTES_MAX && is_topic_name(label)
}

fn check_webpush(message: &Object<'_>) -> Result<(), ApiError> {
    let Some(webpush) = message.object("webpush") else {
        return Ok(());
    };
    let headers = webpush.text_map("headers").unwrap_or_default();
    for (name, value) in headers {
        let is_ttl = name.decoded.eq_ignore_ascii_case("ttl");
        if is_ttl && value.decoded.parse::<u64>().is_err() {
            return Err(ApiError::invalid_field(
                format!("message.webpush.headers.{}", name.decoded),
                "TTL must be a non-negative integer.",
            ));
        }
    }
    let options = webpush.object("fcm_options");
    match options.and_then(|options| options.text("link")) {
        Some(link) if !is_https(link) => Err(ApiError::invalid_field(
            "message.webpush.fcm_options.link",
            "The link must be an https URL.",
        )),
        _ => Ok(()),
    }
}

fn is_https(link: &str) -> bool {
    link.split_once("://")
        .is_some_and(|(scheme, rest)| scheme.eq_ignore_ascii_case("https") && !rest.is_empty())
}

/// The rules for sizes.
///
/// # Errors
/// 400: a payload is above its limit.
pub fn check_sizes(message: &Object<'_>, limits: &MessageLimits) -> Result<(), ApiError> {
    if android_payload_bytes(message) > limits.payload_bytes {
        return Err(ApiError::message_too_large(limits.payload_bytes));
    }
    let platform_payloads = [
        ("apns", "payload"),
        ("webpush", "data"),
        ("webpush", "notification"),
    ];
    for (platform, name) in platform_payloads {
        let payload = message
            .object(platform)
            .and_then(|platform| platform.get(name));
        if payload.is_some_and(|payload| payload.json_bytes() > limits.platform_payload_bytes) {
            return Err(ApiError::message_too_large(limits.platform_payload_bytes));
        }
    }
    Ok(())
}

/// What an Android device gets: its own data instead of the common one, and both notifications.
fn android_payload_bytes(message: &Object<'_>) -> usize {
    let own_data = android(message).and_then(|android| android.text_map("data"));
    let data = own_data.or_else(|| message.text_map("data"));
    let data_bytes: usize = data
        .unwrap_or_default()
        .iter()
        .map(|(key, value)| key.decoded.len() + value.decoded.len())
        .sum();
    let common = message.object("notification");
    let notification_bytes = common.map_or(0, Object::text_bytes);
    let own = android_notification(message);
    let own_bytes = own.map_or(0, |(_, notification)| notification.text_bytes());
    data_bytes + notification_bytes + own_bytes
}
