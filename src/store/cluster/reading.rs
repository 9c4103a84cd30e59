//! What readers and acknowledgements ask: Redis says which numbers are live and how far everything
//! is settled, Scylla has the rows. A reader that has nothing new to read never gets to Scylla.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use scylla::response::PagingState;

use super::backends::{Backends, Beginning, Step, deadline};
use super::hints::Notice;
use super::records::Function;
use super::reply::{Reply, Status};
use crate::clock::Millis;
use crate::push::{Push, Syn};
use crate::store::counters::PushCounts;
use crate::store::lifetimes::{may_make_first_contact, stale_if_heard_by};
use crate::store::region::{Epoch, Hint, NodeId};
use crate::store::{Contact, FIRST_CONTACT_MS, Page, PageLimit, StoreError};
use crate::token::{ProjectHash, TokenAddress, TokenId};

/// Rows read at a time: with the largest messages less than a megabyte.
const ROWS_AT_ONCE: usize = 100;

/// While the tokens of a project end, a backend may be away for a minute.
const FINISH_TRIES: usize = 60;
const FINISH_PAUSE: Duration = Duration::from_secs(1);

/// A token that never began is remembered as ended until it cannot begin any more, and as long
/// again.
const REMEMBER_UNBEGUN_MS: Millis = 2 * FIRST_CONTACT_MS;

impl Backends {
    pub(super) async fn contact(
        self: &Arc<Self>,
        address: &TokenAddress,
        min_syn: Syn,
        held: Option<Epoch>,
        now: Millis,
    ) -> Result<Contact, StoreError> {
        let stale_before = stale_if_heard_by(self.limits.token_ttl_ms, now);
        let step = self
            .show_up(
                address,
                Beginning::Allowed,
                min_syn,
                stale_before,
                held,
                now,
            )
            .await?;
        let Step::Taken(reply) = step else {
            return Ok(Contact::Unregistered);
        };
        if held.is_some() {
            self.mind_held_back(address.id, &reply);
        }
        if reply.number(3) == 1 {
            // What is not written down now is written down at the next contact.
            if let Err(error) = self.refresh(address, now).await {
                tracing::debug!(%error, "a contact was not written down");
            }
        }
        Ok(Contact::Live {
            syn_stored: reply.number(0),
            acked: reply.number(1),
            deleted_up_to: above_zero(reply.number(2)),
        })
    }

    pub(super) async fn ack(
        self: &Arc<Self>,
        address: &TokenAddress,
        up_to: Syn,
        now: Millis,
    ) -> Result<Syn, StoreError> {
        let min_syn = up_to.saturating_add(1);
        let step = self.show_up(address, Beginning::NotHere, min_syn, 0, None, now);
        Ok(match step.await? {
            Step::Taken(reply) => reply.number(1),
            Step::Dead | Step::NotBegun => 0,
        })
    }

    /// A reader shows up: everything settled below `min_syn` is acknowledged.
    async fn show_up(
        self: &Arc<Self>,
        address: &TokenAddress,
        beginning: Beginning,
        min_syn: Syn,
        stale_before: Millis,
        held: Option<Epoch>,
        now: Millis,
    ) -> Result<Step, StoreError> {
        self.health.check_clock()?;
        let ends_before = self.ended_if_heard_by(now);
        let node = self.node.to_text();
        let call = || {
            let call = self.records.on_token(Function::Contact, address.id);
            let call = call
                .arg(min_syn.clamp(1, SYN_END))
                .arg(now)
                .arg(ends_before);
            call.arg(stale_before)
                .arg(held.unwrap_or_default())
                .arg(&node)
        };
        let step = self.step(address, beginning, now, deadline(), call).await?;
        if let Step::Taken(reply) = &step {
            self.count_out(address.id, reply);
        }
        Ok(step)
    }

    fn count_out(&self, token: TokenId, reply: &Reply) {
        let counts = PushCounts {
            expired: reply.number(4),
            acked: reply.number(5),
            ..PushCounts::default()
        };
        self.counters.add(&counts);
        if counts.acked > 0 {
            self.cleanup.acked(token, reply.number(1));
        }
    }

    /// Writes a contact down, the row first: a record that is lost must not take the token's life
    /// with it.
    async fn refresh(&self, address: &TokenAddress, now: Millis) -> Result<(), StoreError> {
        let life_ms = self.life_ms();
        let token = address.id;
        let row = self.tokens.find(&self.cql, token).await?;
        let written = self.tokens.write_contact(&self.cql, address, now, life_ms);
        written.await?;
        // What else the row says must live as long. Written again it is the same, but later.
        if let Some(base) = row.map(|row| row.base).and_then(above_zero) {
            self.tokens
                .write_base(&self.cql, token, base, life_ms)
                .await?;
        }
        if let Some(up_to) = row.map(|row| row.dropped_up_to).and_then(above_zero) {
            let written = self.tokens.write_dropped(&self.cql, token, up_to, life_ms);
            written.await?;
        }
        let touch = self.records.on_token(Function::Touch, token);
        self.records.run(touch.arg(now).arg(life_ms)).await?;
        Ok(())
    }

    pub(super) async fn is_registered(
        self: &Arc<Self>,
        address: &TokenAddress,
        now: Millis,
    ) -> Result<bool, StoreError> {
        Ok(match self.page_of(address, 0, 0, now).await? {
            Step::Taken(_) => true,
            Step::NotBegun => may_make_first_contact(address, now),
            Step::Dead => false,
        })
    }

    pub(super) async fn read(
        self: &Arc<Self>,
        address: &TokenAddress,
        after: Syn,
        limit: PageLimit,
        now: Millis,
    ) -> Result<Page, StoreError> {
        let pushes_max = limit.pushes.max(1);
        let step = self.page_of(address, after, pushes_max, now).await?;
        let Step::Taken(reply) = step else {
            return Ok(Page {
                read_up_to: after,
                ..Page::default()
            });
        };
        let live = reply.numbers_from(2);
        let (wanted, rest) = live.split_at(live.len().min(pushes_max));
        let (pushes, read_up_to) = self.rows(address.id, wanted, limit.bytes).await?;
        let syn_stored = reply.number(0);
        let more = !rest.is_empty() || read_up_to < wanted.last().copied().unwrap_or_default();
        Ok(Page {
            pushes,
            read_up_to: match more {
                true => read_up_to,
                false => syn_stored.max(after),
            },
            syn_stored,
            deleted_up_to: above_zero(reply.number(1)),
            more,
        })
    }

    async fn page_of(
        self: &Arc<Self>,
        address: &TokenAddress,
        after: Syn,
        limit: usize,
        now: Millis,
    ) -> Result<Step, StoreError> {
        self.health.check_clock()?;
        let ends_before = self.ended_if_heard_by(now);
        let call = || {
            let call = self.records.on_token(Function::Page, address.id);
            call.arg(after.min(SYN_END))
                .arg(limit)
                .arg(now)
                .arg(ends_before)
        };
        self.step(address, Beginning::NotHere, now, deadline(), call)
            .await
    }

    /// The rows of these numbers, until their messages pass `bytes_max`, and the last number that
    /// was looked at. A number without a row was acknowledged or has expired since it was listed.
    async fn rows(
        &self,
        token: TokenId,
        wanted: &[Syn],
        bytes_max: usize,
    ) -> Result<(Vec<Push>, Syn), StoreError> {
        let (mut pushes, mut bytes, mut read_up_to) = (Vec::new(), 0, 0);
        for chunk in wanted.chunks(ROWS_AT_ONCE) {
            let found = self.stretch(token, chunk).await?;
            let mut found: HashMap<Syn, Push> =
                found.into_iter().map(|push| (push.syn, push)).collect();
            for syn in chunk {
                if bytes > bytes_max {
                    return Ok((pushes, read_up_to));
                }
                read_up_to = *syn;
                if let Some(push) = found.remove(syn) {
                    bytes += push.message.len();
                    pushes.push(push);
                }
            }
        }
        Ok((pushes, read_up_to))
    }

    /// The rows from the first to the last of some numbers. There may be others between them,
    /// which nobody is to see; so as many are read as are wanted until the last is passed.
    async fn stretch(&self, token: TokenId, wanted: &[Syn]) -> Result<Vec<Push>, StoreError> {
        let (Some(&first), Some(&last)) = (wanted.first(), wanted.last()) else {
            return Ok(Vec::new());
        };
        let (mut found, mut from) = (Vec::with_capacity(wanted.len()), first);
        loop {
            let page = self
                .pushes
                .select(&self.cql, token, (from, last), ROWS_AT_ONCE)
                .await?;
            let is_last = page.len() < ROWS_AT_ONCE;
            from = page.last().map_or(last, |push| push.syn) + 1;
            found.extend(
                page.into_iter()
                    .filter(|it| wanted.binary_search(&it.syn).is_ok()),
            );
            if is_last || from > last {
                return Ok(found);
            }
        }
    }

    /// Ends a token for ever: Scylla first, because Redis may forget.
    pub(super) async fn delete_token(
        &self,
        address: &TokenAddress,
        now: Millis,
    ) -> Result<(), StoreError> {
        self.health.check_clock()?;
        let row = self.tokens.find(&self.cql, address.id).await?;
        match row {
            Some(row) if row.is_ended => Ok(()),
            Some(_) => self.finish(address.id, address.project, now).await,
            None if may_make_first_contact(address, now) => {
                let note = self
                    .tokens
                    .write_end(&self.cql, address.id, REMEMBER_UNBEGUN_MS);
                note.await?;
                self.finish_record(address.id, now).await
            }
            None => Ok(()),
        }
    }

    /// Ends a token that has begun, with all its pushes. Its subscriptions go a little later.
    async fn finish(
        &self,
        token: TokenId,
        project: ProjectHash,
        now: Millis,
    ) -> Result<(), StoreError> {
        let remembered_ms = self.life_ms().saturating_add(REMEMBER_UNBEGUN_MS);
        let note = self.tokens.write_end(&self.cql, token, remembered_ms);
        note.await?;
        self.finish_record(token, now).await?;
        self.cleanup.ended(token, project);
        self.pushes.delete_all(&self.cql, token).await
    }

    /// Ends all tokens of a project, one after another.
    pub(super) async fn finish_all_of(
        &self,
        project: ProjectHash,
        now: Millis,
    ) -> Result<(), StoreError> {
        let mut place = Some(PagingState::start());
        while let Some(from) = place {
            let (tokens, next) = self.tokens.some_of(&self.cql, project, from).await?;
            for token in tokens {
                self.finish_at_last(token, project, now).await?;
            }
            place = next;
        }
        Ok(())
    }

    /// Ends a token; tries again while a backend is busy.
    async fn finish_at_last(
        &self,
        token: TokenId,
        project: ProjectHash,
        now: Millis,
    ) -> Result<(), StoreError> {
        let mut tries = 0;
        loop {
            match self.finish(token, project, now).await {
                Err(error) if error.is_retryable() && tries < FINISH_TRIES => {
                    tries += 1;
                    tokio::time::sleep(FINISH_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn finish_record(&self, token: TokenId, now: Millis) -> Result<(), StoreError> {
        let finish = self.records.on_token(Function::Finish, token);
        let reply = self
            .records
            .run(finish.arg(now).arg(REMEMBER_UNBEGUN_MS))
            .await?;
        if reply.status == Status::Done {
            self.counters.add(&PushCounts {
                expired: reply.number(0),
                deleted: reply.number(1),
                ..PushCounts::default()
            });
        }
        if let Some(holder) = NodeId::from_text(reply.word(0)) {
            let ended = Notice::For(holder, Hint::Ended(token));
            // What does not fit is found out by the session when it reads.
            let _ = self.notices.try_send(ended);
        }
        Ok(())
    }
}

/// Above every number, and still exact in Lua.
const SYN_END: Syn = 1 << 53;

fn above_zero(number: Syn) -> Option<Syn> {
    Some(number).filter(|number| *number > 0)
}
