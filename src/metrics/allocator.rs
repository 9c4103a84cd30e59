//! What jemalloc says of itself, so that memory per socket can be told from its leftovers.

use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};
use tikv_jemalloc_ctl::{Result, epoch, stats};

use super::scraped::{desc, family, gauge};

type Read = fn() -> Result<usize>;

/// The `herald_alloc_*` gauges.
#[derive(Clone)]
pub(super) struct Allocator {
    gauges: Vec<(Desc, Read)>,
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
        Self { gauges }
    }
}

impl Collector for Allocator {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.iter().map(|(desc, _)| desc).collect()
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
        self.gauges.iter().filter_map(shown).collect()
    }
}
