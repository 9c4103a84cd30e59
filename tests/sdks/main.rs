//! The official SDKs, unchanged, against the real binary: what they send arrives, and what is wrong
//! is told in their own words for it.
//!
//! `README.md` says how they are led to Herald. An SDK whose toolchain is missing is skipped, loudly.

#[path = "../scenarios/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "scenarios use the rest of it")]
mod harness;
mod names;
mod plan;
mod sdk;
mod story;

use sdk::{Language, Sdk, Way};

/// An SDK's own words for the faults that FCM tells apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words {
    unregistered: &'static str,
    sender_id_mismatch: &'static str,
    invalid_argument: &'static str,
    quota_exceeded: &'static str,
    unavailable: &'static str,
    unauthenticated: &'static str,
}

const PYTHON: Words = Words {
    unregistered: "UnregisteredError",
    sender_id_mismatch: "SenderIdMismatchError",
    invalid_argument: "InvalidArgumentError",
    quota_exceeded: "QuotaExceededError",
    unavailable: "UnavailableError",
    unauthenticated: "UnauthenticatedError",
};

/// Node calls a wrong service token a fault of the third party's.
const NODE: Words = Words {
    unregistered: "messaging/registration-token-not-registered",
    sender_id_mismatch: "messaging/mismatched-credential",
    invalid_argument: "messaging/invalid-argument",
    quota_exceeded: "messaging/message-rate-exceeded",
    unavailable: "messaging/server-unavailable",
    unauthenticated: "messaging/third-party-auth-error",
};

const GO: Words = Words {
    unregistered: "messaging.IsUnregistered",
    sender_id_mismatch: "messaging.IsSenderIDMismatch",
    invalid_argument: "messaging.IsInvalidArgument",
    quota_exceeded: "messaging.IsQuotaExceeded",
    unavailable: "messaging.IsUnavailable",
    unauthenticated: "errorutils.IsUnauthenticated",
};

const JAVA: Words = Words {
    unregistered: "MessagingErrorCode.UNREGISTERED",
    sender_id_mismatch: "MessagingErrorCode.SENDER_ID_MISMATCH",
    invalid_argument: "MessagingErrorCode.INVALID_ARGUMENT",
    quota_exceeded: "MessagingErrorCode.QUOTA_EXCEEDED",
    unavailable: "MessagingErrorCode.UNAVAILABLE",
    unauthenticated: "ErrorCode.UNAUTHENTICATED",
};

#[tokio::test(flavor = "multi_thread")]
async fn python() {
    let Some(sdk) = Sdk::installed(Language::Python, "", PYTHON) else {
        return;
    };
    for way in [Way::Named, Way::Told] {
        story::a_day_of_sends(&sdk, &way).await;
    }
    story::all_refusals(&sdk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_13() {
    node("firebase-admin-13").await;
}

/// Says that it needs Node 22, and runs on 20 as well.
#[tokio::test(flavor = "multi_thread")]
async fn node_14() {
    if sdk::node_is_older_than(20) {
        sdk::skipped("node", "version 14 needs node of 20 or newer");
        return;
    }
    node("firebase-admin-14").await;
}

/// Named both over HTTP/2, which is what this SDK does with many messages at a time, and as
/// `enableLegacyHttpTransport` has it.
async fn node(package: &'static str) {
    let Some(sdk) = Sdk::installed(Language::Node, package, NODE) else {
        return;
    };
    for way in [Way::Named, Way::NamedOverHttp1, Way::Told] {
        story::a_day_of_sends(&sdk, &way).await;
    }
    story::all_refusals(&sdk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn go() {
    let Some(sdk) = Sdk::installed(Language::Go, "", GO) else {
        return;
    };
    // The SDK has an option for it, and asks no C library for names.
    story::a_day_of_sends(&sdk, &Way::Told).await;
    story::all_refusals(&sdk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn java() {
    let Some(sdk) = Sdk::installed(Language::Java, "", JAVA) else {
        return;
    };
    for way in [Way::Named, Way::Told] {
        story::a_day_of_sends(&sdk, &way).await;
    }
    story::all_refusals(&sdk).await;
}
