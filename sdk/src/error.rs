//! What can go wrong between an app and the server.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// A failed call. None of them changes the device's state.
#[derive(Debug, Error)]
pub enum SdkError {
    /// The server's address cannot be used.
    #[error("{0:?} is no http or https address of a server")]
    BadUrl(String),
    /// No answer: no connection, a broken one, or too slow.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The server said no.
    #[error("the server refused: {code} {status}: {message}")]
    Refused {
        /// HTTP status.
        code: u16,
        /// A google.rpc code, or empty when the answer was not the server's own.
        status: String,
        /// For a developer's eyes.
        message: String,
        /// When the server says that asking again makes sense.
        retry_after: Option<Duration>,
    },
    /// An answer that is not the contract's.
    #[error("the server's answer cannot be read: {0}")]
    BadAnswer(String),
    /// The server wants more work than a device should do.
    #[error("the server asks for a proof of work of {0} bits, more than this device will do")]
    ProofTooHard(u32),
    /// One socket carries at most [`crate::TOKENS_MAX`] tokens.
    #[error(
        "this device has {} tokens, the most one socket may carry",
        crate::TOKENS_MAX
    )]
    TooManyTokens,
    /// The file of the device's state cannot be read or written.
    #[error("the state file {path}: {reason}")]
    StateFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}
