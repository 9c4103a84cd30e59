//! Who is subscribed to what: written under the token's stripe, like everything else of a token,
//! and read from the engine.

use super::engine::Op;
use super::queue::Round;
use super::record::{Record, kind, token_of};
use super::token_logs::{TokenLogs, undecodable};
use super::topic_record::{
    decode_member, decode_since, encode_member, encode_since, member_key, members_prefix,
    subscription_key, subscription_of,
};
use crate::clock::Millis;
use crate::store::{StoreError, Stretch, Subscribed, Subscription, Unsubscribed};
use crate::token::{ProjectHash, TokenAddress, TokenId};
use crate::topic::{Place, TopicName, Walk};

impl TokenLogs {
    /// Subscribes a token. Staged only: whoever needs it durable flushes.
    pub(super) fn subscribe(
        &self,
        address: &TokenAddress,
        topic: &TopicName,
        now: Millis,
    ) -> Result<Subscribed, StoreError> {
        self.queue.check_room()?;
        let subscribed = self.with_ledger(address, now, |ledger| {
            if ledger.is_dead(self.limits, now) {
                return Ok(Subscribed::Unregistered);
            }
            if let Some(since) = self.since(address.id, topic)? {
                return Ok(Subscribed::Already(since));
            }
            let max = self.limits.topics_per_token;
            if self.subscriptions(address.id, "", max)?.len() >= max {
                return Ok(Subscribed::TooMany);
            }
            let member = member_key(address.project, topic.digest(), address.id);
            let subscription = subscription_key(address.id, topic.as_str());
            self.stage_beside(address, ledger, |round| {
                round.stage(Op::Put(member, encode_member(address).into()));
                round.stage(Op::Put(subscription, encode_since(now).into()));
            })?;
            Ok(Subscribed::Added)
        })?;
        subscribed.unwrap_or(Ok(Subscribed::Unregistered))
    }

    /// Ends a subscription. Staged only.
    pub(super) fn unsubscribe(
        &self,
        address: &TokenAddress,
        topic: &TopicName,
        now: Millis,
    ) -> Result<Unsubscribed, StoreError> {
        self.queue.check_room()?;
        let unsubscribed = self.with_ledger(address, now, |ledger| {
            if ledger.is_dead(self.limits, now) {
                return Ok(Unsubscribed::Unregistered);
            }
            if self.since(address.id, topic)?.is_none() {
                return Ok(Unsubscribed::NotThere);
            }
            let ops = removals(address, topic);
            self.stage_beside(address, ledger, |round| stage_all(round, ops))?;
            Ok(Unsubscribed::Removed)
        })?;
        unsubscribed.unwrap_or(Ok(Unsubscribed::Unregistered))
    }

    /// What takes all subscriptions of a token out.
    pub(super) fn all_removals(&self, address: &TokenAddress) -> Result<Vec<Op>, StoreError> {
        let subscriptions = self.subscriptions(address.id, "", usize::MAX)?;
        let ops = subscriptions
            .iter()
            .flat_map(|subscription| removals(address, &subscription.topic));
        Ok(ops.collect())
    }

    /// Takes out what is left of a dead token's subscriptions. Staged only.
    pub(super) fn forget_subscriptions(&self, address: &TokenAddress) -> Result<(), StoreError> {
        let ops = self.all_removals(address)?;
        self.queue.stage(|round| stage_all(round, ops)).map(drop)
    }

    /// A token's subscriptions in the order of names.
    pub(super) fn subscriptions(
        &self,
        token: TokenId,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Subscription>, StoreError> {
        let (all, after) = (subscription_key(token, ""), subscription_key(token, after));
        let page = self.engine.page(&all, &after, limit)?;
        let subscription = |(key, value): &(fjall::UserKey, fjall::UserValue)| {
            let (_, topic) = subscription_of(key).map_err(|fault| undecodable(key, fault))?;
            let since = decode_since(value).map_err(|fault| undecodable(key, fault))?;
            Ok(Subscription { topic, since })
        };
        page.iter().map(subscription).collect()
    }

    /// Since when a token is subscribed to a topic.
    pub(super) fn since(
        &self,
        token: TokenId,
        topic: &TopicName,
    ) -> Result<Option<Millis>, StoreError> {
        let key = subscription_key(token, topic.as_str());
        let value = self.engine.get(&key)?;
        let since = value.map(|value| decode_since(&value));
        since.transpose().map_err(|fault| undecodable(&key, fault))
    }

    /// Goes on with a walk. A place is the last key that was looked at.
    pub(super) fn walk(
        &self,
        project: ProjectHash,
        walk: &Walk,
        from: &Place,
        limit: usize,
    ) -> Result<Stretch, StoreError> {
        let limit = limit.max(1);
        let prefix = match walk {
            Walk::Members(topic) => members_prefix(project, topic.digest()),
            Walk::Everyone => [kind::TOKEN].into(),
        };
        let page = self.engine.page(&prefix, &from.0, limit)?;
        let mut met = Vec::with_capacity(page.len());
        for (key, value) in &page {
            let address = match walk {
                Walk::Members(_) => decode_member(key, value).map(Some),
                Walk::Everyone => token_of(key).and_then(|token| {
                    let record = Record::decode(value)?;
                    let is_on_it = record.project == project && !record.is_ended;
                    Ok(is_on_it.then(|| record.address(token)))
                }),
            };
            met.extend(address.map_err(|fault| undecodable(key, fault))?);
        }
        let last = page.last().map(|(key, _)| Place(key.to_vec()));
        Ok(Stretch {
            met,
            next: last.filter(|_| page.len() == limit),
        })
    }
}

fn removals(address: &TokenAddress, topic: &TopicName) -> [Op; 2] {
    let member = member_key(address.project, topic.digest(), address.id);
    let subscription = subscription_key(address.id, topic.as_str());
    [Op::Remove(member), Op::Remove(subscription)]
}

/// Adds several writes.
pub(super) fn stage_all(round: &mut Round, ops: impl IntoIterator<Item = Op>) {
    for op in ops {
        round.stage(op);
    }
}
