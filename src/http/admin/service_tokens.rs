//! `/admin/v1/projects/{id}/service-tokens`.

use std::sync::Arc;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};

use super::{AdminState, allow_only, body, to_the_end};
use crate::clock::Millis;
use crate::http::error::ApiError;
use crate::projects::ProjectError;

pub(super) fn configure(routes: &mut web::ServiceConfig) {
    routes
        .service(
            web::resource("/projects/{project_id}/service-tokens")
                .route(web::post().to(create))
                .route(web::get().to(list))
                .default_service(allow_only("GET, POST")),
        )
        .service(
            web::resource("/projects/{project_id}/service-tokens/{service_token_id}")
                .route(web::delete().to(delete))
                .default_service(allow_only("DELETE")),
        );
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewServiceTokenRequest {
    name: String,
}

/// A service token at the only moment when it is shown.
#[derive(Serialize)]
struct NewServiceTokenView<'a> {
    id: &'a str,
    name: &'a str,
    created: Millis,
    token: &'a str,
}

/// A service token without its secret.
#[derive(Serialize)]
struct ServiceTokenView<'a> {
    id: &'a str,
    name: &'a str,
    created: Millis,
    last_used: Option<Millis>,
}

#[derive(Serialize)]
struct ServiceTokenList<'a> {
    service_tokens: Vec<ServiceTokenView<'a>>,
}

async fn create(
    state: web::Data<AdminState>,
    project_id: web::Path<String>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let wanted: NewServiceTokenRequest = body::read(&state, &request, payload).await?;
    let (projects, id) = (Arc::clone(&state.projects), project_id.clone());
    let new = to_the_end(async move { projects.create_service_token(&id, &wanted.name).await });
    let new = new.await?;
    let service_token_id = &new.kept.id;
    tracing::info!(%project_id, %service_token_id, "service token created");
    Ok(HttpResponse::Created()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(NewServiceTokenView {
            id: &new.kept.id,
            name: &new.kept.name,
            created: new.kept.created_at,
            token: &new.text,
        }))
}

async fn list(
    state: web::Data<AdminState>,
    project_id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let project = state
        .projects
        .get(&project_id)
        .ok_or_else(|| ProjectError::NotFound(project_id.into_inner()))?;
    let service_tokens = project.service_tokens.iter().map(|kept| ServiceTokenView {
        id: &kept.id,
        name: &kept.name,
        created: kept.created_at,
        last_used: state.projects.last_used(&kept.id),
    });
    Ok(HttpResponse::Ok().json(ServiceTokenList {
        service_tokens: service_tokens.collect(),
    }))
}

async fn delete(
    state: web::Data<AdminState>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let (project_id, service_token_id) = path.into_inner();
    let (projects, project, token) = (
        Arc::clone(&state.projects),
        project_id.clone(),
        service_token_id.clone(),
    );
    to_the_end(async move { projects.delete_service_token(&project, &token).await }).await?;
    tracing::info!(%project_id, %service_token_id, "service token deleted");
    Ok(HttpResponse::NoContent().finish())
}
