//! Forged push tokens cost no access to the store, no read either: counted by a store that notes what it
//! is asked, below the server's own routes, sockets and actors.

mod noting_store;

use std::net::TcpListener;
use std::sync::Arc;

use actix_web::web::Data;
use herald::actors::{Node, NodeSettings};
use herald::clock::Clock;
use herald::config::Config;
use herald::http::Public;
use herald::http::fcm::MessageLimits;
use herald::http::floods::Floods;
use herald::http::listener::PublicListener;
use herald::http::quota::Quotas;
use herald::metrics::Metrics;
use herald::projects::{NewProject, Projects};
use herald::server::node_settings;
use herald::store::{Store, StoreLimits};
use herald::token::{Key, Keyring};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use crate::harness::{Credential, Door, answer, message, soon};
use noting_store::NotingStore;

const PACKAGE: &str = "com.example.app";

fn fingerprint() -> String {
    ["91"; 32].join(":")
}

/// A server over such a store, on a thread of its own.
struct Observed {
    door: Door,
    store: Arc<NotingStore>,
    /// The server ends when this is dropped.
    _end: oneshot::Sender<()>,
}

impl Observed {
    async fn start(keys: Keyring) -> Self {
        let config = Config::default();
        let store = Arc::new(NotingStore::new(StoreLimits {
            pending_per_token: config.limits.pending_per_token,
            token_ttl_ms: config.limits.token_ttl_ms,
            topics_per_token: config.limits.topics_per_token,
        }));
        let (shared, (end, ends), (told, hears)) =
            (Arc::clone(&store), oneshot::channel(), oneshot::channel());
        std::thread::spawn(move || {
            actix::System::new().block_on(serve(config, keys, shared, told, ends));
        });
        let dev = soon("the server", hears).await.expect("it began");
        Self {
            door: Door::new(dev),
            store,
            _end: end,
        }
    }
}

/// What of `server::start` lies between the public port and the store.
async fn serve(
    config: Config,
    keys: Keyring,
    store: Arc<NotingStore>,
    told: oneshot::Sender<Value>,
    ends: oneshot::Receiver<()>,
) {
    let (store, clock): (Arc<dyn Store>, _) = (store, Clock::system());
    let projects = Projects::load(Arc::clone(&store), clock.clone()).await;
    let projects = Arc::new(projects.expect("projects"));
    let service_token = with_demo(&projects).await;
    let settings = NodeSettings {
        workers: 1,
        ..node_settings(&config)
    };
    let (gate, metrics) = (Arc::clone(&projects), Arc::new(Metrics::new()));
    let node = Node::new(
        settings,
        store,
        clock,
        Arc::new(keys),
        metrics,
        Arc::new(move |project| gate.get_by_hash(project).is_some()),
        None,
    );
    let public = Data::new(Public {
        node: node.clone(),
        projects,
        quotas: Quotas::new(&config),
        floods: Floods::new(&config),
        message_limits: MessageLimits {
            body_bytes: config.http.send_body_bytes,
            payload_bytes: config.limits.message_bytes,
            platform_payload_bytes: config.limits.message_bytes,
        },
        http: config.http.clone(),
        poll_response_bytes: config.limits.poll_response_bytes,
        sends_per_minute_per_project: config.quota.sends_per_minute_per_project,
    });
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let listen = socket.local_addr().expect("an address").to_string();
    let (_draining, draining) = watch::channel(false);
    let listener = PublicListener {
        public,
        tls: None,
        draining,
    };
    let server = actix_server::Server::build().workers(1).disable_signals();
    let server = listener.attach(server, socket).expect("listening").run();
    let handle = server.handle();
    actix_rt::spawn(server);
    node.started().await;
    let dev = json!({
        "listen": listen,
        "service_token": service_token,
        "package_name": PACKAGE,
        "cert_sha256": [fingerprint()],
    });
    told.send(dev).expect("the test waits");
    // An error is an end, too.
    let _ = ends.await;
    handle.stop(false).await;
}

/// Makes the project of all tests; its service token.
async fn with_demo(projects: &Projects) -> String {
    let new = NewProject {
        project_id: "demo".to_owned(),
        name: None,
        package_name: PACKAGE.to_owned(),
        cert_sha256: vec![fingerprint()],
    };
    projects.create(new).await.expect("a project");
    let token = projects.create_service_token("demo", "tests").await;
    token.expect("a service token").text.as_str().to_owned()
}

fn keyring(bytes: &[u8]) -> Keyring {
    let key = Key::new(1, bytes).expect("a key");
    Keyring::new(std::slice::from_ref(&key), vec![key.clone()]).expect("a keyring")
}

// --- The doors -----------------------------------------------------------------------------------

/// Where somebody may come with a push token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Send,
    SendOnce,
    SendCollapsible,
    Validate,
    Poll,
    Hello,
    Subscribe,
    Unsubscribe,
    Ack,
    BatchAdd,
    BatchRemove,
    RelationAdd,
    RelationRemove,
    Info,
    Topics,
    TopicsAdd,
    TopicGet,
    TopicUpdate,
    TopicRemove,
    Delete,
}

/// The last one ends the token.
const DOORS: [At; 20] = [
    At::Send,
    At::SendOnce,
    At::SendCollapsible,
    At::Validate,
    At::Poll,
    At::Hello,
    At::Subscribe,
    At::Unsubscribe,
    At::Ack,
    At::BatchAdd,
    At::BatchRemove,
    At::RelationAdd,
    At::RelationRemove,
    At::Info,
    At::Topics,
    At::TopicsAdd,
    At::TopicGet,
    At::TopicUpdate,
    At::TopicRemove,
    At::Delete,
];

/// What a session does not hold it does not let go of, and nobody is told: be the token good or not.
fn is_quiet(at: At) -> bool {
    matches!(at, At::Unsubscribe | At::Ack)
}

/// Comes with a token; whether it was taken for a good one.
async fn comes(door: &Door, at: At, device: &Credential, token: &str) -> bool {
    match at {
        At::Send => door.send(&message(token, "text")).await.0 == 200,
        At::SendOnce => {
            let key = format!("key-{token}");
            door.send_once(&key, &message(token, "text")).await.0 == 200
        }
        At::SendCollapsible => {
            let body = json!({"message": {
                "token": token, "data": {"text": "text"}, "android": {"collapse_key": "key"},
            }});
            door.send(&body).await.0 == 200
        }
        At::Validate => {
            let body = json!({"validate_only": true, "message": {"token": token}});
            door.send(&body).await.0 == 200
        }
        At::Poll => {
            let entry = door.poll_token(device, token, 1).await;
            entry["error"].is_null()
        }
        At::Hello | At::Subscribe | At::Unsubscribe | At::Ack => {
            comes_on_a_socket(door, at, device, token).await
        }
        At::Delete => {
            let path = format!("/v1/projects/demo/tokens/{token}");
            let request = door.http().delete(door.url(&path));
            let request = request.header("Authorization", device.header());
            answer(request).await.0 == 204
        }
        _ => manages_topics(door, at, token).await,
    }
}

async fn comes_on_a_socket(door: &Door, at: At, device: &Credential, token: &str) -> bool {
    let tokens: &[(&str, u64)] = match at {
        At::Hello => &[(token, 1)],
        _ => &[],
    };
    let (mut socket, welcome) = door.hello(device, tokens).await;
    match at {
        At::Hello => return welcome["tokens"][0]["error"].is_null(),
        At::Subscribe => socket.subscribe(token, 1).await,
        At::Unsubscribe => socket.unsubscribe(token).await,
        _ => socket.ack(token, 1).await,
    }
    let said = socket.sync().await;
    said.iter().all(|frame| frame["error"].is_null())
}

async fn manages_topics(door: &Door, at: At, token: &str) -> bool {
    let topics = format!("/v1/projects/demo/registrations/{token}/topicSubscriptions");
    let relation = format!("/iid/v1/{token}/rel/topics/news");
    let one = format!("{topics}/news");
    let many = json!({"to": "/topics/news", "registration_tokens": [token]});
    let (method, path, body) = match at {
        At::BatchAdd => (Method::POST, "/iid/v1:batchAdd".to_owned(), many),
        At::BatchRemove => (Method::POST, "/iid/v1:batchRemove".to_owned(), many),
        At::RelationAdd => (Method::POST, relation, Value::Null),
        At::RelationRemove => (Method::DELETE, relation, Value::Null),
        At::Info => (
            Method::GET,
            format!("/iid/info/{token}?details=true"),
            Value::Null,
        ),
        At::Topics => (Method::GET, topics, Value::Null),
        At::TopicsAdd => (Method::POST, format!("{topics}?topicName=news"), json!({})),
        At::TopicGet => (Method::GET, one, Value::Null),
        At::TopicUpdate => (
            Method::PATCH,
            format!("{one}?allow_missing=true"),
            json!({}),
        ),
        _ => (Method::DELETE, one, Value::Null),
    };
    let request = door.http().request(method, door.url(&path));
    let request = request
        .bearer_auth(door.service_token())
        .header("access_token_auth", "true");
    let request = match body {
        Value::Null => request,
        body => request.json(&body),
    };
    let (status, answer) = answer(request).await;
    status == 200 && answer["results"][0]["error"].is_null()
}

// --- The forgeries -------------------------------------------------------------------------------

/// A token with one letter changed.
fn changed(token: &str, place: usize) -> String {
    let mut letters = token.as_bytes().to_vec();
    letters[place] = if letters[place] == b'A' { b'B' } else { b'A' };
    String::from_utf8(letters).expect("letters")
}

/// Changed in every part of it, and longer, and shorter.
fn forgeries(token: &str, step: usize) -> Vec<String> {
    // The last letter may have bits that mean nothing.
    let places = (0..token.len() - 1).step_by(step);
    let mut forgeries: Vec<String> = places.map(|place| changed(token, place)).collect();
    forgeries.push(token[..token.len() - 4].to_owned());
    forgeries.push(format!("{token}AAAA"));
    forgeries
}

#[tokio::test]
async fn forged_tokens_cost_no_read_and_no_write_at_any_door() {
    let observed = Observed::start(keyring(&[7; 32])).await;
    // Sealed as it should be, under another key of the same number.
    let other = Observed::start(keyring(&[8; 32])).await;
    let device = observed.door.device().await;
    let token = observed.door.token(&device).await;
    let stranger = other.door.device().await;
    let of_another_key = other.door.token(&stranger).await;
    for (number, at) in DOORS.into_iter().enumerate() {
        let mut forgeries = forgeries(&token, 5 + number % 3);
        forgeries.push(of_another_key.clone());
        observed.store.take_verbs();
        for forged in forgeries {
            let is_taken = comes(&observed.door, at, &device, &forged).await;
            assert!(!is_taken || is_quiet(at), "{at:?} takes {forged}");
            let verbs = observed.store.take_verbs();
            assert!(verbs.is_empty(), "{at:?} with {forged}: {verbs:?}");
        }
    }
    // The same doors with a good token do come to the store: it would have been seen.
    for at in DOORS {
        assert!(
            comes(&observed.door, at, &device, &token).await,
            "{at:?} refuses a good one"
        );
        let verbs = observed.store.take_verbs();
        assert!(
            is_quiet(at) || !verbs.is_empty(),
            "{at:?} does not ask the store"
        );
    }
}
