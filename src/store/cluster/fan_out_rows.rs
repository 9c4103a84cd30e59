//! The rows of pushes to many: one for each that is not finished, with whom it belongs to and how
//! far it has come; and beside them, by node, pointers to those that a node has begun.
//!
//! Whose a push to many is, and how far it has come, is compared and set. Its first row is a plain
//! write, under a timestamp in milliseconds: older than everything that is compared and set, which
//! has its time in microseconds. Pointers and nodes may say too much, but never too little.

use std::time::Instant;

use scylla::errors::PrepareError;
use scylla::response::query_result::QueryResult;
use scylla::statement::prepared::PreparedStatement;

use super::clocks::clock_us;
use super::cql::{Cql, bigint, from_bigint, misread, unavailable, unknown, write_by};
use super::deliberate::is_applied;
use super::token_rows::seconds;
use crate::clock::Millis;
use crate::push::MessageId;
use crate::store::StoreError;
use crate::store::region::NodeId;
use crate::token::ProjectHash;
use crate::topic::{Checkpoint, FanOut, Place, Reach};

/// A row outlives its push by this much.
const ROW_GRACE_MS: Millis = 24 * 60 * 60 * 1_000;

/// What is written without knowing how long the push lives stays longer than any does.
const LONGEST_LIFE_S: u64 = 30 * 24 * 60 * 60;

/// How taking over a push to many ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is ours now.
    Ours,
    /// Somebody else was quicker.
    Theirs,
    /// It is finished.
    Gone,
}

/// Project, reach, accepted at, expires at, collapse key, message, owner, walk, place, copies. What
/// is left of a row whose push has passed away lacks some.
type Row = (
    Option<Vec<u8>>,
    Option<String>,
    Option<i64>,
    Option<i64>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<i32>,
    Option<Vec<u8>>,
    Option<i64>,
);

/// The three tables.
pub(super) struct FanOutRows {
    insert: PreparedStatement,
    select: PreparedStatement,
    take: PreparedStatement,
    pass: PreparedStatement,
    delete: PreparedStatement,
    point: PreparedStatement,
    unpoint: PreparedStatement,
    pointers: PreparedStatement,
    add_node: PreparedStatement,
    remove_node: PreparedStatement,
    note_left: PreparedStatement,
    nodes: PreparedStatement,
}

impl FanOutRows {
    pub(super) async fn prepare(cql: &Cql) -> Result<Self, PrepareError> {
        let life = LONGEST_LIFE_S;
        let take =
            format!("UPDATE fan_out USING TTL {life} SET owner = ? WHERE id = ? IF owner = ?");
        let pass = format!(
            "UPDATE fan_out USING TTL {life} SET walk = ?, place = ?, copies = ? WHERE id = ? \
             IF owner = ?"
        );
        let point = format!(
            "INSERT INTO fan_out_of_node (node, id, project) VALUES (?, ?, ?) \
             USING TTL {life} AND TIMESTAMP ?"
        );
        let unpoint = "DELETE FROM fan_out_of_node USING TIMESTAMP ? WHERE node = ? AND id = ?";
        let add_node =
            format!("INSERT INTO fan_out_node (node) VALUES (?) USING TTL {life} AND TIMESTAMP ?");
        let note_left = format!(
            "UPDATE fan_out_node USING TTL {life} AND TIMESTAMP ? SET has_left = true \
             WHERE node = ?"
        );
        let remove_node = "DELETE FROM fan_out_node USING TIMESTAMP ? WHERE node = ?";
        Ok(Self {
            insert: cql
                .write(
                    "INSERT INTO fan_out (id, project, reach, accepted_at, expires_at, \
                     collapse_key, message, owner, walk, place, copies) \
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0x, 0) USING TTL ? AND TIMESTAMP ?",
                )
                .await?,
            select: cql
                .read(
                    "SELECT project, reach, accepted_at, expires_at, collapse_key, message, \
                     owner, walk, place, copies FROM fan_out WHERE id = ?",
                )
                .await?,
            take: cql.deliberate(&take).await?,
            pass: cql.deliberate(&pass).await?,
            delete: cql
                .deliberate("DELETE FROM fan_out WHERE id = ? IF owner = ?")
                .await?,
            point: cql.write(&point).await?,
            unpoint: cql.write(unpoint).await?,
            pointers: cql
                .read("SELECT id, project FROM fan_out_of_node WHERE node = ?")
                .await?,
            add_node: cql.write(&add_node).await?,
            remove_node: cql.write(remove_node).await?,
            note_left: cql.write(&note_left).await?,
            nodes: cql.read("SELECT node, has_left FROM fan_out_node").await?,
        })
    }

    /// Makes a push to many durable, as this node's.
    ///
    /// # Errors
    /// As [`write_by`] has it.
    pub(super) async fn insert(
        &self,
        cql: &Cql,
        fan_out: &FanOut,
        owner: NodeId,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let life_ms = fan_out.expires_at.saturating_sub(fan_out.accepted_at);
        let (id, owner) = (*fan_out.message_id.as_bytes(), owner.bytes());
        let values = (
            id.as_slice(),
            fan_out.project.0.as_slice(),
            fan_out.reach.to_text(),
            bigint(fan_out.accepted_at),
            bigint(fan_out.expires_at),
            fan_out.collapse_key.as_ref().map(<[u8; 16]>::as_slice),
            fan_out.message.as_ref(),
            owner.as_slice(),
            seconds(life_ms.saturating_add(ROW_GRACE_MS)),
            bigint(fan_out.accepted_at),
        );
        write_by(deadline, || {
            cql.session.execute_unpaged(&self.insert, &values)
        })
        .await
    }

    /// A push to many that is this node's, and how far it has come.
    ///
    /// # Errors
    /// No answer, or a row of another shape.
    pub(super) async fn find(
        &self,
        cql: &Cql,
        message_id: MessageId,
        owner: NodeId,
    ) -> Result<Option<(FanOut, Checkpoint)>, StoreError> {
        let id = *message_id.as_bytes();
        let values = (id.as_slice(),);
        let answer = cql.session.execute_unpaged(&self.select, values).await;
        let rows = answer.map_err(unavailable)?;
        let rows = rows.into_rows_result().map_err(misread)?;
        match rows.maybe_first_row::<Row>().map_err(misread)? {
            Some(row) if row.6.as_deref() == Some(owner.bytes().as_slice()) => {
                fan_out_of(message_id, row)
            }
            _ => Ok(None),
        }
    }

    /// Takes a push to many over from its owner.
    ///
    /// # Errors
    /// No answer: it may be taken.
    pub(super) async fn take(
        &self,
        cql: &Cql,
        message_id: MessageId,
        from: NodeId,
        to: NodeId,
    ) -> Result<Taken, StoreError> {
        let (id, from, to) = (*message_id.as_bytes(), from.bytes(), to.bytes());
        let values = (to.as_slice(), id.as_slice(), from.as_slice());
        let answer = cql.session.execute_unpaged(&self.take, values).await;
        taken(answer.map_err(unknown)?, &to)
    }

    /// Notes how far a push to many has come, if it is this node's.
    ///
    /// # Errors
    /// No answer: it may be noted.
    pub(super) async fn pass(
        &self,
        cql: &Cql,
        message_id: MessageId,
        checkpoint: &Checkpoint,
        owner: NodeId,
    ) -> Result<bool, StoreError> {
        let (id, owner) = (*message_id.as_bytes(), owner.bytes());
        let values = (
            i32::try_from(checkpoint.walk).unwrap_or(i32::MAX),
            checkpoint.place.0.as_slice(),
            bigint(checkpoint.copies),
            id.as_slice(),
            owner.as_slice(),
        );
        let answer = cql.session.execute_unpaged(&self.pass, values).await;
        is_applied(answer.map_err(unknown)?)
    }

    /// Forgets a push to many, if it is this node's.
    ///
    /// # Errors
    /// No answer: it may be forgotten.
    pub(super) async fn delete(
        &self,
        cql: &Cql,
        message_id: MessageId,
        owner: NodeId,
    ) -> Result<(), StoreError> {
        let (id, owner) = (*message_id.as_bytes(), owner.bytes());
        let values = (id.as_slice(), owner.as_slice());
        let answer = cql.session.execute_unpaged(&self.delete, values).await;
        is_applied(answer.map_err(unknown)?).map(drop)
    }

    /// Notes that a node has begun a push to many: to be durable before the push is.
    ///
    /// # Errors
    /// No answer.
    pub(super) async fn point(
        &self,
        cql: &Cql,
        node: NodeId,
        (message_id, project): (MessageId, ProjectHash),
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let (node, id) = (node.bytes(), *message_id.as_bytes());
        let now = bigint(clock_us());
        let pointer = (node.as_slice(), id.as_slice(), project.0.as_slice(), now);
        let named = (node.as_slice(), now);
        tokio::try_join!(
            write_by(deadline, || cql
                .session
                .execute_unpaged(&self.point, &pointer)),
            write_by(deadline, || cql
                .session
                .execute_unpaged(&self.add_node, &named))
        )
        .map(drop)
    }

    /// Takes a pointer away.
    ///
    /// # Errors
    /// No answer.
    pub(super) async fn unpoint(
        &self,
        cql: &Cql,
        node: NodeId,
        message_id: MessageId,
    ) -> Result<(), StoreError> {
        let (node, id) = (node.bytes(), *message_id.as_bytes());
        let values = (bigint(clock_us()), node.as_slice(), id.as_slice());
        let done = cql.session.execute_unpaged(&self.unpoint, values).await;
        done.map(drop).map_err(unavailable)
    }

    /// What a node has begun, some of it finished perhaps.
    ///
    /// # Errors
    /// No answer, or a row of another shape.
    pub(super) async fn pointers(
        &self,
        cql: &Cql,
        node: NodeId,
    ) -> Result<Vec<(MessageId, ProjectHash)>, StoreError> {
        let node = node.bytes();
        let values = (node.as_slice(),);
        let answer = cql.session.execute_unpaged(&self.pointers, values).await;
        let rows = answer.map_err(unavailable)?;
        let rows = rows.into_rows_result().map_err(misread)?;
        let rows = rows.rows::<(Vec<u8>, Vec<u8>)>().map_err(misread)?;
        rows.map(|row| {
            let (id, project) = row.map_err(misread)?;
            let ids = id.try_into().ok().zip(project.try_into().ok());
            let (id, project) = ids.ok_or_else(|| misread("a pointer to a push to many"))?;
            Ok((MessageId::from_bytes(id), ProjectHash(project)))
        })
        .collect()
    }

    /// Nodes that have begun a push to many and are not forgotten yet, and whether each has said
    /// that it stops.
    ///
    /// # Errors
    /// No answer, or a row of another shape.
    pub(super) async fn nodes(&self, cql: &Cql) -> Result<Vec<(NodeId, bool)>, StoreError> {
        let answer = cql.session.execute_unpaged(&self.nodes, ()).await;
        let rows = answer.map_err(unavailable)?;
        let rows = rows.into_rows_result().map_err(misread)?;
        let rows = rows.rows::<(Vec<u8>, Option<bool>)>().map_err(misread)?;
        rows.map(|row| {
            let (node, has_left) = row.map_err(misread)?;
            let node = node.try_into();
            let node = node.map_err(|_| misread("a node's name is not 8 bytes long"))?;
            Ok((NodeId::from_bytes(node), has_left == Some(true)))
        })
        .collect()
    }

    /// Notes that a node stops.
    ///
    /// # Errors
    /// No answer.
    pub(super) async fn note_left(&self, cql: &Cql, node: NodeId) -> Result<(), StoreError> {
        let node = node.bytes();
        let values = (bigint(clock_us()), node.as_slice());
        let done = cql.session.execute_unpaged(&self.note_left, values).await;
        done.map(drop).map_err(unavailable)
    }

    /// Forgets a node, unless it has begun a push to many after `before_us`.
    ///
    /// # Errors
    /// No answer.
    pub(super) async fn remove_node(
        &self,
        cql: &Cql,
        node: NodeId,
        before_us: u64,
    ) -> Result<(), StoreError> {
        let node = node.bytes();
        let values = (bigint(before_us), node.as_slice());
        let done = cql.session.execute_unpaged(&self.remove_node, values).await;
        done.map(drop).map_err(unavailable)
    }
}

/// What a compare and set of the owner says, whose name stands in its answer when it failed.
fn taken(answer: QueryResult, to: &[u8]) -> Result<Taken, StoreError> {
    let rows = answer.into_rows_result().map_err(misread)?;
    let column = rows.column_specs().get_by_name("owner");
    let place = column.map(|(place, _)| place);
    let row = rows.first_row::<scylla::value::Row>().map_err(misread)?;
    let is_applied = row.columns.first().and_then(Option::as_ref);
    if is_applied.and_then(scylla::value::CqlValue::as_boolean) == Some(true) {
        return Ok(Taken::Ours);
    }
    let owner = place.and_then(|place| row.columns.get(place)?.as_ref()?.as_blob());
    Ok(match owner {
        None => Taken::Gone,
        // It was taken before, by a call whose answer was lost.
        Some(owner) if owner.as_slice() == to => Taken::Ours,
        Some(_) => Taken::Theirs,
    })
}

fn fan_out_of(message_id: MessageId, row: Row) -> Result<Option<(FanOut, Checkpoint)>, StoreError> {
    let (project, reach, accepted_at, expires_at, collapse_key, message, _, walk, place, copies) =
        row;
    let (Some(project), Some(reach), Some(message)) = (project, reach, message) else {
        return Ok(None);
    };
    let project = project.try_into().map(ProjectHash);
    let time = |time: Option<i64>| time.map_or(0, from_bigint);
    let fan_out = FanOut {
        message_id,
        project: project.map_err(|_| misread("a project's hash is not 8 bytes long"))?,
        reach: Reach::from_text(&reach).ok_or_else(|| misread("whom a push is to reach"))?,
        accepted_at: time(accepted_at),
        expires_at: time(expires_at),
        collapse_key: collapse_key.and_then(|key| key.try_into().ok()),
        idempotency: None,
        message: message.into(),
    };
    let checkpoint = Checkpoint {
        walk: walk.map_or(0, |walk| usize::try_from(walk).unwrap_or_default()),
        place: Place(place.unwrap_or_default()),
        copies: time(copies),
    };
    Ok(Some((fan_out, checkpoint)))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_row_is_a_push_to_many_or_its_rest_or_is_refused(
            project in option::weighted(0.9, vec(any::<u8>(), 7..10)),
            reach in option::weighted(0.9, "topic [a-z ]{1,4}|condition [!('a) intopcs]{0,20}|\\PC{0,9}"),
            times in any::<[Option<i64>; 3]>(),
            key in option::of(vec(any::<u8>(), 15..18)),
            message in option::weighted(0.9, vec(any::<u8>(), 0..20)),
            walk in any::<Option<i32>>(),
            place in option::of(vec(any::<u8>(), 0..20)),
        ) {
            let [accepted_at, expires_at, copies] = times;
            let row = (
                project.clone(), reach.clone(), accepted_at, expires_at, key.clone(),
                message.clone(), None, walk, place.clone(), copies,
            );
            match fan_out_of(MessageId::from_bytes([1; 16]), row) {
                Ok(None) => prop_assert!(project.is_none() || reach.is_none() || message.is_none()),
                Ok(Some((fan_out, checkpoint))) => {
                    prop_assert_eq!(Some(fan_out.project.0.to_vec()), project);
                    prop_assert_eq!(Some(fan_out.reach.to_text()), reach);
                    prop_assert_eq!(Some(fan_out.message.to_vec()), message);
                    let key = key.filter(|key| key.len() == 16);
                    prop_assert_eq!(fan_out.collapse_key.map(|key| key.to_vec()), key);
                    prop_assert_eq!(checkpoint.place.0, place.unwrap_or_default());
                    prop_assert!(checkpoint.walk as i64 == i64::from(walk.unwrap_or(0).max(0)));
                }
                Err(_) => {
                    let is_hash = project.is_some_and(|project| project.len() == 8);
                    let is_reach = reach.is_some_and(|reach| Reach::from_text(&reach).is_some());
                    prop_assert!(!is_hash || !is_reach);
                }
            }
        }
    }
}
