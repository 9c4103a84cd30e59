//! Reading a token's log: the ledger says which pushes are live, the engine has their bodies.

use fjall::UserValue;

use super::record::{decode_row, row_key, row_of, row_range};
use super::token_logs::{TokenLogs, undecodable};
use crate::clock::Millis;
use crate::push::{Push, Syn};
use crate::store::{Page, PageLimit, StoreError};
use crate::token::{TokenAddress, TokenId};

/// How reading the rows of a page went.
#[derive(Default)]
struct Filled {
    /// The page was full by bytes after this one.
    cut_after: Option<Syn>,
    /// The last of those whose rows were gone.
    missing: Option<Syn>,
}

impl TokenLogs {
    /// Reads live pushes in `(after, syn_stored]`.
    pub(super) fn read(
        &self,
        address: &TokenAddress,
        after: Syn,
        limit: PageLimit,
        now: Millis,
    ) -> Result<Page, StoreError> {
        let pushes_max = limit.pushes.max(1);
        let found = self.with_known_ledger(address.id, |ledger| {
            let is_dead = ledger.is_dead(self.limits, now);
            let wanted = if is_dead {
                0
            } else {
                pushes_max.saturating_add(1)
            };
            (!is_dead).then(|| {
                let syns = ledger.live(after, wanted, now);
                (ledger.stored(), ledger.reported_deleted_up_to(), syns)
            })
        })?;
        let Some((syn_stored, deleted_up_to, mut syns)) = found.flatten() else {
            return Ok(Page {
                read_up_to: after,
                ..Page::default()
            });
        };
        let has_more = syns.len() > pushes_max;
        syns.truncate(pushes_max);
        let mut page = Page {
            syn_stored,
            read_up_to: syn_stored.max(after),
            deleted_up_to,
            ..Page::default()
        };
        let filled = self.fill(&mut page, address.id, &syns, limit.bytes)?;
        page.more = has_more || filled.cut_after.is_some();
        if page.more {
            let last = filled.cut_after.or(syns.last().copied());
            page.read_up_to = last.unwrap_or(after);
        }
        if let Some(missing) = filled.missing {
            let dropped = self.dropped_up_to(address.id, missing)?;
            page.deleted_up_to = page.deleted_up_to.max(dropped);
        }
        Ok(page)
    }

    /// The drop mark, as far as it concerns a reader that has missed pushes up to `missing`: their
    /// rows are gone for good, even if the ledger is still to hear that the commit is durable.
    fn dropped_up_to(&self, token: TokenId, missing: Syn) -> Result<Option<Syn>, StoreError> {
        let mark = self.with_known_ledger(token, |ledger| {
            let mark = ledger.staged_deleted_up_to().min(missing);
            Some(mark).filter(|mark| *mark > ledger.acked())
        })?;
        Ok(mark.flatten())
    }

    /// Reads rows into a page until it is full by bytes. Rows that have gone in the meantime are
    /// skipped.
    fn fill(
        &self,
        page: &mut Page,
        token: TokenId,
        syns: &[Syn],
        bytes_max: usize,
    ) -> Result<Filled, StoreError> {
        let mut filled = Filled::default();
        let (Some(first), Some(last)) = (syns.first(), syns.last()) else {
            return Ok(filled);
        };
        let mut wanted = syns.iter().copied().peekable();
        let mut bytes = 0;
        for row in self.rows(token, *first, *last) {
            let (syn, value) = row?;
            while let Some(missing) = wanted.next_if(|wanted| *wanted < syn) {
                filled.missing = Some(missing);
            }
            if wanted.next_if_eq(&syn).is_none() {
                continue;
            }
            if bytes > bytes_max {
                filled.cut_after = page.pushes.last().map(|push| push.syn);
                return Ok(filled);
            }
            let push = decode_push(syn, &value)?;
            bytes += push.message.len();
            page.pushes.push(push);
        }
        filled.missing = wanted.last().or(filled.missing);
        Ok(filled)
    }

    /// Rows of a token from `first` to `last`, in order.
    pub(super) fn rows(
        &self,
        token: TokenId,
        first: Syn,
        last: Syn,
    ) -> Box<dyn Iterator<Item = Result<(Syn, UserValue), StoreError>>> {
        if first == last {
            let row = self.engine.get(&row_key(token, first)).transpose();
            return Box::new(
                row.map(|value| value.map(|value| (first, value)))
                    .into_iter(),
            );
        }
        let rows = self.engine.range(row_range(token, first, last));
        Box::new(rows.map(|row| {
            let (key, value) = row?;
            let (_, syn) = row_of(&key).map_err(|fault| undecodable(&key, fault))?;
            Ok((syn, value))
        }))
    }
}

fn decode_push(syn: Syn, value: &[u8]) -> Result<Push, StoreError> {
    let (_, push) =
        decode_row(syn, value).map_err(|fault| StoreError::Corrupt(format!("a push: {fault}")))?;
    Ok(push)
}
