//! Numbers that others keep, read when somebody scrapes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use prometheus::IntCounter;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::NAMES_ARE_GOOD;
use super::labels::{Label as _, PushState};

/// What a store has counted since it was opened, and what it holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreCounts {
    /// Found pending when it was opened.
    pub recovered: u64,
    /// Made durable and settled.
    pub stored: u64,
    /// Acknowledged.
    pub acked: u64,
    /// Expired.
    pub expired: u64,
    /// Replaced by a newer push.
    pub collapsed: u64,
    /// Dropped by the pending cap.
    pub dropped: u64,
    /// Ended with their token.
    pub deleted: u64,
    /// Still waiting now.
    pub pending: u64,
}

type ReadStore = Arc<dyn Fn() -> StoreCounts + Send + Sync>;
type ReadNumber = Arc<dyn Fn() -> f64 + Send + Sync>;

/// `herald_pushes_total` and `herald_pushes_pending`: one look at the store gives both, so that
/// their sum fits.
#[derive(Clone)]
pub(super) struct Pushes {
    pub(super) accepted: IntCounter,
    pub(super) delivered: IntCounter,
    store: Arc<OnceLock<ReadStore>>,
    total: Desc,
    pending: Desc,
}

impl Pushes {
    pub(super) fn new() -> Self {
        let total = "What became of pushes, since the process started.";
        let pending = "Pushes that wait for their devices now.";
        let unregistered = |name| IntCounter::new(name, "A share.").expect(NAMES_ARE_GOOD);
        Self {
            accepted: unregistered("accepted"),
            delivered: unregistered("delivered"),
            store: Arc::default(),
            total: desc("herald_pushes_total", total, Some("state")),
            pending: desc("herald_pushes_pending", pending, None),
        }
    }

    /// The first store wins: a process has one.
    pub(super) fn watch(&self, read: ReadStore) {
        let _ = self.store.set(read);
    }

    fn count(&self, state: PushState, store: &StoreCounts) -> u64 {
        match state {
            PushState::Accepted => self.accepted.get(),
            PushState::Delivered => self.delivered.get(),
            PushState::Recovered => store.recovered,
            PushState::Stored => store.stored,
            PushState::Acked => store.acked,
            PushState::Expired => store.expired,
            PushState::Collapsed => store.collapsed,
            PushState::Dropped => store.dropped,
            PushState::Deleted => store.deleted,
        }
    }
}

impl Collector for Pushes {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.total, &self.pending]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let store = self.store.get().map(|read| read()).unwrap_or_default();
        let totals = PushState::ALL.iter().map(|state| {
            let mut counter = Counter::default();
            counter.set_value(self.count(*state, &store) as f64);
            let mut metric = Metric::from_label(vec![pair("state", state.text())]);
            metric.set_counter(counter);
            metric
        });
        let pending = gauge(Vec::new(), store.pending as f64);
        vec![
            family(&self.total, MetricType::COUNTER, totals.collect()),
            family(&self.pending, MetricType::GAUGE, vec![pending]),
        ]
    }
}

/// A gauge with one label, whose values are read from closures.
#[derive(Clone)]
pub(super) struct Gauges {
    desc: Desc,
    label: &'static str,
    reads: Arc<RwLock<BTreeMap<&'static str, ReadNumber>>>,
}

impl Gauges {
    pub(super) fn new(name: &str, help: &str, label: &'static str) -> Self {
        Self {
            desc: desc(name, help, Some(label)),
            label,
            reads: Arc::default(),
        }
    }

    pub(super) fn watch(&self, value: &'static str, read: ReadNumber) {
        let mut reads = self.reads.write().unwrap_or_else(PoisonError::into_inner);
        reads.insert(value, read);
    }
}

impl Collector for Gauges {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let reads = self.reads.read().unwrap_or_else(PoisonError::into_inner);
        let metrics = reads
            .iter()
            .map(|(value, read)| gauge(vec![pair(self.label, value)], read()));
        vec![family(&self.desc, MetricType::GAUGE, metrics.collect())]
    }
}

pub(super) fn desc(name: &str, help: &str, label: Option<&str>) -> Desc {
    let labels = label.into_iter().map(str::to_owned).collect();
    Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new()).expect(NAMES_ARE_GOOD)
}

pub(super) fn family(desc: &Desc, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

pub(super) fn gauge(labels: Vec<LabelPair>, value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(labels);
    metric.set_gauge(gauge);
    metric
}

fn pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}
