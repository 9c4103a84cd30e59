//! Real servers: that they form what they should, break as tests want, and are gone afterwards.

mod cql;
mod redis;

use std::path::Path;
use std::time::Duration;

/// Longer than anything takes on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);

fn runs(process_id: u32) -> bool {
    Path::new(&format!("/proc/{process_id}")).exists()
}
