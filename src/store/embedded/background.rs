//! Threads that nobody waits for: they give way to those that answer.
//!
//! A processor's scheduler lets a thread that has begun go on for some milliseconds. Beside merging
//! and sweeping that was the committer's wait, and so the tail of every send.

use std::thread;

/// What is added to the niceness of threads in the background. They still get a tenth of a processor that
/// is wanted by one other thread; at 19, the most there is, it would be a seventieth, and a busy store
/// would fall behind with its merging.
const NICENESS: i32 = 10;

/// Has the calling thread, and all that it starts, give way to others.
pub(super) fn give_way() {
    // Elsewhere than on Linux this is about the whole process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::warn!(%error, "threads in the background have the priority of all others");
    }
}

/// Does work whose threads are to give way: what a thread starts has its priority.
pub(super) fn in_background<T: Send>(work: impl FnOnce() -> T + Send) -> thread::Result<T> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            give_way();
            work()
        });
        worker.join()
    })
}
