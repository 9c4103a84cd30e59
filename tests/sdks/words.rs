//! Every SDK's own words for what can be wrong.

use crate::topics::Managing;

/// An SDK's own words for the faults that FCM tells apart.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    pub unregistered: &'static str,
    pub sender_id_mismatch: &'static str,
    pub invalid_argument: &'static str,
    pub quota_exceeded: &'static str,
    pub unavailable: &'static str,
    pub unauthenticated: &'static str,
    /// For a condition that is none: FCM gives no code of its own there.
    pub bad_condition: &'static str,
}

pub const PYTHON: Words = Words {
    unregistered: "UnregisteredError",
    sender_id_mismatch: "SenderIdMismatchError",
    invalid_argument: "InvalidArgumentError",
    quota_exceeded: "QuotaExceededError",
    unavailable: "UnavailableError",
    unauthenticated: "UnauthenticatedError",
    bad_condition: "InvalidArgumentError",
};

/// Node calls a wrong service token a fault of the third party's.
pub const NODE: Words = Words {
    unregistered: "messaging/registration-token-not-registered",
    sender_id_mismatch: "messaging/mismatched-credential",
    invalid_argument: "messaging/invalid-argument",
    quota_exceeded: "messaging/message-rate-exceeded",
    unavailable: "messaging/server-unavailable",
    unauthenticated: "messaging/third-party-auth-error",
    bad_condition: "messaging/invalid-argument",
};

pub const GO: Words = Words {
    unregistered: "messaging.IsUnregistered",
    sender_id_mismatch: "messaging.IsSenderIDMismatch",
    invalid_argument: "messaging.IsInvalidArgument",
    quota_exceeded: "messaging.IsQuotaExceeded",
    unavailable: "messaging.IsUnavailable",
    unauthenticated: "errorutils.IsUnauthenticated",
    bad_condition: "errorutils.IsInvalidArgument",
};

pub const JAVA: Words = Words {
    unregistered: "MessagingErrorCode.UNREGISTERED",
    sender_id_mismatch: "MessagingErrorCode.SENDER_ID_MISMATCH",
    invalid_argument: "MessagingErrorCode.INVALID_ARGUMENT",
    quota_exceeded: "MessagingErrorCode.QUOTA_EXCEEDED",
    unavailable: "MessagingErrorCode.UNAVAILABLE",
    unauthenticated: "ErrorCode.UNAUTHENTICATED",
    bad_condition: "ErrorCode.INVALID_ARGUMENT",
};

/// In Python's words, which are the server's.
const V1: Managing = Managing {
    how: "",
    is_one_request: false,
    unregistered: "UNREGISTERED",
    foreign: "SENDER_ID_MISMATCH",
    malformed: "INVALID_ARGUMENT",
    bad_topic: "INVALID_ARGUMENT",
    too_many_topics: "FAILED_PRECONDITION",
    unauthenticated: "UNAUTHENTICATED",
    quota_exceeded: Some("QUOTA_EXCEEDED"),
};

/// The words of the Instance ID service, and Go's for calls that fail.
const INSTANCE_ID: Managing = Managing {
    how: "",
    is_one_request: true,
    unregistered: "NOT_FOUND",
    foreign: "PERMISSION_DENIED",
    malformed: "INVALID_ARGUMENT",
    bad_topic: "errorutils.IsInvalidArgument",
    too_many_topics: "TOO_MANY_TOPICS",
    unauthenticated: "errorutils.IsUnauthenticated",
    quota_exceeded: Some("errorutils.IsResourceExhausted"),
};

pub const GO_TOPICS: [Managing; 1] = [INSTANCE_ID];

pub const PYTHON_TOPICS: [Managing; 3] = [
    Managing {
        quota_exceeded: None,
        ..V1
    },
    Managing {
        how: "concurrently",
        ..V1
    },
    Managing {
        how: "legacy",
        bad_topic: "InvalidArgumentError",
        unauthenticated: "UnauthenticatedError",
        quota_exceeded: None,
        ..INSTANCE_ID
    },
];

pub const NODE_13_TOPICS: [Managing; 1] = [Managing {
    unregistered: "messaging/registration-token-not-registered",
    foreign: "messaging/authentication-error",
    malformed: "messaging/invalid-registration-token",
    bad_topic: "messaging/invalid-argument",
    too_many_topics: "messaging/too-many-topics",
    unauthenticated: "messaging/third-party-auth-error",
    quota_exceeded: Some("messaging/message-rate-exceeded"),
    ..INSTANCE_ID
}];

/// It knows fewer words of the newer API than of the older one.
pub const NODE_14_TOPICS: [Managing; 2] = [
    Managing {
        unregistered: "messaging/registration-token-not-registered",
        foreign: "messaging/unknown-error",
        malformed: "messaging/invalid-registration-token",
        bad_topic: "messaging/invalid-registration-token",
        too_many_topics: "messaging/unknown-error",
        unauthenticated: "messaging/unknown-error",
        quota_exceeded: Some("messaging/unknown-error"),
        ..V1
    },
    Managing {
        how: "legacy",
        ..NODE_13_TOPICS[0]
    },
];

pub const JAVA_TOPICS: [Managing; 2] = [
    Managing {
        unregistered: "unregistered",
        foreign: "sender-id-mismatch",
        malformed: "invalid-argument",
        bad_topic: "invalid-argument",
        too_many_topics: "failed-precondition",
        unauthenticated: "unauthenticated",
        quota_exceeded: Some("quota-exceeded"),
        ..V1
    },
    Managing {
        how: "legacy",
        unregistered: "registration-token-not-registered",
        foreign: "permission-denied",
        malformed: "invalid-argument",
        bad_topic: "ErrorCode.INVALID_ARGUMENT",
        too_many_topics: "too-many-topics",
        unauthenticated: "ErrorCode.UNAUTHENTICATED",
        quota_exceeded: Some("ErrorCode.RESOURCE_EXHAUSTED"),
        ..INSTANCE_ID
    },
];
