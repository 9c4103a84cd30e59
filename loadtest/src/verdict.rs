//! Whether the figures of a run mean anything: a swarm that had no time to spare may have measured
//! itself.

use std::time::Duration;

use crate::latency::Latencies;
use crate::report::RunResult;

/// A process that used more of one processor than this had no time to spare, so it may have been
/// what was measured.
pub const CPU_SHARE_MAX: f64 = 0.95;

/// A send loop that was later than this with one send in a hundred did not keep its schedule.
pub const LAG_MS_MAX: f64 = 20.0;

/// A process that holds devices and was later than this one time in a hundred was not there when
/// pushes arrived.
const CREW_LAG_MS_MAX: f64 = 100.0;

/// So many times it must have wanted to run before one in a hundred means anything.
const CREW_LAG_TIMES_MIN: u64 = 100;

/// Whether the figures of a run with sockets mean anything.
pub fn judge(result: &mut RunResult, alive: bool, crew_lag: &Latencies) {
    result.void_if(!alive, || "the server died".to_owned());
    let (asked, open) = (result.sockets_asked, result.sockets_ok);
    let trouble = result.first_trouble.clone().unwrap_or_default();
    result.void_if(open < asked, || {
        format!("not all sockets were up at the end: {trouble}")
    });
    let lag_ms = result.swarm_lag_ms_p99.unwrap_or_default();
    result.void_if(lag_ms > LAG_MS_MAX, || {
        format!("the swarm did not keep its schedule: it was {lag_ms} ms late")
    });
    let lag_ms = result.crew_lag_ms_p99.unwrap_or_default();
    let is_late = crew_lag.len() >= CREW_LAG_TIMES_MIN && lag_ms > CREW_LAG_MS_MAX;
    result.void_if(is_late, || {
        format!("the swarm's devices were not there in time: they were {lag_ms} ms late")
    });
    let share = result.swarm_cpu_share.unwrap_or_default();
    result.void_if(share > CPU_SHARE_MAX, || {
        format!("a process of the swarm used {share:.2} of a processor")
    });
}

/// The largest share of one processor that any process used.
pub fn busiest(before: &[u64], after: &[u64], elapsed: Duration) -> f64 {
    let used = before
        .iter()
        .zip(after)
        .map(|(before, after)| after.saturating_sub(*before));
    let most = Duration::from_nanos(used.max().unwrap_or(0));
    most.as_secs_f64() / elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// A count as a number to divide.
pub fn count(number: usize) -> f64 {
    float(number as u64)
}

/// The same.
#[expect(clippy::cast_precision_loss, reason = "no swarm has 2^53 of anything")]
pub fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_process_counts() {
        let share = busiest(
            &[0, 500, 0],
            &[100, 1_000_500, 10],
            Duration::from_millis(2),
        );
        assert!((share - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_swarm_that_was_the_bottleneck_says_so() {
        let judged = |result: RunResult, late: u64| {
            let (mut result, mut lag) = (result, Latencies::new());
            (0..late).for_each(|_| lag.record_ns(200_000_000));
            result.crew_lag_ms_p99 = lag.percentiles().map(|lag| lag.p99);
            judge(&mut result, true, &lag);
            result.void
        };
        let idle = RunResult::default();
        assert_eq!(judged(idle.clone(), 0), None);
        assert_eq!(judged(idle.clone(), 99), None);
        assert!(judged(idle.clone(), 100).is_some_and(|why| why.contains("200")));
        let busy = RunResult {
            swarm_cpu_share: Some(0.97),
            ..idle.clone()
        };
        assert!(judged(busy, 0).is_some_and(|why| why.contains("0.97")));
        let slow = RunResult {
            swarm_lag_ms_p99: Some(21.0),
            ..idle
        };
        assert!(judged(slow, 0).is_some_and(|why| why.contains("schedule")));
    }
}
