//! The frames of Herald's device socket, shared by the server, the device SDK and the load tool.
//!
//! One JSON object in each text frame. Both sides ignore unknown frame types and unknown keys, so
//! either may be newer than the other. This crate does no I/O and knows no clock.

mod close;
mod device;
mod object;
mod server;

pub use close::{CloseCode, RetryAdvice};
pub use device::{DeviceFrame, FrameError, Hello, TokenCursor};
pub use object::{Object, objects};
pub use server::{PushFrame, ServerFrame, TokenState, Welcome};

/// The path of the device socket on the public listener.
pub const CONNECT_PATH: &str = "/v1/connect";

/// Largest text message a device may send, in bytes (contract: 16 KiB).
pub const DEVICE_MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// Largest number that can be a `syn` or a `min_syn`: numbers stay exact in every JSON reader.
pub const SYN_MAX: u64 = (1 << 53) - 1;
