//! The verbs of the faulty store for topics and pushes to many. Subscriptions and acceptances are
//! durable when they are answered; how far a push to many has come is synced with the next append, as
//! the contract allows.

use futures_util::future::BoxFuture;
use herald::clock::Millis;
use herald::push::MessageId;
use herald::store::{StoreError, Stretch, Subscribed, Subscription, Topics, Unsubscribed};
use herald::token::{ProjectHash, TokenAddress, TokenId};
use herald::topic::{Checkpoint, FanOut, Place, TopicName, Walk};

use crate::journal::{Step, at_once};
use crate::store::{FaultyStore, Lasts};
use crate::store_verbs::not_simulated;

impl Topics for FaultyStore {
    fn subscribe<'a>(
        &'a self,
        address: &'a TokenAddress,
        topic: &'a TopicName,
        now: Millis,
    ) -> BoxFuture<'a, Result<Subscribed, StoreError>> {
        let step = Step::Subscribe(*address, topic.clone(), now);
        let subscribe = move |store: &Self| at_once(store.memory().subscribe(address, topic, now));
        Box::pin(self.keep(step, Lasts::AtOnce, subscribe))
    }

    fn unsubscribe<'a>(
        &'a self,
        address: &'a TokenAddress,
        topic: &'a TopicName,
        now: Millis,
    ) -> BoxFuture<'a, Result<Unsubscribed, StoreError>> {
        let step = Step::Unsubscribe(*address, topic.clone(), now);
        let unsubscribe =
            move |store: &Self| at_once(store.memory().unsubscribe(address, topic, now));
        Box::pin(self.keep(step, Lasts::AtOnce, unsubscribe))
    }

    fn subscriptions<'a>(
        &'a self,
        _: TokenId,
        _: &'a str,
        _: usize,
    ) -> BoxFuture<'a, Result<Vec<Subscription>, StoreError>> {
        not_simulated()
    }

    fn subscribed_since<'a>(
        &'a self,
        token: TokenId,
        topics: &'a [TopicName],
    ) -> BoxFuture<'a, Result<Vec<Option<Millis>>, StoreError>> {
        Box::pin(async move {
            self.hop(true).await?;
            self.memory().subscribed_since(token, topics).await
        })
    }

    fn forget_subscriptions<'a>(
        &'a self,
        _: &'a TokenAddress,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        not_simulated()
    }

    fn walk<'a>(
        &'a self,
        project: ProjectHash,
        walk: &'a Walk,
        from: &'a Place,
        limit: usize,
    ) -> BoxFuture<'a, Result<Stretch, StoreError>> {
        Box::pin(async move {
            self.hop(true).await?;
            let limit = limit.min(self.stretch());
            let stretch = self.memory().walk(project, walk, from, limit).await;
            self.hop(false).await?;
            stretch
        })
    }

    fn accept_fan_out<'a>(&'a self, fan_out: &'a FanOut) -> BoxFuture<'a, Result<(), StoreError>> {
        let step = Step::Accept(Box::new(fan_out.clone()));
        let accept = move |store: &Self| at_once(store.memory().accept_fan_out(fan_out));
        Box::pin(self.keep(step, Lasts::AtOnce, accept))
    }

    fn take_fan_outs(&self) -> BoxFuture<'_, Result<Vec<(MessageId, ProjectHash)>, StoreError>> {
        Box::pin(async move {
            self.hop(true).await?;
            Ok(self.unfinished())
        })
    }

    fn fan_out(
        &self,
        message_id: MessageId,
    ) -> BoxFuture<'_, Result<Option<(FanOut, Checkpoint)>, StoreError>> {
        Box::pin(async move {
            self.hop(true).await?;
            self.memory().fan_out(message_id).await
        })
    }

    fn pass_checkpoint<'a>(
        &'a self,
        message_id: MessageId,
        checkpoint: &'a Checkpoint,
        copied: &'a [TokenId],
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let step = Step::Pass(message_id, checkpoint.clone(), copied.to_vec());
        let pass = move |store: &Self| {
            at_once(
                store
                    .memory()
                    .pass_checkpoint(message_id, checkpoint, copied),
            )
        };
        Box::pin(self.keep(step, Lasts::WithTheNext, pass))
    }

    fn finish_fan_out(&self, message_id: MessageId) -> BoxFuture<'_, Result<(), StoreError>> {
        let finish = move |store: &Self| at_once(store.memory().finish_fan_out(message_id));
        Box::pin(self.keep(Step::Finish(message_id), Lasts::WithTheNext, finish))
    }
}
