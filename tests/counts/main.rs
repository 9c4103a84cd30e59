//! What a push, a poll and a socket cost, counted instead of timed: allocations, system calls,
//! syncs, bytes of heap. Such counts are nearly the same on any machine and beside any load, so
//! that this is where a gross waste shows. To see them:
//!
//! ```sh
//! cargo test --test counts -- --nocapture
//! ```
//!
//! Calls to the stores of a region are counted in `tests/cluster/cost.rs`.

mod allocations;
#[path = "../scenarios/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "scenarios use the rest of it")]
mod harness;
mod heap;
mod load;
mod syncs;
mod system_calls;

use harness::ServerOptions;

/// What one count may be. Bounds are wide, one and a half to two times of what was measured when they
/// were made, and narrower only for what comes out the same every time: they are for gross waste, not for a
/// few allocations more.
struct Bound {
    what: &'static str,
    /// What was measured when the bound was made.
    then: f64,
    /// Less is no success: something is not counted, or not done.
    at_least: f64,
    at_most: f64,
}

const fn bound(what: &'static str, then: f64, at_least: f64, at_most: f64) -> Bound {
    Bound {
        what,
        then,
        at_least,
        at_most,
    }
}

// A push is a durable send with its delivery on a socket and its acknowledgement.
#[rustfmt::skip]
mod bounds {
    use super::{Bound, bound};

    //                                                                                    then  at least  at most
    pub const ALLOCATIONS_PER_PUSH: Bound = bound("allocations a push",                    91.0,   45.0,   140.0);
    pub const ALLOCATIONS_PER_POLL: Bound = bound("allocations a poll with nothing new",   29.0,   14.0,    45.0);
    pub const ALLOCATIONS_PER_CONNECT: Bound = bound("allocations a connect with hello",   76.0,   38.0,   120.0);
    pub const HEAP_PER_SOCKET: Bound = bound("bytes of heap a parked socket",             440.0,  200.0,   800.0);
    pub const SOCKET_CALLS_PER_PUSH: Bound = bound("calls on sockets a push, one sender",   4.0,    3.9,     4.8);
    pub const CALLS_PER_PUSH: Bound = bound("system calls a push, one sender",             20.0,   10.0,    36.0);
    pub const CALLS_PER_PUSH_OF_64: Bound = bound("system calls a push, 64 senders",        5.5,    3.0,    11.0);
    pub const SYNCS_PER_PUSH: Bound = bound("syncs a push, one sender",                     1.0,    0.95,    1.3);
    pub const SYNCS_PER_PUSH_OF_64: Bound = bound("syncs a push, 64 senders",              0.16,    0.01,    0.5);
}

impl Bound {
    /// Prints what was measured, and fails if it is out of bounds.
    fn judge(&self, measured: f64) {
        let Self {
            what,
            then,
            at_least,
            at_most,
        } = self;
        let text = format!("{what}: {measured:.2} (was {then}, {at_least} to {at_most} is fine)");
        println!("{text}");
        assert!((*at_least..=*at_most).contains(&measured), "{text}");
    }
}

/// Options of a server on two threads, however many cores there are, and more of them.
fn options(mut settings: Vec<(&'static str, String)>) -> ServerOptions {
    settings.push(("HERALD_HTTP__WORKERS", "2".to_owned()));
    // Without caches of threads the allocator counts every allocation at once, and holds nothing
    // back that was freed.
    settings.push(("_RJEM_MALLOC_CONF", "tcache:false".to_owned()));
    ServerOptions { settings }
}
