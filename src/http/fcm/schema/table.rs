//! The table itself: every message of a send request, with its fields.

use super::{Enumeration, Field, Scalar, Schema, Shape};

/// The body of a send.
pub static SEND_REQUEST: Schema = Schema {
    type_name: "google.firebase.fcm.v1.SendMessageRequest",
    fields: &[&[message("message", &MESSAGE), flag("validate_only")]],
};

static MESSAGE: Schema = Schema {
    type_name: "google.firebase.fcm.v1.Message",
    fields: &[&[
        target("token"),
        target("fid"),
        target("topic"),
        target("condition"),
        Field {
            // Output only: a sender may echo it, a device has no use for it.
            for_device: false,
            ..text("name")
        },
        text_map("data"),
        message("notification", &NOTIFICATION),
        message("android", &ANDROID),
        message("android_v2", &ANDROID_V2),
        message("webpush", &WEBPUSH),
        message("apns", &APNS),
        message("fcm_options", &FCM_OPTIONS),
    ]],
};

static NOTIFICATION: Schema = Schema {
    type_name: "google.firebase.fcm.v1.Notification",
    fields: &[&[text("title"), text("body"), text("image")]],
};

static ANDROID: Schema = Schema {
    type_name: "google.firebase.fcm.v1.AndroidConfig",
    fields: &[
        ANDROID_COMMON,
        &[
            choice("priority", &PRIORITY),
            duration("ttl"),
            message("notification", &ANDROID_NOTIFICATION),
            message("fcm_options", &ANDROID_FCM_OPTIONS),
        ],
    ],
};

static ANDROID_V2: Schema = Schema {
    type_name: "google.firebase.fcm.v1.AndroidConfigV2",
    fields: &[
        ANDROID_COMMON,
        &[
            message("fcm_options", &ANDROID_FCM_OPTIONS),
            alternative(
                "remote_notification",
                "payload",
                Shape::Message(&REMOTE_NOTIFICATION),
            ),
            alternative(
                "background_sync",
                "payload",
                Shape::Message(&BACKGROUND_SYNC),
            ),
        ],
    ],
};

const ANDROID_COMMON: &[Field] = &[
    text("collapse_key"),
    text_map("data"),
    text("restricted_package_name"),
    flag("direct_boot_ok"),
    flag("bandwidth_constrained_ok"),
    flag("restricted_satellite_ok"),
];

static REMOTE_NOTIFICATION: Schema = Schema {
    type_name: "google.firebase.fcm.v1.RemoteNotification",
    fields: &[&[
        message("notification", &ANDROID_NOTIFICATION_V2),
        flag("mutable_content"),
        flag("use_as_v1_data_message"),
    ]],
};

static BACKGROUND_SYNC: Schema = Schema {
    type_name: "google.firebase.fcm.v1.BackgroundSync",
    fields: &[],
};

static ANDROID_NOTIFICATION: Schema = Schema {
    type_name: "google.firebase.fcm.v1.AndroidNotification",
    fields: &[
        ANDROID_NOTIFICATION_COMMON,
        &[
            flag("bypass_proxy_notification"),
            choice("proxy", &PROXY),
            // RuStore's addition: 0 opens an intent action, 1 a deep link.
            int32("click_action_type"),
        ],
    ],
};

static ANDROID_NOTIFICATION_V2: Schema = Schema {
    type_name: "google.firebase.fcm.v1.AndroidNotificationV2",
    fields: &[ANDROID_NOTIFICATION_COMMON, &[int32("id")]],
};

const ANDROID_NOTIFICATION_COMMON: &[Field] = &[
    text("title"),
    text("body"),
    text("icon"),
    text("color"),
    text("sound"),
    text("tag"),
    text("click_action"),
    text("body_loc_key"),
    field("body_loc_args", Shape::Many(Scalar::Text)),
    text("title_loc_key"),
    field("title_loc_args", Shape::Many(Scalar::Text)),
    text("channel_id"),
    text("ticker"),
    flag("sticky"),
    field("event_time", Shape::One(Scalar::Timestamp)),
    flag("local_only"),
    choice("notification_priority", &NOTIFICATION_PRIORITY),
    flag("default_sound"),
    flag("default_vibrate_timings"),
    flag("default_light_settings"),
    field("vibrate_timings", Shape::Many(Scalar::Duration)),
    choice("visibility", &VISIBILITY),
    int32("notification_count"),
    message("light_settings", &LIGHT_SETTINGS),
    text("image"),
];

static LIGHT_SETTINGS: Schema = Schema {
    type_name: "google.firebase.fcm.v1.LightSettings",
    fields: &[&[
        message("color", &COLOR),
        duration("light_on_duration"),
        duration("light_off_duration"),
    ]],
};

static COLOR: Schema = Schema {
    type_name: "google.type.Color",
    fields: &[&[float("red"), float("green"), float("blue"), float("alpha")]],
};

static WEBPUSH: Schema = Schema {
    type_name: "google.firebase.fcm.v1.WebpushConfig",
    fields: &[&[
        text_map("headers"),
        text_map("data"),
        field("notification", Shape::FreeForm),
        message("fcm_options", &WEBPUSH_FCM_OPTIONS),
    ]],
};

static APNS: Schema = Schema {
    type_name: "google.firebase.fcm.v1.ApnsConfig",
    fields: &[&[
        text_map("headers"),
        field("payload", Shape::FreeForm),
        message("fcm_options", &APNS_FCM_OPTIONS),
        text("live_activity_token"),
    ]],
};

static FCM_OPTIONS: Schema = Schema {
    type_name: "google.firebase.fcm.v1.FcmOptions",
    fields: &[&[text("analytics_label")]],
};

static ANDROID_FCM_OPTIONS: Schema = Schema {
    type_name: "google.firebase.fcm.v1.AndroidFcmOptions",
    fields: &[&[text("analytics_label")]],
};

static WEBPUSH_FCM_OPTIONS: Schema = Schema {
    type_name: "google.firebase.fcm.v1.WebpushFcmOptions",
    fields: &[&[text("link"), text("analytics_label")]],
};

static APNS_FCM_OPTIONS: Schema = Schema {
    type_name: "google.firebase.fcm.v1.ApnsFcmOptions",
    fields: &[&[text("analytics_label"), text("image")]],
};

static PRIORITY: Enumeration = Enumeration {
    type_name: "google.firebase.fcm.v1.AndroidMessagePriority",
    names: &["NORMAL", "HIGH"],
};

static NOTIFICATION_PRIORITY: Enumeration = Enumeration {
    type_name: "google.firebase.fcm.v1.AndroidNotification.NotificationPriority",
    names: &[
        "PRIORITY_UNSPECIFIED",
        "PRIORITY_MIN",
        "PRIORITY_LOW",
        "PRIORITY_DEFAULT",
        "PRIORITY_HIGH",
        "PRIORITY_MAX",
    ],
};

static VISIBILITY: Enumeration = Enumeration {
    type_name: "google.firebase.fcm.v1.AndroidNotification.Visibility",
    names: &["VISIBILITY_UNSPECIFIED", "PRIVATE", "PUBLIC", "SECRET"],
};

static PROXY: Enumeration = Enumeration {
    type_name: "google.firebase.fcm.v1.AndroidNotification.Proxy",
    names: &["PROXY_UNSPECIFIED", "ALLOW", "DENY", "IF_PRIORITY_LOWERED"],
};

const fn field(name: &'static str, shape: Shape) -> Field {
    Field {
        name,
        shape,
        oneof: None,
        for_device: true,
    }
}

const fn target(name: &'static str) -> Field {
    Field {
        name,
        shape: Shape::One(Scalar::Text),
        oneof: Some("target"),
        for_device: false,
    }
}

const fn alternative(name: &'static str, group: &'static str, shape: Shape) -> Field {
    Field {
        name,
        shape,
        oneof: Some(group),
        for_device: true,
    }
}

const fn text(name: &'static str) -> Field {
    field(name, Shape::One(Scalar::Text))
}

const fn flag(name: &'static str) -> Field {
    field(name, Shape::One(Scalar::Flag))
}

const fn int32(name: &'static str) -> Field {
    field(name, Shape::One(Scalar::Int32))
}

const fn float(name: &'static str) -> Field {
    field(name, Shape::One(Scalar::Float))
}

const fn duration(name: &'static str) -> Field {
    field(name, Shape::One(Scalar::Duration))
}

const fn choice(name: &'static str, of: &'static Enumeration) -> Field {
    field(name, Shape::One(Scalar::Choice(of)))
}

const fn text_map(name: &'static str) -> Field {
    field(name, Shape::TextMap)
}

const fn message(name: &'static str, of: &'static Schema) -> Field {
    field(name, Shape::Message(of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_name_a_field() {
        for (given, field) in [
            ("collapse_key", "collapse_key"),
            ("collapseKey", "collapse_key"),
            ("restrictedPackageName", "restricted_package_name"),
        ] {
            assert_eq!(ANDROID.find(given).map(|found| found.name), Some(field));
        }
        assert_eq!(
            MESSAGE.find("androidV2").map(|found| found.name),
            Some("android_v2")
        );
        for stranger in [
            "",
            "collapsekey",
            "CollapseKey",
            "collapse_Key",
            "collapseKeys",
            "collapse",
        ] {
            assert!(ANDROID.find(stranger).is_none(), "{stranger}");
        }
        for half in ["restricted_packageName", "restrictedPackage_name"] {
            assert!(ANDROID.find(half).is_none(), "{half}");
        }
    }

    #[test]
    fn no_name_is_in_a_message_twice() {
        let mut waiting = vec![&SEND_REQUEST];
        let mut seen: Vec<&str> = Vec::new();
        while let Some(schema) = waiting.pop() {
            if seen.contains(&schema.type_name) {
                continue;
            }
            seen.push(schema.type_name);
            for field in schema.fields.iter().flat_map(|group| group.iter()) {
                let found = schema
                    .find(field.name)
                    .expect("a field is found by its name");
                assert!(
                    std::ptr::eq(found, field),
                    "{}.{}",
                    schema.type_name,
                    field.name
                );
                if let Shape::Message(inner) = field.shape {
                    waiting.push(inner);
                }
            }
        }
        assert_eq!(seen.len(), 17, "{seen:?}");
    }

    #[test]
    fn map_entries_have_a_type_name() {
        let data = MESSAGE.find("data").expect("data is a field");
        assert_eq!(
            data.shape.label(&MESSAGE, data).to_string(),
            "type.googleapis.com/google.firebase.fcm.v1.Message.DataEntry"
        );
    }
}
