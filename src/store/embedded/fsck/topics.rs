//! Checks what a store at rest says of topics: subscriptions stand under their topic and under their
//! token, and whatever belongs to a push to many belongs to one that is not finished.

use super::super::engine::Engine;
use super::super::record::{Record, kind, token_key};
use super::super::topic_record::{
    decode_checkpoint, decode_fan_out, decode_member, decode_since, fan_out_key, fan_out_of,
    member_key, subscription_of,
};
use super::{FsckReport, all_of};
use crate::store::StoreError;

/// Checks everything of topics, and counts it.
pub(super) fn check_topics(engine: &Engine, report: &mut FsckReport) -> Result<(), StoreError> {
    let members = count_members(engine, report)?;
    check_subscriptions(engine, report)?;
    if members != report.subscriptions {
        let subscriptions = report.subscriptions;
        report.fault(format!(
            "topics have {members} members, tokens {subscriptions} subscriptions"
        ));
    }
    check_fan_outs(engine, report)
}

fn count_members(engine: &Engine, report: &mut FsckReport) -> Result<u64, StoreError> {
    let mut members = 0;
    for member in all_of(engine, kind::MEMBER) {
        let (key, value) = member?;
        members += 1;
        if let Err(fault) = decode_member(&key, &value) {
            report.fault(format!("a member of a topic does not decode: {fault}"));
        }
    }
    Ok(members)
}

/// Its topic must name the token as a member; of which project the token is, its record says, if
/// it has one still.
fn check_subscriptions(engine: &Engine, report: &mut FsckReport) -> Result<(), StoreError> {
    for subscription in all_of(engine, kind::SUBSCRIPTION) {
        let (key, value) = subscription?;
        report.subscriptions += 1;
        let (Ok((token, topic)), Ok(_)) = (subscription_of(&key), decode_since(&value)) else {
            report.fault("a subscription does not decode");
            continue;
        };
        let record = engine.get(&token_key(token))?;
        let Some(record) = record.and_then(|value| Record::decode(&value).ok()) else {
            continue;
        };
        let member = member_key(record.project, topic.digest(), token);
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
    for checkpoint in all_of(engine, kind::CHECKPOINT) {
        let (key, value) = checkpoint?;
        if let Err(fault) = decode_checkpoint(&value) {
            report.fault(format!("a checkpoint does not decode: {fault}"));
        }
        check_belongs(engine, &key, "a checkpoint", report)?;
    }
    for mark in all_of(engine, kind::COPY) {
        check_belongs(engine, &mark?.0, "the mark of a copy", report)?;
    }
    Ok(())
}

fn check_belongs(
    engine: &Engine,
    key: &[u8],
    what: &str,
    report: &mut FsckReport,
) -> Result<(), StoreError> {
    match fan_out_of(key) {
        Ok(message_id) if engine.get(&fan_out_key(message_id))?.is_some() => {}
        Ok(message_id) => {
            report.fault(format!("{what} belongs to {message_id}, which is finished"));
        }
        Err(fault) => report.fault(format!("{what} has a key that does not decode: {fault}")),
    }
    Ok(())
}
