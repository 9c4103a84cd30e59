//! Bodies that nobody means well with: none of them makes the reader slow, or fall over.

use std::time::{Duration, Instant};

use actix_web::ResponseError as _;
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// What any body of a few megabytes may take once it is let in, with an allowance for unoptimised
/// code and for a machine that is busy with other tests: enough for work that grows with the body,
/// far too little for work that grows with its square.
const PATIENCE: Duration = Duration::from_millis(if cfg!(debug_assertions) { 5_000 } else { 500 });

/// A body of about this size is 64 times what the server lets in.
const HUGE_BYTES: usize = 4 << 20;

/// The reader has to be quick by itself, not only because large bodies do not get to it.
const ANY_BODY: MessageLimits = MessageLimits {
    body_bytes: usize::MAX,
    payload_bytes: 4_096,
    platform_payload_bytes: 4_096,
};

fn assert_refused_in_time(what: &str, body: &[u8]) {
    let started = Instant::now();
    let refusal = parse_send(body, &ANY_BODY);
    let took = started.elapsed();
    let error = refusal.map(drop).expect_err(what);
    assert_eq!(error.status_code().as_u16(), 400, "{what}");
    assert!(took < PATIENCE, "{what} took {took:?}");
    println!("{what}: {took:?}");
}

fn nested(open: &str, close: &str, depth: usize) -> String {
    format!("{}0{}", open.repeat(depth), close.repeat(depth))
}

fn in_message(member: &str) -> String {
    format!(r#"{{"message":{{"topic":"t",{member}}}}}"#)
}

#[test]
fn deep_bodies_are_cheap() {
    const DEPTH: usize = 100_000;
    let lists = nested("[", "]", DEPTH);
    let objects = nested(r#"{"a":"#, "}", DEPTH);
    for (what, body) in [
        ("bare lists", lists.clone()),
        ("open lists", "[".repeat(DEPTH)),
        ("open objects", r#"{"a":"#.repeat(DEPTH)),
        ("unknown lists", format!(r#"{{"x":{lists}}}"#)),
        ("messages in messages", nested(r#"{"message":"#, "}", DEPTH)),
        (
            "deep data value",
            in_message(&format!(r#""data":{{"a":{lists}}}"#)),
        ),
        (
            "deep payload",
            in_message(&format!(r#""apns":{{"payload":{objects}}}"#)),
        ),
        (
            "deep condition",
            format!(
                r#"{{"message":{{"condition":"{}'a' in topics"}}}}"#,
                "(".repeat(DEPTH)
            ),
        ),
    ] {
        assert_refused_in_time(what, body.as_bytes());
    }
    let closed = nested("(", ")", 10_000).replace('0', "'a' in topics");
    accept(&format!(r#"{{"message":{{"condition":"{closed}"}}}}"#));
}

#[test]
fn a_body_above_its_limit_is_not_looked_at() {
    let body = " ".repeat(HUGE_BYTES);
    let started = Instant::now();
    let refusal = parse_send(body.as_bytes(), &MessageLimits::default());
    assert!(started.elapsed() < Duration::from_millis(50));
    let error = refusal.map(drop).expect_err("too large");
    assert_eq!(error.status_code().as_u16(), 413);
    assert_eq!(
        error.message(),
        "The request body is larger than 65536 bytes."
    );
}

#[test]
fn big_bodies_are_cheap() {
    let members = |member: &str| {
        let count = HUGE_BYTES / (member.len() + 6);
        let members: Vec<String> = (0..count)
            .map(|index| member.replace('#', &format!("{index:x}")))
            .collect();
        members.join(",")
    };
    let unknown = members(r##""x#":0"##);
    let entries = members(r##""#":"""##);
    let repeated = members(r#""title":"a""#);
    let items = members(r#""a""#);
    for (what, body) in [
        ("unknown names", format!("{{{unknown}}}")),
        ("unknown names inside", in_message(&unknown)),
        (
            "data entries",
            in_message(&format!(r#""data":{{{entries}}}"#)),
        ),
        (
            "repeated data key",
            in_message(&format!(r#""data":{{{},"a":1}}"#, members(r#""a":"b""#))),
        ),
        (
            "repeated names among unknown ones",
            in_message(&format!(
                r#""android":{{"notification":{{{unknown},{repeated}}}}}"#
            )),
        ),
        (
            "list items",
            in_message(&format!(
                r#""android":{{"notification":{{"title_loc_args":[{items}]}}}}"#
            )),
        ),
        (
            "wrong list items",
            in_message(&format!(
                r#""android":{{"notification":{{"title_loc_args":[{}]}}}}"#,
                "1,".repeat(HUGE_BYTES / 2) + "1"
            )),
        ),
        (
            "long text",
            in_message(&format!(
                r#""data":{{"a":"{}"}}"#,
                r"\n".repeat(HUGE_BYTES / 2)
            )),
        ),
        (
            "long number",
            in_message(&format!(
                r#""android":{{"notification":{{"notification_count":{}}}}}"#,
                "1".repeat(HUGE_BYTES)
            )),
        ),
        (
            "wide payload",
            in_message(&format!(r#""apns":{{"payload":{{{entries}}}}}"#)),
        ),
        ("blanks", " ".repeat(HUGE_BYTES)),
    ] {
        assert_refused_in_time(what, body.as_bytes());
    }
}

#[test]
fn a_refusal_quotes_little_of_a_wrong_value() {
    let long = "é".repeat(10_000);
    let error = refuse(&in_message(&format!(r#""data":{{"a":["{long}"]}}"#)));
    assert!(error.message().len() < 500, "{}", error.message().len());
}

/// A message that is in order, with a part of everything.
fn sound_body() -> String {
    json!({"validate_only": false, "message": {
        "token": token(),
        "data": {"a": "b", "é": "\u{1f600}"},
        "notification": {"title": "t", "body": "b"},
        "android": {"ttl": "3.5s", "priority": "high", "collapseKey": "k",
            "notification": {"color": "#aabbcc", "titleLocArgs": ["a", "b"], "notificationCount": 3,
                "eventTime": "2026-11-22T10:00:00Z", "vibrateTimings": ["1s"],
                "lightSettings": {"color": {"red": 1}, "lightOnDuration": "1s",
                                  "lightOffDuration": "1s"}}},
        "webpush": {"headers": {"TTL": "5"}, "notification": {"a": [1, {"b": null}]}},
        "apns": {"payload": {"aps": {"alert": "x", "badge": 1.5}}}}})
    .to_string()
}

/// Whatever comes in, an answer comes out: JSON for the device, or a 400.
fn assert_answered(body: &[u8]) {
    match parse_send(body, &MessageLimits::default()) {
        Ok(request) => {
            let message: Value =
                serde_json::from_slice(&request.message.json).expect("the device reads it");
            assert!(message.is_object());
            for name in ["token", "fid", "topic", "condition", "name"] {
                assert!(message.get(name).is_none(), "{name}");
            }
            assert!(request.message.ttl_ms <= TTL_MAX_MS);
        }
        Err(error) => {
            assert_eq!(error.status_code().as_u16(), 400);
            assert_eq!(status_of(&error)["status"], "INVALID_ARGUMENT");
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_answered(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        assert_answered(&body);
    }

    #[test]
    fn arbitrary_text_in_json_is_answered(text in ".{0,60}", name in ".{0,20}") {
        let body = json!({"message": {name.clone(): text, "token": token(), "data": {name: text}}});
        assert_answered(body.to_string().as_bytes());
    }

    #[test]
    fn mutated_messages_are_answered(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let mut body = sound_body().into_bytes();
        for (place, byte) in changes {
            let place = place.index(body.len());
            match byte {
                0..64 => drop(body.remove(place)),
                64..128 => body.insert(place, b"{}[]\":,\\0ntf-."[usize::from(byte) % 14]),
                _ => body[place] = byte,
            }
        }
        assert_answered(&body);
    }

    #[test]
    fn moved_parts_are_answered(
        from in any::<prop::sample::Index>(),
        length in 1..80_usize,
        to in any::<prop::sample::Index>(),
    ) {
        let mut body = sound_body().into_bytes();
        let start = from.index(body.len());
        let end = body.len().min(start + length);
        let part = body[start..end].to_vec();
        let at = to.index(body.len());
        body.splice(at..at, part);
        assert_answered(&body);
    }

    #[test]
    fn data_arrives_as_it_was_sent(
        data in proptest::collection::btree_map("[a-z]{1,3}\\PC{0,5}", "\\PC{0,40}", 1..8)
    ) {
        prop_assume!(!data.keys().any(|key| ["gcm", "from"].contains(&key.as_str())));
        let body = json!({"message": {"topic": "t", "data": data}}).to_string();
        let request = parse_send(body.as_bytes(), &MessageLimits::default()).expect("a message");
        let got: Value = serde_json::from_slice(&request.message.json).expect("JSON");
        prop_assert_eq!(got, json!({"data": data}));
    }
}

#[test]
fn the_sound_body_is_sound() {
    parse_send(sound_body().as_bytes(), &MessageLimits::default()).expect("a message");
}
