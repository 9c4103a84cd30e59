//! While a node of a region waits for its backends: alive, not ready, and saying why.

use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::web::Data;
use actix_web::{App, HttpServer};

use super::opened_store::{OpenedStore, connect_shared};
use crate::config::Config;
use crate::http::health::{self, Probes};
use crate::metrics::Metrics;
use crate::store::cluster::ConnectError;

/// How soon backends that could not be reached are tried again.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// Connects to the shared store, however long that takes; meanwhile probes are answered on the
/// admin listener's socket.
///
/// # Errors
/// What no waiting will mend.
pub async fn for_shared_store(
    config: &Config,
    metrics: &Arc<Metrics>,
    admin_socket: &TcpListener,
) -> anyhow::Result<OpenedStore> {
    let reasons = Arc::new(Mutex::new(vec![
        "the backends are being reached".to_owned(),
    ]));
    let said = Arc::clone(&reasons);
    let probes = Probes {
        metrics: Arc::clone(metrics),
        readiness: Arc::new(move || said.lock().unwrap_or_else(PoisonError::into_inner).clone()),
        liveness: Arc::new(|| true),
    };
    let probes = Data::new(probes);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(probes.clone())
            .configure(health::configure)
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(1)
    .listen(admin_socket.try_clone()?)?
    .run();
    let handle = server.handle();
    actix_rt::spawn(server);
    let opened = loop {
        match connect_shared(config, metrics).await {
            Ok(opened) => break Ok(opened),
            Err(refused @ ConnectError::Refused(_)) => break Err(refused.into()),
            Err(error) => {
                tracing::warn!(%error, "not ready");
                *reasons.lock().unwrap_or_else(PoisonError::into_inner) = vec![error.to_string()];
                actix_rt::time::sleep(TRY_EVERY).await;
            }
        }
    };
    handle.stop(false).await;
    opened
}
