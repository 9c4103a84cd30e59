//! Documents that do not fit the schema, or are no JSON, and in which words they are refused.

use serde_json::json;

use super::*;

const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";
const TYPES: &str = "type.googleapis.com/google.firebase.fcm.v1";

/// The violations that a body of the wrong shape is refused with, and nothing else.
fn assert_mismatch(body: &str, violations: &[(&str, &str)]) {
    let violations: Vec<Value> = violations
        .iter()
        .map(|(field, description)| match *field {
            "" => json!({ "description": description }),
            field => json!({"field": field, "description": description}),
        })
        .collect();
    let messages: Vec<&str> = violations
        .iter()
        .filter_map(|violation| violation["description"].as_str())
        .collect();
    assert_eq!(
        status_of(&refuse(body)),
        json!({"code": 400, "message": messages.join("\n"), "status": "INVALID_ARGUMENT",
               "details": [{"@type": BAD_REQUEST, "fieldViolations": violations}]}),
        "{body}"
    );
}

#[test]
fn unknown_names_are_all_named() {
    const TO: &str = r#"Invalid JSON payload received. Unknown name "to": Cannot find field."#;
    const PRIORITY: &str =
        r#"Invalid JSON payload received. Unknown name "priority": Cannot find field."#;
    assert_mismatch(
        r#"{"to":"x","priority":"high"}"#,
        &[("", TO), ("", PRIORITY)],
    );
    assert_mismatch(
        r#"{"message":{"message":{}}}"#,
        &[(
            "message",
            r#"Invalid JSON payload received. Unknown name "message" at 'message': Cannot find field."#,
        )],
    );
    // In the order of the document, along with wrong values.
    assert_mismatch(
        r#"{"to":"x","message":{"android":{"Ttl":1,"ttl":5},"é\"":[]},"priority":1}"#,
        &[
            ("", TO),
            (
                "message.android",
                r#"Invalid JSON payload received. Unknown name "Ttl" at 'message.android': Cannot find field."#,
            ),
            (
                "message.android.ttl",
                "Invalid value at 'message.android.ttl' (type.googleapis.com/google.protobuf.Duration), 5",
            ),
            (
                "message",
                r#"Invalid JSON payload received. Unknown name "é"" at 'message': Cannot find field."#,
            ),
            ("", PRIORITY),
        ],
    );
    let many: Vec<String> = (0..2_000).map(|index| format!(r#""x{index}":0"#)).collect();
    let error = status_of(&refuse(&format!("{{{}}}", many.join(","))));
    let violations = &error["details"][0]["fieldViolations"];
    assert_eq!(violations.as_array().map(Vec::len), Some(1_000));
}

#[test]
fn lists_and_plain_values_in_the_wrong_place_are_refused() {
    let no_list = |name: &str, place: &str| {
        format!(
            "Invalid JSON payload received. Unknown name \"{name}\"{place}: \
             Proto field is not repeating, cannot start list."
        )
    };
    assert_mismatch(r#"{"message":[]}"#, &[("", &no_list("message", ""))]);
    assert_mismatch(
        r#"{"message":{"notification":[1]}}"#,
        &[("message", &no_list("notification", " at 'message'"))],
    );
    assert_mismatch(
        r#"{"message":{"data":[],"token":["a"]}}"#,
        &[
            ("message", &no_list("data", " at 'message'")),
            ("message", &no_list("token", " at 'message'")),
        ],
    );
    assert_mismatch(
        r#"{"message":"x"}"#,
        &[(
            "message",
            &format!("Invalid value at 'message' ({TYPES}.Message), \"x\""),
        )],
    );
    assert_mismatch(
        r#"{"message":{"notification":true,"data":"x","token":{"a":1}}}"#,
        &[
            (
                "message.notification",
                &format!("Invalid value at 'message.notification' ({TYPES}.Notification), true"),
            ),
            (
                "message.data",
                &format!("Invalid value at 'message.data' ({TYPES}.Message.DataEntry), \"x\""),
            ),
            (
                "message.token",
                "Invalid value at 'message.token' (TYPE_STRING), {\"a\":1}",
            ),
        ],
    );
}

/// A place in a message, a part of a message with a wrong value there, the type that was due, and
/// the value as it is quoted.
const WRONG_VALUES: &[(&str, &str, &str, &str)] = &[
    ("data[0].value", r#""data":{"a":12}"#, "TYPE_STRING", "12"),
    (
        "data[1].value",
        r#""data":{"a":"b","c":null}"#,
        "TYPE_STRING",
        "null",
    ),
    (
        "data[0].value",
        r#""data":{"a":{"b":"c"}}"#,
        "TYPE_STRING",
        r#"{"b":"c"}"#,
    ),
    (
        "data[0].key",
        r#""data":{"\ud800":"c"}"#,
        "TYPE_STRING",
        r#""\ud800""#,
    ),
    (
        "apns.headers[0].value",
        r#""apns":{"headers":{"apns-priority":10}}"#,
        "TYPE_STRING",
        "10",
    ),
    (
        "notification.title",
        r#""notification":{"title":"\udc00"}"#,
        "TYPE_STRING",
        r#""\udc00""#,
    ),
    (
        "android.direct_boot_ok",
        r#""android":{"directBootOk":"true"}"#,
        "TYPE_BOOL",
        r#""true""#,
    ),
    (
        "android.notification.sticky",
        r#""android":{"notification":{"sticky":1}}"#,
        "TYPE_BOOL",
        "1",
    ),
    (
        "android.notification.notification_count",
        r#""android":{"notification":{"notificationCount":2147483648}}"#,
        "TYPE_INT32",
        "2147483648",
    ),
    (
        "android.notification.notification_count",
        r#""android":{"notification":{"notificationCount":1.5}}"#,
        "TYPE_INT32",
        "1.5",
    ),
    (
        "android.notification.notification_count",
        r#""android":{"notification":{"notificationCount":" 1"}}"#,
        "TYPE_INT32",
        r#"" 1""#,
    ),
    (
        "android.notification.title_loc_args",
        r#""android":{"notification":{"titleLocArgs":"a"}}"#,
        "TYPE_STRING",
        r#""a""#,
    ),
    (
        "android.notification.title_loc_args[1]",
        r#""android":{"notification":{"titleLocArgs":["a",null]}}"#,
        "TYPE_STRING",
        "null",
    ),
    (
        "android.notification.vibrate_timings[0]",
        r#""android":{"notification":{"vibrateTimings":[1]}}"#,
        "type.googleapis.com/google.protobuf.Duration",
        "1",
    ),
    (
        "android.notification.event_time",
        r#""android":{"notification":{"eventTime":"yesterday"}}"#,
        "type.googleapis.com/google.protobuf.Timestamp",
        r#""yesterday""#,
    ),
    (
        "android.notification.light_settings.color.red",
        r#""android":{"notification":{"lightSettings":{"color":{"red":"NaN"}}}}"#,
        "TYPE_FLOAT",
        r#""NaN""#,
    ),
    (
        "android.ttl",
        r#""android":{"ttl":"abc"}"#,
        "type.googleapis.com/google.protobuf.Duration",
        r#""abc""#,
    ),
    (
        "android.priority",
        r#""android":{"priority":"urgent"}"#,
        "type.googleapis.com/google.firebase.fcm.v1.AndroidMessagePriority",
        r#""urgent""#,
    ),
    (
        "android.priority",
        r#""android":{"priority":2}"#,
        "type.googleapis.com/google.firebase.fcm.v1.AndroidMessagePriority",
        "2",
    ),
    (
        "apns.payload",
        r#""apns":{"payload":"{}"}"#,
        "type.googleapis.com/google.protobuf.Struct",
        r#""{}""#,
    ),
];

#[test]
fn wrong_values_are_named_with_their_type() {
    for (place, member, label, value) in WRONG_VALUES {
        assert_mismatch(
            &format!(r#"{{"message":{{"token":"TOKEN",{member}}}}}"#),
            &[(
                &format!("message.{place}"),
                &format!("Invalid value at 'message.{place}' ({label}), {value}"),
            )],
        );
    }
    assert_mismatch(
        r#"{"validate_only":"yes"}"#,
        &[(
            "validate_only",
            r#"Invalid value at 'validate_only' (TYPE_BOOL), "yes""#,
        )],
    );
}

#[test]
fn two_of_a_kind_are_refused() {
    let already = |place: &str, group: &str, name: &str| {
        format!(
            "Invalid value at '{place}' (oneof), oneof field '{group}' is already set. \
             Cannot set '{name}'"
        )
    };
    assert_mismatch(
        r#"{"message":{"token":"TOKEN","topic":"a"}}"#,
        &[("message", &already("message", "target", "topic"))],
    );
    assert_mismatch(
        r#"{"message":{"token":"TOKEN","fid":"TOKEN","condition":""}}"#,
        &[
            ("message", &already("message", "target", "fid")),
            ("message", &already("message", "target", "condition")),
        ],
    );
    assert_mismatch(
        r#"{"message":{"android_v2":{"background_sync":{},"remote_notification":{}}}}"#,
        &[(
            "message.android_v2",
            &already("message.android_v2", "payload", "remote_notification"),
        )],
    );
}

#[test]
fn what_is_no_json_object_is_refused() {
    let unreadable = |body: &[u8]| {
        let refusal = parse_send(body, &MessageLimits::default());
        status_of(&refusal.expect_err("a refusal"))
    };
    for (body, begins) in [
        (&b""[..], "EOF while parsing a value"),
        (b"nonsense", "expected ident"),
        (b"{\"message\":{}", "EOF while parsing an object"),
        (b"{\"message\":{}}}", "trailing characters"),
        (b"{\"a\":\"\xff\"}", "Not UTF-8"),
        (b"\xef\xbb\xbf{}", "expected value"),
        (b"[]", "Root element must be a message."),
        (b" \"text\" ", "Root element must be a message."),
        (b"null", "Root element must be a message."),
    ] {
        let error = unreadable(body);
        let message = error["message"].as_str().expect("a message");
        let expected = format!("Invalid JSON payload received. {begins}");
        assert!(message.starts_with(&expected), "{message}");
        assert_eq!(
            error,
            json!({"code": 400, "message": message, "status": "INVALID_ARGUMENT",
                   "details": [{"@type": BAD_REQUEST, "fieldViolations": [{"description": message}]}]})
        );
    }
}
