//! Topics in a region: everything of them that outsiders may ask of the store.

use futures_util::future::{BoxFuture, ready};

use super::backends::deadline;
use super::{ClusterStore, close_claim};
use crate::clock::Millis;
use crate::push::MessageId;
use crate::store::{StoreError, Stretch, Subscribed, Subscription, Topics, Unsubscribed};
use crate::token::{ProjectHash, TokenAddress, TokenId};
use crate::topic::{Checkpoint, FanOut, Place, TopicName, Walk};

impl ClusterStore {
    async fn subscribed_since_now(
        &self,
        token: TokenId,
        topics: &[TopicName],
    ) -> Result<Vec<Option<Millis>>, StoreError> {
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let backends = &self.backends;
        let found = backends.topics.some_of_token(&backends.cql, token, topics);
        let found = found.await?;
        let since = |topic: &TopicName| Some(found.iter().find(|it| it.topic == *topic)?.since);
        Ok(topics.iter().map(since).collect())
    }

    async fn accept_fan_out_now(&self, fan_out: &FanOut) -> Result<(), StoreError> {
        let accepted = self.fan_outs.accept(&self.backends, fan_out).await;
        if let Some(key) = fan_out.idempotency {
            let is_stored = match &accepted {
                Ok(()) => Some(true),
                Err(error) if error.is_certainly_not_applied() => Some(false),
                Err(_) => None,
            };
            let send = (fan_out.message_id, fan_out.accepted_at);
            close_claim(&self.backends.cql, &self.deliberate, key, send, is_stored).await;
        }
        accepted
    }
}

impl Topics for ClusterStore {
    fn subscribe<'a>(
        &'a self,
        address: &'a TokenAddress,
        topic: &'a TopicName,
        now: Millis,
    ) -> BoxFuture<'a, Result<Subscribed, StoreError>> {
        if self.has_ended(address) {
            return Box::pin(ready(Ok(Subscribed::Unregistered)));
        }
        Box::pin(self.backends.subscribe(address, topic, now))
    }

    fn unsubscribe<'a>(
        &'a self,
        address: &'a TokenAddress,
        topic: &'a TopicName,
        now: Millis,
    ) -> BoxFuture<'a, Result<Unsubscribed, StoreError>> {
        if self.has_ended(address) {
            return Box::pin(ready(Ok(Unsubscribed::Unregistered)));
        }
        Box::pin(self.backends.unsubscribe(address, topic, now))
    }

    fn subscriptions<'a>(
        &'a self,
        token: TokenId,
        after: &'a str,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Subscription>, StoreError>> {
        let backends = &self.backends;
        Box::pin(backends.topics.of_token(&backends.cql, token, after, limit))
    }

    fn subscribed_since<'a>(
        &'a self,
        token: TokenId,
        topics: &'a [TopicName],
    ) -> BoxFuture<'a, Result<Vec<Option<Millis>>, StoreError>> {
        Box::pin(self.subscribed_since_now(token, topics))
    }

    fn forget_subscriptions<'a>(
        &'a self,
        address: &'a TokenAddress,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let (backends, deadline) = (&self.backends, deadline());
        let (project, token) = (address.project, address.id);
        Box::pin(
            backends
                .topics
                .forget(&backends.cql, project, token, deadline),
        )
    }

    fn walk<'a>(
        &'a self,
        project: ProjectHash,
        walk: &'a Walk,
        from: &'a Place,
        limit: usize,
    ) -> BoxFuture<'a, Result<Stretch, StoreError>> {
        Box::pin(self.backends.walk(project, walk, from, limit))
    }

    fn accept_fan_out<'a>(&'a self, fan_out: &'a FanOut) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.accept_fan_out_now(fan_out))
    }

    fn take_fan_outs(&self) -> BoxFuture<'_, Result<Vec<(MessageId, ProjectHash)>, StoreError>> {
        Box::pin(self.fan_outs.take(&self.backends))
    }

    fn fan_out(
        &self,
        message_id: MessageId,
    ) -> BoxFuture<'_, Result<Option<(FanOut, Checkpoint)>, StoreError>> {
        Box::pin(self.fan_outs.find(&self.backends, message_id))
    }

    fn pass_checkpoint<'a>(
        &'a self,
        message_id: MessageId,
        checkpoint: &'a Checkpoint,
        copied: &'a [TokenId],
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(
            self.fan_outs
                .pass(&self.backends, message_id, checkpoint, copied),
        )
    }

    fn finish_fan_out(&self, message_id: MessageId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.fan_outs.finish(&self.backends, message_id))
    }
}
