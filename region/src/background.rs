//! The one thread that starts every child process and carries every link, for as long as this
//! process lives.
//!
//! Linux sends a child its "parent died" signal when the *thread* that started it ends, and a test's
//! thread ends with its test. Links live here too: a runtime that belongs to one test would take
//! them along when that test is over, though others still use the same servers.

use std::future::pending;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::Context as _;
use tokio::runtime::{Builder, Handle};

static THREAD: Mutex<Option<Handle>> = Mutex::new(None);

/// The thread's runtime, which is started by the first caller.
///
/// # Errors
/// The system gives no thread.
pub(crate) fn runtime() -> anyhow::Result<Handle> {
    let mut thread = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*thread {
        return Ok(handle.clone());
    }
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime for the servers")?;
    let handle = runtime.handle().clone();
    thread::Builder::new()
        .name("region".to_owned())
        .spawn(move || runtime.block_on(pending::<()>()))
        .context("no thread for the servers")?;
    *thread = Some(handle.clone());
    Ok(handle)
}

/// Does this on that thread; what takes long has no place there.
///
/// # Errors
/// The thread cannot be started, or what it did panicked.
pub(crate) async fn there<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> anyhow::Result<T> {
    runtime()?
        .spawn(work)
        .await
        .context("the thread of the servers")
}
