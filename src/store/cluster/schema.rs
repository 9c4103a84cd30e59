//! The tables of a region: made once, checked at every start.

use std::collections::BTreeSet;

use thiserror::Error;

use super::cql::Cql;
use super::options::ClusterOptions;

/// The form of tables and rows. A keyspace that says otherwise is left alone.
const FORMAT: &str = "1";

/// How long Scylla keeps marks of deleted rows, in seconds: longer than the three hours for which
/// a node that was down is sent the writes it missed, so that none of them comes back to life.
const TOMBSTONES_KEPT_S: u32 = 6 * 60 * 60;

/// The same for rows that do no harm when they come back to life.
const POINTERS_GONE_S: u32 = 3 * 60 * 60;

/// Why the tables cannot be used.
#[derive(Debug, Error)]
pub enum SchemaError {
    /// The keyspace belongs to another version, or to somebody else.
    #[error("the keyspace {keyspace} {fault}")]
    Foreign {
        /// Its name.
        keyspace: String,
        /// What is wrong with it.
        fault: String,
    },
    /// Scylla did not do what it was asked.
    #[error("{0}")]
    Failed(String),
}

fn failed(error: impl std::fmt::Display) -> SchemaError {
    SchemaError::Failed(error.to_string())
}

/// What the keyspace looks like before anything is done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Everything is there.
    Complete,
    /// Nothing, or what a node left that stopped while it made them.
    Unfinished,
}

/// The tables, in the order in which they are made. `region` is last: once it names the format,
/// all the others exist.
fn tables() -> Vec<(&'static str, String)> {
    let push = format!(
        "CREATE TABLE IF NOT EXISTS push (token_id blob, syn bigint, message_id blob, \
         accepted_at bigint, expires_at bigint, collapse_key blob, message blob, \
         PRIMARY KEY (token_id, syn)) WITH gc_grace_seconds = {TOMBSTONES_KEPT_S}"
    );
    let mut tables = vec![
        ("push", push),
        (
            "push_token",
            "CREATE TABLE IF NOT EXISTS push_token (token_id blob PRIMARY KEY, project blob, \
             device blob, minted int, contact_at bigint, base bigint, dropped_up_to bigint, \
             is_ended boolean)"
                .to_owned(),
        ),
        (
            "idempotency",
            "CREATE TABLE IF NOT EXISTS idempotency (key blob PRIMARY KEY, message_id blob, \
             claimed_at bigint, is_settled boolean)"
                .to_owned(),
        ),
        (
            "project",
            "CREATE TABLE IF NOT EXISTS project (project_id text PRIMARY KEY, version bigint, \
             body text)"
                .to_owned(),
        ),
        (
            "secret",
            "CREATE TABLE IF NOT EXISTS secret (name text PRIMARY KEY, value blob)".to_owned(),
        ),
    ];
    tables.extend(topic_tables());
    tables.push((
        "region",
        "CREATE TABLE IF NOT EXISTS region (name text PRIMARY KEY, value text)".to_owned(),
    ));
    tables
}

fn topic_tables() -> [(&'static str, String); 5] {
    [
        (
            "topic_member",
            format!(
                "CREATE TABLE IF NOT EXISTS topic_member (project blob, topic blob, part tinyint, \
                 token_id blob, device blob, minted int, since bigint, \
                 PRIMARY KEY ((project, topic, part), token_id)) \
                 WITH gc_grace_seconds = {TOMBSTONES_KEPT_S}"
            ),
        ),
        (
            "topic_of_token",
            format!(
                "CREATE TABLE IF NOT EXISTS topic_of_token (token_id blob, topic text, \
                 since bigint, PRIMARY KEY (token_id, topic)) \
                 WITH gc_grace_seconds = {TOMBSTONES_KEPT_S}"
            ),
        ),
        (
            "fan_out",
            "CREATE TABLE IF NOT EXISTS fan_out (id blob PRIMARY KEY, project blob, reach text, \
             accepted_at bigint, expires_at bigint, collapse_key blob, message blob, owner blob, \
             walk int, place blob, copies bigint)"
                .to_owned(),
        ),
        (
            "fan_out_of_node",
            format!(
                "CREATE TABLE IF NOT EXISTS fan_out_of_node (node blob, id blob, project blob, \
                 PRIMARY KEY (node, id)) WITH gc_grace_seconds = {POINTERS_GONE_S}"
            ),
        ),
        (
            "fan_out_node",
            format!(
                "CREATE TABLE IF NOT EXISTS fan_out_node (node blob PRIMARY KEY, \
                 has_left boolean) WITH gc_grace_seconds = {POINTERS_GONE_S}"
            ),
        ),
    ]
}

/// Looks whether the keyspace is ours, and complete.
///
/// # Errors
/// It is not ours, or Scylla does not answer.
pub(super) async fn look(cql: &Cql, options: &ClusterOptions) -> Result<Found, SchemaError> {
    let present = tables_of(cql, &options.keyspace).await?;
    let ours: BTreeSet<String> = tables()
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let foreign: Vec<&String> = present.difference(&ours).collect();
    if let Some(stranger) = foreign.first() {
        return Err(SchemaError::Foreign {
            keyspace: options.keyspace.clone(),
            fault: format!("has a table that is not Herald's: {stranger}"),
        });
    }
    if !present.contains("region") {
        return Ok(Found::Unfinished);
    }
    match format_of(cql, &options.keyspace).await? {
        None => Ok(Found::Unfinished),
        Some(format) if format == FORMAT => Ok(Found::Complete),
        Some(format) => Err(SchemaError::Foreign {
            keyspace: options.keyspace.clone(),
            fault: format!("has format {format}, and this is a server for format {FORMAT}"),
        }),
    }
}

/// Makes what is missing. One node at a time: two that make a table at once may make two.
///
/// # Errors
/// Scylla does not answer, or refuses.
pub(super) async fn make(cql: &Cql, options: &ClusterOptions) -> Result<(), SchemaError> {
    let (keyspace, datacenter, copies) = (
        &options.keyspace,
        &options.datacenter,
        options.replication_factor,
    );
    let statement = format!(
        "CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = \
         {{'class': 'NetworkTopologyStrategy', '{datacenter}': {copies}}}"
    );
    run(cql, &statement).await?;
    enter(cql, options).await?;
    for (_, statement) in tables() {
        run(cql, &statement).await?;
    }
    let name_format = "INSERT INTO region (name, value) VALUES ('format', ?)";
    let named = cql.session.query_unpaged(name_format, (FORMAT,)).await;
    named.map(drop).map_err(failed)
}

/// Uses the keyspace from now on.
///
/// # Errors
/// There is none, or Scylla does not answer.
pub(super) async fn enter(cql: &Cql, options: &ClusterOptions) -> Result<(), SchemaError> {
    let entered = cql.session.use_keyspace(&options.keyspace, false).await;
    entered.map_err(failed)
}

async fn run(cql: &Cql, statement: &str) -> Result<(), SchemaError> {
    let run = cql.session.query_unpaged(statement, ()).await;
    run.map(drop).map_err(failed)
}

async fn tables_of(cql: &Cql, keyspace: &str) -> Result<BTreeSet<String>, SchemaError> {
    let select = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?";
    let answer = cql.session.query_unpaged(select, (keyspace,)).await;
    let rows = answer.map_err(failed)?.into_rows_result().map_err(failed)?;
    let names = rows.rows::<(String,)>().map_err(failed)?;
    names
        .map(|name| name.map(|(name,)| name).map_err(failed))
        .collect()
}

async fn format_of(cql: &Cql, keyspace: &str) -> Result<Option<String>, SchemaError> {
    let select = format!("SELECT value FROM {keyspace}.region WHERE name = 'format'");
    let answer = cql.session.query_unpaged(select, ()).await;
    let rows = answer.map_err(failed)?.into_rows_result().map_err(failed)?;
    let row = rows.maybe_first_row::<(String,)>().map_err(failed)?;
    Ok(row.map(|(format,)| format))
}
