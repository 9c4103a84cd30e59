//! The settings that actors follow, as numbers: actors know no configuration.

/// The settings that actors follow.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// Worker threads, each with one shard.
    pub workers: usize,
    /// Messages that may wait for one Storage, Router or Registry.
    pub mailbox: usize,
    /// Messages that may wait for one Session.
    pub session_mailbox: usize,
    /// Sends of one token that the store works on at once.
    pub in_flight_per_token: usize,
    /// Sends of one token that may wait for those.
    pub queued_per_token: usize,
    /// Pushes of one project to many that may be unfinished.
    pub fan_outs_per_project: usize,
    /// Copies of such pushes that are stored in a second; 0 = as fast as they can be.
    pub fan_out_copies_per_second: u32,
    /// A sender has its answer within this time.
    pub append_timeout_ms: u64,
    /// Sessions of the whole node.
    pub sessions_max: usize,
    /// From the upgrade to hello.
    pub hello_timeout_ms: u64,
    /// How often a live session says that its tokens are in use.
    pub contact_every_ms: u64,
    /// Asked of the device.
    pub ping_interval_ms: u64,
    /// How long a write may make no progress.
    pub write_timeout_ms: u64,
    /// Unsent bytes beyond which pushes wait in the store.
    pub outbox_bytes: usize,
    /// How long a session is idle before it parks.
    pub park_after_ms: u64,
    /// Devices told to come back after a restart are spread over this long.
    pub restart_spread_ms: u64,
}

impl NodeSettings {
    /// A device that was not heard for so long is given up: 1.5 times the interval, so that one
    /// ping may be lost.
    #[must_use]
    pub fn silent_after_ms(&self) -> u64 {
        self.ping_interval_ms + self.ping_interval_ms / 2
    }
}
