//! The device side of Herald: one identity, one socket, every push at least once and shown once.
//!
//! - [`Api`]: the HTTP calls of a device: register, mint and delete tokens, poll.
//! - [`DeviceState`]: what must outlive the process; the app keeps it wherever it keeps secrets.
//! - [`Device`]: keeps the socket, comes back after every fault, polls while there is no socket,
//!   and hands the app a stream of [`Event`]s.
//!
//! The app acknowledges a push once it has dealt with it ([`Device::ack`]) and saves
//! [`Device::state`] when it likes: a push that was acknowledged but whose acknowledgement was not
//! saved is at worst shown once more after a restart.
//!
//! Decisions are made in the pure halves, [`Backoff`] and the inbox of each token, which know no
//! clock and no socket.

mod api;
mod backoff;
mod device;
mod error;
mod event;
mod inbox;
mod link;
mod proof;
mod state;
mod tls;
mod tokens;

pub use api::{Api, PollEntry, PollFailure, PollRequest, PolledMessage};
pub use backoff::{BACKOFF_MAX, BACKOFF_MIN, Backoff};
pub use device::{Device, TOKENS_MAX};
pub use error::SdkError;
pub use event::{Event, Push};
pub use state::{Credential, DeviceState, TokenState};
