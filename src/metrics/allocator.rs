//! What jemalloc says of itself, so that memory per socket can be told from its leftovers, and a
//! send that has begun to allocate more can be told at all.

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Metric, MetricFamily, MetricType};
use tikv_jemalloc_ctl::{Access, AsName, Result, epoch, stats};

use super::scraped::{desc, family, gauge};

/// Allocations of up to 14 KiB that were asked for, in all arenas: 4096 is `MALLCTL_ARENAS_ALL` of
/// `jemalloc.h`. What a thread's cache has served counts once that cache is next filled or flushed,
/// which may be never; only without such caches (`_RJEM_MALLOC_CONF=tcache:false`) is it exact.
const SMALL_REQUESTS: &str = "stats.arenas.4096.small.nrequests\0";

/// The same for larger ones.
const LARGE_REQUESTS: &str = "stats.arenas.4096.large.nrequests\0";

type Read = fn() -> Result<usize>;

/// The `herald_alloc_*` gauges and the counter beside them. jemalloc counts anyway; its numbers are
/// gathered only when somebody scrapes.
#[derive(Clone)]
pub(super) struct Allocator {
    gauges: Vec<(Desc, Read)>,
    allocations: Desc,
}

impl Allocator {
    pub(super) fn new() -> Self {
        let rows: [(&str, &str, Read); 5] = [
            (
                "herald_alloc_allocated_bytes",
                "Bytes that the program holds.",
                stats::allocated::read,
            ),
            (
                "herald_alloc_active_bytes",
                "Bytes in pages with something in them.",
                stats::active::read,
            ),
            (
                "herald_alloc_resident_bytes",
                "Bytes of physical memory, unused dirty pages included.",
                stats::resident::read,
            ),
            (
                "herald_alloc_retained_bytes",
                "Bytes of address space kept for later, without memory behind them.",
                stats::retained::read,
            ),
            (
                "herald_alloc_metadata_bytes",
                "Bytes that the allocator needs for itself.",
                stats::metadata::read,
            ),
        ];
        let gauges = rows
            .into_iter()
            .map(|(name, help, read)| (desc(name, help, None), read))
            .collect();
        let help =
            "Allocations since the start; those that threads' caches serve come late or never.";
        Self {
            gauges,
            allocations: desc("herald_alloc_allocations_total", help, None),
        }
    }

    fn allocations(&self) -> Option<MetricFamily> {
        let small: u64 = SMALL_REQUESTS.name().read().ok()?;
        let large: u64 = LARGE_REQUESTS.name().read().ok()?;
        let mut counter = Counter::default();
        counter.set_value((small + large) as f64);
        let mut metric = Metric::default();
        metric.set_counter(counter);
        Some(family(&self.allocations, MetricType::COUNTER, vec![metric]))
    }
}

impl Collector for Allocator {
    fn desc(&self) -> Vec<&Desc> {
        let gauges = self.gauges.iter().map(|(desc, _)| desc);
        gauges.chain([&self.allocations]).collect()
    }

    /// What cannot be read is left out.
    fn collect(&self) -> Vec<MetricFamily> {
        if epoch::advance().is_err() {
            return Vec::new();
        }
        let shown = |(desc, read): &(Desc, Read)| {
            let bytes = read().ok()?;
            let metrics = vec![gauge(Vec::new(), bytes as f64)];
            Some(family(desc, MetricType::GAUGE, metrics))
        };
        let gauges = self.gauges.iter().filter_map(shown);
        gauges.chain(self.allocations()).collect()
    }
}
