//! Documents that are accepted, and what becomes of them.

use super::*;
use crate::topic::{Condition, Reach, TopicName};

const NO_PAYLOAD: &str = "{}";

/// A message as it is sent, and what the device gets.
const PASSED_ON: &[(&str, &str)] = &[
    (r#"{"token":"TOKEN"}"#, NO_PAYLOAD),
    (r#"{"fid":"TOKEN"}"#, NO_PAYLOAD),
    (r#"{"token":"TOKEN","topic":null}"#, NO_PAYLOAD),
    (
        r#"{"name":"projects/demo/messages/1","token":"TOKEN"}"#,
        NO_PAYLOAD,
    ),
    // Blanks go, escapes and order stay.
    (
        " { \"data\" : { \"b\" : \"\\u0041\\n\" , \"a\":\"\u{e9}\" } ,\n\"token\":\"TOKEN\"} ",
        "{\"data\":{\"b\":\"\\u0041\\n\",\"a\":\"\u{e9}\"}}",
    ),
    // Both spellings in one document; keys of the sender's own stay as they are.
    (
        r#"{"token":"TOKEN","data":{"camelCase":"1"},"android":{"collapse_key":"k","fcmOptions":{"analyticsLabel":"l"},"notification":{"click_action":"c","lightSettings":{"color":{"red":0.5,"green":1,"blue":0.00},"lightOnDuration":"1.5s","light_off_duration":"2s"}}}}"#,
        r#"{"data":{"camelCase":"1"},"android":{"collapse_key":"k","fcm_options":{"analytics_label":"l"},"notification":{"click_action":"c","light_settings":{"color":{"red":0.5,"green":1,"blue":0.00},"light_on_duration":"1.5s","light_off_duration":"2s"}}}}"#,
    ),
    // Texts of enumerations, durations and times are passed on as written.
    (
        r#"{"token":"TOKEN","android":{"priority":"high","ttl":"3.500000000s","directBootOk":true,"notification":{"notificationPriority":"PRIORITY_MAX","visibility":2,"proxy":"if_priority_lowered","eventTime":"2026-11-22T10:00:00.123456Z","vibrateTimings":["0.25s","1s"],"sticky":false}}}"#,
        r#"{"android":{"priority":"high","ttl":"3.500000000s","direct_boot_ok":true,"notification":{"notification_priority":"PRIORITY_MAX","visibility":2,"proxy":"if_priority_lowered","event_time":"2026-11-22T10:00:00.123456Z","vibrate_timings":["0.25s","1s"],"sticky":false}}}"#,
    ),
    // Whole numbers as numbers or as strings.
    (
        r#"{"token":"TOKEN","android":{"notification":{"notificationCount":"7","clickActionType":1}}}"#,
        r#"{"android":{"notification":{"notification_count":"7","click_action_type":1}}}"#,
    ),
    (
        r#"{"token":"TOKEN","android":{"notification":{"notificationCount":1e2}}}"#,
        r#"{"android":{"notification":{"notification_count":1e2}}}"#,
    ),
    // Free-form objects are nobody's business but the sender's.
    (
        r#"{"token":"TOKEN","apns":{"headers":{"apns-priority":"10"},"payload":{"aps":{"badge":12345678901234567890123, "x":1.0e400},"n":null,"mixedCase":[]},"liveActivityToken":"t"}}"#,
        r#"{"apns":{"headers":{"apns-priority":"10"},"payload":{"aps":{"badge":12345678901234567890123,"x":1.0e400},"n":null,"mixedCase":[]},"live_activity_token":"t"}}"#,
    ),
    (
        r#"{"token":"TOKEN","webpush":{"headers":{"TTL":"60"},"data":{"k":"v"},"notification":{"requireInteraction":true},"fcmOptions":{"link":"https://example.com"}}}"#,
        r#"{"webpush":{"headers":{"TTL":"60"},"data":{"k":"v"},"notification":{"requireInteraction":true},"fcm_options":{"link":"https://example.com"}}}"#,
    ),
    // The last of repeated names wins, whatever its spelling; a field keeps its place.
    (
        r#"{"token":"TOKEN","data":{"k":1,"j":"a","k":"2"},"android":{"collapseKey":"a","ttl":"1s","collapse_key":"b"}}"#,
        r#"{"data":{"k":"2","j":"a"},"android":{"collapse_key":"b","ttl":"1s"}}"#,
    ),
    (
        r#"{"topic":"a","token":"TOKEN","topic":null,"notification":{"foo":1},"notification":{"title":"t"}}"#,
        r#"{"notification":{"title":"t"}}"#,
    ),
    // "Not set" is not passed on; an empty object is set.
    (
        r#"{"token":"TOKEN","notification":null,"android":{"ttl":null,"data":{}},"fcmOptions":{}}"#,
        r#"{"android":{"data":{}},"fcm_options":{}}"#,
    ),
    (
        r#"{"token":"TOKEN","androidV2":{"collapseKey":"k","remoteNotification":{"notification":{"id":3,"title":"t"},"useAsV1DataMessage":true}}}"#,
        r#"{"android_v2":{"collapse_key":"k","remote_notification":{"notification":{"id":3,"title":"t"},"use_as_v1_data_message":true}}}"#,
    ),
    (
        r#"{"token":"TOKEN","android_v2":{"backgroundSync":{}}}"#,
        r#"{"android_v2":{"background_sync":{}}}"#,
    ),
    // One of the two parts for Android, and nothing where the other could be.
    (
        r#"{"token":"TOKEN","android":null,"androidV2":{"restrictedSatelliteOk":true,"data":{"a":"b"}}}"#,
        r#"{"android_v2":{"restricted_satellite_ok":true,"data":{"a":"b"}}}"#,
    ),
    // Keys that only look reserved.
    (
        r#"{"token":"TOKEN","data":{"From":"1","googled":"2","gcm.note":"3","collapse_key":"4","":""}}"#,
        r#"{"data":{"From":"1","googled":"2","gcm.note":"3","collapse_key":"4","":""}}"#,
    ),
];

#[test]
fn the_device_gets_the_message_as_it_was_sent() {
    for (message, device) in PASSED_ON {
        let request = accept(&format!(r#"{{"message":{message}}}"#));
        assert_eq!(device_json(&request), *device, "{message}");
        assert_eq!(request.target, Target::Token(token()), "{message}");
        assert!(!request.validate_only);
    }
}

#[test]
fn every_field_of_the_reference_is_known() {
    let message = r##"{
        "token":"TOKEN","data":{"a":"b"},
        "notification":{"title":"t","body":"b","image":"i"},
        "android":{"collapse_key":"c","priority":"NORMAL","ttl":"1s","restricted_package_name":"p",
            "data":{"a":"b"},"fcm_options":{"analytics_label":"l"},"direct_boot_ok":true,
            "bandwidth_constrained_ok":true,"restricted_satellite_ok":true,
            "notification":{"title":"t","body":"b","icon":"i","color":"#a0B1c2","sound":"s","tag":"t",
                "click_action":"c","body_loc_key":"k","body_loc_args":["a"],"title_loc_key":"k",
                "title_loc_args":["a"],"channel_id":"c","ticker":"t","sticky":true,
                "event_time":"2026-01-01T00:00:00Z","local_only":true,
                "notification_priority":"PRIORITY_LOW","default_sound":true,
                "default_vibrate_timings":true,"default_light_settings":true,"vibrate_timings":["1s"],
                "visibility":"PUBLIC","notification_count":1,"image":"i",
                "light_settings":{"color":{"red":0,"green":0,"blue":0,"alpha":1},
                    "light_on_duration":"1s","light_off_duration":"1s"},
                "bypass_proxy_notification":true,"proxy":"ALLOW","click_action_type":0}},
        "webpush":{"headers":{"Urgency":"high"},"data":{"a":"b"},"notification":{},
            "fcm_options":{"link":"https://example.com","analytics_label":"l"}},
        "apns":{"headers":{"apns-id":"i"},"payload":{},"live_activity_token":"t",
            "fcm_options":{"analytics_label":"l","image":"i"}},
        "fcm_options":{"analytics_label":"l"}}"##;
    let request = accept(&format!(r#"{{"validateOnly":true,"message":{message}}}"#));
    assert!(request.validate_only);
    let mut sent: Value = serde_json::from_str(message).expect("JSON");
    sent.as_object_mut().expect("an object").remove("token");
    let got: Value = serde_json::from_str(device_json(&request)).expect("JSON");
    assert_eq!(got, sent);
}

#[test]
fn the_server_learns_what_it_needs() {
    let of = |android: &str| {
        let body = format!(r#"{{"message":{{"token":"TOKEN","data":{{"a":"b"}}{android}}}}}"#);
        accept(&body).message
    };
    let plain = of("");
    assert_eq!(plain.ttl_ms, TTL_MAX_MS);
    assert_eq!(plain.priority, Priority::Normal);
    assert_eq!(plain.collapse_key, None);
    assert_eq!(plain.restricted_package_name, None);
    assert_eq!(plain.analytics_label, None);

    for (ttl, ttl_ms) in [
        ("0s", 0),
        ("0.999999999s", 0),
        ("3.5s", 3_000),
        ("2419200s", TTL_MAX_MS),
        ("2419200.5s", TTL_MAX_MS),
    ] {
        let message = of(&format!(r#","android":{{"ttl":"{ttl}"}}"#));
        assert_eq!(message.ttl_ms, ttl_ms, "{ttl}");
    }
    for (priority, expected) in [
        (r#""HIGH""#, Priority::High),
        (r#""High""#, Priority::High),
        (r#""\u0068igh""#, Priority::High),
        ("1", Priority::High),
        (r#""1""#, Priority::High),
        (r#""0""#, Priority::Normal),
        (r#""normal""#, Priority::Normal),
        ("0", Priority::Normal),
        ("null", Priority::Normal),
    ] {
        let message = of(&format!(r#","android":{{"priority":{priority}}}"#));
        assert_eq!(message.priority, expected, "{priority}");
    }
    assert_eq!(of(r#","notification":{}"#).priority, Priority::High);
    assert_eq!(
        of(r#","android":{"notification":{}}"#).priority,
        Priority::High
    );
    let normal = of(r#","notification":{},"android":{"priority":"normal"}"#);
    assert_eq!(normal.priority, Priority::Normal);

    for platform in ["android", "androidV2"] {
        let message = of(&format!(
            r#","fcm_options":{{"analytics_label":"common"}},"{platform}":{{"collapseKey":"k\u0041","restrictedPackageName":"com.example.app","fcmOptions":{{"analyticsLabel":"own"}}}}"#
        ));
        assert_eq!(message.collapse_key.as_deref(), Some("kA"));
        let package = message.restricted_package_name.as_deref();
        assert_eq!(package, Some("com.example.app"));
        assert_eq!(message.analytics_label.as_deref(), Some("own"));
        assert_eq!(message.ttl_ms, TTL_MAX_MS);
    }
    let common = of(r#","fcm_options":{"analytics_label":"common"},"android":{"collapse_key":""}"#);
    assert_eq!(common.analytics_label.as_deref(), Some("common"));
    assert_eq!(common.collapse_key, None, "the empty text is no key");
}

/// Whole bodies: what is repeated or not set leaves no trace, be it wrong or not.
#[test]
fn the_last_of_repeated_names_wins_at_the_top_too() {
    for (body, is_dry) in [
        (
            r#"{"message":{"to":1,"topic":7},"message":{"token":"TOKEN"}}"#,
            false,
        ),
        (r#"{"message":[],"message":{"token":"TOKEN"}}"#, false),
        (
            r#"{"validate_only":"no","message":{"token":"TOKEN"},"validateOnly":true}"#,
            true,
        ),
        (
            r#"{"validateOnly":true,"message":{"token":"TOKEN"},"validate_only":null}"#,
            false,
        ),
        (r#"{"message":{"token":"x","token":"TOKEN"}}"#, false),
        (
            r#"{"message":{"fid":"x","fid":null,"token":"TOKEN"}}"#,
            false,
        ),
        (r#"{"message":{"tok\u0065n":"TOKEN"}}"#, false),
    ] {
        let request = accept(body);
        assert_eq!(request.target, Target::Token(token()), "{body}");
        assert_eq!(request.validate_only, is_dry, "{body}");
    }
}

/// Every name of every enumeration, in capitals, in small letters, as its number, and as its number
/// in a string.
#[test]
fn enumerations_are_taken_in_every_form() {
    for (field, names) in [
        ("priority", &["NORMAL", "HIGH"][..]),
        (
            "notification.notification_priority",
            &[
                "PRIORITY_UNSPECIFIED",
                "PRIORITY_MIN",
                "PRIORITY_LOW",
                "PRIORITY_DEFAULT",
                "PRIORITY_HIGH",
                "PRIORITY_MAX",
            ],
        ),
        (
            "notification.visibility",
            &["VISIBILITY_UNSPECIFIED", "PRIVATE", "PUBLIC", "SECRET"],
        ),
        (
            "notification.proxy",
            &["PROXY_UNSPECIFIED", "ALLOW", "DENY", "IF_PRIORITY_LOWERED"],
        ),
    ] {
        let within = |value: &str| match field.split_once('.') {
            Some((outer, inner)) => format!(r#"{{"{outer}":{{"{inner}":{value}}}}}"#),
            None => format!(r#"{{"{field}":{value}}}"#),
        };
        let body = |value: &str| {
            let android = within(value);
            format!(r#"{{"message":{{"token":"TOKEN","android":{android}}}}}"#)
        };
        for (number, name) in names.iter().enumerate() {
            let small = name.to_lowercase();
            for value in [
                format!(r#""{name}""#),
                format!(r#""{small}""#),
                format!("{number}"),
                format!(r#""{number}""#),
            ] {
                let expected = format!(r#"{{"android":{}}}"#, within(&value));
                assert_eq!(device_json(&accept(&body(&value))), expected);
            }
        }
        let beyond = names.len();
        for value in [
            format!("{beyond}"),
            format!(r#""{beyond}""#),
            r#""+1""#.to_owned(),
            r#""""#.to_owned(),
            "-1".to_owned(),
            "true".to_owned(),
        ] {
            refuse(&body(&value));
        }
    }
}

/// The documents of RuStore's own description, and what its senders write otherwise than FCM's.
#[test]
fn the_dialect_of_rustore_is_understood() {
    for (message, device) in [
        (
            r#"{"token":"TOKEN","notification":{"body":"b","title":"t","image":"https://example.com/i.png"}}"#,
            r#"{"notification":{"body":"b","title":"t","image":"https://example.com/i.png"}}"#,
        ),
        // Without a part for Android the push lives as long as it may.
        (
            r#"{"token":"TOKEN","data":{"k":"v"}}"#,
            r#"{"data":{"k":"v"}}"#,
        ),
        (
            r##"{"token":"TOKEN","android":{"ttl":"3.5s","notification":{"title":"t","body":"b","icon":"i","color":"#00ff00","image":"u","channel_id":"c","click_action":"a","click_action_type":0}}}"##,
            r##"{"android":{"ttl":"3.5s","notification":{"title":"t","body":"b","icon":"i","color":"#00ff00","image":"u","channel_id":"c","click_action":"a","click_action_type":0}}}"##,
        ),
        (
            r#"{"token":"TOKEN","android":{"priority":"HIGH","notification":{"click_action":"app://x","click_action_type":1}}}"#,
            r#"{"android":{"priority":"HIGH","notification":{"click_action":"app://x","click_action_type":1}}}"#,
        ),
        (
            r#"{"token":"TOKEN","android":{"notification":{"clickActionType":"1"}}}"#,
            r#"{"android":{"notification":{"click_action_type":"1"}}}"#,
        ),
    ] {
        let request = accept(&format!(r#"{{"message":{message}}}"#));
        assert_eq!(device_json(&request), device);
    }
    let lives = |android: &str| {
        let body = format!(r#"{{"message":{{"token":"TOKEN","data":{{"k":"v"}}{android}}}}}"#);
        accept(&body).message.ttl_ms
    };
    assert_eq!(lives(""), TTL_MAX_MS);
    assert_eq!(lives(r#","android":{}"#), TTL_MAX_MS);
    // Here the two contradict each other, and FCM is followed: for RuStore this is four weeks.
    assert_eq!(lives(r#","android":{"ttl":"0s"}"#), 0);
    // What RuStore adds stands only where RuStore has it.
    refuse(r#"{"message":{"token":"TOKEN","notification":{"click_action_type":1}}}"#);
}

#[test]
fn topics_and_conditions_are_targets() {
    let topic = accept(r#"{"message":{"topic":"news-2.0_~%"}}"#);
    let name = TopicName::parse("news-2.0_~%").expect("a name");
    assert_eq!(topic.target, Target::Many(Reach::Topic(name)));
    let text = "'a' in topics && !('b' in topics)";
    let condition = accept(&format!(r#"{{"message":{{"condition":"{text}"}}}}"#));
    let parsed = Condition::parse(text).expect("a condition");
    assert_eq!(condition.target, Target::Many(Reach::Condition(parsed)));
}

#[test]
fn sizes_count_what_an_android_device_gets() {
    let x = |count: usize| "x".repeat(count);
    let fits = [
        format!(r#""data":{{"é":"{}"}}"#, x(4094)),
        // Escapes count as what they stand for.
        format!(r#""data":{{"kk":"{}"}}"#, "\\u00e9".repeat(2047)),
        format!(r#""notification":{{"title":"{}"}}"#, x(4096)),
        format!(
            r#""data":{{"a":"b"}},"android":{{"notification":{{"titleLocArgs":["{}"],"priority_":null}}}}"#,
            x(4094)
        )
        .replace(r#","priority_":null"#, ""),
        // Android's own data replaces the common one; an empty one is none.
        format!(
            r#""data":{{"k":"{}"}},"android":{{"data":{{"k":"{}"}}}}"#,
            x(9000),
            x(4095)
        ),
        format!(r#""apns":{{"payload":{{  "k":"{}"}}}}"#, x(4096 - 8)),
        format!(r#""webpush":{{"notification":{{"k":"{}"}}}}"#, x(4096 - 8)),
        format!(
            r#""webpush":{{"data":{{"k":"{}"}},"headers":{{"k":"{}"}}}}"#,
            x(4096 - 8),
            x(9000)
        ),
        format!(r#""android":{{"collapse_key":"{}"}}"#, x(9000)),
    ];
    for payload in &fits {
        accept(&format!(r#"{{"message":{{"topic":"t",{payload}}}}}"#));
    }
    for payload in [
        format!(r#""data":{{"é":"{}"}}"#, x(4095)),
        format!(r#""notification":{{"title":"a","body":"{}"}}"#, x(4096)),
        format!(r#""data":{{"k":"{}"}},"android":{{"data":{{}}}}"#, x(4096)),
        format!(
            r#""data":{{"k":"{}"}},"notification":{{"title":"{}"}},"android":{{"notification":{{"body":"{}"}}}}"#,
            x(1365),
            x(1365),
            x(1366)
        ),
        format!(
            r#""android_v2":{{"remote_notification":{{"notification":{{"body":"{}"}}}}}}"#,
            x(4097)
        ),
        format!(r#""apns":{{"payload":{{"k":"{}"}}}}"#, x(4096 - 7)),
        format!(r#""webpush":{{"notification":{{"k":"{}"}}}}"#, x(4096 - 7)),
        format!(r#""webpush":{{"data":{{"k":"{}"}}}}"#, x(4096 - 7)),
    ] {
        let error = refuse(&format!(r#"{{"message":{{"topic":"t",{payload}}}}}"#));
        assert_eq!(
            error.message(),
            "Message is too large. The maximum is 4K (4096 bytes)."
        );
    }
}

#[test]
fn limits_are_settings() {
    let limits = MessageLimits {
        payload_bytes: 10,
        platform_payload_bytes: 20,
        ..MessageLimits::default()
    };
    let parse = |message: &str| {
        let body = format!(r#"{{"message":{{"topic":"t",{message}}}}}"#);
        parse_send(body.as_bytes(), &limits).map_err(|error| error.message().to_owned())
    };
    assert!(parse(r#""data":{"12345":"67890"},"apns":{"payload":{"k":"123456789012"}}"#).is_ok());
    assert_eq!(
        parse(r#""data":{"12345":"678901"}"#).map(drop),
        Err("Message is too large. The maximum is 10 bytes.".to_owned())
    );
    assert_eq!(
        parse(r#""apns":{"payload":{"k":"1234567890123"}}"#).map(drop),
        Err("Message is too large. The maximum is 20 bytes.".to_owned())
    );
}
