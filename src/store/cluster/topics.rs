//! Topics in a region.

use futures_util::future::{BoxFuture, ready};

use super::ClusterStore;
use crate::clock::Millis;
use crate::push::MessageId;
use crate::store::{StoreError, Stretch, Subscribed, Subscription, Topics, Unsubscribed};
use crate::token::{ProjectHash, TokenAddress, TokenId};
use crate::topic::{Checkpoint, FanOut, Place, TopicName, Walk};

const NOT_YET: StoreError = StoreError::Unavailable("topics");

impl Topics for ClusterStore {
    fn subscribe<'a>(
        &'a self,
        _: &'a TokenAddress,
        _: &'a TopicName,
        _: Millis,
    ) -> BoxFuture<'a, Result<Subscribed, StoreError>> {
        Box::pin(ready(Err(NOT_YET)))
    }

    fn unsubscribe<'a>(
        &'a self,
        _: &'a TokenAddress,
        _: &'a TopicName,
        _: Millis,
    ) -> BoxFuture<'a, Result<Unsubscribed, StoreError>> {
        Box::pin(ready(Err(NOT_YET)))
    }

    fn subscriptions<'a>(
        &'a self,
        _: TokenId,
        _: &'a str,
        _: usize,
    ) -> BoxFuture<'a, Result<Vec<Subscription>, StoreError>> {
        Box::pin(ready(Err(NOT_YET)))
    }

    fn subscribed_since<'a>(
        &'a self,
        _: TokenId,
        _: &'a [TopicName],
    ) -> BoxFuture<'a, Result<Vec<Option<Millis>>, StoreError>> {
        Box::pin(ready(Err(NOT_YET)))
    }

    fn forget_subscriptions<'a>(
        &'a self,
        _: &'a TokenAddress,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(ready(Err(NOT_YET)))
    }

    fn walk<'a>(
        &'a self,
        _: ProjectHash,
        _: &'a Walk,
        _: &'a Place,
        _: usize,
    ) -> BoxFuture<'a, Result<Stretch, StoreError>> {
        Box::pin(ready(Err(NOT_YET)))
    }

    fn accept_fan_out<'a>(&'a self, _: &'a FanOut) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(ready(Err(NOT_YET)))
    }

    fn take_fan_outs(&self) -> BoxFuture<'_, Result<Vec<(MessageId, ProjectHash)>, StoreError>> {
        Box::pin(ready(Err(NOT_YET)))
    }

    fn fan_out(
        &self,
        _: MessageId,
    ) -> BoxFuture<'_, Result<Option<(FanOut, Checkpoint)>, StoreError>> {
        Box::pin(ready(Err(NOT_YET)))
    }

    fn pass_checkpoint<'a>(
        &'a self,
        _: MessageId,
        _: &'a Checkpoint,
        _: &'a [TokenId],
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(ready(Err(NOT_YET)))
    }

    fn finish_fan_out(&self, _: MessageId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(ready(Err(NOT_YET)))
    }
}
