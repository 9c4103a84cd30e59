//! Pushes to many on disk, and everything of topics that outsiders may ask of the store.

use futures_util::future::{BoxFuture, ready};

use super::EmbeddedStore;
use super::engine::Op;
use super::record::kind;
use super::subscriptions::stage_all;
use super::token_logs::{answer_ops, undecodable};
use super::topic_record::{
    checkpoint_key, copies_prefix, copy_key, decode_checkpoint, decode_fan_out, encode_checkpoint,
    encode_fan_out, fan_out_key, fan_out_of,
};
use crate::clock::Millis;
use crate::push::MessageId;
use crate::store::{StoreError, Stretch, Subscribed, Subscription, Topics, Unsubscribed};
use crate::token::{ProjectHash, TokenAddress, TokenId};
use crate::topic::{Checkpoint, FanOut, Place, TopicName, Walk};

impl EmbeddedStore {
    async fn subscribe_now(
        &self,
        address: &TokenAddress,
        topic: &TopicName,
        now: Millis,
    ) -> Result<Subscribed, StoreError> {
        let subscribed = self.logs.subscribe(address, topic, now)?;
        if subscribed == Subscribed::Added {
            self.flush_now().await?;
        }
        Ok(subscribed)
    }

    async fn unsubscribe_now(
        &self,
        address: &TokenAddress,
        topic: &TopicName,
        now: Millis,
    ) -> Result<Unsubscribed, StoreError> {
        let unsubscribed = self.logs.unsubscribe(address, topic, now)?;
        if unsubscribed == Unsubscribed::Removed {
            self.flush_now().await?;
        }
        Ok(unsubscribed)
    }

    async fn accept_fan_out_now(&self, fan_out: &FanOut) -> Result<(), StoreError> {
        self.queue.check_room()?;
        let (key, value) = (fan_out_key(fan_out.message_id), encode_fan_out(fan_out));
        let answer = fan_out
            .idempotency
            .map(|key| answer_ops(key, fan_out.message_id, fan_out.accepted_at));
        self.queue.stage(|round| {
            round.stage(Op::Put(key, value.into()));
            stage_all(round, answer.into_iter().flatten());
        })?;
        self.flush_now().await
    }

    /// Every unfinished one was left by the process before this, except those that the caller has
    /// accepted itself, whom it knows.
    fn unfinished(&self) -> Result<Vec<(MessageId, ProjectHash)>, StoreError> {
        let mut unfinished = Vec::new();
        let prefix = [kind::FAN_OUT];
        for (key, value) in self.engine.page(&prefix, &prefix, usize::MAX)? {
            let fan_out = fan_out_of(&key).and_then(|id| decode_fan_out(id, &value));
            let fan_out = fan_out.map_err(|fault| undecodable(&key, fault))?;
            unfinished.push((fan_out.message_id, fan_out.project));
        }
        Ok(unfinished)
    }

    fn fan_out_now(
        &self,
        message_id: MessageId,
    ) -> Result<Option<(FanOut, Checkpoint)>, StoreError> {
        let key = fan_out_key(message_id);
        let Some(value) = self.engine.get(&key)? else {
            return Ok(None);
        };
        let fan_out =
            decode_fan_out(message_id, &value).map_err(|fault| undecodable(&key, fault))?;
        let key = checkpoint_key(message_id);
        let checkpoint = match self.engine.get(&key)? {
            Some(value) => decode_checkpoint(&value).map_err(|fault| undecodable(&key, fault))?,
            None => Checkpoint::default(),
        };
        Ok(Some((fan_out, checkpoint)))
    }

    /// Need not be durable at once: a crash that loses it loses the removal of the marks with it.
    fn pass_checkpoint_now(
        &self,
        message_id: MessageId,
        checkpoint: &Checkpoint,
        copied: &[TokenId],
    ) -> Result<bool, StoreError> {
        let marks = copied
            .iter()
            .map(|token| Op::Remove(copy_key(message_id, *token)));
        let value = encode_checkpoint(checkpoint);
        self.queue.stage(|round| {
            stage_all(round, marks);
            round.stage(Op::Put(checkpoint_key(message_id), value.into()));
        })?;
        Ok(true)
    }

    async fn finish_fan_out_now(&self, message_id: MessageId) -> Result<(), StoreError> {
        // A fan-out that ends early, because it has expired, leaves marks.
        let prefix = copies_prefix(message_id);
        let marks = self.engine.page(&prefix, &prefix, usize::MAX)?;
        let marks = marks.into_iter().map(|(key, _)| Op::Remove(key));
        self.queue.stage(|round| {
            stage_all(round, marks);
            round.stage(Op::Remove(checkpoint_key(message_id)));
            round.stage(Op::Remove(fan_out_key(message_id)));
        })?;
        self.flush_now().await
    }
}

impl Topics for EmbeddedStore {
    fn subscribe<'a>(
        &'a self,
        address: &'a TokenAddress,
        topic: &'a TopicName,
        now: Millis,
    ) -> BoxFuture<'a, Result<Subscribed, StoreError>> {
        Box::pin(self.subscribe_now(address, topic, now))
    }

    fn unsubscribe<'a>(
        &'a self,
        address: &'a TokenAddress,
        topic: &'a TopicName,
        now: Millis,
    ) -> BoxFuture<'a, Result<Unsubscribed, StoreError>> {
        Box::pin(self.unsubscribe_now(address, topic, now))
    }

    fn subscriptions<'a>(
        &'a self,
        token: TokenId,
        after: &'a str,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Subscription>, StoreError>> {
        Box::pin(ready(self.logs.subscriptions(token, after, limit)))
    }

    fn subscribed_since<'a>(
        &'a self,
        token: TokenId,
        topics: &'a [TopicName],
    ) -> BoxFuture<'a, Result<Vec<Option<Millis>>, StoreError>> {
        let since = topics.iter().map(|topic| self.logs.since(token, topic));
        Box::pin(ready(since.collect()))
    }

    fn forget_subscriptions<'a>(
        &'a self,
        address: &'a TokenAddress,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(ready(self.logs.forget_subscriptions(address)))
    }

    fn walk<'a>(
        &'a self,
        project: ProjectHash,
        walk: &'a Walk,
        from: &'a Place,
        limit: usize,
    ) -> BoxFuture<'a, Result<Stretch, StoreError>> {
        Box::pin(ready(self.logs.walk(project, walk, from, limit)))
    }

    fn accept_fan_out<'a>(&'a self, fan_out: &'a FanOut) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.accept_fan_out_now(fan_out))
    }

    fn take_fan_outs(&self) -> BoxFuture<'_, Result<Vec<(MessageId, ProjectHash)>, StoreError>> {
        Box::pin(ready(self.unfinished()))
    }

    fn fan_out(
        &self,
        message_id: MessageId,
    ) -> BoxFuture<'_, Result<Option<(FanOut, Checkpoint)>, StoreError>> {
        Box::pin(ready(self.fan_out_now(message_id)))
    }

    fn pass_checkpoint<'a>(
        &'a self,
        message_id: MessageId,
        checkpoint: &'a Checkpoint,
        copied: &'a [TokenId],
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(ready(
            self.pass_checkpoint_now(message_id, checkpoint, copied),
        ))
    }

    fn finish_fan_out(&self, message_id: MessageId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.finish_fan_out_now(message_id))
    }
}
