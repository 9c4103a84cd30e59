//! What is counted of pushes to topics and conditions.

use prometheus::{IntGauge, Registry};

use super::labels::{FanOutCopy, FanOutState};
use super::{Counters, gauge};

/// Pushes to many, and their copies.
pub struct FanOutMetrics {
    /// `herald_fan_outs_total`: by how far they came.
    pub states: Counters<FanOutState>,
    /// `herald_fan_outs_unfinished`: those on their way.
    pub unfinished: IntGauge,
    /// `herald_fan_out_copies_total`: what became of their copies.
    pub copies: Counters<FanOutCopy>,
}

impl FanOutMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            states: Counters::new(
                registry,
                "herald_fan_outs_total",
                "Pushes to topics and conditions, by how far they came.",
                "state",
            ),
            unfinished: gauge(
                registry,
                "herald_fan_outs_unfinished",
                "Pushes to topics and conditions that are on their way.",
            ),
            copies: Counters::new(
                registry,
                "herald_fan_out_copies_total",
                "What became of copies of such pushes.",
                "result",
            ),
        }
    }
}
