//! Topics, as senders manage them.

use crate::actors::Node;
use crate::clock::Millis;
use crate::store::{StoreError, Subscribed, Subscription, Unsubscribed};
use crate::token::{ProjectHash, TokenAddress};
use crate::topic::TopicName;

impl Node {
    /// Subscribes a token to a topic, durably.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn subscribe(
        &self,
        address: &TokenAddress,
        topic: &TopicName,
    ) -> Result<(Subscribed, Millis), StoreError> {
        let now = self.clock().now();
        let subscribed = self.store().subscribe(address, topic, now).await?;
        let since = match subscribed {
            Subscribed::Already(since) => since,
            _ => now,
        };
        Ok((subscribed, since))
    }

    /// Ends a subscription, durably.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unsubscribe(
        &self,
        address: &TokenAddress,
        topic: &TopicName,
    ) -> Result<Unsubscribed, StoreError> {
        let now = self.clock().now();
        self.store().unsubscribe(address, topic, now).await
    }

    /// The topics of a token whose names come after `after`, in the order of names; `None` if the
    /// token is dead.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn subscriptions(
        &self,
        address: &TokenAddress,
        after: &str,
        limit: usize,
    ) -> Result<Option<Vec<Subscription>>, StoreError> {
        if !self.is_registered(address).await? {
            return Ok(None);
        }
        let subscriptions = self.store().subscriptions(address.id, after, limit);
        subscriptions.await.map(Some)
    }

    /// One subscription of a token, if it has it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn subscription(
        &self,
        address: &TokenAddress,
        topic: &TopicName,
    ) -> Result<Option<Subscription>, StoreError> {
        let topics = std::slice::from_ref(topic);
        let since = self.store().subscribed_since(address.id, topics).await?;
        let subscription = |since: &Millis| Subscription {
            topic: topic.clone(),
            since: *since,
        };
        Ok(since.first().and_then(Option::as_ref).map(subscription))
    }

    pub(in crate::actors) fn is_live_project(&self, project: ProjectHash) -> bool {
        (self.0.is_live_project)(project)
    }

    pub(in crate::actors) fn is_in_region(&self) -> bool {
        self.0.region.is_some()
    }
}
