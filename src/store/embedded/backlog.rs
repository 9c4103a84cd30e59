//! What of one token is pending, and the rules by which it goes: collapse keys, the cap, expiry.
//!
//! What a new push makes obsolete (an older push of its collapse key, the oldest past the cap) is
//! out of the log at once, but stays visible to readers until the newcomer is durable: were the
//! newcomer lost in a crash, readers must not have stepped over what it replaced.

use std::collections::VecDeque;

use super::record::{Record, RowHead};
use crate::clock::Millis;
use crate::push::{CollapseKey, NewPush, Syn};
use crate::store::COLLAPSE_KEYS_MAX;
use crate::store::counters::PushCounts;

/// What of a token is pending.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// In syn order, those in flight included.
    rows: VecDeque<Row>,
    /// The rows that have a collapse key, in syn order, each key once.
    keyed: Vec<(Syn, CollapseKey)>,
    /// Out of the log, but visible until their replacement is durable.
    doomed: Vec<Doomed>,
    /// Highest number dropped by the cap, as far as that is durable.
    deleted_up_to: Syn,
    /// No row expires before this.
    earliest_expiry: Millis,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    syn: Syn,
    expires_at: Millis,
}

#[derive(Debug)]
struct Doomed {
    row: Row,
    by: Syn,
    is_dropped: bool,
}

/// What a verb took out of the log, and how that is counted.
#[derive(Debug, Default)]
pub(super) struct Removed {
    /// Numbers whose rows are to be removed.
    pub(super) syns: Vec<Syn>,
    /// The same, by reason.
    pub(super) counts: PushCounts,
}

impl Backlog {
    /// The backlog as it was written down, with its rows in syn order.
    pub(super) fn recall(record: &Record, heads: &[RowHead]) -> Self {
        let rows = heads.iter().map(|head| Row {
            syn: head.syn,
            expires_at: head.expires_at,
        });
        let keyed = heads
            .iter()
            .filter_map(|head| head.collapse_key.map(|key| (head.syn, key)));
        let mut backlog = Self {
            rows: rows.collect(),
            keyed: keyed.collect(),
            doomed: Vec::new(),
            deleted_up_to: record.deleted_up_to,
            earliest_expiry: Millis::MAX,
        };
        backlog.find_earliest_expiry();
        backlog
    }

    /// Nothing in it is worth keeping once `acked` is done with.
    pub(super) fn is_idle(&self, acked: Syn) -> bool {
        self.rows.is_empty() && self.doomed.is_empty() && self.deleted_up_to <= acked
    }

    /// A push enters the log.
    pub(super) fn push_back(&mut self, syn: Syn, push: &NewPush) {
        if self.rows.is_empty() {
            self.earliest_expiry = push.expires_at;
        }
        self.earliest_expiry = self.earliest_expiry.min(push.expires_at);
        self.rows.push_back(Row {
            syn,
            expires_at: push.expires_at,
        });
        if let Some(key) = push.collapse_key {
            self.keyed.push((syn, key));
        }
    }

    /// Makes way for a push with this key; a "now or never" push needs no place for its own.
    pub(super) fn collapse(
        &mut self,
        by: Syn,
        key: CollapseKey,
        is_now_or_never: bool,
        removed: &mut Removed,
    ) {
        let same_key = self.keyed.iter().position(|(_, held)| *held == key);
        let is_full = self.keyed.len() >= COLLAPSE_KEYS_MAX && !is_now_or_never;
        let Some(place) = same_key.or(is_full.then_some(0)) else {
            return;
        };
        let (victim, _) = self.keyed.remove(place);
        let place = self.rows.binary_search_by_key(&victim, |row| row.syn);
        if let Some(row) = place.ok().and_then(|place| self.rows.remove(place)) {
            removed.counts.collapsed += 1;
            self.doom(row, by, false, removed);
        }
    }

    /// Makes room below the pending cap.
    pub(super) fn drop_oldest(&mut self, by: Syn, pending_max: usize, removed: &mut Removed) {
        while self.rows.len() >= pending_max {
            let Some(row) = self.rows.pop_front() else {
                return;
            };
            self.keyed.retain(|(syn, _)| *syn != row.syn);
            removed.counts.dropped += 1;
            self.doom(row, by, true, removed);
        }
    }

    fn doom(&mut self, row: Row, by: Syn, is_dropped: bool, removed: &mut Removed) {
        removed.syns.push(row.syn);
        self.doomed.push(Doomed {
            row,
            by,
            is_dropped,
        });
    }

    /// The push `syn` is durable: what it replaced is gone for readers too.
    pub(super) fn settle(&mut self, syn: Syn) {
        let mark = &mut self.deleted_up_to;
        self.doomed.retain(|doomed| {
            let is_gone = doomed.by <= syn;
            if is_gone && doomed.is_dropped {
                *mark = (*mark).max(doomed.row.syn);
            }
            !is_gone
        });
    }

    /// Everything up to `up_to` is done with.
    pub(super) fn ack(&mut self, up_to: Syn, removed: &mut Removed) {
        let count = self.rows.partition_point(|row| row.syn <= up_to);
        removed.counts.acked += count as u64;
        removed
            .syns
            .extend(self.rows.drain(..count).map(|row| row.syn));
        self.keyed.retain(|(syn, _)| *syn > up_to);
    }

    /// Takes out what has expired.
    pub(super) fn expire(&mut self, now: Millis, removed: &mut Removed) {
        if self.rows.is_empty() || now < self.earliest_expiry {
            return;
        }
        self.rows.retain(|row| {
            let is_expired = row.expires_at <= now;
            if is_expired {
                removed.syns.push(row.syn);
                removed.counts.expired += 1;
            }
            !is_expired
        });
        self.keyed.retain(|(syn, _)| !removed.syns.contains(syn));
        self.find_earliest_expiry();
    }

    /// Numbers of live pushes in `(after, up_to]`, at most `max`, in order.
    pub(super) fn live(&self, after: Syn, up_to: Syn, max: usize, now: Millis) -> Vec<Syn> {
        let start = self.rows.partition_point(|row| row.syn <= after);
        let is_live = |row: &&Row| row.syn > after && row.syn <= up_to && now < row.expires_at;
        let rows = self.rows.range(start..).filter(is_live).take(max);
        let mut syns: Vec<Syn> = rows.map(|row| row.syn).collect();
        if !self.doomed.is_empty() {
            let doomed = self.doomed.iter().map(|doomed| &doomed.row);
            syns.extend(doomed.filter(is_live).map(|row| row.syn));
            syns.sort_unstable();
            syns.truncate(max);
        }
        syns
    }

    /// Pushes in the log, those in flight included.
    pub(super) fn pending(&self) -> usize {
        self.rows.len()
    }

    /// No push in the log expires before this.
    pub(super) fn earliest_expiry(&self) -> Millis {
        if self.rows.is_empty() {
            Millis::MAX
        } else {
            self.earliest_expiry
        }
    }

    /// The drop mark, as far as it is durable.
    pub(super) fn deleted_up_to(&self) -> Syn {
        self.deleted_up_to
    }

    /// The drop mark once everything staged is durable.
    pub(super) fn staged_deleted_up_to(&self) -> Syn {
        let dropped = self.doomed.iter().filter(|doomed| doomed.is_dropped);
        let highest = dropped.map(|doomed| doomed.row.syn).max().unwrap_or(0);
        self.deleted_up_to.max(highest)
    }

    /// Bytes this costs on the heap, about.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>()
            + self.rows.capacity() * size_of::<Row>()
            + self.keyed.capacity() * size_of::<(Syn, CollapseKey)>()
            + self.doomed.capacity() * size_of::<Doomed>()
    }

    fn find_earliest_expiry(&mut self) {
        let expiries = self.rows.iter().map(|row| row.expires_at);
        self.earliest_expiry = expiries.min().unwrap_or(Millis::MAX);
    }

    /// Empties the log, and says what was in it.
    pub(super) fn into_deleted(self, removed: &mut Removed) {
        removed.counts.deleted += self.rows.len() as u64;
        removed.syns.extend(self.rows.iter().map(|row| row.syn));
    }
}
