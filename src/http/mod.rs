//! 1. A push comes in: the public listener's routes on one screen, and what they share.
//!
//! HTTP knows actors only as [`Node`], and stores not at all.

pub mod admin;
mod auth;
mod body;
mod connect;
mod devices;
pub mod error;
pub mod fcm;
pub mod floods;
mod h2;
pub mod health;
pub mod listener;
mod poll;
pub mod quota;
mod send;
mod topics;
mod unread;

use std::sync::Arc;
use std::time::Duration;

use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpResponse, Resource};

use crate::actors::Node;
use crate::config;
use crate::http::error::ApiError;
use crate::http::fcm::MessageLimits;
use crate::http::floods::Floods;
use crate::http::quota::Quotas;
use crate::projects::Projects;
use crate::store::StoreError;

/// What every route of the public listener works with.
pub struct Public {
    /// The actors.
    pub node: Node,
    /// Who may send.
    pub projects: Arc<Projects>,
    /// How much.
    pub quotas: Quotas,
    /// How many devices may come, and how often.
    pub floods: Floods,
    /// What a message may hold.
    pub message_limits: MessageLimits,
    /// How requests are read.
    pub http: config::Http,
    /// A poll's reply is cut short near this size.
    pub poll_response_bytes: usize,
    /// Named in the answer to a sender that is over it.
    pub sends_per_minute_per_project: u32,
}

impl Public {
    fn body_patience(&self) -> Duration {
        Duration::from_millis(self.http.body_timeout_ms)
    }
}

/// Topics of one token.
const REGISTRATION: &str = "/v1/projects/{project_id}/registrations/{token}/topicSubscriptions";

/// The public listener's routes. `/v1/connect` leaves HTTP before it gets here, see `connect`.
pub fn routes(public: Data<Public>) -> impl FnOnce(&mut ServiceConfig) {
    move |service| {
        service
            .app_data(public)
            .service(
                post("/v1/projects/{project_id}/messages:send").route(web::post().to(send::send)),
            )
            .service(post("/v1/projects/messages:get").route(web::post().to(poll::poll)))
            .service(post("/iid/v1:batchAdd").route(web::post().to(topics::instance_id::batch_add)))
            .service(
                post("/iid/v1:batchRemove")
                    .route(web::post().to(topics::instance_id::batch_remove)),
            )
            .service(
                resource("/iid/v1/{token}/rel/topics/{topic}", "POST, DELETE")
                    .route(web::post().to(topics::instance_id::add))
                    .route(web::delete().to(topics::instance_id::remove)),
            )
            .service(
                resource("/iid/info/{token}", "GET")
                    .route(web::get().to(topics::instance_id::info)),
            )
            .service(
                resource(REGISTRATION, "GET, POST")
                    .route(web::get().to(topics::registrations::list))
                    .route(web::post().to(topics::registrations::create)),
            )
            .service(
                resource(&format!("{REGISTRATION}/{{topic}}"), "GET, PATCH, DELETE")
                    .route(web::get().to(topics::registrations::get))
                    .route(web::patch().to(topics::registrations::update))
                    .route(web::delete().to(topics::registrations::delete)),
            )
            .service(post("/v1/devices").route(web::post().to(devices::register)))
            .service(
                post("/v1/projects/{project_id}/tokens").route(web::post().to(devices::mint_token)),
            )
            .service(
                resource("/v1/projects/{project_id}/tokens/{token}", "DELETE")
                    .route(web::delete().to(devices::delete_token)),
            )
            .service(
                resource(herald_protocol::CONNECT_PATH, "GET")
                    .route(web::get().to(connect::without_upgrade)),
            )
            .default_service(web::to(no_such_path));
    }
}

fn post(path: &str) -> Resource {
    resource(path, "POST")
}

/// A path that answers 405 to every other method.
fn resource(path: &str, allow: &'static str) -> Resource {
    let refuse = move || async move { Err::<HttpResponse, _>(ApiError::method_not_allowed(allow)) };
    web::resource(path.to_owned()).default_service(web::to(refuse))
}

async fn no_such_path() -> Result<HttpResponse, ApiError> {
    Err(ApiError::not_found(
        "The requested URL was not found on this server.",
    ))
}

/// 200 with JSON text.
fn json_response(text: String) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json; charset=UTF-8")
        .body(text)
}

/// How a fault of the store reads to a device.
fn store_error(error: StoreError) -> ApiError {
    let wait = Duration::from_secs(1);
    if let StoreError::Corrupt(_) = error {
        tracing::error!(%error, "a device met a corrupt record");
    }
    ApiError::unavailable(wait).with_cause(error)
}
