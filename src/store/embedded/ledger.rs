//! One token's whole truth in memory: which numbers are given, settled, acknowledged, and which
//! pushes are still pending. Pure: no I/O, no clock, no async.
//!
//! A push is *numbered* first and becomes *durable* later; in between it is in flight.

use super::backlog::{Backlog, Removed};
use super::record::{Record, RowHead};
use crate::clock::Millis;
use crate::push::{NewPush, Syn};
use crate::store::StoreLimits;
use crate::store::lifetimes::{is_contact_stale, token_ends_at};

/// Wake-ups are rounded up to whole steps of this many seconds, so that a token is moved in the
/// wake index at most once a step however many short-lived pushes it gets.
const WAKE_STEP_SECONDS: u64 = 5;

const MILLIS_PER_SECOND: Millis = 1_000;

/// What a ledger costs in the cache besides its backlog: the entry, its key, and the map's slack.
const LEDGER_WEIGHT: usize = 88;

/// When a token must be looked at again: whole seconds since 1970, 0 for never.
pub(super) type WakeSeconds = u32;

/// The truth about one token. An idle one owns no heap memory.
#[derive(Debug)]
pub(super) struct Ledger {
    stored: Syn,
    acked: Syn,
    last_contact: Millis,
    /// The last round of the committer that anything of this token was staged in.
    pub(super) staged_in: u64,
    backlog: Option<Box<Backlog>>,
    in_flight: u32,
    wake: WakeSeconds,
    /// Where the wake index has this token, or will once everything staged is committed.
    pub(super) indexed: WakeSeconds,
    is_ended: bool,
    /// Whether the staged record counts as a living token.
    pub(super) is_counted: bool,
    /// Whether the staged record says that there may be rows. It goes on saying so when they are gone, so
    /// that the next push needs its row alone.
    pub(super) is_marked: bool,
}

/// What a reader may be told about a settled push.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settlement {
    /// The watermark before it.
    pub(super) prev_syn: Syn,
    /// Pushes up to here were dropped, and no reader has moved past them.
    pub(super) deleted_up_to: Option<Syn>,
}

impl Ledger {
    /// A token at its first contact.
    pub(super) fn begin(now: Millis, limits: StoreLimits) -> Self {
        let mut ledger = Self {
            stored: 0,
            acked: 0,
            last_contact: now,
            staged_in: 0,
            backlog: None,
            in_flight: 0,
            wake: 0,
            indexed: 0,
            is_ended: false,
            is_counted: false,
            is_marked: false,
        };
        ledger.reschedule(limits);
        ledger
    }

    /// A token as it was written down, with its rows in syn order.
    pub(super) fn recall(record: &Record, heads: &[RowHead]) -> Self {
        let backlog = Backlog::recall(record, heads);
        let last_row = heads.last().map_or(0, |head| head.syn);
        Self {
            stored: record.syn.max(last_row),
            acked: record.acked,
            last_contact: record.last_contact,
            staged_in: 0,
            backlog: (!backlog.is_idle(record.acked)).then(|| Box::new(backlog)),
            in_flight: 0,
            wake: record.wake,
            indexed: record.wake,
            is_ended: record.is_ended,
            is_counted: !record.is_ended,
            is_marked: record.may_have_rows,
        }
    }

    /// The watermark.
    pub(super) fn stored(&self) -> Syn {
        self.stored
    }

    /// Everything at or below is done with.
    pub(super) fn acked(&self) -> Syn {
        self.acked
    }

    /// The highest number given.
    pub(super) fn numbered(&self) -> Syn {
        self.stored + Syn::from(self.in_flight)
    }

    /// Pushes in the log, those in flight included.
    pub(super) fn pending(&self) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.pending())
    }

    /// Whether numbers are given whose fate is open.
    pub(super) fn has_in_flight(&self) -> bool {
        self.in_flight > 0
    }

    /// When it must be looked at again.
    pub(super) fn wake(&self) -> WakeSeconds {
        self.wake
    }

    /// Ended for ever, by its device or with its project.
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Ended, or not heard of for too long.
    pub(super) fn is_dead(&self, limits: StoreLimits, now: Millis) -> bool {
        self.is_ended || token_ends_at(self.last_contact, limits.token_ttl_ms) <= now
    }

    /// When its device was last heard of, as far as that is written down.
    pub(super) fn last_contact(&self) -> Millis {
        self.last_contact
    }

    /// Highest number dropped by the cap once everything staged is durable.
    pub(super) fn staged_deleted_up_to(&self) -> Syn {
        let backlog = self.backlog.as_ref();
        backlog.map_or(0, |backlog| backlog.staged_deleted_up_to())
    }

    /// The drop mark, unless a reader has moved past it.
    pub(super) fn reported_deleted_up_to(&self) -> Option<Syn> {
        let mark = self
            .backlog
            .as_ref()
            .map_or(0, |backlog| backlog.deleted_up_to());
        Some(mark).filter(|mark| *mark > self.acked)
    }

    /// Bytes this costs in the cache, about.
    pub(super) fn weight(&self) -> usize {
        let backlog = self.backlog.as_ref();
        LEDGER_WEIGHT + backlog.map_or(0, |backlog| backlog.weight())
    }

    /// Gives a push its number, and says what goes because of it.
    pub(super) fn number(&mut self, push: &NewPush, limits: StoreLimits) -> (Syn, Removed) {
        let syn = self.numbered() + 1;
        self.in_flight += 1;
        let mut removed = self.expire(push.accepted_at);
        let backlog = self.backlog.get_or_insert_default();
        if let Some(key) = push.collapse_key {
            backlog.collapse(syn, key, push.is_now_or_never(), &mut removed);
        }
        if !push.is_now_or_never() {
            backlog.drop_oldest(syn, limits.pending_per_token.max(1), &mut removed);
            backlog.push_back(syn, push);
            self.is_marked = true;
        }
        self.wake = self.wake.min(self.next_wake(limits));
        (syn, removed)
    }

    /// The next number in flight is durable: the watermark rises to it.
    pub(super) fn settle(&mut self, syn: Syn) -> Settlement {
        let prev_syn = self.stored;
        debug_assert_eq!(syn, prev_syn + 1, "numbers settle in order");
        self.stored = syn;
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(backlog) = &mut self.backlog {
            backlog.settle(syn);
        }
        self.tidy();
        Settlement {
            prev_syn,
            deleted_up_to: self.reported_deleted_up_to(),
        }
    }

    /// Whether a contact now, with an acknowledgement up to `up_to`, would change anything.
    pub(super) fn would_change(&self, up_to: Syn, now: Millis, limits: StoreLimits) -> bool {
        up_to.min(self.stored) > self.acked
            || is_contact_stale(self.last_contact, limits.token_ttl_ms, now)
    }

    /// A device was heard of.
    pub(super) fn touch(&mut self, now: Millis, limits: StoreLimits) {
        if is_contact_stale(self.last_contact, limits.token_ttl_ms, now) {
            self.last_contact = now;
        }
    }

    /// Everything settled at or below `up_to` is done with. `None` if that is nothing new. What
    /// had expired before is not counted as acknowledged.
    pub(super) fn ack(&mut self, up_to: Syn, now: Millis) -> Option<Removed> {
        let up_to = up_to.min(self.stored);
        if up_to <= self.acked {
            return None;
        }
        let mut removed = self.expire(now);
        self.acked = up_to;
        if let Some(backlog) = &mut self.backlog {
            backlog.ack(up_to, &mut removed);
        }
        self.tidy();
        Some(removed)
    }

    /// Takes out what has expired.
    pub(super) fn expire(&mut self, now: Millis) -> Removed {
        let mut removed = Removed::default();
        if let Some(backlog) = &mut self.backlog {
            backlog.expire(now, &mut removed);
        }
        self.tidy();
        removed
    }

    /// Ends the token with all that is pending. Its record is kept as a tombstone until `kept_until`
    /// has passed, or not at all.
    pub(super) fn end(&mut self, now: Millis, kept_until: Option<Millis>) -> Removed {
        let mut removed = self.expire(now);
        if let Some(backlog) = self.backlog.take() {
            backlog.into_deleted(&mut removed);
        }
        self.is_ended = true;
        self.wake = kept_until.map_or(0, |until| wake_after(until.saturating_add(1)));
        removed
    }

    /// The tombstone has served its time.
    pub(super) fn bury(&mut self) {
        self.wake = 0;
    }

    /// Sets the next time to look at this token by what is in it now, and no longer looks for rows if there
    /// are none.
    pub(super) fn reschedule(&mut self, limits: StoreLimits) {
        self.wake = self.next_wake(limits);
        self.is_marked = self.pending() > 0;
    }

    /// Numbers of settled, live pushes after `after`, at most `max`, in order.
    pub(super) fn live(&self, after: Syn, max: usize, now: Millis) -> Vec<Syn> {
        let after = after.max(self.acked);
        self.backlog.as_ref().map_or_else(Vec::new, |backlog| {
            backlog.live(after, self.stored, max, now)
        })
    }

    fn next_wake(&self, limits: StoreLimits) -> WakeSeconds {
        let ends_at = token_ends_at(self.last_contact, limits.token_ttl_ms);
        let expires_at = self
            .backlog
            .as_ref()
            .map_or(Millis::MAX, |backlog| backlog.earliest_expiry());
        wake_after(ends_at.min(expires_at))
    }

    fn tidy(&mut self) {
        let acked = self.acked;
        if self
            .backlog
            .as_ref()
            .is_some_and(|backlog| backlog.is_idle(acked))
        {
            self.backlog = None;
        }
    }
}

/// The first step of the wake index at or after a moment.
fn wake_after(moment: Millis) -> WakeSeconds {
    let seconds = moment.div_ceil(MILLIS_PER_SECOND);
    let step = seconds
        .div_ceil(WAKE_STEP_SECONDS)
        .saturating_mul(WAKE_STEP_SECONDS);
    WakeSeconds::try_from(step).unwrap_or(WakeSeconds::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::push::CollapseKey;
    use crate::store::COLLAPSE_KEYS_MAX;
    use crate::store::conformance::{START, push, token_of};
    use crate::store::counters::PushCounts;

    const LIMITS: StoreLimits = StoreLimits {
        pending_per_token: 6,
        token_ttl_ms: 30 * 24 * 60 * 60 * 1_000,
        topics_per_token: 8,
    };

    #[derive(Debug, Clone)]
    enum Step {
        Number { ttl: Millis, key: Option<u8> },
        Settle,
        Ack(Syn),
        Pass(Millis),
        Expire,
        Recall,
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = proptest::option::of(0..6u8);
        prop_oneof![
            6 => (0..40u64, key).prop_map(|(ttl, key)| Step::Number { ttl, key }),
            5 => Just(Step::Settle),
            1 => (0..60u64).prop_map(Step::Ack),
            2 => (0..10u64).prop_map(Step::Pass),
            1 => Just(Step::Expire),
            1 => Just(Step::Recall),
        ]
    }

    /// One push as the model sees it: it is in the log until something ends it.
    #[derive(Debug)]
    struct Fate {
        syn: Syn,
        expires_at: Millis,
        key: Option<CollapseKey>,
        is_now_or_never: bool,
        ended: Option<End>,
    }

    #[derive(Debug, PartialEq)]
    enum End {
        Gone,
        Collapsed(Syn),
        Dropped(Syn),
    }

    /// Every push ever numbered, in a list.
    #[derive(Debug, Default)]
    struct Model {
        fates: Vec<Fate>,
        stored: Syn,
        acked: Syn,
        counts: PushCounts,
    }

    impl Model {
        fn pending(&mut self) -> Vec<&mut Fate> {
            let fates = self.fates.iter_mut();
            fates
                .filter(|fate| fate.ended.is_none() && !fate.is_now_or_never)
                .collect()
        }

        fn number(&mut self, push: &NewPush) {
            let syn = self.fates.len() as Syn + 1;
            self.expire(push.accepted_at);
            if push.collapse_key.is_some() {
                let mut keyed = self.pending();
                keyed.retain(|fate| fate.key.is_some());
                let same = keyed.iter().position(|fate| fate.key == push.collapse_key);
                let is_full = keyed.len() == COLLAPSE_KEYS_MAX && !push.is_now_or_never();
                if let Some(place) = same.or(is_full.then_some(0)) {
                    keyed[place].ended = Some(End::Collapsed(syn));
                    self.counts.collapsed += 1;
                }
            }
            let mut pending = self.pending();
            if pending.len() == LIMITS.pending_per_token && !push.is_now_or_never() {
                pending[0].ended = Some(End::Dropped(syn));
                self.counts.dropped += 1;
            }
            self.fates.push(Fate {
                syn,
                expires_at: push.expires_at,
                key: push.collapse_key,
                is_now_or_never: push.is_now_or_never(),
                ended: None,
            });
        }

        fn expire(&mut self, now: Millis) {
            let mut count = 0;
            for fate in self
                .pending()
                .into_iter()
                .filter(|fate| fate.expires_at <= now)
            {
                fate.ended = Some(End::Gone);
                count += 1;
            }
            self.counts.expired += count;
        }

        fn ack(&mut self, up_to: Syn, now: Millis) {
            if up_to.min(self.stored) > self.acked {
                self.expire(now);
            }
            self.acked = self.acked.max(up_to.min(self.stored));
            let (acked, mut count) = (self.acked, 0);
            for fate in self.pending().into_iter().filter(|fate| fate.syn <= acked) {
                fate.ended = Some(End::Gone);
                count += 1;
            }
            self.counts.acked += count;
        }

        fn live(&self, now: Millis) -> Vec<Syn> {
            let is_live = |fate: &&Fate| {
                let is_there = match fate.ended {
                    None => true,
                    Some(End::Gone) => false,
                    Some(End::Collapsed(by) | End::Dropped(by)) => by > self.stored,
                };
                is_there
                    && !fate.is_now_or_never
                    && (self.acked + 1..=self.stored).contains(&fate.syn)
                    && now < fate.expires_at
            };
            self.fates
                .iter()
                .filter(is_live)
                .map(|fate| fate.syn)
                .collect()
        }

        fn deleted_up_to(&self) -> Option<Syn> {
            let dropped = self
                .fates
                .iter()
                .filter(|fate| matches!(fate.ended, Some(End::Dropped(by)) if by <= self.stored));
            let highest = dropped.map(|fate| fate.syn).max();
            highest.filter(|syn| *syn > self.acked)
        }

        fn heads(&mut self) -> Vec<RowHead> {
            let pending = self.pending().into_iter();
            let head = |fate: &mut Fate| RowHead {
                syn: fate.syn,
                expires_at: fate.expires_at,
                collapse_key: fate.key,
            };
            pending.map(head).collect()
        }
    }

    fn add(counts: &mut PushCounts, removed: &Removed) {
        counts.acked += removed.counts.acked;
        counts.expired += removed.counts.expired;
        counts.collapsed += removed.counts.collapsed;
        counts.dropped += removed.counts.dropped;
    }

    proptest! {
        #[test]
        fn a_ledger_does_what_the_plain_model_does(steps in prop::collection::vec(step(), 1..120)) {
            let address = token_of("demo");
            let mut ledger = Ledger::begin(START, LIMITS);
            let mut model = Model::default();
            let mut counts = PushCounts::default();
            let mut now = START;
            for step in steps {
                match step {
                    Step::Number { ttl, key } => {
                        let push = NewPush {
                            expires_at: now + ttl,
                            collapse_key: key.map(|key| [key; 16]),
                            ..push(address, now)
                        };
                        let (syn, removed) = ledger.number(&push, LIMITS);
                        model.number(&push);
                        prop_assert_eq!(syn, model.fates.len() as Syn);
                        add(&mut counts, &removed);
                    }
                    Step::Settle if ledger.has_in_flight() => {
                        let prev_syn = model.stored;
                        model.stored += 1;
                        let settled = ledger.settle(model.stored);
                        let deleted_up_to = model.deleted_up_to();
                        prop_assert_eq!(settled, Settlement { prev_syn, deleted_up_to });
                    }
                    Step::Settle => {}
                    Step::Ack(up_to) => {
                        add(&mut counts, &ledger.ack(up_to, now).unwrap_or_default());
                        model.ack(up_to, now);
                    }
                    Step::Pass(time) => now += time,
                    Step::Expire => {
                        add(&mut counts, &ledger.expire(now));
                        model.expire(now);
                        ledger.reschedule(LIMITS);
                    }
                    Step::Recall if !ledger.has_in_flight() => {
                        let record = Record::of(&address, &ledger).encode();
                        let record = Record::decode(&record).expect("its own record");
                        ledger = Ledger::recall(&record, &model.heads());
                    }
                    Step::Recall => {}
                }
                prop_assert_eq!(ledger.live(0, usize::MAX, now), model.live(now));
                prop_assert_eq!(ledger.stored(), model.stored);
                prop_assert_eq!(ledger.acked(), model.acked);
                prop_assert_eq!(ledger.reported_deleted_up_to(), model.deleted_up_to());
                prop_assert_eq!(ledger.pending(), model.pending().len());
                prop_assert_eq!(counts, model.counts);
                let earliest = model.pending().iter().map(|fate| fate.expires_at).min();
                let latest_wake = earliest.map_or(Millis::MAX, |at| at + 5_000);
                prop_assert!(Millis::from(ledger.wake()) * 1_000 <= latest_wake);
            }
        }
    }

    #[test]
    fn an_idle_ledger_is_small() {
        assert!(size_of::<Ledger>() <= 64, "{}", size_of::<Ledger>());
        let entry = size_of::<(crate::token::TokenId, Ledger)>() + 1;
        assert!(
            entry * 8 / 7 <= LEDGER_WEIGHT,
            "a map that is as full as maps get"
        );
        let mut ledger = Ledger::begin(START, LIMITS);
        ledger.number(&push(token_of("demo"), START), LIMITS);
        ledger.settle(1);
        assert!(ledger.weight() > LEDGER_WEIGHT);
        ledger.ack(1, START);
        assert_eq!(ledger.weight(), LEDGER_WEIGHT);
    }

    #[test]
    fn many_short_lived_pushes_move_a_token_once_a_step() {
        let mut ledger = Ledger::begin(START, LIMITS);
        let mut moves = 0;
        for millis in 0..4_000 {
            let before = ledger.wake();
            let push = NewPush {
                expires_at: START + millis + 500,
                ..push(token_of("demo"), START + millis)
            };
            ledger.number(&push, LIMITS);
            moves += u32::from(ledger.wake() != before);
        }
        assert_eq!(moves, 1);
    }
}
