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
mod topics;
mod words;

use sdk::{Language, Sdk, Way};
use topics::Managing;

#[tokio::test(flavor = "multi_thread")]
async fn python() {
    let Some(sdk) = Sdk::installed(Language::Python, "", words::PYTHON) else {
        return;
    };
    for way in [Way::Named, Way::Told] {
        story::a_day_of_sends(&sdk, &way).await;
        topics::topics(&sdk, way, &words::PYTHON_TOPICS).await;
    }
    story::all_refusals(&sdk).await;
    topics::topic_refusals(&sdk, &words::PYTHON_TOPICS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_13() {
    node("firebase-admin-13", &words::NODE_13_TOPICS).await;
}

/// Says that it needs Node 22, and runs on 20 as well.
#[tokio::test(flavor = "multi_thread")]
async fn node_14() {
    if sdk::node_is_older_than(20) {
        sdk::skipped("node", "version 14 needs node of 20 or newer");
        return;
    }
    node("firebase-admin-14", &words::NODE_14_TOPICS).await;
}

/// Named both over HTTP/2, which is what this SDK does with many messages at a time, and as
/// `enableLegacyHttpTransport` has it.
async fn node(package: &'static str, ways: &[Managing]) {
    let Some(sdk) = Sdk::installed(Language::Node, package, words::NODE) else {
        return;
    };
    for way in [Way::Named, Way::NamedOverHttp1, Way::Told] {
        story::a_day_of_sends(&sdk, &way).await;
        topics::topics(&sdk, way, ways).await;
    }
    story::all_refusals(&sdk).await;
    topics::topic_refusals(&sdk, ways).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn go() {
    let Some(sdk) = Sdk::installed(Language::Go, "", words::GO) else {
        return;
    };
    for way in [Way::Named, Way::Told] {
        story::a_day_of_sends(&sdk, &way).await;
        topics::topics(&sdk, way, &words::GO_TOPICS).await;
    }
    story::all_refusals(&sdk).await;
    topics::topic_refusals(&sdk, &words::GO_TOPICS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn java() {
    let Some(sdk) = Sdk::installed(Language::Java, "", words::JAVA) else {
        return;
    };
    for way in [Way::Named, Way::Told] {
        story::a_day_of_sends(&sdk, &way).await;
        topics::topics(&sdk, way, &words::JAVA_TOPICS).await;
    }
    story::all_refusals(&sdk).await;
    topics::topic_refusals(&sdk, &words::JAVA_TOPICS).await;
}
