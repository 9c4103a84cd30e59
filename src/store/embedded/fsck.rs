//! Checks a store at rest: everything decodes, every row has its record, every record its place in
//! the wake index, and all counts agree.
//!
//! Each kind of key is walked over once. Only a store in which two kinds do not fit is walked over
//! again, with a read for each entry, to say which of them is at fault.

mod streams;
mod topics;

use std::fmt;
use std::iter::Peekable;
use std::path::Path;

use fjall::{UserKey, UserValue};

use self::streams::Balance;
use super::engine::{Engine, OpenError};
use super::record::{
    Record, TOTALS_KEY, answer_end_key, decode_answer, decode_row_head, decode_totals, kind,
    row_of, timed_of, token_of, wake_key,
};
use crate::clock::Millis;
use crate::projects::Project;
use crate::push::IdempotencyKey;
use crate::store::{StoreError, Totals};
use crate::token::TokenId;

/// Memory for blocks while checking.
const BLOCK_CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// Faults that are spelled out; further ones are only counted.
const FAULTS_SHOWN_MAX: usize = 100;

/// What a store at rest holds, and what is wrong with it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FsckReport {
    /// Living tokens.
    pub tokens: u64,
    /// Tokens that ended so recently that their record is kept.
    pub tombstones: u64,
    /// Pushes that are pending, the expired ones included.
    pub pending: u64,
    /// Of these, the ones that have expired and wait for a sweep.
    pub expired_unswept: u64,
    /// Idempotency keys.
    pub answers: u64,
    /// Projects, deleted ones included.
    pub projects: u64,
    /// Subscriptions to topics.
    pub subscriptions: u64,
    /// Pushes to many that are not finished.
    pub fan_outs: u64,
    /// The first faults, spelled out.
    pub faults: Vec<String>,
    /// All faults.
    pub fault_count: u64,
}

impl FsckReport {
    /// Nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.fault_count == 0
    }

    fn fault(&mut self, fault: impl Into<String>) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_SHOWN_MAX {
            self.faults.push(fault.into());
        }
    }
}

impl fmt::Display for FsckReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "tokens           {}", self.tokens)?;
        writeln!(formatter, "tombstones       {}", self.tombstones)?;
        writeln!(formatter, "pending          {}", self.pending)?;
        writeln!(formatter, "expired, unswept {}", self.expired_unswept)?;
        writeln!(formatter, "idempotency keys {}", self.answers)?;
        writeln!(formatter, "projects         {}", self.projects)?;
        writeln!(formatter, "subscriptions    {}", self.subscriptions)?;
        writeln!(formatter, "fan-outs         {}", self.fan_outs)?;
        writeln!(formatter, "faults           {}", self.fault_count)?;
        for fault in &self.faults {
            writeln!(formatter, "  {fault}")?;
        }
        let unshown = self.fault_count - self.faults.len() as u64;
        if unshown > 0 {
            writeln!(formatter, "  and {unshown} more")?;
        }
        Ok(())
    }
}

/// Checks the store in `directory`.
///
/// # Errors
/// There is no store, another process holds it, or it cannot be opened or read through. Faults in
/// what it holds are in the report.
pub fn fsck(directory: &Path, now: Millis) -> Result<FsckReport, OpenError> {
    let engine = Engine::open_existing(directory, BLOCK_CACHE_BYTES)?;
    let checked = check(&engine, now);
    checked.map_err(|error| OpenError::Corrupt(error.to_string()))
}

fn check(engine: &Engine, now: Millis) -> Result<FsckReport, StoreError> {
    let mut report = FsckReport::default();
    let mut wakes = Balance::new();
    check_tokens(engine, now, &mut wakes, &mut report)?;
    check_wakes(engine, wakes, &mut report)?;
    check_answers(engine, &mut report)?;
    check_projects(engine, &mut report)?;
    topics::check_topics(engine, &mut report)?;
    check_totals(engine, &mut report)?;
    Ok(report)
}

/// Tokens and rows both come in the order of token ids, so one walk over both is enough.
fn check_tokens(
    engine: &Engine,
    now: Millis,
    wakes: &mut Balance,
    report: &mut FsckReport,
) -> Result<(), StoreError> {
    let mut rows = all_of(engine, kind::ROW).peekable();
    for token in all_of(engine, kind::TOKEN) {
        let (key, value) = token?;
        let Ok(id) = token_of(&key) else {
            report.fault("a token's key does not decode");
            continue;
        };
        skip_rows_before(&mut rows, id, report)?;
        let record = Record::decode(&value);
        match &record {
            Ok(record) => {
                check_token(id, record, report);
                wakes.expect(&wake_key(record.wake, id));
            }
            Err(fault) => report.fault(format!("{id:?}: the record does not decode: {fault}")),
        }
        let record = record.ok();
        let found = check_rows(&mut rows, id, record.as_ref(), now, report)?;
        if record.is_some_and(|record| !record.may_have_rows && found > 0) {
            report.fault(format!(
                "{id:?}: the record knows nothing of the {found} rows found"
            ));
        }
    }
    skip_rows_before(&mut rows, TokenId([u8::MAX; 16]), report)
}

fn check_token(id: TokenId, record: &Record, report: &mut FsckReport) {
    let count = if record.is_ended {
        &mut report.tombstones
    } else {
        &mut report.tokens
    };
    *count += 1;
    if record.acked > record.syn || record.deleted_up_to > record.syn {
        report.fault(format!("{id:?}: marks beyond the highest number"));
    }
}

type Entry = Result<(UserKey, UserValue), StoreError>;

fn check_rows(
    rows: &mut Peekable<impl Iterator<Item = Entry>>,
    id: TokenId,
    record: Option<&Record>,
    now: Millis,
    report: &mut FsckReport,
) -> Result<u64, StoreError> {
    let mut found = 0;
    let is_of_token = |row: &Entry| match row {
        Ok((key, _)) => row_of(key).is_ok_and(|(token, _)| token == id),
        Err(_) => true,
    };
    while let Some(row) = rows.next_if(is_of_token) {
        let (key, value) = row?;
        let syn = row_of(&key).map_or(0, |(_, syn)| syn);
        found += 1;
        report.pending += 1;
        match decode_row_head(syn, &value) {
            Ok(head) => report.expired_unswept += u64::from(head.expires_at <= now),
            Err(fault) => report.fault(format!("{id:?}: push {syn} does not decode: {fault}")),
        }
        let Some(record) = record else { continue };
        if syn <= record.acked || record.is_ended {
            report.fault(format!("{id:?}: push {syn} should be gone"));
        }
    }
    Ok(found)
}

fn skip_rows_before(
    rows: &mut Peekable<impl Iterator<Item = Entry>>,
    id: TokenId,
    report: &mut FsckReport,
) -> Result<(), StoreError> {
    let is_before = |row: &Entry| match row {
        Ok((key, _)) => row_of(key).map_or(true, |(token, _)| token < id),
        Err(_) => true,
    };
    while let Some(row) = rows.next_if(is_before) {
        let (key, _) = row?;
        match row_of(&key) {
            Ok((token, syn)) => report.fault(format!("{token:?}: push {syn} has no record")),
            Err(fault) => report.fault(format!("a push's key does not decode: {fault}")),
        }
    }
    Ok(())
}

/// The index goes by time: each record has its place there if the places are those that records
/// name.
fn check_wakes(
    engine: &Engine,
    mut wakes: Balance,
    report: &mut FsckReport,
) -> Result<(), StoreError> {
    let mut entries: u64 = 0;
    for entry in all_of(engine, kind::WAKE) {
        let (key, _) = entry?;
        entries += 1;
        wakes.meet(&key);
        if let Err(fault) = timed_of(&key) {
            report.fault(format!(
                "an entry of the wake index does not decode: {fault}"
            ));
        }
    }
    if !wakes.is_even() {
        name_tokens_without_wake(engine, report)?;
    }
    let records = report.tokens + report.tombstones;
    if entries > records {
        report.fault(format!(
            "the wake index has {entries} entries for {records} records"
        ));
    }
    Ok(())
}

fn name_tokens_without_wake(engine: &Engine, report: &mut FsckReport) -> Result<(), StoreError> {
    for token in all_of(engine, kind::TOKEN) {
        let (key, value) = token?;
        let (Ok(id), Ok(record)) = (token_of(&key), Record::decode(&value)) else {
            continue;
        };
        if engine.get(&wake_key(record.wake, id))?.is_none() {
            report.fault(format!("{id:?}: not in the wake index"));
        }
    }
    Ok(())
}

fn check_answers(engine: &Engine, report: &mut FsckReport) -> Result<(), StoreError> {
    let mut ends = Balance::new();
    for answer in all_of(engine, kind::ANSWER) {
        let (key, value) = answer?;
        report.answers += 1;
        match end_of_answer(&key, &value) {
            Some(end) => ends.expect(&end),
            None => report.fault("an idempotency key does not decode"),
        }
    }
    for end in all_of(engine, kind::ANSWER_END) {
        ends.meet(&end?.0);
    }
    if ends.is_even() {
        return Ok(());
    }
    for answer in all_of(engine, kind::ANSWER) {
        let (key, value) = answer?;
        let Some(end) = end_of_answer(&key, &value) else {
            continue;
        };
        if engine.get(&end)?.is_none() {
            report.fault("an idempotency key would never be forgotten");
        }
    }
    Ok(())
}

/// Where an answer has to stand in the index by which answers end.
fn end_of_answer(key: &[u8], value: &[u8]) -> Option<UserKey> {
    let id = key.get(1..)?.try_into().ok()?;
    let (_, ends_at) = decode_answer(value).ok()?;
    Some(answer_end_key(ends_at, IdempotencyKey(id)))
}

fn check_projects(engine: &Engine, report: &mut FsckReport) -> Result<(), StoreError> {
    for project in all_of(engine, kind::PROJECT) {
        let (key, value) = project?;
        report.projects += 1;
        match serde_json::from_slice::<Project>(&value) {
            Ok(project) if key.get(1..) == Some(project.project_id.as_bytes()) => {}
            Ok(project) => report.fault(format!("project {}: wrong key", project.project_id)),
            Err(error) => report.fault(format!("a project does not decode: {error}")),
        }
    }
    Ok(())
}

fn check_totals(engine: &Engine, report: &mut FsckReport) -> Result<(), StoreError> {
    let stored = engine.get(&TOTALS_KEY)?;
    let stored = stored.map(|totals| decode_totals(&totals)).transpose();
    let found = Totals {
        tokens: report.tokens,
        pending: report.pending,
    };
    match stored {
        Ok(stored) if stored.unwrap_or_default() == found => {}
        Ok(stored) => report.fault(format!("the totals say {stored:?}, found was {found:?}")),
        Err(fault) => report.fault(format!("the totals do not decode: {fault}")),
    }
    Ok(())
}

fn all_of(engine: &Engine, kind: u8) -> impl Iterator<Item = Entry> + use<> {
    // No key is empty and kinds are small, so the next kind alone is the first key past this one.
    engine.range(UserKey::from([kind])..=UserKey::from([kind + 1]))
}
