//! The rows of pushes. Every write carries the push's own number as its timestamp, so a repeated
//! insert is the same cell, and a deletion up to a number can never hit a later row.

use std::time::Instant;

use scylla::DeserializeRow;
use scylla::errors::PrepareError;
use scylla::statement::prepared::PreparedStatement;

use super::cql::{Cql, bigint, from_bigint, misread, unavailable, write_by};
use crate::clock::Millis;
use crate::push::{CollapseKey, MessageId, NewPush, Push, Syn};
use crate::store::StoreError;
use crate::token::TokenId;

/// A row outlives its push by this much, so that it is always readers who judge the expiry.
const ROW_GRACE_S: i32 = 60;

/// Later than every row's timestamp: numbers stay below 2^53.
const END_OF_TIME: i64 = 1 << 53;

/// What a heal needs to know of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) syn: Syn,
    pub(super) expires_at: Millis,
    pub(super) collapse_key: Option<CollapseKey>,
}

#[derive(DeserializeRow)]
struct Row {
    syn: i64,
    message_id: Vec<u8>,
    accepted_at: i64,
    expires_at: i64,
    message: Vec<u8>,
}

/// The table of pushes.
pub(super) struct PushRows {
    insert: PreparedStatement,
    select: PreparedStatement,
    select_heads: PreparedStatement,
    delete_one: PreparedStatement,
    delete_up_to: PreparedStatement,
    delete_between: PreparedStatement,
    delete_all: PreparedStatement,
}

impl PushRows {
    pub(super) async fn prepare(cql: &Cql) -> Result<Self, PrepareError> {
        Ok(Self {
            insert: cql
                .write(
                    "INSERT INTO push (token_id, syn, message_id, accepted_at, expires_at, \
                     collapse_key, message) VALUES (?, ?, ?, ?, ?, ?, ?) \
                     USING TTL ? AND TIMESTAMP ?",
                )
                .await?,
            select: cql
                .read(
                    "SELECT syn, message_id, accepted_at, expires_at, message FROM push \
                     WHERE token_id = ? AND syn >= ? AND syn <= ? LIMIT ?",
                )
                .await?,
            select_heads: cql
                .read(
                    "SELECT syn, expires_at, collapse_key FROM push \
                     WHERE token_id = ? AND syn > ? LIMIT ?",
                )
                .await?,
            delete_one: cql
                .write("DELETE FROM push USING TIMESTAMP ? WHERE token_id = ? AND syn = ?")
                .await?,
            delete_up_to: cql
                .write("DELETE FROM push USING TIMESTAMP ? WHERE token_id = ? AND syn <= ?")
                .await?,
            delete_between: cql
                .write(
                    "DELETE FROM push USING TIMESTAMP ? \
                     WHERE token_id = ? AND syn > ? AND syn < ?",
                )
                .await?,
            delete_all: cql
                .write("DELETE FROM push USING TIMESTAMP ? WHERE token_id = ?")
                .await?,
        })
    }

    /// Makes a push durable under its number; tried again until `deadline`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no try has left a trace, else
    /// [`StoreError::OutcomeUnknown`].
    pub(super) async fn insert(
        &self,
        cql: &Cql,
        push: &NewPush,
        syn: Syn,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let remaining_s = push
            .expires_at
            .saturating_sub(push.accepted_at)
            .div_ceil(1_000);
        let ttl = i32::try_from(remaining_s).unwrap_or(i32::MAX / 2) + ROW_GRACE_S;
        let collapse_key = push.collapse_key.as_ref().map(<[u8; 16]>::as_slice);
        let (token, message_id) = (push.address.id.0, *push.message_id.as_bytes());
        let values = (
            token.as_slice(),
            bigint(syn),
            message_id.as_slice(),
            bigint(push.accepted_at),
            bigint(push.expires_at),
            collapse_key,
            push.message.as_ref(),
            ttl,
            bigint(syn),
        );
        write_by(deadline, || {
            cql.session.execute_unpaged(&self.insert, &values)
        })
        .await
    }

    /// The rows with a number in `first..=last`, at most `limit`.
    ///
    /// # Errors
    /// No answer, or a row of another shape.
    pub(super) async fn select(
        &self,
        cql: &Cql,
        token: TokenId,
        (first, last): (Syn, Syn),
        limit: usize,
    ) -> Result<Vec<Push>, StoreError> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let values = (token.0.as_slice(), bigint(first), bigint(last), limit);
        let answer = cql.session.execute_unpaged(&self.select, values).await;
        let rows = answer.map_err(unavailable)?;
        let rows = rows.into_rows_result().map_err(misread)?;
        let rows = rows.rows::<Row>().map_err(misread)?;
        rows.map(|row| push_of(row.map_err(misread)?)).collect()
    }

    /// Numbers, expiries and collapse keys of the rows after `after`, at most `limit`.
    ///
    /// # Errors
    /// No answer, or a row of another shape.
    pub(super) async fn heads(
        &self,
        cql: &Cql,
        token: TokenId,
        after: Syn,
        limit: usize,
    ) -> Result<Vec<Head>, StoreError> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let values = (token.0.as_slice(), bigint(after), limit);
        let answer = cql
            .session
            .execute_unpaged(&self.select_heads, values)
            .await;
        let rows = answer.map_err(unavailable)?;
        let rows = rows.into_rows_result().map_err(misread)?;
        let rows = rows
            .rows::<(i64, i64, Option<Vec<u8>>)>()
            .map_err(misread)?;
        rows.map(|row| {
            let (syn, expires_at, collapse_key) = row.map_err(misread)?;
            Ok(Head {
                syn: from_bigint(syn),
                expires_at: from_bigint(expires_at),
                collapse_key: collapse_key.and_then(|key| key.try_into().ok()),
            })
        })
        .collect()
    }

    /// Deletes one row, also one that is still on its way to some replica.
    ///
    /// # Errors
    /// No answer.
    pub(super) async fn delete(
        &self,
        cql: &Cql,
        token: TokenId,
        syn: Syn,
    ) -> Result<(), StoreError> {
        let values = (bigint(syn), token.0.as_slice(), bigint(syn));
        let done = cql.session.execute_unpaged(&self.delete_one, values).await;
        done.map(drop).map_err(unavailable)
    }

    /// Deletes all rows up to a number.
    ///
    /// # Errors
    /// No answer.
    pub(super) async fn delete_up_to(
        &self,
        cql: &Cql,
        token: TokenId,
        up_to: Syn,
    ) -> Result<(), StoreError> {
        let values = (bigint(up_to), token.0.as_slice(), bigint(up_to));
        let done = cql
            .session
            .execute_unpaged(&self.delete_up_to, values)
            .await;
        done.map(drop).map_err(unavailable)
    }

    /// Deletes whatever may still arrive strictly between two numbers.
    ///
    /// # Errors
    /// No answer.
    pub(super) async fn delete_between(
        &self,
        cql: &Cql,
        token: TokenId,
        (after, before): (Syn, Syn),
    ) -> Result<(), StoreError> {
        let timestamp = bigint(before.saturating_sub(1));
        let values = (timestamp, token.0.as_slice(), bigint(after), bigint(before));
        let done = cql
            .session
            .execute_unpaged(&self.delete_between, values)
            .await;
        done.map(drop).map_err(unavailable)
    }

    /// Deletes every row of a token that has ended, those included that may still be written.
    ///
    /// # Errors
    /// No answer.
    pub(super) async fn delete_all(&self, cql: &Cql, token: TokenId) -> Result<(), StoreError> {
        let values = (END_OF_TIME, token.0.as_slice());
        let done = cql.session.execute_unpaged(&self.delete_all, values).await;
        done.map(drop).map_err(unavailable)
    }
}

fn push_of(row: Row) -> Result<Push, StoreError> {
    let message_id = row.message_id.try_into();
    let message_id = message_id.map_err(|_| misread("a message id is not 16 bytes long"))?;
    Ok(Push {
        syn: from_bigint(row.syn),
        message_id: MessageId::from_bytes(message_id),
        accepted_at: from_bigint(row.accepted_at),
        expires_at: from_bigint(row.expires_at),
        message: row.message.into(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_row_is_a_push_or_is_refused(
            numbers in any::<[i64; 3]>(),
            message_id in vec(any::<u8>(), 14..19),
            message in vec(any::<u8>(), 0..40),
        ) {
            let [syn, accepted_at, expires_at] = numbers;
            let row = Row {
                syn,
                message_id: message_id.clone(),
                accepted_at,
                expires_at,
                message: message.clone(),
            };
            let Ok(push) = push_of(row) else {
                prop_assert_ne!(message_id.len(), 16);
                return Ok(());
            };
            prop_assert_eq!(push.message_id.as_bytes().to_vec(), message_id);
            prop_assert_eq!(&push.message[..], message);
            for (number, read) in numbers.into_iter().zip([push.syn, push.accepted_at, push.expires_at]) {
                prop_assert_eq!(bigint(read), number.max(0), "nothing is below zero");
            }
        }
    }
}
