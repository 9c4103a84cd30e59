//! The verbs on one token's log: each locks the token's stripe, lets the ledger decide, and stages
//! what is to be written before the lock is let go, so that writes of a token stay in order.

use std::sync::Arc;

use fjall::UserKey;

use super::backlog::Removed;
use super::engine::{Engine, Op};
use super::ledger::{Ledger, WakeSeconds};
use super::ledgers::Ledgers;
use super::queue::{Numbered, Queue, Round};
use super::record::{
    Record, answer_end_key, answer_key, decode_row_head, encode_answer, encode_row, row_key,
    token_key, wake_key,
};
use super::subscriptions::stage_all;
use super::topic_record::copy_key;
use crate::clock::Millis;
use crate::push::{IdempotencyKey, MessageId, NewPush, Syn};
use crate::store::counters::{PushCounters, PushCounts};
use crate::store::lifetimes::{first_contact_closes_at, may_make_first_contact};
use crate::store::{
    Appended, Audience, Contact, IDEMPOTENCY_MS, SettledSink, StoreError, StoreLimits,
};
use crate::token::{TokenAddress, TokenId};

/// All tokens' logs.
pub(super) struct TokenLogs {
    pub(super) engine: Arc<Engine>,
    pub(super) queue: Arc<Queue>,
    pub(super) ledgers: Ledgers,
    pub(super) counters: Arc<PushCounters>,
    pub(super) limits: StoreLimits,
}

impl TokenLogs {
    /// Numbers a push and stages it. The sink hears how it ends, unless the answer says so at once.
    pub(super) fn append(
        &self,
        push: NewPush,
        ticket: u64,
        sink: &SettledSink,
    ) -> Result<Option<Appended>, StoreError> {
        self.queue.check_room()?;
        let value = (!push.is_now_or_never()).then(|| encode_row(&push));
        let now = push.accepted_at;
        let refusal = self.with_ledger(&push.address, now, |ledger| {
            if ledger.is_dead(self.limits, now) {
                return Ok(Some(Appended::Unregistered));
            }
            if self.has_copy(&push)? {
                return Ok(Some(Appended::Repeated));
            }
            let is_row_enough = ledger.is_marked && !push.is_now_or_never();
            let (syn, removed) = ledger.number(&push, self.limits);
            let numbered = Numbered {
                token: push.address.id,
                syn,
                is_now_or_never: push.is_now_or_never(),
                ticket,
                sink: sink.clone(),
            };
            let stage_push = |round: &mut Round| {
                if let Some(value) = value {
                    round.pending += 1;
                    round.stage(Op::Put(row_key(push.address.id, syn), value.into()));
                }
                stage_mark(round, &push);
                stage_answer(round, &push);
                round.numbered.push(numbered);
            };
            if is_row_enough && removed.syns.is_empty() && ledger.indexed == ledger.wake() {
                // The row says it all, and the record says that there may be rows.
                ledger.staged_in = self.queue.stage(stage_push)?;
            } else {
                self.stage(&push.address, ledger, removed, stage_push)?;
            }
            Ok(None)
        })?;
        refusal.unwrap_or(Ok(Some(Appended::Unregistered)))
    }

    /// A copy that is staged and not committed has no outcome yet, so nobody repeats it.
    fn has_copy(&self, push: &NewPush) -> Result<bool, StoreError> {
        let mark = || copy_key(push.message_id, push.address.id);
        Ok(push.is_copy && self.engine.get(&mark())?.is_some())
    }

    /// A numbered push is durable.
    pub(super) fn settle(&self, numbered: &Numbered) -> Result<Appended, StoreError> {
        let mut stripe = self.ledgers.lock(numbered.token);
        let Some(ledger) = stripe.in_memory(numbered.token) else {
            return Err(StoreError::Corrupt("a ledger in flight is gone".to_owned()));
        };
        let settlement = ledger.settle(numbered.syn);
        self.counters.add(&PushCounts {
            stored: 1,
            expired: u64::from(numbered.is_now_or_never),
            ..PushCounts::default()
        });
        Ok(Appended::Stored {
            syn: numbered.syn,
            prev_syn: settlement.prev_syn,
            syn_stored: numbered.syn,
            deleted_up_to: settlement.deleted_up_to,
            audience: Audience::Here,
        })
    }

    /// A device has shown up.
    pub(super) fn contact(
        &self,
        address: &TokenAddress,
        min_syn: Syn,
        now: Millis,
    ) -> Result<Contact, StoreError> {
        if may_make_first_contact(address, now) {
            self.queue.check_room()?;
        }
        let contact = self.with_ledger(address, now, |ledger| {
            if ledger.is_dead(self.limits, now) {
                return Ok(Contact::Unregistered);
            }
            let is_new = !ledger.is_counted;
            if is_new || ledger.would_change(min_syn.saturating_sub(1), now, self.limits) {
                self.queue.check_room()?;
                ledger.touch(now, self.limits);
                let removed = ledger
                    .ack(min_syn.saturating_sub(1), now)
                    .unwrap_or_default();
                self.stage(address, ledger, removed, |_| ())?;
            }
            Ok(Contact::Live {
                syn_stored: ledger.stored(),
                acked: ledger.acked(),
                deleted_up_to: ledger.reported_deleted_up_to(),
            })
        })?;
        contact.unwrap_or(Ok(Contact::Unregistered))
    }

    /// Whether an append would be taken now.
    pub(super) fn is_registered(
        &self,
        address: &TokenAddress,
        now: Millis,
    ) -> Result<bool, StoreError> {
        let known =
            self.with_known_ledger(address.id, |ledger| !ledger.is_dead(self.limits, now))?;
        Ok(known.unwrap_or_else(|| may_make_first_contact(address, now)))
    }

    /// Forgets what is settled at or below `up_to`.
    pub(super) fn ack(
        &self,
        address: &TokenAddress,
        up_to: Syn,
        now: Millis,
    ) -> Result<Syn, StoreError> {
        self.queue.check_room()?;
        let acked = self.with_known_ledger(address.id, |ledger| {
            if ledger.is_dead(self.limits, now) {
                return Ok(0);
            }
            if let Some(removed) = ledger.ack(up_to, now) {
                self.stage(address, ledger, removed, |_| ())?;
            }
            Ok(ledger.acked())
        })?;
        acked.unwrap_or(Ok(0))
    }

    /// Ends a token. Staged only: whoever needs it durable flushes.
    pub(super) fn end(&self, address: &TokenAddress, now: Millis) -> Result<(), StoreError> {
        self.queue.check_room()?;
        let ended = self.with_ledger(address, now, |ledger| {
            if ledger.is_ended() {
                return Ok(());
            }
            let removed = ledger.end(now, tombstone_until(address, now));
            let subscriptions = self.all_removals(address)?;
            self.stage(address, ledger, removed, |round| {
                stage_all(round, subscriptions);
            })
        })?;
        ended.unwrap_or(Ok(()))
    }

    /// The wake index names this token at this time: expires what is due, ends what was not heard
    /// of for too long, and sets the next time.
    pub(super) fn wake(
        &self,
        token: TokenId,
        at: WakeSeconds,
        now: Millis,
    ) -> Result<(), StoreError> {
        let Some(address) = self.address_of(token)? else {
            tracing::error!("the wake index names a token without a record");
            let index_entry = Op::Remove(wake_key(at, token));
            return self.queue.stage(|round| round.stage(index_entry)).map(drop);
        };
        let woken = self.with_known_ledger(token, |ledger| {
            if ledger.indexed != at {
                return Ok(());
            }
            let mut subscriptions = Vec::new();
            let removed = if ledger.is_ended() {
                ledger.bury();
                Removed::default()
            } else if ledger.is_dead(self.limits, now) {
                subscriptions = self.all_removals(&address)?;
                ledger.end(now, tombstone_until(&address, now))
            } else {
                let removed = ledger.expire(now);
                ledger.reschedule(self.limits);
                removed
            };
            self.stage(&address, ledger, removed, |round| {
                stage_all(round, subscriptions);
            })
        })?;
        woken.unwrap_or(Ok(()))
    }

    fn address_of(&self, token: TokenId) -> Result<Option<TokenAddress>, StoreError> {
        let record = self.record(token)?;
        Ok(record.map(|record| record.address(token)))
    }

    fn record(&self, token: TokenId) -> Result<Option<Record>, StoreError> {
        let key = token_key(token);
        let value = self.engine.get(&key)?;
        let record = value.map(|value| Record::decode(&value));
        record.transpose().map_err(|fault| undecodable(&key, fault))
    }

    fn load(&self, token: TokenId) -> Result<Option<Ledger>, StoreError> {
        let Some(record) = self.record(token)? else {
            return Ok(None);
        };
        let mut heads = Vec::new();
        if record.may_have_rows {
            for row in self.rows(token, record.acked + 1, Syn::MAX) {
                let (syn, value) = row?;
                let head = decode_row_head(syn, &value);
                heads.push(head.map_err(|fault| undecodable(&row_key(token, syn), fault))?);
            }
        }
        Ok(Some(Ledger::recall(&record, &heads)))
    }

    /// Works on a token's ledger, which is begun if this may be its first contact. `None` if there
    /// is none.
    pub(super) fn with_ledger<R>(
        &self,
        address: &TokenAddress,
        now: Millis,
        work: impl FnOnce(&mut Ledger) -> R,
    ) -> Result<Option<R>, StoreError> {
        let begin =
            || may_make_first_contact(address, now).then(|| Ledger::begin(now, self.limits));
        self.work_on(address.id, begin, work)
    }

    pub(super) fn with_known_ledger<R>(
        &self,
        token: TokenId,
        work: impl FnOnce(&mut Ledger) -> R,
    ) -> Result<Option<R>, StoreError> {
        self.work_on(token, || None, work)
    }

    fn work_on<R>(
        &self,
        token: TokenId,
        begin: impl FnOnce() -> Option<Ledger>,
        work: impl FnOnce(&mut Ledger) -> R,
    ) -> Result<Option<R>, StoreError> {
        let mut stripe = self.ledgers.lock(token);
        let Some(ledger) = stripe.find(token, || self.load(token), begin)? else {
            return Ok(None);
        };
        let before = ledger.weight();
        let result = work(ledger);
        let after = ledger.weight();
        stripe.reweigh(before, after);
        self.ledgers.shrink(&mut stripe, self.queue.committed());
        Ok(Some(result))
    }

    /// Stages what stands beside the record, which is written only if it is the token's first.
    pub(super) fn stage_beside(
        &self,
        address: &TokenAddress,
        ledger: &mut Ledger,
        more: impl FnOnce(&mut Round),
    ) -> Result<(), StoreError> {
        if !ledger.is_counted {
            return self.stage(address, ledger, Removed::default(), more);
        }
        ledger.staged_in = self.queue.stage(more)?;
        Ok(())
    }

    /// Stages what a verb changed, with the record and the wake index as they are then.
    fn stage(
        &self,
        address: &TokenAddress,
        ledger: &mut Ledger,
        removed: Removed,
        more: impl FnOnce(&mut Round),
    ) -> Result<(), StoreError> {
        self.counters.add(&removed.counts);
        let record_key = token_key(address.id);
        let record = if ledger.is_ended() && ledger.wake() == 0 {
            Op::Remove(record_key)
        } else {
            Op::Put(record_key, Record::of(address, ledger).encode().into())
        };
        ledger.staged_in = self.queue.stage(|round| {
            more(round);
            for syn in &removed.syns {
                round.stage(Op::RemoveSingle(row_key(address.id, *syn)));
            }
            round.pending -= i64::try_from(removed.syns.len()).unwrap_or(i64::MAX);
            round.stage(record);
            stage_wake(round, address.id, ledger);
            round.tokens += i64::from(!ledger.is_ended()) - i64::from(ledger.is_counted);
        })?;
        ledger.is_counted = !ledger.is_ended();
        ledger.indexed = ledger.wake();
        Ok(())
    }
}

fn stage_wake(round: &mut Round, token: TokenId, ledger: &Ledger) {
    if ledger.indexed == ledger.wake() {
        return;
    }
    if ledger.indexed != 0 {
        round.stage(Op::Remove(wake_key(ledger.indexed, token)));
    }
    if ledger.wake() != 0 {
        round.stage(Op::Put(wake_key(ledger.wake(), token), [].into()));
    }
}

fn stage_mark(round: &mut Round, push: &NewPush) {
    if push.is_copy {
        let mark = copy_key(push.message_id, push.address.id);
        round.stage(Op::Put(mark, [].into()));
    }
}

fn stage_answer(round: &mut Round, push: &NewPush) {
    if let Some(key) = push.idempotency {
        stage_all(round, answer_ops(key, push.message_id, push.accepted_at));
    }
}

/// What remembers the answer to a send under its idempotency key.
pub(super) fn answer_ops(key: IdempotencyKey, message_id: MessageId, now: Millis) -> [Op; 2] {
    let ends_at = now.saturating_add(IDEMPOTENCY_MS);
    let answer = encode_answer(message_id, ends_at);
    [
        Op::Put(answer_key(key), answer.into()),
        Op::Put(answer_end_key(ends_at, key), [].into()),
    ]
}

/// How long an ended token's record stays: as long as a missing one would mean a first contact.
fn tombstone_until(address: &TokenAddress, now: Millis) -> Option<Millis> {
    may_make_first_contact(address, now).then(|| first_contact_closes_at(address))
}

/// A key without its payload is safe to log: ids are random.
pub(super) fn undecodable(key: &UserKey, fault: &str) -> StoreError {
    let kind = key.first().copied().unwrap_or_default();
    StoreError::Corrupt(format!("a value of kind {kind}: {fault}"))
}
