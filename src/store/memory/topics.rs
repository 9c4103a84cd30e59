//! Topics in memory: subscriptions stand in the tokens' logs, fan-outs and marks beside them.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::{BoxFuture, ready};

use super::{MemoryStore, State};
use crate::clock::Millis;
use crate::push::{MessageId, NewPush};
use crate::store::{
    IDEMPOTENCY_MS, StoreError, Stretch, Subscribed, Subscription, Topics, Unsubscribed,
};
use crate::token::{ProjectHash, TokenAddress, TokenId};
use crate::topic::{Checkpoint, FanOut, Place, TopicName, Walk};

/// Pushes to many that are not finished.
#[derive(Default)]
pub(super) struct FanOuts {
    running: BTreeMap<MessageId, (FanOut, Checkpoint)>,
    marks: BTreeSet<(MessageId, TokenId)>,
}

impl FanOuts {
    /// Marks a copy as stored. `false` if it was already.
    pub(super) fn mark(&mut self, push: &NewPush) -> bool {
        !push.is_copy || self.marks.insert((push.message_id, push.address.id))
    }
}

impl State {
    fn topics(&self, token: TokenId) -> impl Iterator<Item = (&TopicName, Millis)> {
        let log = self.logs.get(&token);
        let topics = log.into_iter().flat_map(|log| &log.topics);
        topics.map(|(topic, since)| (topic, *since))
    }

    fn stretch(&self, project: ProjectHash, walk: &Walk, from: &Place, limit: usize) -> Stretch {
        let after = <[u8; 16]>::try_from(from.0.as_slice()).ok().map(TokenId);
        let is_on_it = |address: &&TokenAddress| {
            let log = &self.logs[&address.id];
            address.project == project
                && match walk {
                    Walk::Members(topic) => log.topics.contains_key(topic),
                    Walk::Everyone => !log.is_ended,
                }
        };
        let addresses = self.logs.values().map(|log| &log.address);
        let mut ahead = addresses
            .filter(|address| after.is_none_or(|after| address.id > after))
            .filter(is_on_it);
        let met: Vec<TokenAddress> = ahead.by_ref().take(limit.max(1)).copied().collect();
        let last = met.last().map(|address| Place(address.id.0.to_vec()));
        Stretch {
            next: ahead.next().and(last),
            met,
        }
    }
}

impl MemoryStore {
    fn subscribe_now(&self, address: &TokenAddress, topic: &TopicName, now: Millis) -> Subscribed {
        let mut state = self.state();
        let Some(log) = state.log_or_first(address, now, self.limits) else {
            return Subscribed::Unregistered;
        };
        if let Some(since) = log.topics.get(topic) {
            return Subscribed::Already(*since);
        }
        if log.topics.len() >= self.limits.topics_per_token {
            return Subscribed::TooMany;
        }
        log.topics.insert(topic.clone(), now);
        Subscribed::Added
    }

    fn unsubscribe_now(
        &self,
        address: &TokenAddress,
        topic: &TopicName,
        now: Millis,
    ) -> Unsubscribed {
        let mut state = self.state();
        let Some(log) = state.log_or_first(address, now, self.limits) else {
            return Unsubscribed::Unregistered;
        };
        match log.topics.remove(topic) {
            Some(_) => Unsubscribed::Removed,
            None => Unsubscribed::NotThere,
        }
    }

    fn accept_fan_out_now(&self, fan_out: &FanOut) {
        let state = &mut *self.state();
        if let Some(key) = fan_out.idempotency {
            let answer = (fan_out.message_id, fan_out.accepted_at + IDEMPOTENCY_MS);
            state.answers.insert(key, answer);
        }
        let begun = (fan_out.clone(), Checkpoint::default());
        state.fan_outs.running.insert(fan_out.message_id, begun);
    }
}

impl Topics for MemoryStore {
    fn subscribe<'a>(
        &'a self,
        address: &'a TokenAddress,
        topic: &'a TopicName,
        now: Millis,
    ) -> BoxFuture<'a, Result<Subscribed, StoreError>> {
        Box::pin(ready(Ok(self.subscribe_now(address, topic, now))))
    }

    fn unsubscribe<'a>(
        &'a self,
        address: &'a TokenAddress,
        topic: &'a TopicName,
        now: Millis,
    ) -> BoxFuture<'a, Result<Unsubscribed, StoreError>> {
        Box::pin(ready(Ok(self.unsubscribe_now(address, topic, now))))
    }

    fn subscriptions<'a>(
        &'a self,
        token: TokenId,
        after: &'a str,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Subscription>, StoreError>> {
        let state = self.state();
        let ahead = state
            .topics(token)
            .filter(|(topic, _)| topic.as_str() > after);
        let subscription = |(topic, since): (&TopicName, Millis)| Subscription {
            topic: topic.clone(),
            since,
        };
        let subscriptions = ahead.take(limit).map(subscription).collect();
        Box::pin(ready(Ok(subscriptions)))
    }

    fn subscribed_since<'a>(
        &'a self,
        token: TokenId,
        topics: &'a [TopicName],
    ) -> BoxFuture<'a, Result<Vec<Option<Millis>>, StoreError>> {
        let state = self.state();
        let log = state.logs.get(&token);
        let since = |topic: &TopicName| log?.topics.get(topic).copied();
        Box::pin(ready(Ok(topics.iter().map(since).collect())))
    }

    fn forget_subscriptions<'a>(
        &'a self,
        address: &'a TokenAddress,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        if let Some(log) = self.state().logs.get_mut(&address.id) {
            log.topics.clear();
        }
        Box::pin(ready(Ok(())))
    }

    fn walk<'a>(
        &'a self,
        project: ProjectHash,
        walk: &'a Walk,
        from: &'a Place,
        limit: usize,
    ) -> BoxFuture<'a, Result<Stretch, StoreError>> {
        Box::pin(ready(Ok(self.state().stretch(project, walk, from, limit))))
    }

    fn accept_fan_out<'a>(&'a self, fan_out: &'a FanOut) -> BoxFuture<'a, Result<(), StoreError>> {
        self.accept_fan_out_now(fan_out);
        Box::pin(ready(Ok(())))
    }

    /// Nothing outlives the node.
    fn take_fan_outs(&self) -> BoxFuture<'_, Result<Vec<(MessageId, ProjectHash)>, StoreError>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn fan_out(
        &self,
        message_id: MessageId,
    ) -> BoxFuture<'_, Result<Option<(FanOut, Checkpoint)>, StoreError>> {
        let fan_out = self.state().fan_outs.running.get(&message_id).cloned();
        Box::pin(ready(Ok(fan_out)))
    }

    fn pass_checkpoint<'a>(
        &'a self,
        message_id: MessageId,
        checkpoint: &'a Checkpoint,
        copied: &'a [TokenId],
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let fan_outs = &mut self.state().fan_outs;
        for token in copied {
            fan_outs.marks.remove(&(message_id, *token));
        }
        let running = fan_outs.running.get_mut(&message_id);
        let is_ours = running.map(|(_, at)| *at = checkpoint.clone()).is_some();
        Box::pin(ready(Ok(is_ours)))
    }

    fn finish_fan_out(&self, message_id: MessageId) -> BoxFuture<'_, Result<(), StoreError>> {
        let fan_outs = &mut self.state().fan_outs;
        fan_outs.running.remove(&message_id);
        fan_outs.marks.retain(|(of, _)| *of != message_id);
        Box::pin(ready(Ok(())))
    }
}
