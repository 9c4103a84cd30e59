//! `/admin/v1/projects`.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;

use super::{AdminState, allow_only, body, to_the_end};
use crate::clock::Millis;
use crate::http::error::ApiError;
use crate::projects::{NewProject, Project, ProjectChange, ProjectError};

pub(super) fn configure(routes: &mut web::ServiceConfig) {
    routes
        .service(
            web::resource("/projects")
                .route(web::post().to(create))
                .route(web::get().to(list))
                .default_service(allow_only("GET, POST")),
        )
        .service(
            web::resource("/projects/{project_id}")
                .route(web::get().to(show))
                .route(web::patch().to(change))
                .route(web::delete().to(delete))
                .default_service(allow_only("GET, PATCH, DELETE")),
        );
}

/// A project as operators see it.
#[derive(Serialize)]
struct ProjectView<'a> {
    project_id: &'a str,
    name: &'a str,
    package_name: &'a str,
    cert_sha256: &'a [String],
    created: Millis,
}

impl<'a> From<&'a Project> for ProjectView<'a> {
    fn from(project: &'a Project) -> Self {
        Self {
            project_id: &project.project_id,
            name: &project.name,
            package_name: &project.package_name,
            cert_sha256: &project.cert_sha256,
            created: project.created_at,
        }
    }
}

#[derive(Serialize)]
struct ProjectList<'a> {
    projects: Vec<ProjectView<'a>>,
}

async fn create(
    state: web::Data<AdminState>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let new: NewProject = body::read(&state, &request, payload).await?;
    let projects = Arc::clone(&state.projects);
    let project = to_the_end(async move { projects.create(new).await }).await?;
    tracing::info!(project_id = %project.project_id, "project created");
    Ok(HttpResponse::Created().json(ProjectView::from(&*project)))
}

async fn list(state: web::Data<AdminState>) -> HttpResponse {
    let projects = state.projects.list();
    let projects = projects.iter().map(|it| ProjectView::from(&**it));
    HttpResponse::Ok().json(ProjectList {
        projects: projects.collect(),
    })
}

async fn show(
    state: web::Data<AdminState>,
    project_id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let project = state
        .projects
        .get(&project_id)
        .ok_or_else(|| ProjectError::NotFound(project_id.into_inner()))?;
    Ok(HttpResponse::Ok().json(ProjectView::from(&*project)))
}

async fn change(
    state: web::Data<AdminState>,
    project_id: web::Path<String>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let change: ProjectChange = body::read(&state, &request, payload).await?;
    let projects = Arc::clone(&state.projects);
    let project = to_the_end(async move { projects.change(&project_id, change).await }).await?;
    tracing::info!(project_id = %project.project_id, "project changed");
    Ok(HttpResponse::Ok().json(ProjectView::from(&*project)))
}

async fn delete(
    state: web::Data<AdminState>,
    project_id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let (projects, id) = (Arc::clone(&state.projects), project_id.clone());
    to_the_end(async move { projects.delete(&id).await }).await?;
    tracing::info!(project_id = %project_id, "project deleted");
    Ok(HttpResponse::NoContent().finish())
}
