//! Documents that fit the schema and break a rule, and in which words they are refused.

use serde_json::json;

use super::*;

const FCM_ERROR: &str = "type.googleapis.com/google.firebase.fcm.v1.FcmError";
const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";

/// The one rule that a message breaks.
fn assert_broken_rule(message: &str, field: &str, description: &str) {
    assert_eq!(
        status_of(&refuse(&format!(r#"{{"message":{message}}}"#))),
        json!({"code": 400, "message": description, "status": "INVALID_ARGUMENT",
               "details": [{"@type": FCM_ERROR, "errorCode": "INVALID_ARGUMENT"},
                           {"@type": BAD_REQUEST,
                            "fieldViolations": [{"field": field, "description": description}]}]}),
        "{message}"
    );
}

#[test]
fn a_message_needs_a_target_of_the_right_form() {
    const NO_TARGET: &str = "Recipient of the message is not set.";
    for message in [
        "{}",
        "null",
        r#"{"token":null}"#,
        r#"{"notification":{"title":"t"}}"#,
    ] {
        assert_broken_rule(message, "message", NO_TARGET);
    }
    let no_message = status_of(&refuse("{}"));
    assert_eq!(no_message["message"], NO_TARGET);
    for token in ["", "junk", "/topics/news", "é"] {
        for name in ["token", "fid"] {
            assert_broken_rule(
                &format!(r#"{{"{name}":"{token}"}}"#),
                "message.token",
                "The registration token is not a valid FCM registration token",
            );
        }
    }
    for topic in ["", "a b", "/topics/news"] {
        assert_broken_rule(
            &format!(r#"{{"topic":"{topic}"}}"#),
            "message",
            "Topic name contains invalid characters.",
        );
    }
    assert_broken_rule(
        &format!(r#"{{"topic":"{}"}}"#, "a".repeat(901)),
        "message",
        "Topic name is longer than 900 characters.",
    );
    for condition in ["", "'a' in topics &&", "'a' in topic"] {
        assert_eq!(
            status_of(&refuse(&format!(
                r#"{{"message":{{"condition":"{condition}"}}}}"#
            ))),
            json!({"code": 400, "message": "Request contains an invalid argument.",
                   "status": "INVALID_ARGUMENT"})
        );
    }
}

const TTL: &str = "The ttl must be from 0s to 2419200s, which is four weeks.";
const LABEL: &str = "The analytics label must be 1 to 50 characters from a-z, A-Z, 0-9 and -_.~%.";
const COLOR: &str = "The color must be in the form #rrggbb.";
const WEB_TTL: &str = "TTL must be a non-negative integer.";
const LINK: &str = "The link must be an https URL.";

/// A part of a message, the field in it that is to blame, and the refusal.
const BROKEN: &[(&str, &str, &str)] = &[
    (r#""android":{"ttl":"-1s"}"#, "android.ttl", TTL),
    (r#""android":{"ttl":"-0.1s"}"#, "android.ttl", TTL),
    (r#""android":{"ttl":"2419201s"}"#, "android.ttl", TTL),
    (
        r#""data":{"from":"a"}"#,
        "data[0].key",
        "Invalid data payload key: from",
    ),
    (
        r#""data":{"a":"b","gcm":"a"}"#,
        "data[1].key",
        "Invalid data payload key: gcm",
    ),
    (
        r#""android":{"data":{"message_type":"a"}}"#,
        "android.data[0].key",
        "Invalid data payload key: message_type",
    ),
    (
        r#""android_v2":{"data":{"google.a":"a"}}"#,
        "android_v2.data[0].key",
        "Invalid data payload key: google.a",
    ),
    (
        r#""data":{"gcm\u002enotification.a":"a"}"#,
        "data[0].key",
        "Invalid data payload key: gcm.notification.a",
    ),
    (
        r#""webpush":{"data":{"from":"a"}}"#,
        "webpush.data[0].key",
        "Invalid data payload key: from",
    ),
    (
        r#""android":{"notification":{"color":"red"}}"#,
        "android.notification.color",
        COLOR,
    ),
    (
        r##""android_v2":{"remote_notification":{"notification":{"color":"#12345é"}}}"##,
        "android_v2.remote_notification.notification.color",
        COLOR,
    ),
    (
        r#""android":{"notification":{"light_settings":{"color":{},"light_on_duration":"1s"}}}"#,
        "android.notification.light_settings.light_off_duration",
        "The light settings need a light_off_duration.",
    ),
    (
        r#""android":{"notification":{"light_settings":{"color":{"green":1.01},"light_on_duration":"1s","light_off_duration":"1s"}}}"#,
        "android.notification.light_settings.color.green",
        "The green of a color must be from 0 to 1.",
    ),
    (
        r#""apns":{"fcm_options":{"analytics_label":"a b"}}"#,
        "apns.fcm_options.analytics_label",
        LABEL,
    ),
    (
        r#""webpush":{"headers":{"TTL":"-1"}}"#,
        "webpush.headers.TTL",
        WEB_TTL,
    ),
    (
        r#""webpush":{"headers":{"ttl":"soon"}}"#,
        "webpush.headers.ttl",
        WEB_TTL,
    ),
    (
        r#""webpush":{"fcm_options":{"link":"http://example.com"}}"#,
        "webpush.fcm_options.link",
        LINK,
    ),
    (
        r#""androidV2":{"backgroundSync":{}},"android":{"ttl":"1s"}"#,
        "",
        "Only one of android and android_v2 may be set.",
    ),
    (
        r#""android":{},"android_v2":{}"#,
        "",
        "Only one of android and android_v2 may be set.",
    ),
];

#[test]
fn the_rules_are_kept() {
    let assert_broken = |member: &str, field: &str, description: &str| {
        let field = match field {
            "" => "message".to_owned(),
            field => format!("message.{field}"),
        };
        let message = format!(r#"{{"token":"TOKEN",{member}}}"#);
        assert_broken_rule(&message, &field, description);
    };
    for (member, field, description) in BROKEN {
        assert_broken(member, field, description);
    }
    let long_label = format!(
        r#""fcm_options":{{"analytics_label":"{}"}}"#,
        "a".repeat(51)
    );
    assert_broken(&long_label, "fcm_options.analytics_label", LABEL);
}

#[test]
fn checks_come_in_order() {
    let huge = "x".repeat(5_000);
    let bodies = [
        (
            r#"{"message":"#.to_owned(),
            "Invalid JSON payload received.",
        ),
        (
            format!(
                r#"{{"message":{{"unknown":1,"android":{{"ttl":"-1s"}},"data":{{"k":"{huge}"}}}}}}"#
            ),
            "Invalid JSON payload received. Unknown name",
        ),
        (
            format!(r#"{{"message":{{"android":{{"ttl":"-1s"}},"data":{{"k":"{huge}"}}}}}}"#),
            "Recipient of the message is not set.",
        ),
        (
            format!(
                r#"{{"message":{{"token":"junk","android":{{"ttl":"-1s"}},"data":{{"k":"{huge}"}}}}}}"#
            ),
            "The registration token",
        ),
        (
            format!(
                r#"{{"message":{{"token":"TOKEN","android":{{"ttl":"-1s"}},"data":{{"from":"{huge}"}}}}}}"#
            ),
            "The ttl must be",
        ),
        (
            format!(r#"{{"message":{{"token":"TOKEN","data":{{"from":"{huge}"}}}}}}"#),
            "Invalid data payload key: from",
        ),
        (
            format!(r#"{{"message":{{"token":"TOKEN","data":{{"k":"{huge}"}}}}}}"#),
            "Message is too large.",
        ),
    ];
    for (body, begins) in bodies {
        let message = refuse(&body).message().to_owned();
        assert!(message.starts_with(begins), "{message}");
    }
}
