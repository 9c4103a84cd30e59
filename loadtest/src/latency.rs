//! Latencies in a histogram, so that the tail is as exact as the middle.

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longest latency told apart, in microseconds; what is longer counts as this long.
const LATENCY_US_MAX: u64 = 10 * 60 * 1_000_000;

/// Three significant figures: an error of at most a thousandth.
const FIGURES: u8 = 3;

const NS_PER_US: u64 = 1_000;
const US_PER_MS: f64 = 1_000.0;

/// A histogram of latencies, kept in microseconds.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

/// A histogram on its way between processes: (microseconds, how often).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyCounts(Vec<(u64, u64)>);

/// The figures that are reported, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 90 of 100 were at most this.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Latencies {
    /// An empty histogram.
    ///
    /// # Panics
    /// Never: the bounds are constants that the histogram allows.
    pub fn new() -> Self {
        let bounds = Histogram::new_with_bounds(1, LATENCY_US_MAX, FIGURES);
        Self(bounds.expect("the constant bounds are legal"))
    }

    /// Counts one latency, in nanoseconds.
    pub fn record_ns(&mut self, latency_ns: u64) {
        self.0.saturating_record(latency_ns / NS_PER_US);
    }

    /// Adds what another process counted.
    pub fn merge(&mut self, counts: &LatencyCounts) {
        for &(value, count) in &counts.0 {
            self.0.saturating_record_n(value, count);
        }
    }

    /// What was counted since `earlier`, an earlier state of the same histogram.
    ///
    /// # Errors
    /// When it is none.
    pub fn since(&self, earlier: &Self) -> anyhow::Result<Self> {
        let mut since = self.clone();
        since
            .0
            .subtract(&earlier.0)
            .context("not an earlier state of the same histogram")?;
        Ok(since)
    }

    /// What another process needs to know.
    pub fn counts(&self) -> LatencyCounts {
        let recorded = self.0.iter_recorded();
        LatencyCounts(
            recorded
                .map(|step| (step.value_iterated_to(), step.count_at_value()))
                .collect(),
        )
    }

    /// How many were counted.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// The figures to report; `None` when nothing was counted.
    pub fn percentiles(&self) -> Option<Percentiles> {
        if self.0.is_empty() {
            return None;
        }
        let at = |quantile| in_ms(self.0.value_at_quantile(quantile));
        Some(Percentiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: in_ms(self.0.max()),
        })
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "ten minutes in microseconds are exact in a float"
)]
fn in_ms(us: u64) -> f64 {
    us as f64 / US_PER_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_merge_as_if_counted_in_one_place() {
        let (mut whole, mut left, mut right) =
            (Latencies::new(), Latencies::new(), Latencies::new());
        for ns in (0..10_000_u64).map(|step| step * 137_000) {
            whole.record_ns(ns);
            if ns % 2 == 0 { &mut left } else { &mut right }.record_ns(ns);
        }
        let mut merged = Latencies::new();
        for part in [&left, &right] {
            let text = serde_json::to_string(&part.counts()).expect("serializes");
            merged.merge(&serde_json::from_str(&text).expect("reads back"));
        }
        assert_eq!(merged.counts(), whole.counts());
        assert_eq!(merged.percentiles(), whole.percentiles());
    }

    #[test]
    fn what_came_since_is_told_apart() {
        let mut latencies = Latencies::new();
        latencies.record_ns(5_000_000);
        let mut earlier = Latencies::new();
        earlier.merge(&latencies.counts());
        latencies.record_ns(9_000_000);
        let since = latencies.since(&earlier).expect("is earlier");
        assert_eq!(since.len(), 1);
        let median = since.percentiles().expect("has values").p50;
        assert!((median - 9.0).abs() < 0.1, "{median}");
        assert!(earlier.since(&latencies).is_err());
    }

    #[test]
    fn percentiles_are_milliseconds_and_nothing_is_nothing() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.percentiles(), None);
        for ms in 1..=1_000 {
            latencies.record_ns(ms * 1_000_000);
        }
        latencies.record_ns(u64::MAX);
        let percentiles = latencies.percentiles().expect("has values");
        assert!((percentiles.p50 - 501.0).abs() < 1.0, "{percentiles:?}");
        assert!((percentiles.p99 - 991.0).abs() < 1.5, "{percentiles:?}");
        assert!(percentiles.max >= 600_000.0, "{percentiles:?}");
    }
}
