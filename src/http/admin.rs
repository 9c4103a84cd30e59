//! The operator's API on the admin listener: projects and service tokens, behind the admin token.

mod body;
mod projects;
mod sealing_keys;
mod service_tokens;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::{Next, from_fn};
use actix_web::{HttpResponse, Route, web};

use super::error::{ApiError, Scheme};
use super::health::Probes;
use super::{auth, health};
use crate::admin_token::AdminTokenHash;
use crate::config::Config;
use crate::projects::{ProjectError, Projects};
use crate::sealing_keys::SealingKeys;
use crate::store::StoreError;

/// When to try again while the store does not take writes.
const STORE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the admin listener's routes stand on.
#[derive(Clone)]
pub struct AdminState {
    /// Every project of the region.
    pub projects: Arc<Projects>,
    /// What seals push tokens.
    pub sealing_keys: Arc<SealingKeys>,
    /// What operators must show.
    pub admin_token: AdminTokenHash,
    /// What needs no credential.
    pub probes: Probes,
    /// `http.admin_body_bytes`.
    pub body_bytes_max: usize,
    /// `http.body_timeout_ms`.
    pub body_timeout: Duration,
}

impl AdminState {
    /// The state with the limits of a configuration.
    #[must_use]
    pub fn new(
        config: &Config,
        projects: Arc<Projects>,
        sealing_keys: Arc<SealingKeys>,
        admin_token: AdminTokenHash,
        probes: Probes,
    ) -> Self {
        Self {
            projects,
            sealing_keys,
            admin_token,
            probes,
            body_bytes_max: config.http.admin_body_bytes,
            body_timeout: Duration::from_millis(config.http.body_timeout_ms),
        }
    }
}

/// What adds all routes of the admin listener, over this state.
pub fn configure(state: &AdminState) -> impl FnOnce(&mut web::ServiceConfig) + use<> {
    let state = state.clone();
    move |routes| {
        routes
            .app_data(web::Data::new(state.probes.clone()))
            .app_data(web::Data::new(state));
        add_routes(routes);
    }
}

fn add_routes(routes: &mut web::ServiceConfig) {
    health::configure(routes);
    let v1 = web::scope("/v1")
        .configure(service_tokens::configure)
        .configure(sealing_keys::configure)
        .configure(projects::configure);
    routes
        .service(
            web::scope("/admin")
                .wrap(from_fn(require_admin_token))
                .service(v1)
                .default_service(web::to(unknown_path)),
        )
        .default_service(web::to(unknown_path));
}

/// The route for methods that a path does not have.
pub(super) fn allow_only(methods: &'static str) -> Route {
    web::to(move || async move { Err::<HttpResponse, _>(ApiError::method_not_allowed(methods)) })
}

async fn unknown_path() -> Result<HttpResponse, ApiError> {
    Err(ApiError::not_found("There is nothing under this path."))
}

/// Lets nobody past without the admin token, not even to learn which paths there are.
async fn require_admin_token<B: MessageBody>(
    state: web::Data<AdminState>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    let bearer = auth::credential(request.headers(), Scheme::Bearer)?;
    if !state.admin_token.admits(bearer) {
        return Err(ApiError::unauthenticated(Scheme::Bearer).into());
    }
    next.call(request).await
}

/// Runs a change to its end even if the client leaves, so that what is shown and what is stored
/// do not part.
async fn to_the_end<T: 'static>(
    change: impl Future<Output = Result<T, ProjectError>> + 'static,
) -> Result<T, ApiError> {
    run_to_the_end(change).await?.map_err(ApiError::from)
}

async fn run_to_the_end<T: 'static>(
    change: impl Future<Output = T> + 'static,
) -> Result<T, ApiError> {
    let done = actix_web::rt::spawn(change).await;
    done.map_err(ApiError::internal)
}

impl From<ProjectError> for ApiError {
    fn from(error: ProjectError) -> Self {
        let message = error.to_string();
        match error {
            ProjectError::Invalid { field, reason } => Self::invalid_field(field, reason),
            ProjectError::AlreadyExists(_) => Self::already_exists(message),
            ProjectError::NotFound(_) | ProjectError::ServiceTokenNotFound(_) => {
                Self::not_found(message)
            }
            ProjectError::TooManyServiceTokens | ProjectError::Contended => Self::conflict(message),
            ProjectError::Store(error) => store_fault(error),
        }
    }
}

fn store_fault(error: StoreError) -> ApiError {
    tracing::warn!(%error, "the store did not take a change of a project");
    match error {
        StoreError::Unavailable(_) | StoreError::Full => ApiError::unavailable(STORE_RETRY_AFTER),
        StoreError::OutcomeUnknown(_) => ApiError::deadline_exceeded(),
        StoreError::Corrupt(_) => return ApiError::internal(error),
    }
    .with_cause(error)
}
