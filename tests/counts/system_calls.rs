//! System calls of the server, by `strace`. The kernel's own counts (`/proc/PID/io`) leave out
//! sockets and waiting, which is most of it. The tracer slows the server down, by tens of
//! microseconds a call; it does not change what one push needs when nobody else sends.
//!
//! `strace -D` lets the server be a child of this test and traced by a process beside it, which it
//! permits by itself, so no privilege is needed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::bounds::{CALLS_PER_PUSH, CALLS_PER_PUSH_OF_64, SOCKET_CALLS_PER_PUSH, SYNCS_PER_PUSH};
use crate::harness::Server;
use crate::load::{connect_all, push_to_all};
use crate::options;

/// Reads and writes of sockets, and nothing else, in this server: it has no pipes, and wakes its
/// threads with `write`.
const SOCKET_CALLS: [&str; 6] = [
    "recvfrom", "recvmsg", "readv", "sendto", "sendmsg", "writev",
];

/// A server under `strace`, and what it has written so far.
struct Traced {
    server: Server,
    trace: PathBuf,
    _directory: TempDir,
}

impl Traced {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory for the trace");
        let trace = directory.path().join("trace");
        let path = trace.to_str().expect("a path of UTF-8");
        // Every thread, every call, nothing of what it is about.
        let words = ["strace", "-D", "-f", "-qq", "-e", "raw=all", "-o", path];
        let wrapper = words.iter().map(|&word| word.to_owned()).collect();
        Self {
            server: Server::under(wrapper, options(Vec::new())).await,
            trace,
            _directory: directory,
        }
    }

    fn lines(&self) -> usize {
        let trace = std::fs::read_to_string(&self.trace).expect("a trace");
        trace.lines().count()
    }

    /// Calls that were begun after so many lines, by name.
    fn calls_after(&self, lines: usize) -> BTreeMap<String, usize> {
        let trace = std::fs::read_to_string(&self.trace).expect("a trace");
        let mut calls = BTreeMap::new();
        for line in trace.lines().skip(lines) {
            // `PID name(…`, or `PID <... name resumed>` when a call that is counted ends.
            let call = line.split_whitespace().nth(1);
            if let Some((name, _)) = call.and_then(|call| call.split_once('(')) {
                *calls.entry(name.to_owned()).or_default() += 1;
            }
        }
        calls
    }

    /// What this many senders need for a push, by name.
    async fn calls_of_a_push(&self, senders: usize, pushes_each: usize) -> BTreeMap<String, f64> {
        let mut receivers = connect_all(&self.server, senders).await;
        push_to_all(&self.server, &mut receivers, 3).await;
        let lines = self.lines();
        push_to_all(&self.server, &mut receivers, pushes_each).await;
        let calls = self.calls_after(lines).into_iter();
        let pushes = (senders * pushes_each) as f64;
        calls
            .map(|(name, count)| (name, count as f64 / pushes))
            .collect()
    }
}

#[tokio::test]
async fn a_push_of_one_sender_needs_no_more_calls_than_it_did() {
    let calls = Traced::start().await.calls_of_a_push(1, 200).await;
    println!("{calls:.2?}");
    let sum = |names: &[&str]| -> f64 { names.iter().filter_map(|&name| calls.get(name)).sum() };
    SYNCS_PER_PUSH.judge(sum(&["fdatasync", "fsync"]));
    SOCKET_CALLS_PER_PUSH.judge(sum(&SOCKET_CALLS));
    CALLS_PER_PUSH.judge(calls.values().sum());
}

#[tokio::test]
async fn a_push_of_64_senders_needs_no_more_calls_than_it_did() {
    let calls = Traced::start().await.calls_of_a_push(64, 10).await;
    println!("{calls:.2?}");
    CALLS_PER_PUSH_OF_64.judge(calls.values().sum());
}
