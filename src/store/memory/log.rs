//! One token's log in memory: every rule in its plainest form.

use std::collections::BTreeMap;

use crate::clock::Millis;
use crate::push::{CollapseKey, NewPush, Push, Syn};
use crate::store::counters::PushCounts;
use crate::store::lifetimes::token_ends_at;
use crate::store::{COLLAPSE_KEYS_MAX, Page, PageLimit, StoreLimits};
use crate::token::TokenAddress;
use crate::topic::TopicName;

pub(super) struct Log {
    pub(super) address: TokenAddress,
    pub(super) is_ended: bool,
    pub(super) last_contact: Millis,
    pub(super) syn_stored: Syn,
    pub(super) acked: Syn,
    deleted_up_to: Syn,
    pub(super) rows: BTreeMap<Syn, Row>,
    pub(super) topics: BTreeMap<TopicName, Millis>,
}

pub(super) struct Row {
    push: Push,
    collapse_key: Option<CollapseKey>,
}

impl Log {
    pub(super) fn new(address: TokenAddress, now: Millis) -> Self {
        Self {
            address,
            is_ended: false,
            last_contact: now,
            syn_stored: 0,
            acked: 0,
            deleted_up_to: 0,
            rows: BTreeMap::new(),
            topics: BTreeMap::new(),
        }
    }

    pub(super) fn is_live(&self, now: Millis, limits: StoreLimits) -> bool {
        !self.is_ended && now < token_ends_at(self.last_contact, limits.token_ttl_ms)
    }

    pub(super) fn append(&mut self, push: NewPush, pending_max: usize, counts: &mut PushCounts) {
        let expired = self.expire(push.accepted_at);
        counts.expired += expired.expired;
        self.syn_stored += 1;
        if let Some(key) = push.collapse_key {
            counts.collapsed += self.collapse(key, push.is_now_or_never());
        }
        if push.is_now_or_never() {
            counts.expired += 1;
            return;
        }
        while self.rows.len() >= pending_max.max(1) {
            if let Some((syn, _)) = self.rows.pop_first() {
                self.deleted_up_to = syn;
                counts.dropped += 1;
            }
        }
        let row = Row {
            collapse_key: push.collapse_key,
            push: Push {
                syn: self.syn_stored,
                message_id: push.message_id,
                accepted_at: push.accepted_at,
                expires_at: push.expires_at,
                message: push.message,
            },
        };
        self.rows.insert(self.syn_stored, row);
    }

    /// Makes way for a push with this key; a "now or never" push needs no place for its own.
    fn collapse(&mut self, key: CollapseKey, is_now_or_never: bool) -> u64 {
        let keyed: Vec<(Syn, CollapseKey)> = self
            .rows
            .iter()
            .filter_map(|(syn, row)| row.collapse_key.map(|key| (*syn, key)))
            .collect();
        let same_key = keyed.iter().find(|(_, held)| *held == key);
        let is_full = keyed.len() >= COLLAPSE_KEYS_MAX && !is_now_or_never;
        let oldest = keyed.first().filter(|_| is_full);
        match same_key.or(oldest) {
            Some((syn, _)) => {
                self.rows.remove(syn);
                1
            }
            None => 0,
        }
    }

    pub(super) fn ack(&mut self, up_to: Syn, now: Millis) -> PushCounts {
        let expired = self.expire(now);
        self.acked = self.acked.max(up_to.min(self.syn_stored));
        let kept = self.rows.split_off(&(self.acked + 1));
        let gone = std::mem::replace(&mut self.rows, kept);
        PushCounts {
            acked: gone.len() as u64,
            ..expired
        }
    }

    pub(super) fn expire(&mut self, now: Millis) -> PushCounts {
        let before = self.rows.len();
        self.rows.retain(|_, row| !row.push.is_expired(now));
        PushCounts {
            expired: (before - self.rows.len()) as u64,
            ..PushCounts::default()
        }
    }

    pub(super) fn end(&mut self, now: Millis) -> PushCounts {
        let mut counts = self.expire(now);
        counts.deleted = self.rows.len() as u64;
        self.rows.clear();
        self.topics.clear();
        self.is_ended = true;
        counts
    }

    pub(super) fn reported_deleted_up_to(&self) -> Option<Syn> {
        Some(self.deleted_up_to).filter(|syn| *syn > self.acked)
    }

    pub(super) fn read(&self, after: Syn, limit: PageLimit, now: Millis) -> Page {
        let mut page = Page {
            read_up_to: self.syn_stored.max(after),
            syn_stored: self.syn_stored,
            deleted_up_to: self.reported_deleted_up_to(),
            ..Page::default()
        };
        let mut bytes = 0;
        for row in self
            .rows
            .range(after.saturating_add(1)..)
            .map(|(_, row)| row)
        {
            if row.push.is_expired(now) {
                continue;
            }
            if page.pushes.len() >= limit.pushes.max(1) || bytes > limit.bytes {
                page.more = true;
                page.read_up_to = page.pushes.last().map_or(after, |push| push.syn);
                break;
            }
            bytes += row.push.message.len();
            page.pushes.push(row.push.clone());
        }
        page
    }
}
