//! Starts the real binary, and speaks to it as senders, devices and operators do.

mod books;
mod device;
mod door;
mod faulty_disk;
mod projects;
mod sending;
mod server;

pub use device::{Credential, Socket};
pub use door::{Door, answer};
pub use faulty_disk::FaultyDisk;
pub use projects::{Project, fcm_error};
pub use sending::{message, message_id, message_with, syn_of, syns_of, text_of, texts_of};
pub use server::{Server, ServerOptions, binary};

/// How long a test waits for something that must happen. Generous: the machine may be busy.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Waits for a future, but not for ever.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}
