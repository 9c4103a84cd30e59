//! The rows of subscriptions: the tokens of each topic, and the topics of each token. A
//! subscription is one row in both, written together under one timestamp, so that both always say
//! the same, and the last word counts.

use std::time::Instant;

use futures_util::StreamExt as _;
use scylla::errors::PrepareError;
use scylla::statement::batch::Batch;
use scylla::statement::prepared::PreparedStatement;

use super::cql::{Cql, bigint, from_bigint, misread, unavailable, write_by};
use crate::clock::Millis;
use crate::store::{StoreError, Subscription};
use crate::token::{DeviceId, ProjectHash, TokenAddress, TokenId};
use crate::topic::TopicName;

/// The tokens of a topic are kept in so many parts, by the upper half of their ids' first byte: a
/// topic of ten million is sixteen partitions of a bearable size.
pub(super) const PARTS: u8 = 16;

/// Later than every timestamp that is a time.
const END_OF_TIME: u64 = 1 << 53;

/// Subscriptions of one token that are forgotten at once.
const AT_ONCE: usize = 16;

/// A subscription as its row has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// When it was made.
    pub(super) since: Millis,
    /// The timestamp that it was written under.
    pub(super) written_us: u64,
}

/// Both tables.
pub(super) struct TopicRows {
    add: Batch,
    remove: Batch,
    find: PreparedStatement,
    count: PreparedStatement,
    of_token: PreparedStatement,
    some_of_token: PreparedStatement,
    members: PreparedStatement,
}

impl TopicRows {
    pub(super) async fn prepare(cql: &Cql) -> Result<Self, PrepareError> {
        Ok(Self {
            add: cql
                .together([
                    "INSERT INTO topic_member (project, topic, part, token_id, device, minted, \
                     since) VALUES (?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
                    "INSERT INTO topic_of_token (token_id, topic, since) VALUES (?, ?, ?) \
                     USING TIMESTAMP ?",
                ])
                .await?,
            remove: cql
                .together([
                    "DELETE FROM topic_member USING TIMESTAMP ? \
                     WHERE project = ? AND topic = ? AND part = ? AND token_id = ?",
                    "DELETE FROM topic_of_token USING TIMESTAMP ? \
                     WHERE token_id = ? AND topic = ?",
                ])
                .await?,
            find: cql
                .read(
                    "SELECT since, WRITETIME(since) FROM topic_of_token \
                     WHERE token_id = ? AND topic = ?",
                )
                .await?,
            count: cql
                .read("SELECT COUNT(*) FROM topic_of_token WHERE token_id = ?")
                .await?,
            of_token: cql
                .read(
                    "SELECT topic, since FROM topic_of_token \
                     WHERE token_id = ? AND topic > ? LIMIT ?",
                )
                .await?,
            some_of_token: cql
                .read(
                    "SELECT topic, since FROM topic_of_token \
                     WHERE token_id = ? AND topic IN ?",
                )
                .await?,
            members: cql
                .read(
                    "SELECT token_id, device, minted FROM topic_member WHERE project = ? \
                     AND topic = ? AND part = ? AND token_id > ? LIMIT ?",
                )
                .await?,
        })
    }

    /// Writes a subscription.
    ///
    /// # Errors
    /// As [`write_by`] has it.
    pub(super) async fn add(
        &self,
        cql: &Cql,
        address: &TokenAddress,
        topic: &TopicName,
        since: Millis,
        timestamp_us: u64,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let (token, digest) = (address.id.0.as_slice(), topic.digest());
        let (since, timestamp) = (bigint(since), bigint(timestamp_us));
        let member = (
            address.project.0.as_slice(),
            digest.as_slice(),
            part_of(address.id),
            token,
            address.device.0.as_slice(),
            address.minted_minutes.cast_signed(),
            since,
            timestamp,
        );
        let values = (member, (token, topic.as_str(), since, timestamp));
        write_by(deadline, || cql.session.batch(&self.add, &values)).await
    }

    /// Deletes a subscription.
    ///
    /// # Errors
    /// As [`write_by`] has it.
    pub(super) async fn remove(
        &self,
        cql: &Cql,
        (project, token): (ProjectHash, TokenId),
        topic: &TopicName,
        timestamp_us: u64,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let (digest, timestamp) = (topic.digest(), bigint(timestamp_us));
        let member = (
            timestamp,
            project.0.as_slice(),
            digest.as_slice(),
            part_of(token),
            token.0.as_slice(),
        );
        let values = (member, (timestamp, token.0.as_slice(), topic.as_str()));
        write_by(deadline, || cql.session.batch(&self.remove, &values)).await
    }

    /// Deletes the subscriptions of a token that has ended for ever. One that is written while
    /// this runs, by whoever has not heard of the end, stays whole, and is found another time.
    ///
    /// # Errors
    /// No answer, or a row of another shape.
    pub(super) async fn forget(
        &self,
        cql: &Cql,
        project: ProjectHash,
        token: TokenId,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let subscriptions = self.of_token(cql, token, "", usize::MAX).await?;
        let removals: Vec<_> = subscriptions
            .iter()
            .map(|it| self.remove(cql, (project, token), &it.topic, END_OF_TIME, deadline))
            .collect();
        let outcomes = futures_util::stream::iter(removals).buffer_unordered(AT_ONCE);
        let outcomes: Vec<Result<(), StoreError>> = outcomes.collect().await;
        outcomes.into_iter().collect()
    }

    /// A subscription, if there is one.
    ///
    /// # Errors
    /// No answer, or a row of another shape.
    pub(super) async fn find(
        &self,
        cql: &Cql,
        token: TokenId,
        topic: &TopicName,
    ) -> Result<Option<Found>, StoreError> {
        let values = (token.0.as_slice(), topic.as_str());
        let answer = cql.session.execute_unpaged(&self.find, values).await;
        let rows = answer.map_err(unavailable)?;
        let rows = rows.into_rows_result().map_err(misread)?;
        let row = rows.maybe_first_row::<(i64, i64)>().map_err(misread)?;
        Ok(row.map(|(since, written)| Found {
            since: from_bigint(since),
            written_us: from_bigint(written),
        }))
    }

    /// How many subscriptions a token has.
    ///
    /// # Errors
    /// No answer, or a row of another shape.
    pub(super) async fn count(&self, cql: &Cql, token: TokenId) -> Result<usize, StoreError> {
        let values = (token.0.as_slice(),);
        let answer = cql.session.execute_unpaged(&self.count, values).await;
        let rows = answer.map_err(unavailable)?;
        let rows = rows.into_rows_result().map_err(misread)?;
        let (count,) = rows.single_row::<(i64,)>().map_err(misread)?;
        Ok(usize::try_from(count).unwrap_or_default())
    }

    /// A token's subscriptions in the order of names.
    ///
    /// # Errors
    /// No answer, or a row of another shape.
    pub(super) async fn of_token(
        &self,
        cql: &Cql,
        token: TokenId,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Subscription>, StoreError> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let values = (token.0.as_slice(), after, limit);
        let answer = cql.session.execute_unpaged(&self.of_token, values).await;
        let rows = answer.map_err(unavailable)?;
        let rows = rows.into_rows_result().map_err(misread)?;
        let rows = rows.rows::<(String, i64)>().map_err(misread)?;
        rows.map(|row| subscription_of(row.map_err(misread)?))
            .collect()
    }

    /// Those of some topics that a token is subscribed to.
    ///
    /// # Errors
    /// No answer, or a row of another shape.
    pub(super) async fn some_of_token(
        &self,
        cql: &Cql,
        token: TokenId,
        topics: &[TopicName],
    ) -> Result<Vec<Subscription>, StoreError> {
        let names: Vec<&str> = topics.iter().map(TopicName::as_str).collect();
        let values = (token.0.as_slice(), names);
        let answer = cql.session.execute_unpaged(&self.some_of_token, values);
        let rows = answer.await.map_err(unavailable)?;
        let rows = rows.into_rows_result().map_err(misread)?;
        let rows = rows.rows::<(String, i64)>().map_err(misread)?;
        rows.map(|row| subscription_of(row.map_err(misread)?))
            .collect()
    }

    /// The tokens in one part of a topic after `after`, in the order of their ids.
    ///
    /// # Errors
    /// No answer, or a row of another shape.
    pub(super) async fn members(
        &self,
        cql: &Cql,
        (project, topic): (ProjectHash, &TopicName),
        part: u8,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<TokenAddress>, StoreError> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let digest = topic.digest();
        let (project_bytes, part) = (project.0.as_slice(), part.cast_signed());
        let values = (project_bytes, digest.as_slice(), part, after, limit);
        let answer = cql.session.execute_unpaged(&self.members, values).await;
        let rows = answer.map_err(unavailable)?;
        let rows = rows.into_rows_result().map_err(misread)?;
        let rows = rows.rows::<(Vec<u8>, Vec<u8>, i32)>().map_err(misread)?;
        rows.map(|row| {
            let (token, device, minted) = row.map_err(misread)?;
            let ids = token.try_into().ok().zip(device.try_into().ok());
            let (token, device) = ids.ok_or_else(|| misread("an id is not 16 bytes long"))?;
            Ok(TokenAddress {
                id: TokenId(token),
                device: DeviceId(device),
                project,
                minted_minutes: minted.cast_unsigned(),
            })
        })
        .collect()
    }
}

/// The part of its topics that a token is in.
fn part_of(token: TokenId) -> i8 {
    let [first, ..] = token.0;
    (first / (u8::MAX / PARTS + 1)).cast_signed()
}

fn subscription_of((topic, since): (String, i64)) -> Result<Subscription, StoreError> {
    let topic = TopicName::parse(&topic).ok_or_else(|| misread("a topic that has no such name"))?;
    Ok(Subscription {
        topic,
        since: from_bigint(since),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_has_a_part_and_every_part_tokens() {
        let parts: Vec<i8> = (0..=u8::MAX)
            .map(|first| part_of(TokenId([first; 16])))
            .collect();
        assert!(parts.is_sorted());
        for part in 0..PARTS.cast_signed() {
            assert_eq!(parts.iter().filter(|it| **it == part).count(), 16);
        }
    }
}
