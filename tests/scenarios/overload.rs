//! More than the server can take: refused at once, in so many words, and never delivered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::harness::{
    Credential, FaultyDisk, PATIENCE, Server, ServerOptions, fcm_error, message, soon, text_of,
};

/// Far above what a refusal takes, far below what a stalled send does.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Sends one push to each token while the disk stalls, and lets the disk go on once so many were
/// refused. Answers with the texts that were accepted; every refusal has this status.
async fn flood(
    server: &Server,
    disk: &FaultyDisk,
    bodies: &[(String, String)],
    refusals_wanted: usize,
    status: u16,
) -> Vec<String> {
    let (refused, mut refusals) = tokio::sync::mpsc::unbounded_channel();
    disk.stall();
    let started = Instant::now();
    let sends = bodies.iter().map(|(token, text)| {
        let refused = refused.clone();
        async move {
            let url = server.url("/v1/projects/demo/messages:send");
            let request = server.http().post(url).bearer_auth(server.service_token());
            let answer = request
                .json(&message(token, text))
                .send()
                .await
                .expect("an answer");
            if answer.status().as_u16() == 200 {
                return Some(text.clone());
            }
            assert_eq!(answer.status().as_u16(), status);
            let retry_after = answer.headers().get("Retry-After").expect("advice");
            let seconds: u64 = retry_after
                .to_str()
                .ok()
                .and_then(|it| it.parse().ok())
                .expect("seconds");
            assert!(seconds > 0);
            assert!(started.elapsed() < AT_ONCE, "refused, but late");
            let _ = refused.send(());
            None
        }
    });
    let patience = async {
        for _ in 0..refusals_wanted {
            crate::harness::soon("a refusal", refusals.recv())
                .await
                .expect("a refusal");
        }
        while_full(server).await;
        disk.resume();
    };
    let (outcomes, ()) = join(join_all(sends), patience).await;
    outcomes.into_iter().flatten().collect()
}

/// Nothing moves, so the metrics show what waits: the lengths of queues are no secret.
async fn while_full(server: &Server) {
    let limit = |queue| format!("herald_queue_depth{{queue=\"{queue}\"}}");
    for queue in ["storage", "router"] {
        server.metric_becomes(&limit(queue), 0.0).await;
    }
    assert!(server.metric(&limit("commit")).await + server.metric(&limit("token")).await > 0.0);
}

/// Exactly these texts are in the store.
async fn assert_stored(
    server: &Server,
    device: &Credential,
    bodies: &[(String, String)],
    accepted: &[String],
) {
    let mut stored = Vec::new();
    let tokens: std::collections::BTreeSet<&str> =
        bodies.iter().map(|(token, _)| token.as_str()).collect();
    for token in tokens {
        let entry = server.poll_token(device, token, 1).await;
        let pushes = entry["messages"].as_array().expect("messages");
        stored.extend(pushes.iter().map(|push| text_of(push).to_owned()));
    }
    stored.sort();
    let mut accepted = accepted.to_vec();
    accepted.sort();
    assert_eq!(stored, accepted);
    server.books_balance_at(accepted.len() as u64).await;
}

#[tokio::test]
async fn a_token_with_too_many_sends_waiting_refuses_more() {
    let disk = FaultyDisk::new();
    let settings = vec![
        ("HERALD_LIMITS__IN_FLIGHT_PER_TOKEN", "2".to_owned()),
        ("HERALD_LIMITS__QUEUED_PER_TOKEN", "3".to_owned()),
    ];
    let server = Server::with(disk.options(settings)).await;
    let device = server.device().await;
    let token = server.token(&device).await;
    let (mut socket, _) = server.hello(&device, &[(&token, 1)]).await;
    let bodies: Vec<_> = (0..30)
        .map(|number| (token.clone(), number.to_string()))
        .collect();
    let accepted = flood(&server, &disk, &bodies, 25, 429).await;
    assert_eq!(accepted.len(), 5);
    let heard = socket.until_closed_or(5).await;
    assert!(
        heard
            .pushes
            .iter()
            .all(|push| accepted.iter().any(|text| text == text_of(push)))
    );
    assert!(socket.sync().await.is_empty());
    assert_stored(&server, &device, &bodies, &accepted).await;
    let shed = server
        .metric("herald_shed_total{reason=\"token_queue_full\"}")
        .await;
    let waiting = "herald_queue_depth{queue=\"token\"}";
    server.metric_becomes(waiting, 0.0).await;
    assert!((shed - 25.0).abs() < 0.5);
    server.stop_and_audit().await;
}

/// One push to each of so many tokens.
async fn spread(
    server: &Server,
    device: &Credential,
    count: usize,
    text: &str,
) -> Vec<(String, String)> {
    let tokens = join_all((0..count).map(|_| server.token(device))).await;
    let bodies = tokens.into_iter().enumerate();
    bodies
        .map(|(number, token)| (token, format!("{number} {text}")))
        .collect()
}

#[tokio::test]
async fn a_node_with_too_many_sends_waiting_refuses_more() {
    let disk = FaultyDisk::new();
    let settings = vec![
        ("HERALD_HTTP__WORKERS", "1".to_owned()),
        ("HERALD_LIMITS__MAILBOX", "8".to_owned()),
    ];
    let server = Server::with(disk.options(settings)).await;
    let device = server.device().await;
    let bodies = spread(&server, &device, 60, "").await;
    let accepted = flood(&server, &disk, &bodies, 40, 503).await;
    assert!(
        (8..=20).contains(&accepted.len()),
        "{} were taken",
        accepted.len()
    );
    assert_stored(&server, &device, &bodies, &accepted).await;
    server.stop_and_audit().await;
}

#[tokio::test]
async fn a_store_with_too_many_bytes_waiting_refuses_more() {
    let disk = FaultyDisk::new();
    let settings = vec![("HERALD_STORE__QUEUE_BYTES", "65536".to_owned())];
    let server = Server::with(disk.options(settings)).await;
    let device = server.device().await;
    let bodies = spread(&server, &device, 80, &"x".repeat(3_900)).await;
    let accepted = flood(&server, &disk, &bodies, 20, 503).await;
    assert!(accepted.len() >= 10, "{} were taken", accepted.len());
    assert_stored(&server, &device, &bodies, &accepted).await;
    let shed = server
        .metric("herald_shed_total{reason=\"store_queue_full\"}")
        .await;
    assert!(shed >= 20.0);
    server.stop_and_audit().await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_in_the_words_of_fcm() {
    let settings = vec![("HERALD_HTTP__CONNECTIONS_MAX", "1".to_owned())];
    let server = Server::with(ServerOptions { settings }).await;
    let device = server.device().await;
    let token = server.token(&device).await;
    // The first client keeps its connection, so there is none left. Nobody waits for a request.
    let mut other = TcpStream::connect(server.listen()).await.expect("accepted");
    let mut answer = String::new();
    soon("an end", other.read_to_string(&mut answer))
        .await
        .expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(body["error"]["status"], "UNAVAILABLE");
    assert_eq!(fcm_error(&body), "UNAVAILABLE");
    server.push(&token, "the first goes on").await;
}

// --- A storm -------------------------------------------------------------------------------------

/// Senders that try again at once, each over a connection of its own, and for how long.
const SENDERS: usize = if cfg!(debug_assertions) { 80 } else { 1_000 };
const STORM: Duration = Duration::from_secs(if cfg!(debug_assertions) { 3 } else { 15 });

/// Of a hundred refusals ninety-nine are there this soon. Unoptimised, all of these senders and the
/// server share what two cores have.
const REFUSED_WITHIN: Duration =
    Duration::from_millis(if cfg!(debug_assertions) { 5_000 } else { 100 });

/// The same for what is none of the storm's business: acks, pings and the looks of a balancer.
const OTHERS_WITHIN: Duration =
    Duration::from_millis(if cfg!(debug_assertions) { 5_000 } else { 250 });

/// What the process may hold more afterwards, in bytes.
const STORM_MEMORY_MAX: f64 = 64.0 * 1024.0 * 1024.0;

/// What came of a storm.
#[derive(Default)]
struct Storm {
    accepted: Vec<String>,
    refusals: Vec<Duration>,
}

/// One sender: to its token, without a rest, until it is over.
async fn insist(
    http: reqwest::Client,
    request: (String, String),
    (number, token): (usize, String),
    is_over: Arc<AtomicBool>,
) -> Storm {
    let (url, service_token) = request;
    let mut storm = Storm::default();
    for attempt in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let text = format!("{number} {attempt}");
        let started = Instant::now();
        let send = http.post(&url).bearer_auth(&service_token);
        let answer = send.json(&message(&token, &text)).send().await;
        let answer = answer.expect("an answer");
        let took = started.elapsed();
        match answer.status().as_u16() {
            200 => storm.accepted.push(text),
            429 | 503 => {
                let wait = answer.headers().get("Retry-After").expect("advice");
                let wait: u64 = wait.to_str().expect("a text").parse().expect("seconds");
                assert!(wait > 0);
                storm.refusals.push(took);
            }
            other => panic!("{other}"),
        }
        // The connection is good for more only when its answer was read.
        answer.bytes().await.expect("a body");
    }
    storm
}

/// Everybody at once, on a thread of their own, so that nobody else waits for them in this process.
fn raise(
    server: &Server,
    tokens: &[String],
    is_over: &Arc<AtomicBool>,
) -> std::thread::JoinHandle<Storm> {
    let url = server.url("/v1/projects/demo/messages:send");
    let request = (url, server.service_token());
    // Its own: connections live and end with the thread that opened them.
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]);
    let http = http.build().expect("a client");
    let senders: Vec<_> = (0..SENDERS)
        .map(|number| (number, tokens[number % tokens.len()].clone()))
        .map(|sender| insist(http.clone(), request.clone(), sender, Arc::clone(is_over)))
        .collect();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().expect("a runtime");
        let storms = runtime.block_on(join_all(senders));
        let mut all = Storm::default();
        for storm in storms {
            all.accepted.extend(storm.accepted);
            all.refusals.extend(storm.refusals);
        }
        all
    })
}

fn p99(times: &mut [Duration]) -> Duration {
    times.sort();
    times
        .get(times.len() * 99 / 100)
        .copied()
        .unwrap_or_default()
}

#[tokio::test]
async fn a_storm_is_refused_at_once_and_leaves_nothing_behind() {
    let disk = FaultyDisk::new();
    let settings = vec![
        ("HERALD_HTTP__WORKERS", "2".to_owned()),
        ("HERALD_LIMITS__MAILBOX", "8".to_owned()),
    ];
    let server = Server::with(disk.options(settings)).await;
    let (device, other) = (server.device().await, server.device().await);
    let tokens = join_all((0..40).map(|_| server.token(&device))).await;
    let own = server.token(&other).await;
    server.push(&own, "before the storm").await;
    let (mut socket, _) = server.hello(&other, &[(&own, 1)]).await;
    assert_eq!(text_of(&socket.push().await), "before the storm");
    let resident = "process_resident_memory_bytes";
    let memory = server.metric(resident).await;

    // Each sync takes 40 ms, and what one settles is as much as waits.
    disk.slow_down();
    let is_over = Arc::new(AtomicBool::new(false));
    let storm = raise(&server, &tokens, &is_over);
    let (mut acks, mut looks) = (Vec::new(), Vec::new());
    let started = Instant::now();
    while started.elapsed() < STORM {
        let before = Instant::now();
        socket.ack(&own, 1).await;
        assert!(socket.sync().await.is_empty());
        acks.push(before.elapsed());
        let before = Instant::now();
        let alive = server.http().get(server.admin_url("/livez")).send().await;
        assert_eq!(alive.expect("an answer").status(), 200);
        looks.push(before.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    let over = Instant::now();
    while !server.is_ready().await {
        assert!(over.elapsed() < Duration::from_secs(5), "not ready yet");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ready_after = over.elapsed();
    let Storm {
        accepted,
        mut refusals,
    } = tokio::task::spawn_blocking(|| storm.join())
        .await
        .expect("no panic")
        .expect("no panic");
    disk.mend_everything();
    let (stored, refused) = (accepted.len(), refusals.len());
    let times = [p99(&mut refusals), p99(&mut acks), p99(&mut looks)];
    println!(
        "{stored} stored, {refused} refused; p99 of refusals, acks, looks: {times:?}; ready after \
         {ready_after:?}"
    );
    assert!(
        refused > stored,
        "{stored} stored, {refused} refused: no storm"
    );
    assert!(times[0] < REFUSED_WITHIN, "refused after {:?}", times[0]);
    assert!(
        times[1] < OTHERS_WITHIN && times[2] < OTHERS_WITHIN,
        "{times:?}"
    );
    let bodies: Vec<_> = tokens
        .into_iter()
        .map(|token| (token, String::new()))
        .collect();
    assert_stored(&server, &device, &bodies, &accepted).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = server.metric(resident).await;
        if now <= memory + STORM_MEMORY_MAX {
            println!("{memory} bytes before, {now} after");
            break;
        }
        assert!(
            Instant::now() < deadline,
            "{memory} bytes before, {now} after"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.stop_and_audit().await;
}
