//! Floods of devices: they cost the store nothing, those who come anew must work, and those who
//! are known notice nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::StreamExt as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::harness::{Credential, Server, ServerOptions, Socket, answer, binary, message, soon};

/// Work that costs these tests nothing: 2^8 hashes.
const PROOF_BITS: u64 = 8;

/// What the server may write meanwhile of its own accord: an acknowledgement, a count. Whatever a
/// flood wrote would be hundreds.
const CHORES: f64 = 4.0;

async fn server(settings: &[(&'static str, &str)]) -> Server {
    let settings = settings.iter().copied();
    let settings = settings
        .chain([("HERALD_FLOODS__PROOF_BITS", "8")])
        .map(|(name, value)| (name, value.to_owned()))
        .collect();
    Server::with(ServerOptions { settings }).await
}

/// Asks for a new device with these headers; status and JSON answer.
async fn mint(server: &Server, headers: &[(&'static str, &str)]) -> (u16, Value) {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, HeaderValue::from_str(value).expect("a value"));
    }
    let request = server.http().post(server.url("/v1/devices")).headers(map);
    answer(request.json(&json!({}))).await
}

/// The challenge in a refusal, if there is one.
fn challenge_of(refusal: &Value) -> Option<&str> {
    assert_eq!(
        refusal["error"]["status"], "RESOURCE_EXHAUSTED",
        "{refusal}"
    );
    let details = refusal["error"]["details"].as_array()?;
    let [detail] = details.as_slice() else {
        panic!("one detail in {refusal}");
    };
    let kind = "type.googleapis.com/herald.v1.ProofOfWork";
    assert_eq!(
        (&detail["@type"], &detail["bits"]),
        (&json!(kind), &json!(PROOF_BITS))
    );
    Some(detail["challenge"].as_str().expect("a challenge"))
}

/// Texts `<challenge>:<nonce>` that show the work.
fn proofs(challenge: &str) -> impl Iterator<Item = String> {
    let tries = (0_u32..).map(move |nonce| format!("{challenge}:{nonce:x}"));
    tries.filter(|proof| Sha256::digest(proof.as_bytes())[0] == 0)
}

fn proof(challenge: &str) -> String {
    proofs(challenge).next().expect("there is always one")
}

/// Waits until a known device notices that it is not known for the asking any more.
async fn under_pressure(server: &Server) -> String {
    loop {
        let (status, refusal) = mint(server, &[]).await;
        if status == 429 {
            return challenge_of(&refusal).expect("a challenge").to_owned();
        }
    }
}

async fn commits(server: &Server) -> f64 {
    server.metric("herald_store_commit_seconds_count").await
}

/// The count of a line of the store's report.
fn at_rest(server: &Server, what: &str) -> u64 {
    let count = server.fsck_report();
    let line = count.lines().find_map(|line| line.strip_prefix(what));
    let line = line.unwrap_or_else(|| panic!("{what} in {count}"));
    line.trim().parse().expect("a number")
}

#[tokio::test]
async fn a_flood_of_mints_leaves_the_store_and_the_known_as_they_were() {
    const MINTS: usize = 20_000;
    let mut server = server(&[
        ("HERALD_FLOODS__FREE_DEVICES_PER_MINUTE_PER_ADDRESS", "100"),
        // Far above what one device's life takes.
        ("HERALD_LIMITS__MINTS_PER_MINUTE_PER_ADDRESS", "100000"),
        ("HERALD_FLOODS__TOKENS_PER_MINUTE_PER_DEVICE", "100000"),
        ("HERALD_FLOODS__CONNECTS_PER_MINUTE_PER_DEVICE", "100000"),
        ("HERALD_FLOODS__POLLS_PER_MINUTE_PER_DEVICE", "100000"),
    ])
    .await;
    let known = server.device().await;
    let token = server.token(&known).await;
    let (mut socket, _) = server.hello(&known, &[(&token, 1)]).await;
    server.push(&token, "before").await;
    assert_eq!(socket.push().await["syn"], 1);
    socket.ack(&token, 1).await;
    server.books_balance_at(0).await;
    let before = commits(&server).await;

    let started = Instant::now();
    let (free, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let flood = async {
        let mints = futures_util::stream::iter(0..MINTS).map(|_| mint(&server, &[]));
        let mut mints = std::pin::pin!(mints.buffer_unordered(32));
        while let Some((status, answer)) = mints.next().await {
            if status == 200 {
                free.fetch_add(1, Ordering::Relaxed);
            } else {
                assert_eq!(status, 429);
                assert!(challenge_of(&answer).is_some());
            }
        }
        over.store(true, Ordering::Relaxed);
    };
    let life = async {
        let mut rounds = 0;
        while !over.load(Ordering::Relaxed) {
            let entry = server.poll_token(&known, &token, 2).await;
            assert_eq!(entry["syn_stored"], 1, "{entry}");
            assert_eq!(server.try_token(&known).await.0, 200);
            drop(Socket::connect_as(&format!("ws://{}/v1/connect", server.listen()), &known).await);
            rounds += 1;
        }
        rounds
    };
    let ((), rounds) = futures_util::future::join(flood, life).await;
    assert!(
        rounds > 10,
        "{rounds} rounds of a known device's life beside the flood"
    );
    let free = free.into_inner();
    // The known device has had one; the bucket fills again while the flood goes on.
    let refilled = started.elapsed().as_secs_f64() * 100.0 / 60.0;
    let expected = 99..=101 + refilled.ceil() as usize;
    assert!(
        expected.contains(&free),
        "{free} for the asking, not {expected:?}"
    );
    let written = commits(&server).await - before;
    assert!(written < CHORES, "{written} commits, {rounds} rounds");
    socket.sync().await;
    server.terminate();
    assert_eq!(server.exit_status().await.code(), Some(0));
    assert_eq!(
        (at_rest(&server, "tokens "), at_rest(&server, "pending ")),
        (1, 0)
    );
}

/// Every file of the store with its length.
fn store_files(server: &Server) -> BTreeMap<PathBuf, u64> {
    let mut files = BTreeMap::new();
    let mut directories = vec![server.data().join("store")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let entry = entry.expect("an entry");
            let what = entry.metadata().expect("a file");
            match what.is_dir() {
                true => directories.push(entry.path()),
                false => drop(files.insert(entry.path(), what.len())),
            }
        }
    }
    files
}

/// What mints that are served may leave in memory: buffers and connections, but nothing of each.
const MINTS_MEMORY_MAX: f64 = 64.0 * 1024.0 * 1024.0;

/// `FLOOD_MINTS=1000000` asks for as many; a release build serves them in a few minutes.
#[tokio::test]
async fn mints_that_are_served_leave_the_store_as_it_was() {
    const RESIDENT: &str = "process_resident_memory_bytes";
    let wanted = std::env::var("FLOOD_MINTS").map(|text| text.parse().expect("a number"));
    let wanted: usize = wanted.unwrap_or(4_000);
    // A development server has no limits but those that a test sets.
    let mut server = server(&[]).await;
    let device = server.device().await;
    server.token(&device).await;
    let known = server.token(&device).await;
    server.push(&known, "before").await;
    server.books_balance_at(1).await;
    let files = store_files(&server);
    let (written, memory) = (commits(&server).await, server.metric(RESIDENT).await);
    let started = Instant::now();
    let mints = futures_util::stream::iter(0..wanted).map(|number| {
        let (server, device) = (&server, &device);
        async move {
            match number % 2 {
                0 => mint(server, &[]).await.0,
                _ => server.try_token(device).await.0,
            }
        }
    });
    let are_served = mints
        .buffer_unordered(64)
        .all(|status| async move { status == 200 });
    assert!(are_served.await);
    let took = started.elapsed();
    let written = commits(&server).await - written;
    let memory_after = server.metric(RESIDENT).await;
    let files_after = store_files(&server);
    println!(
        "{wanted} mints in {took:?}: {written} commits; {} bytes in {} files before, {} in {} \
         after; {memory} bytes of memory before, {memory_after} after",
        files.values().sum::<u64>(),
        files.len(),
        files_after.values().sum::<u64>(),
        files_after.len(),
    );
    assert!(memory_after <= memory + MINTS_MEMORY_MAX);
    // A long flood sees more of the server's own chores.
    let own = CHORES + took.as_secs_f64() / 60.0;
    assert!(written < own, "{written} commits");
    assert_eq!(
        files.keys().collect::<Vec<_>>(),
        files_after.keys().collect::<Vec<_>>()
    );
    server.terminate();
    assert_eq!(server.exit_status().await.code(), Some(0));
    assert_eq!(
        (at_rest(&server, "tokens "), at_rest(&server, "pending ")),
        (1, 1)
    );
}

#[tokio::test]
async fn a_proof_buys_one_device_however_often_it_is_shown() {
    let mut server = server(&[("HERALD_FLOODS__FREE_DEVICES_PER_MINUTE_PER_ADDRESS", "1")]).await;
    let challenge = under_pressure(&server).await;
    let mut good = proofs(&challenge);
    let first = good.next().expect("a proof");
    let (status, device) = mint(&server, &[("Herald-Proof", &first)]).await;
    assert_eq!(status, 200, "{device}");
    let credential = Credential {
        id: device["device_id"].as_str().expect("an id").to_owned(),
        secret: device["device_secret"]
            .as_str()
            .expect("a secret")
            .to_owned(),
    };
    server.token(&credential).await;
    for _ in 0..50 {
        let again = mint(&server, &[("Herald-Proof", &first)]).await;
        assert_eq!(again, (200, device.clone()), "the same device");
    }
    // Another proof of the same challenge is other work.
    let second = good.next().expect("a proof");
    let (status, other) = mint(&server, &[("Herald-Proof", &second)]).await;
    assert_eq!(status, 200);
    assert_ne!(other["device_id"], device["device_id"]);
    server.kill_and_restart().await;
    let again = mint(&server, &[("Herald-Proof", &first)]).await;
    assert_eq!(
        again,
        (200, device),
        "nothing needs to be remembered for that"
    );
}

#[tokio::test]
async fn what_is_no_proof_is_answered_with_a_challenge() {
    let server = server(&[("HERALD_FLOODS__FREE_DEVICES_PER_MINUTE_PER_ADDRESS", "1")]).await;
    let challenge = under_pressure(&server).await;
    let undone = (0_u32..).map(|nonce| format!("{challenge}:{nonce}"));
    let mut undone = undone.filter(|text| Sha256::digest(text.as_bytes())[0] != 0);
    let made_up = "A".repeat(challenge.len());
    for text in [
        undone.next().expect("most are"),
        proof(&made_up),
        proof(&challenge[1..]),
        challenge.clone(),
        format!("{challenge}:{}", "x".repeat(65)),
        "x".repeat(4_000),
        ":".to_owned(),
    ] {
        let (status, refusal) = mint(&server, &[("Herald-Proof", &text)]).await;
        assert_eq!(status, 429, "{text}");
        assert!(challenge_of(&refusal).is_some(), "{text}");
    }
    let asked = server
        .metric("herald_shed_total{reason=\"proof_asked\"}")
        .await;
    assert!(asked >= 8.0, "{asked}");
}

#[tokio::test]
async fn work_does_not_buy_everything() {
    let server = server(&[
        ("HERALD_FLOODS__FREE_DEVICES_PER_MINUTE_PER_ADDRESS", "1"),
        ("HERALD_LIMITS__MINTS_PER_MINUTE_PER_NETWORK", "3"),
    ])
    .await;
    let mut outcomes = Vec::new();
    for _ in 0..5 {
        let challenge = under_pressure(&server).await;
        let (status, answer) = mint(&server, &[("Herald-Proof", &proof(&challenge))]).await;
        if status == 429 {
            assert_eq!(challenge_of(&answer), None, "no work helps");
        }
        outcomes.push(status);
    }
    assert_eq!(outcomes, [200, 200, 429, 429, 429], "and one was free");
}

#[tokio::test]
async fn without_proofs_pressure_is_a_plain_refusal() {
    let settings = [
        ("HERALD_FLOODS__FREE_DEVICES_PER_MINUTE", "1".to_owned()),
        ("HERALD_FLOODS__PROOF_BITS", "0".to_owned()),
    ];
    let settings = settings.into();
    let server = Server::with(ServerOptions { settings }).await;
    server.device().await;
    let (status, refusal) = mint(&server, &[]).await;
    assert_eq!((status, challenge_of(&refusal)), (429, None));
}

const FROM_HERE: (&str, &str) = ("X-Forwarded-For", "203.0.113.9, 198.51.100.1");
const FROM_THERE: (&str, &str) = ("X-Forwarded-For", "203.0.113.9, 192.0.2.1");

#[tokio::test]
async fn a_trusted_proxy_says_whom_it_passes_on() {
    let server = server(&[
        ("HERALD_HTTP__TRUSTED_PROXIES", "127.0.0.0/8, ::1"),
        ("HERALD_FLOODS__FREE_DEVICES_PER_MINUTE_PER_ADDRESS", "1"),
    ])
    .await;
    assert_eq!(mint(&server, &[FROM_HERE]).await.0, 200);
    let (status, refusal) = mint(&server, &[FROM_HERE]).await;
    assert_eq!(status, 429, "one address");
    assert_eq!(mint(&server, &[FROM_THERE]).await.0, 200, "another one");
    // The first in the list is what the client said of itself.
    let lie = ("X-Forwarded-For", "203.0.113.77, 198.51.100.1");
    assert_eq!(mint(&server, &[lie]).await.0, 429);
    let proof = proof(challenge_of(&refusal).expect("a challenge"));
    let shown = ("Herald-Proof", proof.as_str());
    assert_eq!(
        mint(&server, &[FROM_THERE, shown]).await.0,
        429,
        "work of elsewhere"
    );
    assert_eq!(mint(&server, &[FROM_HERE, shown]).await.0, 200);
}

#[tokio::test]
async fn nobody_else_says_who_is_calling() {
    for trusted in ["", "192.0.2.0/24"] {
        let server = server(&[
            ("HERALD_HTTP__TRUSTED_PROXIES", trusted),
            ("HERALD_FLOODS__FREE_DEVICES_PER_MINUTE_PER_ADDRESS", "1"),
        ])
        .await;
        assert_eq!(mint(&server, &[FROM_HERE]).await.0, 200);
        let forwarded = ("Forwarded", "for=192.0.2.200");
        for header in [FROM_THERE, forwarded] {
            assert_eq!(
                mint(&server, &[header]).await.0,
                429,
                "{header:?}, {trusted:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_device_that_asks_for_too_much_is_alone_in_that() {
    let server = server(&[
        ("HERALD_FLOODS__TOKENS_PER_MINUTE_PER_DEVICE", "2"),
        ("HERALD_FLOODS__POLLS_PER_MINUTE_PER_DEVICE", "2"),
    ])
    .await;
    let (greedy, modest) = (server.device().await, server.device().await);
    let token = server.token(&greedy).await;
    assert_eq!(server.try_token(&greedy).await.0, 200);
    assert_eq!(server.try_token(&greedy).await.0, 429);
    assert_eq!(server.try_token(&modest).await.0, 200);
    let entry = json!([{"project_id": "demo", "token": token}]);
    for expected in [200, 200, 429] {
        assert_eq!(server.poll(&greedy, entry.clone()).await.0, expected);
    }
    assert_eq!(server.poll(&modest, json!([])).await.0, 200);
    let shed = |reason: &str| format!("herald_shed_total{{reason=\"{reason}\"}}");
    assert!(server.metric(&shed("mint_limit")).await > 0.5);
    assert!(server.metric(&shed("poll_limit")).await > 0.5);
}

#[tokio::test]
async fn a_project_whose_tokens_are_asked_for_too_fast_is_alone_in_that() {
    let server = server(&[
        ("HERALD_FLOODS__TOKENS_PER_MINUTE_PER_PROJECT", "3"),
        ("HERALD_FLOODS__POLLS_PER_MINUTE_PER_PROJECT", "2"),
    ])
    .await;
    let other = server.project("other").await;
    let device = server.device().await;
    let token = server.token(&device).await;
    server.token(&server.device().await).await;
    server.token(&server.device().await).await;
    assert_eq!(server.try_token(&device).await.0, 429);
    let theirs = server.token_in(&other, &device).await;
    let entry = |project: &str, token: &str| json!({"project_id": project, "token": token});
    let entries = json!([
        entry("demo", &token),
        entry("demo", &token),
        entry("demo", &token),
        entry("other", &theirs),
    ]);
    let (status, answer) = server.poll(&device, entries).await;
    assert_eq!(status, 200);
    let codes = answer["by_token"].as_array().expect("entries").iter();
    let codes: Vec<&Value> = codes.map(|entry| &entry["error"]["code"]).collect();
    assert_eq!(
        codes,
        [&Value::Null, &Value::Null, &json!(429), &Value::Null]
    );
}

/// A device that was made long ago, by a server with the device key number 7 of zeros.
fn old_device() -> Credential {
    let id = [[3; 12].as_slice(), &1_000_000_u32.to_be_bytes()].concat();
    let mut mac = Hmac::<Sha256>::new_from_slice(&[0; 32]).expect("a key of any length");
    mac.update(&[7]);
    mac.update(&id);
    let secret = [[7].as_slice(), &mac.finalize().into_bytes()].concat();
    Credential {
        id: URL_SAFE_NO_PAD.encode(id),
        secret: URL_SAFE_NO_PAD.encode(secret),
    }
}

#[tokio::test]
async fn new_devices_that_flood_a_project_leave_its_older_ones_alone() {
    let key = format!("7:{}", STANDARD.encode([0; 32]));
    let server = server(&[
        ("HERALD_SECRETS__DEVICE_KEYS", &key),
        ("HERALD_FLOODS__TOKENS_PER_MINUTE_PER_PROJECT", "2"),
    ])
    .await;
    let old = old_device();
    for status in [200, 200, 429, 429] {
        let new = server.device().await;
        assert_eq!(server.try_token(&new).await.0, status);
    }
    for status in [200, 200, 429] {
        assert_eq!(server.try_token(&old).await.0, status);
    }
}

#[tokio::test]
async fn strangers_who_connect_leave_room_for_known_devices() {
    let server = server(&[("HERALD_FLOODS__CONNECTS_PER_MINUTE_PER_ADDRESS", "3")]).await;
    let device = server.device().await;
    let url = format!("ws://{}/v1/connect", server.listen());
    for _ in 0..3 {
        drop(server.connect().await);
    }
    let refused = soon("an answer", tokio_tungstenite::connect_async(&url)).await;
    let Err(tokio_tungstenite::tungstenite::Error::Http(answer)) = refused else {
        panic!("a stranger too many got in: {refused:?}");
    };
    assert_eq!(answer.status().as_u16(), 429);
    assert!(answer.headers().contains_key("retry-after"));
    let mut socket = Socket::connect_as(&url, &device).await;
    socket.hello(&device, &[]).await;
    assert_eq!(socket.frame().await["type"], "welcome");
    // The SDK says nothing in the header at first, and finds in all the same.
    let api = herald_sdk::Api::new(&server.url("")).expect("an address");
    let state = herald_sdk::DeviceState::new(herald_sdk::Credential {
        device_id: device.id.clone(),
        device_secret: device.secret.clone(),
    });
    let mut sdk = herald_sdk::Device::new(api, state, "scenarios/1");
    let event = soon("a connection", sdk.next_event()).await;
    assert!(
        matches!(event, Some(herald_sdk::Event::Connected { .. })),
        "{event:?}"
    );
}

#[tokio::test]
async fn a_device_registers_by_work_with_the_sdk() {
    let server = server(&[("HERALD_FLOODS__FREE_DEVICES_PER_MINUTE_PER_ADDRESS", "1")]).await;
    under_pressure(&server).await;
    let api = herald_sdk::Api::new(&server.url("")).expect("an address");
    let credential = api.register().await.expect("a device");
    let device = Credential {
        id: credential.device_id,
        secret: credential.device_secret,
    };
    server.token(&device).await;
}

#[tokio::test]
async fn herald_listen_does_the_work_that_it_is_asked_for() {
    let server = server(&[("HERALD_FLOODS__FREE_DEVICES_PER_MINUTE_PER_ADDRESS", "1")]).await;
    under_pressure(&server).await;
    let mut listen = tokio::process::Command::new(binary());
    listen
        .arg("listen")
        .arg("--dev-json")
        .arg(server.data().join("dev.json"));
    let mut listen = listen
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(listen.stdout.take().expect("its output")).lines();
    let line = soon("a line", lines.next_line()).await.expect("a line");
    let line = line.expect("more than an end");
    let token = line.strip_prefix("token: ").expect("a token");
    server.push(token, "hello").await;
    let line = soon("a push", lines.next_line()).await.expect("a line");
    assert!(line.is_some_and(|line| line.starts_with("push: syn 1, ")));
}

#[tokio::test]
async fn a_storm_of_sockets_is_told_to_come_back_one_after_the_other() {
    let server = server(&[("HERALD_FLOODS__CONNECTS_PER_SECOND", "1")]).await;
    let device = server.device().await;
    let mut storm = Vec::new();
    for _ in 0..40 {
        storm.push(server.connect().await);
    }
    let mut waits = BTreeSet::new();
    let mut turned_away = 0;
    for socket in &mut storm {
        // One that was let in answers the hello, of an unknown device, with 4003.
        let stranger = Credential {
            id: device.id.clone(),
            secret: "wrong".to_owned(),
        };
        socket.hello(&stranger, &[]).await;
        let (code, reason) = socket.closed().await;
        if code == 4003 {
            continue;
        }
        assert_eq!(code, 1013, "{reason}");
        let advice: HashMap<String, u64> = serde_json::from_str(&reason).expect("advice");
        let wait = advice["retry_ms"];
        assert!((900..60_000).contains(&wait), "{wait}");
        waits.insert(wait);
        turned_away += 1;
    }
    assert!(turned_away >= 10, "{turned_away}");
    assert_eq!(waits.len(), turned_away, "each at another time: {waits:?}");
    let shed = server
        .metric("herald_shed_total{reason=\"handshake_limit\"}")
        .await;
    assert!((shed - turned_away as f64).abs() < 0.5);
}

/// A token with one bit flipped, in the project that it claims to be of.
fn forged(token: &str, place: usize) -> String {
    let other = |letter: char| if letter == 'A' { 'B' } else { 'A' };
    let letters = token.chars().enumerate();
    letters
        .map(|(index, letter)| {
            if index == place {
                other(letter)
            } else {
                letter
            }
        })
        .collect()
}

#[tokio::test]
async fn forged_tokens_never_come_to_the_store() {
    let mut server = server(&[]).await;
    let device = server.device().await;
    // Never used, so the store does not know it: whoever took a forgery for it would write.
    let token = server.token(&device).await;
    let before = commits(&server).await;
    let (mut socket, _) = server.hello(&device, &[]).await;
    // The letters before tell the version and the key; another key would be one that is gone.
    for place in 3..token.len() - 1 {
        let forged = forged(&token, place);
        assert_eq!(
            server.send(&message(&forged, "forged")).await.0,
            400,
            "{place}"
        );
        let entry = server.poll_token(&device, &forged, 1).await;
        assert_eq!(entry["error"]["code"], 400, "{place}: {entry}");
        socket.subscribe(&forged, 1).await;
        let answer = socket.frame().await;
        assert_eq!(answer["error"], "INVALID_ARGUMENT", "{place}: {answer}");
        assert_eq!(server.delete_token("demo", &device, &forged).await, 400);
    }
    let written = commits(&server).await - before;
    assert!(written < CHORES, "{written} commits");
    server.terminate();
    assert_eq!(server.exit_status().await.code(), Some(0));
    assert_eq!(at_rest(&server, "tokens "), 0);
}
