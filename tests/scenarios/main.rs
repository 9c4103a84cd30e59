//! Scenarios: the real binary, real sockets, one process for all of them.
//!
//! Each file is one theme and reads as stories. [`harness`] starts servers on free ports with a
//! data directory of their own and ends them when the test does.

mod acknowledgements;
mod close_codes;
mod collapse_and_cap;
mod crashes;
mod delivery;
mod drain;
mod endings;
mod expiry;
mod failed_sync;
mod floods;
mod forged_tokens;
#[expect(dead_code, reason = "the torture uses the rest of it")]
mod harness;
mod hostile_bytes;
mod hostile_senders;
mod idempotency;
mod isolation;
mod keys;
mod mutated_bodies;
mod order;
mod overload;
mod refusals;
mod secrecy;
mod slow_and_silent;
mod takeover;
mod topics;
