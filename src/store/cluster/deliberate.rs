//! What nodes must agree upon one after another: projects, secrets, idempotency keys, who ends a
//! project's tokens. Each is a row that is compared and set in Scylla.

use scylla::errors::PrepareError;
use scylla::response::query_result::QueryResult;
use scylla::statement::prepared::PreparedStatement;

use super::cql::{Cql, bigint, from_bigint, misread, unavailable, unknown};
use crate::clock::Millis;
use crate::projects::Project;
use crate::push::{IdempotencyKey, MessageId};
use crate::store::{Claim, IDEMPOTENCY_MS, Saved, StoreError};
use crate::token::ProjectHash;

/// A send is over this long after its claim, one way or the other; with a node's own clock and
/// retries there is room to spare.
const CLAIM_RUNS_MS: Millis = 10_000;

/// A node that ends a project's tokens has this long before another may begin anew.
const ENDING_S: i32 = 60 * 60;

/// Rows that are compared and set.
pub(super) struct Deliberate {
    projects: PreparedStatement,
    make_project: PreparedStatement,
    change_project: PreparedStatement,
    make_secret: PreparedStatement,
    secret: PreparedStatement,
    claim: PreparedStatement,
    take_over: PreparedStatement,
    settle_claim: PreparedStatement,
    drop_claim: PreparedStatement,
    begin_ending: PreparedStatement,
    note_ended: PreparedStatement,
}

/// A claim as it stands.
#[derive(Debug, Clone, Copy)]
struct Claimed {
    message_id: MessageId,
    claimed_at: Millis,
    is_settled: bool,
}

impl Deliberate {
    pub(super) async fn prepare(cql: &Cql) -> Result<Self, PrepareError> {
        let ttl_s = IDEMPOTENCY_MS / 1_000;
        Ok(Self {
            projects: cql.read("SELECT body FROM project").await?,
            make_project: cql
                .deliberate(
                    "INSERT INTO project (project_id, version, body) VALUES (?, ?, ?) \
                     IF NOT EXISTS",
                )
                .await?,
            change_project: cql
                .deliberate(
                    "UPDATE project SET version = ?, body = ? WHERE project_id = ? \
                     IF version = ?",
                )
                .await?,
            make_secret: cql
                .deliberate("INSERT INTO secret (name, value) VALUES (?, ?) IF NOT EXISTS")
                .await?,
            secret: cql.read("SELECT value FROM secret WHERE name = ?").await?,
            claim: cql
                .deliberate(&format!(
                    "INSERT INTO idempotency (key, message_id, claimed_at, is_settled) \
                     VALUES (?, ?, ?, false) IF NOT EXISTS USING TTL {ttl_s}"
                ))
                .await?,
            take_over: cql
                .deliberate(&format!(
                    "UPDATE idempotency USING TTL {ttl_s} \
                     SET message_id = ?, claimed_at = ?, is_settled = false WHERE key = ? \
                     IF message_id = ? AND claimed_at = ?"
                ))
                .await?,
            settle_claim: cql
                .deliberate(&format!(
                    "UPDATE idempotency USING TTL {ttl_s} \
                     SET message_id = ?, claimed_at = ?, is_settled = true WHERE key = ? \
                     IF is_settled != true"
                ))
                .await?,
            drop_claim: cql
                .deliberate("DELETE FROM idempotency WHERE key = ? IF message_id = ?")
                .await?,
            begin_ending: cql
                .deliberate(&format!(
                    "INSERT INTO region (name, value) VALUES (?, 'ending') IF NOT EXISTS \
                     USING TTL {ENDING_S}"
                ))
                .await?,
            note_ended: cql
                .deliberate("UPDATE region SET value = 'ended' WHERE name = ? IF value = 'ending'")
                .await?,
        })
    }

    /// All projects.
    pub(super) async fn projects(&self, cql: &Cql) -> Result<Vec<Project>, StoreError> {
        let answer = cql.session.execute_unpaged(&self.projects, ()).await;
        let rows = answer.map_err(unavailable)?;
        let rows = rows.into_rows_result().map_err(misread)?;
        let rows = rows.rows::<(String,)>().map_err(misread)?;
        rows.map(|row| serde_json::from_str(&row.map_err(misread)?.0).map_err(misread))
            .collect()
    }

    /// Writes a project if the stored version is the one before.
    pub(super) async fn save_project(
        &self,
        cql: &Cql,
        project: &Project,
    ) -> Result<Saved, StoreError> {
        let body = serde_json::to_string(project).map_err(misread)?;
        let (id, version) = (project.project_id.as_str(), bigint(project.version));
        let answer = match project.version {
            1 => {
                let values = (id, version, &body);
                cql.session
                    .execute_unpaged(&self.make_project, values)
                    .await
            }
            _ => {
                let values = (version, &body, id, version - 1);
                cql.session
                    .execute_unpaged(&self.change_project, values)
                    .await
            }
        };
        Ok(match is_applied(answer.map_err(unknown)?)? {
            true => Saved::Saved,
            false => Saved::Conflict,
        })
    }

    /// Keeps a secret unless there is one of this name; answers with what is kept.
    pub(super) async fn keep_secret(
        &self,
        cql: &Cql,
        name: &str,
        proposed: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        let made = cql
            .session
            .execute_unpaged(&self.make_secret, (name, proposed));
        if is_applied(made.await.map_err(unavailable)?)? {
            return Ok(proposed.to_vec());
        }
        let kept = self.kept_secret(cql, name).await?;
        kept.ok_or(StoreError::Unavailable(
            "a secret was kept and is not there",
        ))
    }

    /// What is kept under a name, if anything is.
    pub(super) async fn kept_secret(
        &self,
        cql: &Cql,
        name: &str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let answer = cql.session.execute_unpaged(&self.secret, (name,)).await;
        let rows = answer.map_err(unavailable)?;
        let rows = rows.into_rows_result().map_err(misread)?;
        let kept = rows.maybe_first_row::<(Vec<u8>,)>().map_err(misread)?;
        Ok(kept.map(|(kept,)| kept))
    }

    /// Claims an idempotency key for a send.
    pub(super) async fn claim(
        &self,
        cql: &Cql,
        key: IdempotencyKey,
        proposed: MessageId,
        now: Millis,
    ) -> Result<Claim, StoreError> {
        let (id, at) = (*proposed.as_bytes(), bigint(now));
        let values = (key.0.as_slice(), id.as_slice(), at);
        let answer = cql.session.execute_unpaged(&self.claim, values).await;
        let Some(held) = held_claim(answer.map_err(unavailable)?)? else {
            return Ok(Claim::Fresh);
        };
        let age = now.saturating_sub(held.claimed_at);
        let is_over = age >= IDEMPOTENCY_MS;
        match held {
            _ if is_over => {}
            Claimed {
                is_settled: true, ..
            } => return Ok(Claim::Answered(held.message_id)),
            _ if age < CLAIM_RUNS_MS && held.message_id != proposed => return Ok(Claim::Elsewhere),
            _ => {}
        }
        let next = match is_over {
            true => proposed,
            false => held.message_id,
        };
        let values = (
            next.as_bytes().as_slice(),
            at,
            key.0.as_slice(),
            held.message_id.as_bytes().as_slice(),
            bigint(held.claimed_at),
        );
        let taken = cql.session.execute_unpaged(&self.take_over, values).await;
        Ok(match is_applied(taken.map_err(unavailable)?)? {
            true if is_over => Claim::Fresh,
            true => Claim::CutOff(next),
            false => Claim::Elsewhere,
        })
    }

    /// The send of a claimed key is durable.
    pub(super) async fn settle_claim(
        &self,
        cql: &Cql,
        key: IdempotencyKey,
        message_id: MessageId,
        now: Millis,
    ) -> Result<(), StoreError> {
        let id = *message_id.as_bytes();
        let values = (id.as_slice(), bigint(now), key.0.as_slice());
        let done = cql
            .session
            .execute_unpaged(&self.settle_claim, values)
            .await;
        done.map(drop).map_err(unavailable)
    }

    /// The send of a claimed key was refused: it leaves no trace.
    pub(super) async fn drop_claim(
        &self,
        cql: &Cql,
        key: IdempotencyKey,
        message_id: MessageId,
    ) -> Result<(), StoreError> {
        let id = *message_id.as_bytes();
        let values = (key.0.as_slice(), id.as_slice());
        let done = cql.session.execute_unpaged(&self.drop_claim, values).await;
        done.map(drop).map_err(unavailable)
    }

    /// Whether this node is to end a project's tokens: no other has done so or is at it.
    pub(super) async fn begin_ending(
        &self,
        cql: &Cql,
        project: ProjectHash,
    ) -> Result<bool, StoreError> {
        let name = ending(project);
        let answer = cql.session.execute_unpaged(&self.begin_ending, (name,));
        is_applied(answer.await.map_err(unavailable)?)
    }

    /// All tokens of a project have ended.
    pub(super) async fn note_ended(
        &self,
        cql: &Cql,
        project: ProjectHash,
    ) -> Result<(), StoreError> {
        let done = cql
            .session
            .execute_unpaged(&self.note_ended, (ending(project),));
        done.await.map(drop).map_err(unavailable)
    }
}

fn ending(project: ProjectHash) -> String {
    let [a, b, c, d, e, f, g, h] = project.0;
    format!("ending:{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}{g:02x}{h:02x}")
}

/// The first column of the answer to a compare and set. What else is in the row depends on the
/// server and on the outcome.
pub(super) fn is_applied(answer: QueryResult) -> Result<bool, StoreError> {
    let rows = answer.into_rows_result().map_err(misread)?;
    let row = rows.first_row::<scylla::value::Row>().map_err(misread)?;
    let applied = row.columns.into_iter().next().flatten();
    let applied = applied.and_then(|value| value.as_boolean());
    applied.ok_or_else(|| misread("no word on whether it was applied"))
}

/// The claim that stood in the way, if one did.
fn held_claim(answer: QueryResult) -> Result<Option<Claimed>, StoreError> {
    let rows = answer.into_rows_result().map_err(misread)?;
    let place = |name: &str| {
        rows.column_specs()
            .get_by_name(name)
            .map(|(place, _)| place)
    };
    let places = [
        place("message_id"),
        place("claimed_at"),
        place("is_settled"),
    ];
    let row = rows.first_row::<scylla::value::Row>().map_err(misread)?;
    let is_applied = row.columns.first().and_then(Option::as_ref);
    if is_applied.and_then(scylla::value::CqlValue::as_boolean) == Some(true) {
        return Ok(None);
    }
    let [message_id, claimed_at, is_settled] =
        places.map(|place| place.and_then(|place| row.columns.get(place)?.as_ref()));
    let message_id = message_id.and_then(|value| value.as_blob());
    let message_id = message_id.and_then(|id| id.as_slice().try_into().ok());
    let message_id = message_id.ok_or_else(|| misread("a claim without a message id"))?;
    Ok(Some(Claimed {
        message_id: MessageId::from_bytes(message_id),
        claimed_at: claimed_at
            .and_then(|value| value.as_bigint())
            .map_or(0, from_bigint),
        is_settled: is_settled
            .and_then(|value| value.as_boolean())
            .unwrap_or(false),
    }))
}
