//! The Instance ID calls: topic management of older SDKs. Their errors are flat, a text each.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{DATE, moment_text, take_changes, topic_name};
use crate::http::error::{ApiError, Scheme};
use crate::http::{Public, auth, body, json_response};
use crate::projects::Project;
use crate::store::{StoreError, Subscribed, Unsubscribed};
use crate::token::{ProjectHash, TokenAddress, TokenError};
use crate::topic::TopicName;

/// Tokens of one call: as many as FCM's SDKs send.
const TOKENS_MAX: usize = 1_000;

/// Tokens of one call that are worked on at a time.
const AT_ONCE: usize = 256;

#[derive(Deserialize)]
struct Batch {
    to: String,
    registration_tokens: Vec<String>,
}

/// How one token of a batch ended; nothing is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Outcome {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Refusal>,
}

/// Why a token was not subscribed or unsubscribed, in words that FCM's SDKs know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Refusal {
    /// No token of ours.
    InvalidArgument,
    /// Dead.
    NotFound,
    /// Another project's.
    PermissionDenied,
    /// It has as many topics as it may have.
    TooManyTopics,
    /// Not taken now, and certainly not applied.
    Internal,
    /// The outcome is unknown.
    DeadlineExceeded,
}

impl Refusal {
    fn of(error: &StoreError) -> Self {
        if let StoreError::Corrupt(_) = error {
            tracing::error!(%error, "a topic call met a corrupt record");
        }
        match error.is_certainly_not_applied() {
            true => Self::Internal,
            false => Self::DeadlineExceeded,
        }
    }
}

/// A call that is refused as a whole.
#[derive(Debug, Serialize)]
pub struct FlatError {
    #[serde(skip)]
    http: StatusCode,
    /// What SDKs act on.
    error: &'static str,
    /// For people, where `error` does not say it all.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip)]
    retry_after: Option<Duration>,
}

impl FlatError {
    fn new(http: StatusCode, error: &'static str) -> Self {
        Self {
            http,
            error,
            message: None,
            retry_after: None,
        }
    }

    fn invalid(message: &str) -> Self {
        Self {
            message: Some(message.to_owned()),
            ..Self::new(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT")
        }
    }

    fn later(http: StatusCode, error: &'static str, wait: Duration) -> Self {
        Self {
            retry_after: Some(wait),
            ..Self::new(http, error)
        }
    }
}

impl From<Refusal> for FlatError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::InvalidArgument => Self::new(StatusCode::BAD_REQUEST, "InvalidToken"),
            Refusal::NotFound => Self::new(
                StatusCode::NOT_FOUND,
                "No information found about this instance id.",
            ),
            Refusal::PermissionDenied => Self::new(StatusCode::FORBIDDEN, "PERMISSION_DENIED"),
            Refusal::TooManyTopics => Self::new(StatusCode::BAD_REQUEST, "TOO_MANY_TOPICS"),
            Refusal::Internal => unavailable(),
            Refusal::DeadlineExceeded => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED")
            }
        }
    }
}

impl From<ApiError> for FlatError {
    fn from(error: ApiError) -> Self {
        Self {
            message: Some(error.message().to_owned()),
            ..Self::new(error.status_code(), error.status().as_str())
        }
    }
}

impl fmt::Display for FlatError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.message.as_deref().unwrap_or_default();
        write!(formatter, "{} {} {message}", self.http, self.error)
    }
}

impl ResponseError for FlatError {
    fn status_code(&self) -> StatusCode {
        self.http
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.http);
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.insert_header((RETRY_AFTER, seconds.max(1).to_string()));
        }
        response.json(self)
    }
}

fn unavailable() -> FlatError {
    let wait = Duration::from_secs(1);
    FlatError::later(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", wait)
}

/// The sender's project: nothing in the path names it.
fn caller(request: &HttpRequest, public: &Public) -> Result<Arc<Project>, FlatError> {
    let token = auth::credential(request.headers(), Scheme::Bearer)?;
    let project = public.projects.authenticate(token);
    Ok(project.ok_or_else(|| ApiError::unauthenticated(Scheme::Bearer))?)
}

fn take(project: &Project, changes: usize, public: &Public) -> Result<(), FlatError> {
    take_changes(project, changes, public)
        .map_err(|wait| FlatError::later(StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED", wait))
}

fn topic_of(name: &str) -> Result<TopicName, FlatError> {
    topic_name(name).ok_or_else(|| FlatError::invalid("Topic name contains invalid characters."))
}

/// Which way a subscription changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Add,
    Remove,
}

impl Change {
    async fn apply(
        self,
        token: &str,
        topic: &TopicName,
        project: ProjectHash,
        public: &Public,
    ) -> Result<(), Refusal> {
        let address = own_token(token, project, public)?;
        let refusal = match self {
            Self::Add => match public.node.subscribe(&address, topic).await {
                Ok((Subscribed::Added | Subscribed::Already(_), _)) => return Ok(()),
                Ok((Subscribed::TooMany, _)) => Refusal::TooManyTopics,
                Ok((Subscribed::Unregistered, _)) => Refusal::NotFound,
                Err(error) => Refusal::of(&error),
            },
            Self::Remove => match public.node.unsubscribe(&address, topic).await {
                Ok(Unsubscribed::Removed | Unsubscribed::NotThere) => return Ok(()),
                Ok(Unsubscribed::Unregistered) => Refusal::NotFound,
                Err(error) => Refusal::of(&error),
            },
        };
        Err(refusal)
    }
}

fn own_token(token: &str, project: ProjectHash, public: &Public) -> Result<TokenAddress, Refusal> {
    match public.node.keys().open_text(token) {
        Ok((address, _)) if address.project == project => Ok(address),
        Ok(_) => Err(Refusal::PermissionDenied),
        Err(TokenError::Malformed) => Err(Refusal::InvalidArgument),
        Err(TokenError::KeyGone) => Err(Refusal::NotFound),
    }
}

/// `POST /iid/v1:batchAdd`.
///
/// # Errors
/// The call as a whole; what is wrong with one token is in its result.
pub async fn batch_add(
    request: HttpRequest,
    payload: Payload,
    public: Data<Public>,
) -> Result<HttpResponse, FlatError> {
    batch(Change::Add, &request, payload, &public).await
}

/// `POST /iid/v1:batchRemove`.
///
/// # Errors
/// As [`batch_add`].
pub async fn batch_remove(
    request: HttpRequest,
    payload: Payload,
    public: Data<Public>,
) -> Result<HttpResponse, FlatError> {
    batch(Change::Remove, &request, payload, &public).await
}

async fn batch(
    change: Change,
    request: &HttpRequest,
    payload: Payload,
    public: &Public,
) -> Result<HttpResponse, FlatError> {
    let project = caller(request, public)?;
    let limit = public.http.poll_body_bytes;
    let body = body::read_json(request, payload, limit, public.body_patience()).await?;
    let batch: Batch = body::parse_object(&body)?;
    let topic = topic_of(&batch.to)?;
    let count = batch.registration_tokens.len();
    if !(1..=TOKENS_MAX).contains(&count) {
        return Err(FlatError::invalid("1 to 1000 registration tokens a call."));
    }
    take(&project, count, public)?;
    let changes = batch
        .registration_tokens
        .iter()
        .map(|token| change.apply(token, &topic, project.hash(), public));
    let outcomes: Vec<Outcome> = futures_util::stream::iter(changes)
        .buffered(AT_ONCE)
        .map(|changed| Outcome {
            error: changed.err(),
        })
        .collect()
        .await;
    let is_away = |outcome: &Outcome| outcome.error == Some(Refusal::Internal);
    if outcomes.iter().all(is_away) {
        return Err(unavailable());
    }
    Ok(json_response(json!({"results": outcomes}).to_string()))
}

/// `POST /iid/v1/{token}/rel/topics/{topic}`.
///
/// # Errors
/// Why the token was not subscribed.
pub async fn add(
    request: HttpRequest,
    path: Path<(String, String)>,
    public: Data<Public>,
) -> Result<HttpResponse, FlatError> {
    single(Change::Add, &request, path, &public).await
}

/// `DELETE /iid/v1/{token}/rel/topics/{topic}`.
///
/// # Errors
/// Why the token was not unsubscribed.
pub async fn remove(
    request: HttpRequest,
    path: Path<(String, String)>,
    public: Data<Public>,
) -> Result<HttpResponse, FlatError> {
    single(Change::Remove, &request, path, &public).await
}

async fn single(
    change: Change,
    request: &HttpRequest,
    path: Path<(String, String)>,
    public: &Public,
) -> Result<HttpResponse, FlatError> {
    let (token, topic) = path.into_inner();
    let project = caller(request, public)?;
    let topic = topic_of(&topic)?;
    take(&project, 1, public)?;
    change.apply(&token, &topic, project.hash(), public).await?;
    Ok(json_response("{}".to_owned()))
}

/// `GET /iid/info/{token}`: what is known of a token; with `details=true` its topics, too.
///
/// # Errors
/// Why nothing is told.
pub async fn info(
    request: HttpRequest,
    token: Path<String>,
    public: Data<Public>,
) -> Result<HttpResponse, FlatError> {
    let project = caller(&request, &public)?;
    let address = own_token(&token, project.hash(), &public)?;
    let found = public.node.subscriptions(&address, "", usize::MAX).await;
    let found = found.map_err(|error| Refusal::of(&error))?;
    let topics = found.ok_or(Refusal::NotFound)?;
    let mut info = json!({
        "application": project.package_name,
        "authorizedEntity": project.project_id,
        "platform": "ANDROID",
    });
    if has_details(request.query_string()) {
        let topics: Map<String, Value> = topics
            .iter()
            .map(|it| {
                let added = json!({"addDate": moment_text(it.since, DATE)});
                (it.topic.to_string(), added)
            })
            .collect();
        info["rel"] = json!({"topics": topics});
    }
    Ok(json_response(info.to_string()))
}

fn has_details(query: &str) -> bool {
    query.split('&').any(|field| field == "details=true")
}
