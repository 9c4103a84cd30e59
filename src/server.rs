//! The composition root: starts everything in order, and drains it in reverse.

mod drain;
mod keys;
mod opened_store;
mod tls;
mod waiting;

pub use opened_store::STORE_DIRECTORY;

use opened_store::OpenedStore;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_server::ServerHandle;
use actix_web::web::Data;
use actix_web::{App, HttpServer};
use anyhow::Context as _;
use tokio::sync::watch;

use crate::actors::{Node, NodeSettings};
use crate::admin_token::{self, AdminTokenHash};
use crate::clock::Clock;
use crate::config::{Config, Secret, StoreKind};
use crate::http::Public;
use crate::http::admin::{self, AdminState};
use crate::http::fcm::MessageLimits;
use crate::http::floods::Floods;
use crate::http::health::{Probes, Readiness};
use crate::http::listener::PublicListener;
use crate::http::quota::Quotas;
use crate::metrics::Metrics;
use crate::projects::Projects;
use crate::sealing_keys::SealingKeys;
use crate::store::{Store, contact_refresh};

/// Connections that the kernel may hold before they are accepted: a storm of devices comes at once.
const BACKLOG: i32 = 16_384;

/// How often buckets of quotas that are full again are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);

/// How often changes of other nodes are looked for: a revoked service token is dead everywhere
/// within five seconds.
const REFRESH_INTERVAL: Duration = Duration::from_secs(2);

/// How often workers are asked whether they are alive.
const BEAT_INTERVAL: Duration = Duration::from_secs(2);

/// A server that takes requests.
pub struct Running {
    config: Config,
    node: Node,
    store: Arc<dyn Store>,
    projects: Arc<Projects>,
    admin_token: Secret,
    listen: SocketAddr,
    admin_listen: SocketAddr,
    public_socket: TcpListener,
    public_handle: ServerHandle,
    admin_handle: ServerHandle,
    draining: watch::Sender<bool>,
    leaving: Arc<AtomicBool>,
}

/// Starts a server. Must be called on an actix system.
///
/// # Errors
/// What could not be opened, bound or read, in words for an operator.
pub async fn start(config: Config) -> anyhow::Result<Running> {
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("cannot make {}", config.data_dir.display()))?;
    let clock = Clock::system();
    let metrics = Arc::new(Metrics::new());
    metrics.watch_allocator();
    let admin_socket = bind(config.admin_listen)?;
    let OpenedStore { store, region } = match config.store.kind {
        StoreKind::Cluster => waiting::for_shared_store(&config, &metrics, &admin_socket).await?,
        StoreKind::Embedded | StoreKind::Memory => {
            opened_store::open_own(&config, &clock, &metrics)?
        }
    };
    let (keys, sealing_keys) = keys::load(&config, &store, &clock).await?;
    let sealing_keys = Arc::new(sealing_keys);
    let projects = Arc::new(Projects::load(Arc::clone(&store), clock.clone()).await?);
    let gate = Arc::clone(&projects);
    let node = Node::new(
        node_settings(&config),
        Arc::clone(&store),
        clock.clone(),
        keys,
        Arc::clone(&metrics),
        Arc::new(move |project| gate.get_by_hash(project).is_some()),
        region.clone(),
    );
    end_sessions_of_deleted_projects(&projects, &node);
    let public = Data::new(public_state(&config, &node, &projects));

    let (draining, drain_signal) = watch::channel(false);
    let public_socket = bind(config.listen)?;
    let (listen, admin_listen) = (public_socket.local_addr()?, admin_socket.local_addr()?);
    let listener = PublicListener {
        public: public.clone(),
        tls: tls::acceptor(&config)?,
        draining: drain_signal,
    };
    // Connections beyond the limit are refused in so many words, not left waiting.
    let server = actix_server::Server::build()
        .workers(node.settings().workers)
        .max_concurrent_connections(usize::MAX / 2)
        .shutdown_timeout(1)
        .disable_signals();
    let server = listener.attach(server, public_socket.try_clone()?)?.run();
    let public_handle = server.handle();
    actix_rt::spawn(server);
    node.started().await;
    node.join_region();
    node.start_fan_outs();

    let admin_token = admin_token(&config, &*store).await?;
    let leaving = Arc::new(AtomicBool::new(false));
    let alive = watch_beats(node.clone());
    let probes = Probes {
        metrics,
        readiness: readiness(Arc::clone(&store), Arc::clone(&leaving)),
        liveness: Arc::new(move || alive.load(Ordering::Relaxed)),
    };
    let token = AdminTokenHash::of(&admin_token);
    let state = AdminState::new(
        &config,
        Arc::clone(&projects),
        Arc::clone(&sealing_keys),
        token,
        probes,
    );
    let admin_handle = start_admin(&config, state, admin_socket)?;

    spawn_chores(&config, &store, &clock, public);
    if region.is_some() {
        follow_other_nodes(&projects, sealing_keys);
    }
    projects.end_tokens_of_deleted().await?;
    tracing::info!(%listen, %admin_listen, workers = node.settings().workers, "herald is up");
    Ok(Running {
        config,
        node,
        store,
        projects,
        admin_token,
        listen,
        admin_listen,
        public_socket,
        public_handle,
        admin_handle,
        draining,
        leaving,
    })
}

impl Running {
    /// Where devices and senders connect.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where operators connect.
    #[must_use]
    pub fn admin_listen(&self) -> SocketAddr {
        self.admin_listen
    }

    /// What operators must show.
    #[must_use]
    pub fn admin_token(&self) -> &Secret {
        &self.admin_token
    }

    /// The projects, to make the development project with.
    #[must_use]
    pub fn projects(&self) -> &Projects {
        &self.projects
    }
}

/// What actors need of all settings.
#[must_use]
pub fn node_settings(config: &Config) -> NodeSettings {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    NodeSettings {
        workers: if config.http.workers == 0 {
            cores()
        } else {
            config.http.workers
        },
        mailbox: config.limits.mailbox,
        session_mailbox: config.socket.mailbox,
        in_flight_per_token: config.limits.in_flight_per_token,
        queued_per_token: config.limits.queued_per_token,
        fan_outs_per_project: config.limits.fan_outs_per_project,
        fan_out_copies_per_second: config.limits.fan_out_copies_per_second,
        append_timeout_ms: config.limits.append_timeout_ms,
        sessions_max: config.socket.sessions_max,
        hello_timeout_ms: config.socket.hello_timeout_ms,
        contact_every_ms: contact_refresh(config.limits.token_ttl_ms),
        ping_interval_ms: config.socket.ping_interval_ms,
        write_timeout_ms: config.socket.write_timeout_ms,
        outbox_bytes: config.socket.outbox_bytes,
        park_after_ms: config.socket.park_after_ms,
        restart_spread_ms: config.drain.retry_spread_ms,
    }
}

fn public_state(config: &Config, node: &Node, projects: &Arc<Projects>) -> Public {
    Public {
        node: node.clone(),
        projects: Arc::clone(projects),
        quotas: Quotas::new(config),
        floods: Floods::new(config),
        message_limits: MessageLimits {
            body_bytes: config.http.send_body_bytes,
            payload_bytes: config.limits.message_bytes,
            platform_payload_bytes: config.limits.message_bytes,
        },
        http: config.http.clone(),
        poll_response_bytes: config.limits.poll_response_bytes,
        sends_per_minute_per_project: config.quota.sends_per_minute_per_project,
    }
}

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let socket =
        TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

async fn admin_token(config: &Config, store: &dyn Store) -> anyhow::Result<Secret> {
    match &config.secrets.admin_token {
        Some(token) => Ok(token.clone()),
        None if config.store.kind == StoreKind::Cluster => keys::kept_admin_token(store).await,
        None => admin_token::read_or_make(&config.data_dir).context("cannot keep the admin token"),
    }
}

fn end_sessions_of_deleted_projects(projects: &Projects, node: &Node) {
    let node = node.clone();
    projects.when_deleted(move |project| {
        let (node, project) = (node.clone(), project.hash());
        actix_rt::spawn(async move { node.end_project(project).await });
    });
}

/// Why the node may not take traffic; empty when it may.
fn readiness(store: Arc<dyn Store>, leaving: Arc<AtomicBool>) -> Readiness {
    Arc::new(move || {
        let mut reasons = Vec::new();
        if leaving.load(Ordering::Relaxed) {
            reasons.push("the node is draining".to_owned());
        }
        if !store.is_healthy() {
            reasons.push("the store takes no writes".to_owned());
        }
        reasons
    })
}

/// Whether every worker answered when it was last asked.
fn watch_beats(node: Node) -> Arc<AtomicBool> {
    let alive = Arc::new(AtomicBool::new(true));
    let watched = Arc::clone(&alive);
    actix_rt::spawn(async move {
        loop {
            tokio::time::sleep(BEAT_INTERVAL).await;
            watched.store(node.beats().await, Ordering::Relaxed);
        }
    });
    alive
}

fn start_admin(
    config: &Config,
    state: AdminState,
    socket: TcpListener,
) -> std::io::Result<ServerHandle> {
    let server = HttpServer::new(move || App::new().configure(admin::configure(&state)))
        .workers(1)
        .keep_alive(Duration::from_millis(config.http.keep_alive_ms))
        .disable_signals()
        .shutdown_timeout(1)
        .listen(socket)?
        .run();
    let handle = server.handle();
    actix_rt::spawn(server);
    Ok(handle)
}

/// Takes in what other nodes have changed of projects, service tokens and sealing keys.
fn follow_other_nodes(projects: &Arc<Projects>, sealing_keys: Arc<SealingKeys>) {
    let projects = Arc::clone(projects);
    actix_rt::spawn(async move {
        loop {
            tokio::time::sleep(REFRESH_INTERVAL).await;
            if let Err(error) = projects.refresh().await {
                tracing::warn!(%error, "projects could not be read anew");
            }
            if let Err(error) = sealing_keys.refresh().await {
                tracing::warn!(%error, "sealing keys could not be read anew");
            }
        }
    });
}

/// What must be done every now and then.
fn spawn_chores(config: &Config, store: &Arc<dyn Store>, clock: &Clock, public: Data<Public>) {
    let interval = Duration::from_millis(config.store.sweep_interval_ms);
    let (store, clock) = (Arc::clone(store), clock.clone());
    actix_rt::spawn(async move {
        loop {
            tokio::time::sleep(interval).await;
            if let Err(error) = store.sweep(clock.now()).await {
                tracing::warn!(%error, "a sweep failed");
            }
        }
    });
    actix_rt::spawn(async move {
        loop {
            tokio::time::sleep(FORGET_INTERVAL).await;
            public.quotas.forget_full();
        }
    });
}
