//! Makes a record believable again after Redis has lost something: the record, or the last steps
//! that were taken on it. What counts is in Scylla: the token's row, and the rows of its pushes.
//!
//! Numbers that were given and lost are not known, so the record goes on above all that can have
//! been given: above the server's clock in microseconds. Redis proposes that base, the same to all
//! who heal at once; it is written down, so that a second loss cannot undo it; then everything that
//! may still arrive between the rows found is deleted ahead of its arrival; then Redis is told.

use std::time::Duration;

use super::backends::{Backends, Beginning};
use super::clocks::ANOTHER_TIME;
use super::hints::Notice;
use super::push_rows::Head;
use super::records::Function;
use super::reply::{Reply, Status};
use super::token_rows::TokenRow;
use crate::clock::Millis;
use crate::push::Syn;
use crate::store::StoreError;
use crate::store::lifetimes::may_make_first_contact;
use crate::store::region::Hint;
use crate::token::{TokenAddress, TokenId};

/// Rows read, and told to Redis, at a time.
const CHUNK: usize = 500;

/// How long another caller may need from a token's row to its record.
const BEGINNING_PAUSE: Duration = Duration::from_millis(50);

/// How mending a record ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mended {
    /// Take the step again.
    Again,
    /// The token has ended, or is too old to begin.
    Dead,
    /// There is nothing to mend: the token has not begun.
    NotBegun,
}

/// What a function said of a record that it would not use.
struct Told<'a> {
    highest: Syn,
    settled: Syn,
    contact_at: Millis,
    is_of_one_time: bool,
    era: &'a [u8],
    is_missing: bool,
}

impl<'a> Told<'a> {
    fn of(reply: &'a Reply) -> Self {
        Self {
            highest: reply.number(0),
            settled: reply.number(1),
            contact_at: reply.number(4),
            is_of_one_time: reply.is_of_one_time(reply.number(5)),
            era: reply.word(0),
            is_missing: reply.status == Status::Missing,
        }
    }

    /// Numbers go on above the server's clock, and ours says what has ended.
    ///
    /// # Errors
    /// The two differ too much.
    fn check_clock(&self) -> Result<(), StoreError> {
        match self.is_of_one_time {
            true => Ok(()),
            false => Err(StoreError::Unavailable(ANOTHER_TIME)),
        }
    }
}

impl Backends {
    /// Mends the record that a function has just refused to use.
    pub(super) async fn mend(
        &self,
        address: &TokenAddress,
        refusal: &Reply,
        beginning: Beginning,
        is_first_try: bool,
        now: Millis,
    ) -> Result<Mended, StoreError> {
        let told = Told::of(refusal);
        // A clock that is ahead takes a token for too old that has just been minted.
        told.check_clock()?;
        match self.tokens.find(&self.cql, address.id).await? {
            Some(row) if self.has_ended(row, now) => Ok(Mended::Dead),
            Some(row) if told.is_missing && row.base == 0 && is_first_try => {
                // Most likely somebody is just making this token's record: its row comes first.
                tokio::time::sleep(BEGINNING_PAUSE).await;
                Ok(Mended::Again)
            }
            Some(row) => self.heal(address.id, &told, row).await,
            None if !told.is_missing || !may_make_first_contact(address, now) => Ok(Mended::Dead),
            None if beginning == Beginning::NotHere => Ok(Mended::NotBegun),
            None => self.begin(address, told.era, now).await,
        }
    }

    /// The same, for a token of which only the id is known. It has begun long ago.
    pub(super) async fn mend_known(
        &self,
        token: TokenId,
        refusal: &Reply,
        now: Millis,
    ) -> Result<Mended, StoreError> {
        let told = Told::of(refusal);
        told.check_clock()?;
        match self.tokens.find(&self.cql, token).await? {
            Some(row) if !self.has_ended(row, now) => self.heal(token, &told, row).await,
            _ => Ok(Mended::Dead),
        }
    }

    fn has_ended(&self, row: TokenRow, now: Millis) -> bool {
        row.is_ended || row.contact_at <= self.ended_if_heard_by(now)
    }

    /// First contact: the row first, so that a lost record is never taken for a token that has not
    /// begun.
    async fn begin(
        &self,
        address: &TokenAddress,
        era: &[u8],
        now: Millis,
    ) -> Result<Mended, StoreError> {
        let life_ms = self.life_ms();
        let written = self.tokens.write_contact(&self.cql, address, now, life_ms);
        written.await?;
        let call = self.records.on_token(Function::Create, address.id);
        let reply = self
            .records
            .run(call.arg(era).arg(now).arg(life_ms))
            .await?;
        // Whatever else it says, the next try shows.
        Ok(match reply.status {
            Status::Dead => Mended::Dead,
            _ => Mended::Again,
        })
    }

    async fn heal(
        &self,
        token: TokenId,
        told: &Told<'_>,
        row: TokenRow,
    ) -> Result<Mended, StoreError> {
        let kept_up_to = match told.is_missing {
            true => row.dropped_up_to,
            false => told.settled,
        };
        let mut heads = self.heads_above(token, kept_up_to).await?;
        let last = heads.last().map_or(kept_up_to, |head| head.syn);
        let floor = last.max(told.highest).max(row.base);
        let life_ms = self.life_ms();
        let propose = self.records.on_token(Function::Propose, token);
        let propose = propose.arg(told.era).arg(floor).arg(life_ms);
        let reply = self.records.run(propose).await?;
        let base = match reply.status {
            Status::Dead => return Ok(Mended::Dead),
            Status::Done => reply.number(0),
            _ => 0,
        };
        if base == 0 {
            // Somebody else was quicker, or it is another era by now.
            return Ok(Mended::Again);
        }
        // What was numbered after another has finished is none of this heal's affair.
        heads.retain(|head| head.syn <= base);
        self.tokens
            .write_base(&self.cql, token, base, life_ms)
            .await?;
        for gap in gaps(kept_up_to, &heads, base) {
            self.pushes.delete_between(&self.cql, token, gap).await?;
        }
        let healer = self.stage(token, &heads).await?;
        let heal = self.records.on_token(Function::Heal, token);
        let heal = heal.arg(told.era).arg(&healer).arg(kept_up_to);
        let heal = heal
            .arg(row.dropped_up_to)
            .arg(row.contact_at.max(told.contact_at));
        let reply = self.records.run(heal.arg(life_ms)).await?;
        tracing::debug!(?token, rows = heads.len(), base, "a record was healed");
        if told.is_missing {
            // Who holds the token is forgotten with the record: whoever it is says so again.
            let _ = self
                .notices
                .try_send(Notice::ForAll(Hint::LookAfter(token)));
        }
        Ok(match reply.status {
            Status::Dead => Mended::Dead,
            _ => Mended::Again,
        })
    }

    /// Tells Redis what was found, for [`Function::Heal`] to take in under the name returned.
    async fn stage(&self, token: TokenId, heads: &[Head]) -> Result<String, StoreError> {
        let healer = format!("{:016x}", rand::random::<u64>());
        for chunk in heads.chunks(CHUNK) {
            let mut stage = self.records.on_token(Function::Stage, token).arg(&healer);
            for head in chunk {
                let collapse_key = head.collapse_key.as_ref().map_or(&[][..], |key| key);
                stage = stage.arg(head.syn).arg(head.expires_at).arg(collapse_key);
            }
            self.records.run(stage).await?;
        }
        Ok(healer)
    }

    async fn heads_above(&self, token: TokenId, after: Syn) -> Result<Vec<Head>, StoreError> {
        let mut heads: Vec<Head> = Vec::new();
        loop {
            let from = heads.last().map_or(after, |head| head.syn);
            let page = self.pushes.heads(&self.cql, token, from, CHUNK).await?;
            let is_last = page.len() < CHUNK;
            heads.extend(page);
            if is_last {
                return Ok(heads);
            }
        }
    }
}

/// The stretches between the numbers found, from `after` to `base`, bounds exclusive, that hold at
/// least one number.
fn gaps(after: Syn, heads: &[Head], base: Syn) -> Vec<(Syn, Syn)> {
    let ends = heads.iter().map(|head| head.syn).chain([base + 1]);
    let starts = std::iter::once(after).chain(heads.iter().map(|head| head.syn));
    starts
        .zip(ends)
        .filter(|(start, end)| end - start > 1)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(syns: &[Syn]) -> Vec<Head> {
        let head = |syn: &Syn| Head {
            syn: *syn,
            expires_at: 0,
            collapse_key: None,
        };
        syns.iter().map(head).collect()
    }

    #[test]
    fn every_number_without_a_row_is_in_a_gap() {
        assert_eq!(gaps(4, &heads(&[]), 100), [(4, 101)]);
        assert_eq!(gaps(4, &heads(&[5, 6, 9]), 100), [(6, 9), (9, 101)]);
        let (after, found, base) = (2, heads(&[3, 7, 8, 20]), 30);
        let gaps = gaps(after, &found, base);
        for syn in after + 1..=base {
            let is_found = found.iter().any(|head| head.syn == syn);
            let is_in_a_gap = gaps.iter().any(|(start, end)| *start < syn && syn < *end);
            assert_ne!(is_found, is_in_a_gap, "{syn}");
        }
    }
}
