//! What every store promises of topics: who is subscribed to what, and pushes to many on their way.
//!
//! A subscription is durable when its verb answers, and ends with its token. A push to many is
//! durable once it is accepted; whoever carries it out walks its members, appends a copy for each,
//! and passes a checkpoint now and then. After a crash it goes on from the last one: copies that
//! were stored beyond it are known by the marks that were written with them, so that each is stored
//! once. Passing a checkpoint forgets the marks before it.

use futures_util::future::BoxFuture;

use super::StoreError;
use crate::clock::Millis;
use crate::push::MessageId;
use crate::token::{ProjectHash, TokenAddress, TokenId};
use crate::topic::{Checkpoint, FanOut, Place, TopicName, Walk};

/// How subscribing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscribed {
    /// It is, from now on.
    Added,
    /// It was before, since then.
    Already(Millis),
    /// The token has as many topics as it may have.
    TooMany,
    /// The token is dead.
    Unregistered,
}

/// How unsubscribing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsubscribed {
    /// It was, and is no more.
    Removed,
    /// It was not.
    NotThere,
    /// The token is dead.
    Unregistered,
}

/// One subscription of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The topic.
    pub topic: TopicName,
    /// When it was subscribed to.
    pub since: Millis,
}

/// A stretch of a walk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stretch {
    /// Tokens met on it, some of them dead perhaps.
    pub met: Vec<TokenAddress>,
    /// Where to go on; `None` at the end of the walk.
    pub next: Option<Place>,
}

/// Topics of a durable store.
pub trait Topics: Send + Sync + 'static {
    /// Subscribes a token to a topic. May be the token's first contact, but does not prolong its
    /// life.
    fn subscribe<'a>(
        &'a self,
        address: &'a TokenAddress,
        topic: &'a TopicName,
        now: Millis,
    ) -> BoxFuture<'a, Result<Subscribed, StoreError>>;

    /// Ends a subscription.
    fn unsubscribe<'a>(
        &'a self,
        address: &'a TokenAddress,
        topic: &'a TopicName,
        now: Millis,
    ) -> BoxFuture<'a, Result<Unsubscribed, StoreError>>;

    /// The token's subscriptions to topics whose names come after `after`, in the order of names.
    fn subscriptions<'a>(
        &'a self,
        token: TokenId,
        after: &'a str,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Subscription>, StoreError>>;

    /// For each topic, since when the token is subscribed to it, if it is.
    fn subscribed_since<'a>(
        &'a self,
        token: TokenId,
        topics: &'a [TopicName],
    ) -> BoxFuture<'a, Result<Vec<Option<Millis>>, StoreError>>;

    /// Forgets what is left of a dead token's subscriptions.
    fn forget_subscriptions<'a>(
        &'a self,
        address: &'a TokenAddress,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Goes on with a walk over a project's tokens, and looks at `limit` of them at most. Who is
    /// subscribed all along is met; who comes or goes meanwhile may be.
    fn walk<'a>(
        &'a self,
        project: ProjectHash,
        walk: &'a Walk,
        from: &'a Place,
        limit: usize,
    ) -> BoxFuture<'a, Result<Stretch, StoreError>>;

    /// Takes a push to many: durable when it answers, with its idempotency key.
    fn accept_fan_out<'a>(&'a self, fan_out: &'a FanOut) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Fan-outs that wait for this node to go on with them: those that a stopped node has left.
    fn take_fan_outs(&self) -> BoxFuture<'_, Result<Vec<(MessageId, ProjectHash)>, StoreError>>;

    /// A fan-out that is not finished, and how far it has come.
    fn fan_out(
        &self,
        message_id: MessageId,
    ) -> BoxFuture<'_, Result<Option<(FanOut, Checkpoint)>, StoreError>>;

    /// Notes how far a fan-out has come, and forgets the marks of the copies on that stretch.
    /// Answers whether the fan-out is still this node's to carry out.
    fn pass_checkpoint<'a>(
        &'a self,
        message_id: MessageId,
        checkpoint: &'a Checkpoint,
        copied: &'a [TokenId],
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Everybody has a copy, or it has expired: forgets it.
    fn finish_fan_out(&self, message_id: MessageId) -> BoxFuture<'_, Result<(), StoreError>>;
}
