//! 2. It finds its device: one Session actor an awake socket, Router and Storage actors by token.
//!
//! [`Node`] is the only door: what it offers has no actor in its signature. Each worker thread runs
//! one shard's Storage and Router and its own Registry of sessions, so that a push changes threads
//! once at the store and once at its session, and each time with its whole batch.

pub mod action;
pub mod admission;
pub mod close_reason;
pub mod conversation;
mod depths;
mod fan_out;
mod frames;
mod messages;
mod missed;
mod node;
mod once;
mod opening;
mod parking;
pub mod registry;
mod router;
mod routing_table;
mod session;
pub mod session_key;
mod showing;
mod storage;
pub mod stream;
pub mod subscription;
pub mod timing_wheel;
mod wire;
pub mod worker;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

pub use crate::actors::node::settings::NodeSettings;
pub use crate::actors::node::{AppendError, LiveProject, Node, Sent};
pub use crate::actors::once::Outgoing;

/// A map for hot paths. Nothing may depend on its order.
pub type FastMap<K, V> = HashMap<K, V, ahash::RandomState>;

/// A set for hot paths. Nothing may depend on its order.
pub type FastSet<K> = HashSet<K, ahash::RandomState>;

/// How long a device that reads too slowly, or meets a full node, is asked to stay away.
pub const OVERLOAD_RETRY: Duration = Duration::from_secs(5);
