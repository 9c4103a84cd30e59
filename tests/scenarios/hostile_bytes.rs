//! Clients that mean harm, byte by byte: each is answered or cut off in time, and nobody else suffers.

mod attack;
mod crowd;
mod h2;
mod http1;
mod sockets;

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;

use crate::harness::{PATIENCE, Server, ServerOptions};
use attack::{Case, play};
use crowd::{Crowd, Target};

/// Every deadline of the server's, long enough for an honest client on a busy machine.
const DEADLINE_MS: u64 = 2_000;

/// When each client must be gone. Two deadlines may follow one another, and a goodbye of a second; a
/// client that does not read is given time for as long as the kernels' buffers grow.
const GONE_WITHIN: Duration = Duration::from_secs(30);

/// Clients at a time.
const AT_ONCE: usize = 24;

/// `keep_alive_ms` must be long where somebody honest pauses.
async fn server(keep_alive_ms: u64) -> Server {
    let deadlines = [
        "HERALD_HTTP__HEADERS_TIMEOUT_MS",
        "HERALD_HTTP__BODY_TIMEOUT_MS",
        "HERALD_HTTP__ANSWER_TIMEOUT_MS",
        "HERALD_SOCKET__HELLO_TIMEOUT_MS",
        "HERALD_SOCKET__WRITE_TIMEOUT_MS",
    ];
    let deadlines = deadlines.map(|name| (name, DEADLINE_MS.to_string()));
    let keep_alive = ("HERALD_HTTP__KEEP_ALIVE_MS", keep_alive_ms.to_string());
    let settings = deadlines.into_iter().chain([keep_alive]).collect();
    Server::with(ServerOptions { settings }).await
}

async fn cases(server: &Server) -> Vec<Case> {
    let mut cases = http1::cases(server);
    cases.extend(h2::cases(server));
    cases.extend(sockets::cases(server).await);
    cases
}

/// No failure of the server's own, and not a word in the log about what strangers do.
async fn assert_untouched(server: &Server) {
    for (name, count) in server.metrics().await {
        if name.starts_with("herald_sends_total{code=\"50") {
            assert!(count < 0.5, "{count} of {name}");
        }
    }
    let log = server.log();
    for word in ["panicked", "ERROR"] {
        let line = log.lines().find(|line| line.contains(word));
        assert_eq!(line, None);
    }
}

#[tokio::test]
async fn hostile_clients_are_answered_or_cut_off_in_time() {
    let server = server(DEADLINE_MS).await;
    let address = server.listen();
    let attacks = futures_util::stream::iter(cases(&server).await).map(|case| {
        let address = address.clone();
        async move {
            let playing = play(&address, &case.speech, Duration::from_millis(1));
            match tokio::time::timeout(GONE_WITHIN, playing).await {
                Ok(heard) => {
                    println!("{:>7.1?} {}", heard.took, case.what);
                    heard.judge(&case)
                }
                Err(_) => Err(format!("{}: is still there", case.what)),
            }
        }
    });
    let outcomes: Vec<Result<(), String>> = attacks.buffer_unordered(AT_ONCE).collect().await;
    let amiss: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
    assert!(amiss.is_empty(), "{}", amiss.join("\n"));
    assert_untouched(&server).await;
    server.stop_and_audit().await;
}

// --- Others --------------------------------------------------------------------------------------

/// Sends of a stretch, one after another, and how many stretches there are of each kind.
const SENDS: usize = if cfg!(debug_assertions) { 20 } else { 500 };
const STRETCHES: usize = if cfg!(debug_assertions) { 3 } else { 5 };

/// Beside the crowd the 99th percentile may be this many times what it is when the same crowd does the
/// same to somebody else on this machine, or so much longer, whichever is more: the crowd comes from the
/// same processors, and what it takes of them by itself says nothing about the server. Looked at in an
/// optimised build only: another one has its processors full with the crowd, and on a machine that is
/// busy with other things that would be judged, not the server.
const TIMES_AS_LONG: u32 = 2;
const LONGER_BY: Duration = Duration::from_millis(2);

/// What may be left of the crowd when it is gone, in bytes.
const MEMORY_MAX: f64 = 48.0 * 1024.0 * 1024.0;

/// All cases, or for a build that is not optimised another third of them in each stretch.
fn some_of(cases: &[Case], stretch: usize) -> Vec<Case> {
    let step = if cfg!(debug_assertions) { STRETCHES } else { 1 };
    let some = cases.iter().skip(stretch % step).step_by(step);
    some.cloned().collect()
}

/// Durable sends, one after another; the 99th percentile of their time.
async fn p99(server: &Server, token: &str) -> Duration {
    let mut times = Vec::with_capacity(SENDS);
    for number in 0..SENDS {
        let started = Instant::now();
        server.push(token, &number.to_string()).await;
        times.push(started.elapsed());
    }
    times.sort();
    times[(SENDS * 99).div_ceil(100) - 1]
}

fn descriptors(server: &Server) -> usize {
    let directory = format!("/proc/{}/fd", server.pid());
    std::fs::read_dir(directory).expect("a process").count()
}

/// Waits until the process is as it was.
async fn assert_recovers(server: &Server, descriptors_before: usize, memory_before: f64) {
    let resident = "process_resident_memory_bytes";
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (open, bytes) = (descriptors(server), server.metric(resident).await);
        // Connections of this test's own client come and go.
        if open <= descriptors_before + 4 && bytes <= memory_before + MEMORY_MAX {
            println!(
                "{descriptors_before} descriptors and {memory_before} bytes before, {open} and {bytes} after"
            );
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{open} descriptors, {descriptors_before} before; {bytes} bytes, {memory_before} before"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_crowd_of_hostile_clients_slows_nobody_else_down() {
    let server = server(75_000).await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let cases = cases(&server).await;
    p99(&server, &token).await;
    let memory = server.metric("process_resident_memory_bytes").await;
    let open = descriptors(&server);
    let (mut alone, mut elsewhere, mut beside) = (Vec::new(), Vec::new(), Vec::new());
    let (mut attacks, mut decoyed) = (0, 0);
    for stretch in 0..STRETCHES {
        alone.push(p99(&server, &token).await);
        let cases = some_of(&cases, stretch);
        let crowd = Crowd::gather(&cases, Target::Server(server.listen())).await;
        beside.push(p99(&server, &token).await);
        let (played, habits) = crowd.disperse();
        attacks += played;
        let crowd = Crowd::gather(&cases, Target::Decoy(habits)).await;
        elsewhere.push(p99(&server, &token).await);
        decoyed += crowd.disperse().0;
    }
    println!(
        "p99 alone {alone:?}, beside a crowd that is busy elsewhere {elsewhere:?} ({decoyed} attacks), \
         beside one that is not {beside:?} ({attacks} attacks)"
    );
    assert!(attacks > 0 && decoyed > 0, "there was no crowd");
    elsewhere.sort();
    beside.sort();
    let (elsewhere, beside) = (elsewhere[STRETCHES / 2], beside[STRETCHES / 2]);
    let allowed = (elsewhere * TIMES_AS_LONG).max(elsewhere + LONGER_BY);
    assert!(
        beside <= allowed || cfg!(debug_assertions),
        "p99 {beside:?} beside a crowd, {elsewhere:?} when it is busy elsewhere"
    );
    assert_recovers(&server, open, memory).await;
    assert_untouched(&server).await;
    server.stop_and_audit().await;
}
