//! Subscribes tokens to topics, and walks over those that are.
//!
//! Whether a token lives is asked of its record in Redis, and the answer brings the time there.
//! Rows are written under that time: so the later call wins, whichever nodes they were made on.

use std::sync::Arc;
use std::time::Instant;

use super::backends::{Backends, Beginning, Step, deadline};
use super::clocks::clock_us;
use super::cql::misread;
use super::records::Function;
use super::reply::Status;
use super::topic_rows::PARTS;
use crate::clock::Millis;
use crate::store::{StoreError, Stretch, Subscribed, Unsubscribed};
use crate::token::{ProjectHash, TokenAddress, TokenId};
use crate::topic::{Place, TopicName, Walk};

impl Backends {
    pub(super) async fn subscribe(
        self: &Arc<Self>,
        address: &TokenAddress,
        topic: &TopicName,
        now: Millis,
    ) -> Result<Subscribed, StoreError> {
        self.health.check()?;
        // Never closed.
        let _turn = self.topic_turns.acquire().await;
        let deadline = deadline();
        let Some(timestamp) = self.stamp(address, now, deadline).await? else {
            return Ok(Subscribed::Unregistered);
        };
        if let Some(found) = self.topics.find(&self.cql, address.id, topic).await? {
            return Ok(Subscribed::Already(found.since));
        }
        let count = self.topics.count(&self.cql, address.id).await?;
        if count >= self.limits.topics_per_token {
            return Ok(Subscribed::TooMany);
        }
        let added = self
            .topics
            .add(&self.cql, address, topic, now, timestamp, deadline);
        added.await?;
        Ok(Subscribed::Added)
    }

    pub(super) async fn unsubscribe(
        self: &Arc<Self>,
        address: &TokenAddress,
        topic: &TopicName,
        now: Millis,
    ) -> Result<Unsubscribed, StoreError> {
        self.health.check()?;
        // Never closed.
        let _turn = self.topic_turns.acquire().await;
        let deadline = deadline();
        let Some(timestamp) = self.stamp(address, now, deadline).await? else {
            return Ok(Unsubscribed::Unregistered);
        };
        let Some(found) = self.topics.find(&self.cql, address.id, topic).await? else {
            return Ok(Unsubscribed::NotThere);
        };
        // After a failover the time may be that of a slower clock.
        let timestamp = timestamp.max(found.written_us + 1);
        let key = (address.project, address.id);
        let removed = self
            .topics
            .remove(&self.cql, key, topic, timestamp, deadline);
        removed.await?;
        Ok(Unsubscribed::Removed)
    }

    /// The time at the token's record, if the token lives. This may be its first contact.
    async fn stamp(
        self: &Arc<Self>,
        address: &TokenAddress,
        now: Millis,
        deadline: Instant,
    ) -> Result<Option<u64>, StoreError> {
        let ends_before = self.ended_if_heard_by(now);
        let call = || {
            let call = self.records.on_token(Function::Stamp, address.id);
            call.arg(ends_before).arg(clock_us())
        };
        let step = self.step(address, Beginning::Allowed, now, deadline, call);
        match step.await? {
            Step::Dead | Step::NotBegun => Ok(None),
            Step::Taken(reply) if reply.status == Status::Done => Ok(Some(reply.number(0))),
            Step::Taken(_) => Err(StoreError::Unavailable(
                "redis has another time than this node",
            )),
        }
    }

    pub(super) async fn walk(
        &self,
        project: ProjectHash,
        walk: &Walk,
        from: &Place,
        limit: usize,
    ) -> Result<Stretch, StoreError> {
        let limit = limit.max(1);
        match walk {
            Walk::Members(topic) => self.walk_members(project, topic, from, limit).await,
            Walk::Everyone => {
                let after = ring_position(from)?;
                let some = self.tokens.living_of(&self.cql, project, after, limit);
                let (met, last) = some.await?;
                Ok(Stretch {
                    met,
                    next: last.map(|last| Place(last.to_be_bytes().to_vec())),
                })
            }
        }
    }

    /// One part after another, until enough tokens are met.
    async fn walk_members(
        &self,
        project: ProjectHash,
        topic: &TopicName,
        from: &Place,
        limit: usize,
    ) -> Result<Stretch, StoreError> {
        let mut met: Vec<TokenAddress> = Vec::new();
        let (first, after) = from.0.split_first().unwrap_or((&0, &[]));
        if *first >= PARTS || !matches!(after.len(), 0 | 16) {
            return Err(misread("a place on the walk over a topic"));
        }
        let mut after = after;
        for part in *first..PARTS {
            let left = limit - met.len();
            let key = (project, topic);
            let members = self.topics.members(&self.cql, key, part, after, left);
            met.extend(members.await?);
            if met.len() >= limit {
                let next = met.last().map(|last| place_after(part, last.id));
                return Ok(Stretch { met, next });
            }
            after = &[];
        }
        Ok(Stretch { met, next: None })
    }
}

/// A place on a walk over a topic: the part, and the last token met in it.
fn place_after(part: u8, token: TokenId) -> Place {
    let mut place = vec![part];
    place.extend_from_slice(&token.0);
    Place(place)
}

/// A place on a walk over everyone. No row is at the lowest position.
fn ring_position(place: &Place) -> Result<i64, StoreError> {
    if place.0.is_empty() {
        return Ok(i64::MIN);
    }
    let position = place.0.as_slice().try_into();
    let position = position.map_err(|_| misread("a place on the walk over everyone"))?;
    Ok(i64::from_be_bytes(position))
}
