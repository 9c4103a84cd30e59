//! `/livez`, `/readyz` and `/metrics` on the admin listener: for probes and scrapers, without a
//! credential.

use std::sync::Arc;

use actix_web::http::header::{CACHE_CONTROL, RETRY_AFTER};
use actix_web::{HttpResponse, web};
use serde_json::json;

use super::admin::allow_only;
use super::error::ApiError;
use crate::metrics::Metrics;

/// How soon a probe that was told "not ready" should ask again.
const RETRY_AFTER_SECONDS: u32 = 1;

/// Why the node may not take traffic, one sentence each; empty when it may.
pub type Readiness = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// Whether the process beats. No backend has a say in it: an orchestrator restarts what is not
/// alive, and a restart mends no backend.
pub type Liveness = Arc<dyn Fn() -> bool + Send + Sync>;

/// What probes and scrapers are told.
#[derive(Clone)]
pub struct Probes {
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// What `/readyz` says.
    pub readiness: Readiness,
    /// What `/livez` says.
    pub liveness: Liveness,
}

/// Adds the routes. Needs [`Probes`] among the application's data.
pub fn configure(routes: &mut web::ServiceConfig) {
    let get = |path: &str| web::resource(path).default_service(allow_only("GET, HEAD"));
    routes
        .service(
            get("/livez")
                .route(web::get().to(livez))
                .route(web::head().to(livez)),
        )
        .service(
            get("/readyz")
                .route(web::get().to(readyz))
                .route(web::head().to(readyz)),
        )
        .service(
            get("/metrics")
                .route(web::get().to(metrics))
                .route(web::head().to(metrics)),
        );
}

/// The process beats; asks no backend.
async fn livez(probes: web::Data<Probes>) -> HttpResponse {
    if !(probes.liveness)() {
        return HttpResponse::ServiceUnavailable()
            .insert_header((CACHE_CONTROL, "no-store"))
            .content_type("text/plain; charset=utf-8")
            .body("a worker does not answer\n");
    }
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .content_type("text/plain; charset=utf-8")
        .body("ok\n")
}

/// Whether the node may take traffic, or why not.
async fn readyz(probes: web::Data<Probes>) -> HttpResponse {
    let reasons = (probes.readiness)();
    if reasons.is_empty() {
        return HttpResponse::Ok()
            .insert_header((CACHE_CONTROL, "no-store"))
            .json(json!({ "ready": true, "reasons": [] }));
    }
    let error = json!({ "code": 503, "message": "not ready", "status": "UNAVAILABLE" });
    HttpResponse::ServiceUnavailable()
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((RETRY_AFTER, RETRY_AFTER_SECONDS.to_string()))
        .json(json!({ "ready": false, "reasons": reasons, "error": error }))
}

async fn metrics(probes: web::Data<Probes>) -> Result<HttpResponse, ApiError> {
    let (media_type, text) = probes.metrics.render().map_err(ApiError::internal)?;
    Ok(HttpResponse::Ok().content_type(media_type).body(text))
}
