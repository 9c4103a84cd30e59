//! What has become durable, and what may be gone of it: against this the judge holds what is shown.

use std::collections::{BTreeMap, HashMap, HashSet};

use herald::clock::Millis;
use herald::push::{CollapseKey, MessageId, NewPush, Syn};
use herald::token::TokenId;
use tokio::time::Instant;

/// A push that is durable.
pub struct Row {
    pub id: MessageId,
    pub expires_at: Millis,
    key: Option<CollapseKey>,
    /// Since when a newer one of its key is durable.
    pub replaced_at: Option<Instant>,
    /// It became durable together with others, in this group.
    group: u64,
    /// The newer one was in the same group: nobody could see it before that was there.
    pub was_never_to_be_seen: bool,
}

/// One token's.
#[derive(Default)]
pub struct Log {
    pub rows: BTreeMap<Syn, Row>,
    /// The highest number that its own device has acknowledged, or is about to.
    may_ack: Syn,
    pub acked: Syn,
    /// The cap has taken everything up to here.
    pub dropped_up_to: Syn,
}

/// All tokens'. It forgets nothing, be there a crash or not.
#[derive(Default)]
pub struct Ledger {
    logs: HashMap<TokenId, Log>,
    numbers: HashMap<(MessageId, TokenId), Syn>,
    /// Copies of whom nobody can say when their tokens joined a topic.
    may_come_twice: HashSet<(MessageId, TokenId)>,
    group: u64,
}

impl Ledger {
    /// What becomes durable from now on does so together.
    pub fn begins_group(&mut self) {
        self.group += 1;
    }

    /// A push has become durable, or is so after a crash as it was before.
    pub fn stores(&mut self, push: &NewPush, syn: Syn, dropped_up_to: Option<Syn>) {
        let name = (push.message_id, push.address.id);
        let known = self.numbers.get(&name).copied();
        assert!(
            known.is_none_or(|known| known == syn) || self.may_come_twice.contains(&name),
            "promise 3: {} is stored twice, as {known:?} and as {syn}",
            push.message_id
        );
        self.numbers.entry(name).or_insert(syn);
        let log = self.logs.entry(push.address.id).or_default();
        log.dropped_up_to = log.dropped_up_to.max(dropped_up_to.unwrap_or(0));
        if log.rows.contains_key(&syn) {
            return;
        }
        if push.collapse_key.is_some() {
            let same = |row: &&mut Row| row.key == push.collapse_key;
            for older in log.rows.values_mut().filter(same) {
                older.replaced_at.get_or_insert_with(Instant::now);
                older.was_never_to_be_seen |= older.group == self.group;
            }
        }
        let row = Row {
            id: push.message_id,
            expires_at: push.expires_at,
            key: push.collapse_key,
            replaced_at: None,
            group: self.group,
            was_never_to_be_seen: false,
        };
        log.rows.insert(syn, row);
    }

    /// This push to many may be stored twice for this token.
    pub fn may_come_twice(&mut self, id: MessageId, token: TokenId) {
        self.may_come_twice.insert((id, token));
    }

    pub fn syn_of(&self, id: MessageId, token: TokenId) -> Option<Syn> {
        self.numbers.get(&(id, token)).copied()
    }

    pub fn log(&self, token: TokenId) -> Option<&Log> {
        self.logs.get(&token)
    }

    /// How many pushes were replaced, how many dropped.
    pub fn counts(&self) -> (u64, u64) {
        let replaced = |log: &Log| {
            let rows = log.rows.values();
            rows.filter(|row| row.replaced_at.is_some()).count() as u64
        };
        let logs = self.logs.values();
        let sums = logs.map(|log| (replaced(log), log.dropped_up_to));
        sums.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1))
    }

    // --- Acknowledgements --------------------------------------------------------------------

    /// A token's own device is about to acknowledge.
    pub fn device_acks(&mut self, token: TokenId, syn: Syn) {
        let log = self.logs.entry(token).or_default();
        log.may_ack = log.may_ack.max(syn);
    }

    /// The store has taken an acknowledgement.
    pub fn acks(&mut self, token: TokenId, acked: Syn) {
        let log = self.logs.entry(token).or_default();
        log.acked = log.acked.max(acked);
        let allowed = log.may_ack;
        assert!(
            acked <= allowed,
            "promise 7: acknowledged up to {acked}, its device only up to {allowed}"
        );
    }
}

impl Log {
    /// Whether the store has certainly heard of the token.
    pub fn is_known(&self) -> bool {
        !self.rows.is_empty()
    }

    /// Whether nobody has to be shown this number any more: it is acknowledged, dropped or replaced.
    pub fn is_done_with(&self, syn: Syn) -> bool {
        let is_replaced = |row: &Row| row.replaced_at.is_some();
        syn <= self.acked
            || syn <= self.dropped_up_to
            || self.rows.get(&syn).is_some_and(is_replaced)
    }
}
