//! The store that keeps everything in memory, under one lock: so simple that it can be seen to be
//! right. The other stores are tested against it.

mod log;
mod topics;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{BoxFuture, ready};

use self::log::Log;
use self::topics::FanOuts;
use super::counters::{PushCounters, PushCounts};
use super::lifetimes::{
    first_contact_closes_at, is_contact_stale, may_make_first_contact, token_ends_at,
};
use super::region::Epoch;
use super::{
    Appended, Audience, Claim, Contact, IDEMPOTENCY_MS, Page, PageLimit, Saved, Settled,
    SettledSink, Store, StoreError, StoreLimits, Totals,
};
use crate::clock::Millis;
use crate::projects::Project;
use crate::push::{IdempotencyKey, MessageId, NewPush, Syn};
use crate::token::{ProjectHash, TokenAddress, TokenId};

/// Forgets everything when it is dropped: for tests and trials.
pub struct MemoryStore {
    limits: StoreLimits,
    counters: Arc<PushCounters>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    logs: BTreeMap<TokenId, Log>,
    answers: BTreeMap<IdempotencyKey, (MessageId, Millis)>,
    projects: BTreeMap<String, Project>,
    secrets: BTreeMap<String, Vec<u8>>,
    fan_outs: FanOuts,
}

impl MemoryStore {
    /// An empty store that counts into `counters`.
    #[must_use]
    pub fn new(limits: StoreLimits, counters: Arc<PushCounters>) -> Self {
        Self {
            limits,
            counters,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append_now(&self, push: NewPush) -> Appended {
        let state = &mut *self.state();
        let (now, limits) = (push.accepted_at, self.limits);
        if state.log_or_first(&push.address, now, limits).is_none() {
            return Appended::Unregistered;
        }
        if !state.fan_outs.mark(&push) {
            return Appended::Repeated;
        }
        let Some(log) = state.live_log(&push.address, now, limits) else {
            return Appended::Unregistered;
        };
        let answer = (push.message_id, push.accepted_at + IDEMPOTENCY_MS);
        let idempotency = push.idempotency;
        let mut counts = PushCounts {
            stored: 1,
            ..PushCounts::default()
        };
        let prev_syn = log.syn_stored;
        log.append(push, self.limits.pending_per_token, &mut counts);
        self.counters.add(&counts);
        let stored = Appended::Stored {
            syn: log.syn_stored,
            prev_syn,
            syn_stored: log.syn_stored,
            deleted_up_to: log.reported_deleted_up_to(),
            audience: Audience::Here,
        };
        if let Some(key) = idempotency {
            state.answers.insert(key, answer);
        }
        stored
    }

    fn contact_now(&self, address: &TokenAddress, min_syn: Syn, now: Millis) -> Contact {
        let mut state = self.state();
        let Some(log) = state.log_or_first(address, now, self.limits) else {
            return Contact::Unregistered;
        };
        if is_contact_stale(log.last_contact, self.limits.token_ttl_ms, now) {
            log.last_contact = now;
        }
        self.counters.add(&log.ack(min_syn.saturating_sub(1), now));
        Contact::Live {
            syn_stored: log.syn_stored,
            acked: log.acked,
            deleted_up_to: log.reported_deleted_up_to(),
        }
    }

    fn read_now(&self, address: &TokenAddress, after: Syn, limit: PageLimit, now: Millis) -> Page {
        let mut state = self.state();
        match state.live_log(address, now, self.limits) {
            Some(log) => log.read(after, limit, now),
            None => Page {
                read_up_to: after,
                ..Page::default()
            },
        }
    }

    fn ack_now(&self, address: &TokenAddress, up_to: Syn, now: Millis) -> Syn {
        let mut state = self.state();
        let Some(log) = state.live_log(address, now, self.limits) else {
            return 0;
        };
        self.counters.add(&log.ack(up_to, now));
        log.acked
    }

    fn delete_now(&self, address: &TokenAddress, now: Millis) {
        let mut state = self.state();
        if may_make_first_contact(address, now) {
            state
                .logs
                .entry(address.id)
                .or_insert_with(|| Log::new(*address, now));
        }
        if let Some(log) = state.logs.get_mut(&address.id) {
            self.counters.add(&log.end(now));
        }
    }

    fn sweep_now(&self, now: Millis) {
        let mut state = self.state();
        state.answers.retain(|_, (_, ends_at)| now < *ends_at);
        state.logs.retain(|_, log| {
            self.counters.add(&log.expire(now));
            if token_ends_at(log.last_contact, self.limits.token_ttl_ms) <= now {
                self.counters.add(&log.end(now));
            }
            !log.is_ended || now <= first_contact_closes_at(&log.address)
        });
    }

    fn save_project_now(&self, project: &Project) -> Saved {
        let mut state = self.state();
        let stored = state.projects.get(&project.project_id);
        if stored.map_or(0, |stored| stored.version) + 1 != project.version {
            return Saved::Conflict;
        }
        state
            .projects
            .insert(project.project_id.clone(), project.clone());
        Saved::Saved
    }
}

impl State {
    fn live_log(
        &mut self,
        address: &TokenAddress,
        now: Millis,
        limits: StoreLimits,
    ) -> Option<&mut Log> {
        self.logs
            .get_mut(&address.id)
            .filter(|log| log.is_live(now, limits))
    }

    fn log_or_first(
        &mut self,
        address: &TokenAddress,
        now: Millis,
        limits: StoreLimits,
    ) -> Option<&mut Log> {
        if !self.logs.contains_key(&address.id) && may_make_first_contact(address, now) {
            self.logs.insert(address.id, Log::new(*address, now));
        }
        self.live_log(address, now, limits)
    }
}

impl Store for MemoryStore {
    fn append(&self, push: NewPush, ticket: u64, sink: &SettledSink) {
        let outcome = Ok(self.append_now(push));
        sink(vec![Settled { ticket, outcome }]);
    }

    fn contact<'a>(
        &'a self,
        address: &'a TokenAddress,
        min_syn: Syn,
        _: Option<Epoch>,
        now: Millis,
    ) -> BoxFuture<'a, Result<Contact, StoreError>> {
        Box::pin(ready(Ok(self.contact_now(address, min_syn, now))))
    }

    fn is_registered<'a>(
        &'a self,
        address: &'a TokenAddress,
        now: Millis,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let state = self.state();
        let is_registered = match state.logs.get(&address.id) {
            Some(log) => log.is_live(now, self.limits),
            None => may_make_first_contact(address, now),
        };
        Box::pin(ready(Ok(is_registered)))
    }

    fn read<'a>(
        &'a self,
        address: &'a TokenAddress,
        after: Syn,
        limit: PageLimit,
        now: Millis,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(ready(Ok(self.read_now(address, after, limit, now))))
    }

    fn ack<'a>(
        &'a self,
        address: &'a TokenAddress,
        up_to: Syn,
        now: Millis,
    ) -> BoxFuture<'a, Result<Syn, StoreError>> {
        Box::pin(ready(Ok(self.ack_now(address, up_to, now))))
    }

    fn delete_token<'a>(
        &'a self,
        address: &'a TokenAddress,
        now: Millis,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.delete_now(address, now);
        Box::pin(ready(Ok(())))
    }

    fn claim(
        &self,
        key: IdempotencyKey,
        _: MessageId,
        now: Millis,
    ) -> BoxFuture<'_, Result<Claim, StoreError>> {
        let claim = match self.state().answers.get(&key) {
            Some((message_id, ends_at)) if now < *ends_at => Claim::Answered(*message_id),
            _ => Claim::Fresh,
        };
        Box::pin(ready(Ok(claim)))
    }

    fn projects(&self) -> BoxFuture<'_, Result<Vec<Project>, StoreError>> {
        let projects = self.state().projects.values().cloned().collect();
        Box::pin(ready(Ok(projects)))
    }

    fn save_project<'a>(
        &'a self,
        project: &'a Project,
    ) -> BoxFuture<'a, Result<Saved, StoreError>> {
        Box::pin(ready(Ok(self.save_project_now(project))))
    }

    fn delete_tokens_of(
        &self,
        project: ProjectHash,
        now: Millis,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut state = self.state();
        let logs = state.logs.values_mut();
        for log in logs.filter(|log| log.address.project == project) {
            self.counters.add(&log.end(now));
        }
        Box::pin(ready(Ok(())))
    }

    fn keep_secret<'a>(
        &'a self,
        name: &'a str,
        proposed: &'a [u8],
    ) -> BoxFuture<'a, Result<Vec<u8>, StoreError>> {
        let mut state = self.state();
        let kept = state
            .secrets
            .entry(name.to_owned())
            .or_insert_with(|| proposed.to_vec());
        Box::pin(ready(Ok(kept.clone())))
    }

    fn kept_secret<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        let kept = self.state().secrets.get(name).cloned();
        Box::pin(ready(Ok(kept)))
    }

    fn sweep(&self, now: Millis) -> BoxFuture<'_, Result<(), StoreError>> {
        self.sweep_now(now);
        Box::pin(ready(Ok(())))
    }

    fn totals(&self) -> Totals {
        let state = self.state();
        let live = state.logs.values().filter(|log| !log.is_ended);
        live.fold(Totals::default(), |totals, log| Totals {
            tokens: totals.tokens + 1,
            pending: totals.pending + log.rows.len() as u64,
        })
    }

    fn is_healthy(&self) -> bool {
        true
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{Books, Subject, suite};

    fn open(limits: StoreLimits) -> Subject {
        let counters = Arc::new(PushCounters::default());
        Subject {
            store: Arc::new(MemoryStore::new(limits, counters.clone())),
            counters,
            books: Books::Exact,
            keep: Box::new(()),
        }
    }

    suite!(open);
}
