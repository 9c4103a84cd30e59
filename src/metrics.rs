//! Every metric: its name, its labels, and the handle that counts it.
//!
//! A registry of its own for each [`Metrics`], so that several servers can run in one process.
//! Labels are enums and every series of theirs exists from the start, at 0. What others count for
//! themselves (the store's pushes, the depth of queues) is read when somebody scrapes.

mod allocator;
mod fan_outs;
mod labels;
mod scraped;

use std::fmt;
use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

pub use fan_outs::FanOutMetrics;
pub use labels::{
    CloseLabel, FanOutCopy, FanOutState, Handshake, Label, PushState, Queue, SEND_CODES, Shed,
};
pub use scraped::StoreCounts;

use scraped::{Gauges, Pushes};

/// Bounds for things that take between a tenth of a millisecond and ten seconds.
const SECONDS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// Bounds for the pushes of one commit: powers of two up to the largest batches seen.
const BATCH_PUSHES: [f64; 14] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0,
];

/// All metrics of one server.
pub struct Metrics {
    /// `herald_sessions`: device sockets open now, awake and parked.
    pub sessions: IntGauge,
    /// `herald_handshakes_total`: how attempts to open a session ended.
    pub handshakes: Counters<Handshake>,
    /// `herald_closes_total`: why sessions ended.
    pub closes: Counters<CloseLabel>,
    /// `herald_shed_total`: what was refused to stay able to serve.
    pub sheds: Counters<Shed>,
    /// `herald_sends_total`.
    pub sends: SendCounters,
    /// `herald_send_seconds`: a send's last byte in to its answer.
    pub send_seconds: Histogram,
    /// `herald_delivery_seconds`: accepted to written on the socket, live deliveries only.
    pub delivery_seconds: Histogram,
    /// `herald_store_commit_seconds`.
    pub store_commit_seconds: Histogram,
    /// `herald_store_batch_pushes`.
    pub store_batch_pushes: Histogram,
    /// Pushes to many.
    pub fan_outs: FanOutMetrics,
    pushes: Pushes,
    queues: Gauges,
    backends: Gauges,
    registry: Registry,
}

impl Metrics {
    /// Everything at 0.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let metrics = Self {
            sessions: gauge(&registry, "herald_sessions", "Device sockets open now."),
            handshakes: Counters::new(
                &registry,
                "herald_handshakes_total",
                "How attempts to open a session ended.",
                "result",
            ),
            closes: Counters::new(
                &registry,
                "herald_closes_total",
                "Why sessions ended.",
                "reason",
            ),
            sheds: Counters::new(
                &registry,
                "herald_shed_total",
                "What was refused to stay able to serve.",
                "reason",
            ),
            sends: SendCounters::new(&registry),
            send_seconds: histogram(
                &registry,
                "herald_send_seconds",
                "From the last byte of a send to its answer.",
                &SECONDS,
            ),
            delivery_seconds: histogram(
                &registry,
                "herald_delivery_seconds",
                "From accepting a push to writing it on a live socket.",
                &SECONDS,
            ),
            store_commit_seconds: histogram(
                &registry,
                "herald_store_commit_seconds",
                "How long commits of the store took.",
                &SECONDS,
            ),
            store_batch_pushes: histogram(
                &registry,
                "herald_store_batch_pushes",
                "Pushes that one commit made durable.",
                &BATCH_PUSHES,
            ),
            fan_outs: FanOutMetrics::new(&registry),
            pushes: register(&registry, Pushes::new()),
            queues: register(
                &registry,
                Gauges::new("herald_queue_depth", "Entries waiting in a queue.", "queue"),
            ),
            backends: register(
                &registry,
                Gauges::new(
                    "herald_backend_up",
                    "Whether a backend is reached.",
                    "backend",
                ),
            ),
            registry,
        };
        Queue::ALL
            .iter()
            .for_each(|queue| metrics.watch_queue(*queue, || 0.0));
        metrics.register_build_info();
        register_process(&metrics.registry);
        metrics
    }

    /// Adds the allocator's numbers; for processes whose allocator is jemalloc.
    pub fn watch_allocator(&self) {
        register(&self.registry, allocator::Allocator::new());
    }

    /// Counts a push that was answered 200, or is about to be.
    pub fn push_accepted(&self) {
        self.pushes.accepted.inc();
    }

    /// Counts a push written on a socket.
    pub fn push_delivered(&self) {
        self.pushes.delivered.inc();
    }

    /// From now on the store's share of `herald_pushes_total`, and `herald_pushes_pending`, come
    /// from `read`.
    pub fn watch_store(&self, read: impl Fn() -> StoreCounts + Send + Sync + 'static) {
        self.pushes.watch(Arc::new(read));
    }

    /// From now on `herald_queue_depth` of this queue comes from `read`.
    pub fn watch_queue(&self, queue: Queue, read: impl Fn() -> f64 + Send + Sync + 'static) {
        self.queues.watch(queue.text(), Arc::new(read));
    }

    /// From now on `herald_backend_up` of this backend comes from `read`.
    pub fn watch_backend(
        &self,
        backend: &'static str,
        read: impl Fn() -> bool + Send + Sync + 'static,
    ) {
        self.backends
            .watch(backend, Arc::new(move || f64::from(u8::from(read()))));
    }

    /// All metrics in Prometheus's text format, and its media type.
    ///
    /// # Errors
    /// Never in practice: the encoder can fail for metrics without samples, which are left out.
    pub fn render(&self) -> Result<(&'static str, Vec<u8>), prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok((prometheus::TEXT_FORMAT, text))
    }

    fn register_build_info(&self) {
        let opts = Opts::new("herald_build_info", "Always 1; the labels tell the build.")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        let info = IntGauge::with_opts(opts).expect(NAMES_ARE_GOOD);
        register(&self.registry, info).set(1);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Why making a metric cannot fail: the tests make them all.
const NAMES_ARE_GOOD: &str = "metric names are constants, valid and unique";

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry
        .register(Box::new(collector.clone()))
        .expect(NAMES_ARE_GOOD);
    collector
}

#[cfg(target_os = "linux")]
fn register_process(registry: &Registry) {
    registry
        .register(Box::new(ProcessCollector::for_self()))
        .expect(NAMES_ARE_GOOD);
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(name, help).expect(NAMES_ARE_GOOD))
}

fn histogram(registry: &Registry, name: &str, help: &str, bounds: &[f64]) -> Histogram {
    let opts = HistogramOpts::new(name, help).buckets(bounds.to_vec());
    register(registry, Histogram::with_opts(opts).expect(NAMES_ARE_GOOD))
}

fn counter_vec(registry: &Registry, name: &str, help: &str, label: &str) -> IntCounterVec {
    let counters = IntCounterVec::new(Opts::new(name, help), &[label]);
    register(registry, counters.expect(NAMES_ARE_GOOD))
}

/// One counter for each value of a label.
pub struct Counters<L> {
    counters: Vec<IntCounter>,
    label: std::marker::PhantomData<L>,
}

impl<L: Label> Counters<L> {
    fn new(registry: &Registry, name: &str, help: &str, label: &str) -> Self {
        let family = counter_vec(registry, name, help, label);
        let counter = |value: &L| family.with_label_values(&[value.text()]);
        Self {
            counters: L::ALL.iter().map(counter).collect(),
            label: std::marker::PhantomData,
        }
    }

    /// Counts one more.
    pub fn count(&self, label: L) {
        self.counters[label.index()].inc();
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self, label: L) -> u64 {
        self.counters[label.index()].get()
    }
}

/// Sends by HTTP status.
pub struct SendCounters {
    /// The statuses that the contract names, in the order of [`SEND_CODES`].
    named: Vec<IntCounter>,
    family: IntCounterVec,
}

impl SendCounters {
    fn new(registry: &Registry) -> Self {
        let help = "Sends by the status of their answer.";
        let family = counter_vec(registry, "herald_sends_total", help, "code");
        let counter = |code: &u16| family.with_label_values(&[code.to_string()]);
        Self {
            named: SEND_CODES.iter().map(counter).collect(),
            family,
        }
    }

    /// Counts one answer.
    pub fn count(&self, status: u16) {
        match SEND_CODES.iter().position(|code| *code == status) {
            Some(index) => self.named[index].inc(),
            None => self.family.with_label_values(&[status.to_string()]).inc(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        let (_, text) = metrics.render().expect("metrics to render");
        String::from_utf8(text).expect("UTF-8")
    }

    fn has_line(text: &str, line: &str) {
        assert!(text.lines().any(|it| it == line), "no `{line}` in\n{text}");
    }

    #[test]
    fn every_series_exists_from_the_start_at_zero() {
        let text = text(&Metrics::new());
        for line in [
            "herald_sessions 0",
            "herald_handshakes_total{result=\"welcome\"} 0",
            "herald_closes_total{reason=\"slow_reader\"} 0",
            "herald_sends_total{code=\"200\"} 0",
            "herald_sends_total{code=\"504\"} 0",
            "herald_send_seconds_count 0",
            "herald_delivery_seconds_count 0",
            "herald_store_commit_seconds_count 0",
            "herald_store_batch_pushes_count 0",
            "herald_queue_depth{queue=\"commit\"} 0",
            "herald_shed_total{reason=\"mailbox_full\"} 0",
            "herald_pushes_pending 0",
            "herald_fan_outs_total{state=\"accepted\"} 0",
            "herald_fan_out_copies_total{result=\"stored\"} 0",
            "herald_fan_outs_unfinished 0",
        ] {
            has_line(&text, line);
        }
        for state in PushState::ALL {
            let line = format!("herald_pushes_total{{state=\"{}\"}} 0", state.text());
            has_line(&text, &line);
        }
        assert!(text.contains("herald_build_info{version=\""));
        assert!(text.contains("process_resident_memory_bytes "));
    }

    #[test]
    fn counted_things_show() {
        let metrics = Metrics::new();
        metrics.push_accepted();
        metrics.closes.count(CloseLabel::Replaced);
        metrics.sends.count(429);
        metrics.sends.count(418);
        metrics.watch_queue(Queue::Storage, || 3.0);
        metrics.watch_backend("embedded", || true);
        metrics.watch_store(|| StoreCounts {
            pending: 2,
            acked: 7,
            ..StoreCounts::default()
        });
        let text = text(&metrics);
        for line in [
            "herald_pushes_total{state=\"accepted\"} 1",
            "herald_pushes_total{state=\"acked\"} 7",
            "herald_pushes_pending 2",
            "herald_closes_total{reason=\"replaced\"} 1",
            "herald_sends_total{code=\"429\"} 1",
            "herald_sends_total{code=\"418\"} 1",
            "herald_queue_depth{queue=\"storage\"} 3",
            "herald_backend_up{backend=\"embedded\"} 1",
        ] {
            has_line(&text, line);
        }
    }

    #[test]
    fn two_servers_count_apart() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.sheds.count(Shed::Draining);
        assert_eq!(one.sheds.get(Shed::Draining), 1);
        assert_eq!(other.sheds.get(Shed::Draining), 0);
    }

    #[test]
    fn the_allocator_can_be_watched() {
        let metrics = Metrics::new();
        metrics.watch_allocator();
        let text = text(&metrics);
        assert!(text.contains("herald_alloc_allocated_bytes "));
        assert!(text.contains("# TYPE herald_alloc_allocations_total counter"));
    }
}
