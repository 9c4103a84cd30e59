//! `/admin/v1/sealing-keys`: what seals push tokens, without its secrets, and the next one.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use serde::Serialize;

use super::{AdminState, allow_only, run_to_the_end, store_fault};
use crate::clock::Millis;
use crate::http::error::ApiError;
use crate::sealing_keys::{RotationError, SealingKeyView};

pub(super) fn configure(routes: &mut web::ServiceConfig) {
    routes.service(
        web::resource("/sealing-keys")
            .route(web::post().to(rotate))
            .route(web::get().to(list))
            .default_service(allow_only("GET, POST")),
    );
}

#[derive(Serialize)]
struct View {
    id: u8,
    seals_from: Millis,
    seals: bool,
}

impl From<SealingKeyView> for View {
    fn from(key: SealingKeyView) -> Self {
        Self {
            id: key.id,
            seals_from: key.seals_from,
            seals: key.seals,
        }
    }
}

#[derive(Serialize)]
struct List {
    sealing_keys: Vec<View>,
}

async fn rotate(state: web::Data<AdminState>) -> Result<HttpResponse, ApiError> {
    let keys = Arc::clone(&state.sealing_keys);
    let made = run_to_the_end(async move { keys.rotate().await }).await??;
    tracing::info!(
        id = made.id,
        seals_from = made.seals_from,
        "a sealing key was made"
    );
    Ok(HttpResponse::Created().json(View::from(made)))
}

async fn list(state: web::Data<AdminState>) -> HttpResponse {
    let sealing_keys = state.sealing_keys.list();
    let sealing_keys = sealing_keys.into_iter().map(View::from).collect();
    HttpResponse::Ok().json(List { sealing_keys })
}

impl From<RotationError> for ApiError {
    fn from(error: RotationError) -> Self {
        match error {
            RotationError::Store(error) => store_fault(error),
            refusal => Self::conflict(refusal.to_string()),
        }
    }
}
