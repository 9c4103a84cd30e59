//! Herald: a push-notification transport.
//!
//! The way of a push, in ten lines:
//! 1. A sender posts it; [`http`] reads it, checks it, and asks the node to send it.
//! 2. The shard's Storage actor ([`actors`]) admits it, or says that too many are waiting.
//! 3. The [`store`] numbers it: per token a `syn` that only grows and is never used twice.
//! 4. The store's committer writes everything that waits in one batch, with one sync.
//! 5. Now it is durable: Storage answers the sender 200, and hands it to the shard's Router.
//! 6. The Router knows which session holds the token; if none does, the push waits in the store.
//! 7. The Registry of the session's worker finds the session, and wakes it if it was parked.
//! 8. The Session writes the push on its socket, if nothing older is still to be shown first.
//! 9. The device acknowledges, over the socket or with its next poll.
//! 10. The store forgets the push.
//!
//! Store first, then answer, then deliver. Delivery is a hint on top of a durable log: a lost hint
//! costs latency, never a push. `ARCHITECTURE.md` has the map.

pub mod actors;
pub mod admin_token;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dense_map;
pub mod dev;
mod digest;
#[cfg(test)]
mod hostile_tests;
pub mod http;
pub mod metrics;
pub mod private_file;
pub mod projects;
pub mod push;
pub mod sealing_keys;
pub mod server;
pub mod store;
pub mod token;
pub mod topic;
