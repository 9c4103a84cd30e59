//! The rows of tokens: what is left when Redis has lost a record.
//!
//! Each value carries itself as its timestamp (a base as large as itself, a contact its time), so
//! that the highest wins whoever writes it, in whatever order.

use std::ops::ControlFlow;

use scylla::DeserializeRow;
use scylla::errors::PrepareError;
use scylla::response::PagingState;
use scylla::statement::prepared::PreparedStatement;

use super::cql::{Cql, bigint, from_bigint, misread, unavailable};
use crate::clock::Millis;
use crate::push::Syn;
use crate::store::StoreError;
use crate::token::{DeviceId, ProjectHash, TokenAddress, TokenId};

/// What a token's row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TokenRow {
    /// Ended for ever.
    pub(super) is_ended: bool,
    /// When its device was last heard of.
    pub(super) contact_at: Millis,
    /// A number above all that were ever given before some failover; 0 when there was none.
    pub(super) base: Syn,
    /// Dropped by the pending cap up to here.
    pub(super) dropped_up_to: Syn,
}

#[derive(DeserializeRow)]
struct Row {
    contact_at: Option<i64>,
    base: Option<i64>,
    dropped_up_to: Option<i64>,
    is_ended: Option<bool>,
}

/// The table of tokens.
pub(super) struct TokenRows {
    select: PreparedStatement,
    select_project: PreparedStatement,
    select_all: PreparedStatement,
    write_contact: PreparedStatement,
    write_base: PreparedStatement,
    write_dropped: PreparedStatement,
    write_end: PreparedStatement,
}

impl TokenRows {
    pub(super) async fn prepare(cql: &Cql) -> Result<Self, PrepareError> {
        Ok(Self {
            select: cql
                .read(
                    "SELECT contact_at, base, dropped_up_to, is_ended FROM push_token \
                     WHERE token_id = ?",
                )
                .await?,
            select_project: cql.read("SELECT token_id, project FROM push_token").await?,
            select_all: cql
                .read(
                    "SELECT token(token_id), token_id, project, device, minted, contact_at, \
                     is_ended FROM push_token WHERE token(token_id) > ? LIMIT ?",
                )
                .await?,
            write_contact: cql
                .write(
                    "UPDATE push_token USING TTL ? AND TIMESTAMP ? \
                     SET project = ?, device = ?, minted = ?, contact_at = ? WHERE token_id = ?",
                )
                .await?,
            write_base: cql
                .write(
                    "UPDATE push_token USING TTL ? AND TIMESTAMP ? SET base = ? \
                     WHERE token_id = ?",
                )
                .await?,
            write_dropped: cql
                .write(
                    "UPDATE push_token USING TTL ? AND TIMESTAMP ? SET dropped_up_to = ? \
                     WHERE token_id = ?",
                )
                .await?,
            write_end: cql
                .write("UPDATE push_token USING TTL ? SET is_ended = true WHERE token_id = ?")
                .await?,
        })
    }

    /// A token's row; `None` if it has none.
    ///
    /// # Errors
    /// No answer, or a row of another shape.
    pub(super) async fn find(
        &self,
        cql: &Cql,
        token: TokenId,
    ) -> Result<Option<TokenRow>, StoreError> {
        let answer = cql
            .session
            .execute_unpaged(&self.select, (token.0.as_slice(),));
        let rows = answer.await.map_err(unavailable)?;
        let rows = rows.into_rows_result().map_err(misread)?;
        let row = rows.maybe_first_row::<Row>().map_err(misread)?;
        Ok(row.and_then(|row| {
            let is_ended = row.is_ended.unwrap_or(false);
            let number = |value: Option<i64>| value.map_or(0, from_bigint);
            // What is left of a row whose contact has passed away is no token.
            (is_ended || row.contact_at.is_some()).then(|| TokenRow {
                is_ended,
                contact_at: number(row.contact_at),
                base: number(row.base),
                dropped_up_to: number(row.dropped_up_to),
            })
        }))
    }

    /// Makes a token's row, or notes that its device was heard of.
    ///
    /// # Errors
    /// No answer.
    pub(super) async fn write_contact(
        &self,
        cql: &Cql,
        address: &TokenAddress,
        now: Millis,
        life_ms: Millis,
    ) -> Result<(), StoreError> {
        let now = bigint(now);
        let values = (
            seconds(life_ms),
            now,
            address.project.0.as_slice(),
            address.device.0.as_slice(),
            address.minted_minutes.cast_signed(),
            now,
            address.id.0.as_slice(),
        );
        let done = cql
            .session
            .execute_unpaged(&self.write_contact, values)
            .await;
        done.map(drop).map_err(unavailable)
    }

    /// Notes a number above all that were ever given.
    ///
    /// # Errors
    /// No answer.
    pub(super) async fn write_base(
        &self,
        cql: &Cql,
        token: TokenId,
        base: Syn,
        life_ms: Millis,
    ) -> Result<(), StoreError> {
        let values = (
            seconds(life_ms),
            bigint(base),
            bigint(base),
            token.0.as_slice(),
        );
        let done = cql.session.execute_unpaged(&self.write_base, values).await;
        done.map(drop).map_err(unavailable)
    }

    /// Notes how far the pending cap has dropped pushes.
    ///
    /// # Errors
    /// No answer.
    pub(super) async fn write_dropped(
        &self,
        cql: &Cql,
        token: TokenId,
        up_to: Syn,
        life_ms: Millis,
    ) -> Result<(), StoreError> {
        let values = (
            seconds(life_ms),
            bigint(up_to),
            bigint(up_to),
            token.0.as_slice(),
        );
        let done = cql
            .session
            .execute_unpaged(&self.write_dropped, values)
            .await;
        done.map(drop).map_err(unavailable)
    }

    /// Ends a token; the note must outlive everything else in its row.
    ///
    /// # Errors
    /// No answer.
    pub(super) async fn write_end(
        &self,
        cql: &Cql,
        token: TokenId,
        remembered_ms: Millis,
    ) -> Result<(), StoreError> {
        let values = (seconds(remembered_ms), token.0.as_slice());
        let done = cql.session.execute_unpaged(&self.write_end, values).await;
        done.map(drop).map_err(unavailable)
    }

    /// A part of all tokens: those of a project in it, and where to go on.
    ///
    /// # Errors
    /// No answer, or a row of another shape.
    pub(super) async fn some_of(
        &self,
        cql: &Cql,
        project: ProjectHash,
        place: PagingState,
    ) -> Result<(Vec<TokenId>, Option<PagingState>), StoreError> {
        let answer = cql
            .session
            .execute_single_page(&self.select_project, (), place);
        let (rows, next) = answer.await.map_err(unavailable)?;
        let rows = rows.into_rows_result().map_err(misread)?;
        let rows = rows.rows::<(Vec<u8>, Option<Vec<u8>>)>().map_err(misread)?;
        let mut tokens = Vec::new();
        for row in rows {
            let (token, owner) = row.map_err(misread)?;
            if owner.as_deref() == Some(project.0.as_slice()) {
                tokens.extend(token.try_into().map(TokenId));
            }
        }
        let next = match next.into_paging_control_flow() {
            ControlFlow::Continue(next) => Some(next),
            ControlFlow::Break(()) => None,
        };
        Ok((tokens, next))
    }
}

/// Living tokens on a stretch of all of them, and the ring position of the last row on it, if there
/// may be more behind.
pub(super) type SomeTokens = (Vec<TokenAddress>, Option<i64>);

impl TokenRows {
    /// The living tokens of a project among the next `limit` rows after a position on the ring.
    /// Unlike the server's own paging state, a position means the same to every server for ever.
    ///
    /// # Errors
    /// No answer, or a row of another shape.
    pub(super) async fn living_of(
        &self,
        cql: &Cql,
        project: ProjectHash,
        after: i64,
        limit: usize,
    ) -> Result<SomeTokens, StoreError> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let answer = cql
            .session
            .execute_unpaged(&self.select_all, (after, limit));
        let rows = answer.await.map_err(unavailable)?;
        let rows = rows.into_rows_result().map_err(misread)?;
        let is_full = i32::try_from(rows.rows_num()).unwrap_or(i32::MAX) >= limit;
        let (mut living, mut last) = (Vec::new(), after);
        for row in rows.rows::<AnyRow>().map_err(misread)? {
            let row = row.map_err(misread)?;
            last = row.0;
            living.extend(living_token(row).filter(|address| address.project == project));
        }
        Ok((living, Some(last).filter(|_| is_full)))
    }
}

/// Ring position, token, project, device, minutes when it was minted, last contact, whether ended.
type AnyRow = (
    i64,
    Vec<u8>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<i32>,
    Option<i64>,
    Option<bool>,
);

/// What is left of a row whose contact has passed away is no token.
fn living_token(row: AnyRow) -> Option<TokenAddress> {
    let (_, token, project, device, minted, contact_at, is_ended) = row;
    if is_ended == Some(true) {
        return None;
    }
    contact_at?;
    Some(TokenAddress {
        id: TokenId(token.try_into().ok()?),
        device: DeviceId(device?.try_into().ok()?),
        project: ProjectHash(project?.try_into().ok()?),
        minted_minutes: minted?.cast_unsigned(),
    })
}

/// A lifetime as CQL has it: whole seconds, never 0, which would mean for ever, and at most the
/// twenty years that it allows.
pub(super) fn seconds(life_ms: Millis) -> i32 {
    const TWENTY_YEARS_S: u64 = 20 * 365 * 24 * 60 * 60;
    let seconds = life_ms.div_ceil(1_000).clamp(1, TWENTY_YEARS_S);
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_row_is_a_living_token_or_none(
            token in vec(any::<u8>(), 15..18),
            project in option::weighted(0.9, vec(any::<u8>(), 7..10)),
            device in option::weighted(0.9, vec(any::<u8>(), 15..18)),
            minted in any::<Option<i32>>(),
            contact_at in any::<Option<i64>>(),
            is_ended in any::<Option<bool>>(),
        ) {
            let row = (
                7, token.clone(), project.clone(), device.clone(), minted, contact_at, is_ended,
            );
            let is_alive = is_ended != Some(true) && contact_at.is_some() && minted.is_some();
            let is_long = |part: &Option<Vec<u8>>, bytes| part.as_ref().is_some_and(|part| part.len() == bytes);
            let is_whole = token.len() == 16 && is_long(&project, 8) && is_long(&device, 16);
            let living = living_token(row);
            prop_assert_eq!(living.is_some(), is_alive && is_whole);
            if let Some(address) = living {
                prop_assert_eq!(address.id.0.to_vec(), token);
                prop_assert_eq!(Some(address.project.0.to_vec()), project);
                prop_assert_eq!(Some(address.device.0.to_vec()), device);
                prop_assert_eq!(Some(address.minted_minutes.cast_signed()), minted);
            }
        }
    }
}
