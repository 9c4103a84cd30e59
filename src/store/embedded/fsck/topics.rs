//! Checks what a store at rest says of topics: subscriptions stand under their topic and under their
//! token, and whatever belongs to a push to many belongs to one that is not finished.

use fjall::UserKey;

use super::super::engine::Engine;
use super::super::record::{Record, Undecodable, kind, token_key};
use super::super::topic_record::{
    decode_checkpoint, decode_fan_out, decode_member, decode_since, fan_out_key, fan_out_of,
    member_key, subscription_of,
};
use super::streams::{Balance, Follower};
use super::{Entry, FsckReport, all_of};
use crate::store::StoreError;
use crate::token::TokenId;
use crate::topic::TopicName;

/// Checks everything of topics, and counts it.
pub(super) fn check_topics(engine: &Engine, report: &mut FsckReport) -> Result<(), StoreError> {
    let mut balance = Balance::new();
    check_subscriptions(engine, &mut balance, report)?;
    let members = check_members(engine, &mut balance, report)?;
    if !balance.is_even() {
        name_subscriptions_without_member(engine, report)?;
    }
    if members != report.subscriptions {
        let subscriptions = report.subscriptions;
        report.fault(format!(
            "topics have {members} members, tokens {subscriptions} subscriptions"
        ));
    }
    check_fan_outs(engine, report)
}

/// A subscription as its token has it.
struct Subscription {
    token: TokenId,
    topic: TopicName,
    /// Where its topic has to name the token. Of which project that is the token's record says, if
    /// there is one still.
    member: Option<UserKey>,
}

/// All subscriptions in the order of their tokens, beside the records of those.
fn subscriptions(
    engine: &Engine,
) -> impl Iterator<Item = Result<Result<Subscription, Undecodable>, StoreError>> + use<> {
    let mut records = Follower::new(all_of(engine, kind::TOKEN));
    all_of(engine, kind::SUBSCRIPTION).map(move |subscription| {
        let (key, value) = subscription?;
        let decoded = decode_since(&value).and_then(|_| subscription_of(&key));
        let (token, topic) = match decoded {
            Ok(decoded) => decoded,
            Err(fault) => return Ok(Err(fault)),
        };
        let record = records.at(&token_key(token))?;
        let record = record.and_then(|value| Record::decode(value).ok());
        let member = record.map(|record| member_key(record.project, topic.digest(), token));
        Ok(Ok(Subscription {
            token,
            topic,
            member,
        }))
    })
}

fn check_subscriptions(
    engine: &Engine,
    balance: &mut Balance,
    report: &mut FsckReport,
) -> Result<(), StoreError> {
    for subscription in subscriptions(engine) {
        report.subscriptions += 1;
        match subscription? {
            Ok(subscription) => subscription
                .member
                .iter()
                .for_each(|member| balance.expect(member)),
            Err(_) => report.fault("a subscription does not decode"),
        }
    }
    Ok(())
}

fn check_members(
    engine: &Engine,
    balance: &mut Balance,
    report: &mut FsckReport,
) -> Result<u64, StoreError> {
    let mut members = 0;
    for member in all_of(engine, kind::MEMBER) {
        let (key, value) = member?;
        members += 1;
        balance.meet(&key);
        if let Err(fault) = decode_member(&key, &value) {
            report.fault(format!("a member of a topic does not decode: {fault}"));
        }
    }
    Ok(members)
}

fn name_subscriptions_without_member(
    engine: &Engine,
    report: &mut FsckReport,
) -> Result<(), StoreError> {
    for subscription in subscriptions(engine) {
        let Ok(Subscription {
            token,
            topic,
            member: Some(member),
        }) = subscription?
        else {
            continue;
        };
        if engine.get(&member)?.is_none() {
            report.fault(format!("{token:?}: its topic {topic} does not know it"));
        }
    }
    Ok(())
}

fn check_fan_outs(engine: &Engine, report: &mut FsckReport) -> Result<(), StoreError> {
    for fan_out in all_of(engine, kind::FAN_OUT) {
        let (key, value) = fan_out?;
        report.fan_outs += 1;
        if let Err(fault) = fan_out_of(&key).and_then(|id| decode_fan_out(id, &value)) {
            report.fault(format!("a push to many does not decode: {fault}"));
        }
    }
    let mut fan_outs = Follower::new(all_of(engine, kind::FAN_OUT));
    for checkpoint in all_of(engine, kind::CHECKPOINT) {
        let (key, value) = checkpoint?;
        if let Err(fault) = decode_checkpoint(&value) {
            report.fault(format!("a checkpoint does not decode: {fault}"));
        }
        check_belongs(&mut fan_outs, &key, "a checkpoint", report)?;
    }
    let mut fan_outs = Follower::new(all_of(engine, kind::FAN_OUT));
    for mark in all_of(engine, kind::COPY) {
        check_belongs(&mut fan_outs, &mark?.0, "the mark of a copy", report)?;
    }
    Ok(())
}

/// What begins like the key of a push to many stands in the order of these.
fn check_belongs(
    fan_outs: &mut Follower<impl Iterator<Item = Entry>>,
    key: &[u8],
    what: &str,
    report: &mut FsckReport,
) -> Result<(), StoreError> {
    match fan_out_of(key) {
        Ok(message_id) if fan_outs.at(&fan_out_key(message_id))?.is_some() => {}
        Ok(message_id) => {
            report.fault(format!("{what} belongs to {message_id}, which is finished"));
        }
        Err(fault) => report.fault(format!("{what} has a key that does not decode: {fault}")),
    }
    Ok(())
}
