//! 1. A push comes in: `POST /v1/projects/{project_id}/messages:send`, as FCM v1 has it.

use std::time::{Duration, Instant};

use actix_web::http::header::HeaderMap;
use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};

use crate::actors::{AppendError, Outgoing, Sent};
use crate::clock::Millis;
use crate::digest::half_of_sha256;
use crate::http::error::ApiError;
use crate::http::fcm::{self, ParsedMessage, Target};
use crate::http::{Public, auth, body, json_response};
use crate::metrics::Shed;
use crate::projects::Project;
use crate::push::{CollapseKey, IdempotencyKey, MessageId, NewPush};
use crate::store::StoreError;
use crate::token::{ProjectHash, TokenAddress, TokenError};
use crate::topic::{FanOut, Reach};

/// The header that makes a repeated send harmless.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Longest idempotency key, in characters.
const IDEMPOTENCY_KEY_CHARS_MAX: usize = 128;

/// When a sender that met a full queue should come back.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// Handles the route.
///
/// # Errors
/// [`ApiError`], as the contract's table says.
pub async fn send(
    request: HttpRequest,
    path: Path<String>,
    payload: Payload,
    public: Data<Public>,
) -> Result<HttpResponse, ApiError> {
    let started = Instant::now();
    let outcome = accept(&request, &path, payload, &public).await;
    let metrics = public.node.metrics();
    metrics.sends.count(match &outcome {
        Ok(_) => 200,
        Err(error) => actix_web::ResponseError::status_code(error).as_u16(),
    });
    metrics
        .send_seconds
        .observe(started.elapsed().as_secs_f64());
    let message_id = outcome?;
    Ok(json_response(format!(
        "{{\"name\":\"projects/{}/messages/{message_id}\"}}",
        path.as_str()
    )))
}

async fn accept(
    request: &HttpRequest,
    project_id: &str,
    payload: Payload,
    public: &Public,
) -> Result<MessageId, ApiError> {
    let project = auth::sender(request.headers(), &public.projects, project_id)?;
    take_project_quota(&project, public)?;
    let limit = public.http.send_body_bytes;
    let body = body::read_json(request, payload, limit, public.body_patience()).await?;
    let parsed = fcm::parse_send(&body, &public.message_limits)?;
    check_package(&parsed.message, &project)?;
    let key = idempotency_key(request.headers(), project.hash())?;
    let now = public.node.clock().now();
    match parsed.target {
        Target::Token(text) => {
            let address = own_token(&text, project.hash(), public)?;
            take_token_quota(&address, public)?;
            let push = push(address, parsed.message, key, now);
            if parsed.validate_only {
                return check_token(push, public).await;
            }
            hand_over(Outgoing::ToOne(push), public).await
        }
        Target::Many(reach) => {
            let fan_out = fan_out(reach, project.hash(), parsed.message, key, now);
            if parsed.validate_only {
                return Ok(fan_out.message_id);
            }
            hand_over(Outgoing::ToMany(fan_out), public).await
        }
    }
}

async fn hand_over(outgoing: Outgoing, public: &Public) -> Result<MessageId, ApiError> {
    match public.node.send(outgoing).await {
        Ok(Sent::Stored(message_id)) => Ok(message_id),
        Ok(Sent::Unregistered) => Err(ApiError::unregistered()),
        Err(error) => Err(refused(error, public)),
    }
}

/// Whether the push would be taken.
async fn check_token(push: NewPush, public: &Public) -> Result<MessageId, ApiError> {
    match public.node.is_registered(&push.address).await {
        Ok(true) => Ok(push.message_id),
        Ok(false) => Err(ApiError::unregistered()),
        Err(error) => Err(refused(AppendError::Store(error), public)),
    }
}

fn push(
    address: TokenAddress,
    message: ParsedMessage,
    idempotency: Option<IdempotencyKey>,
    now: Millis,
) -> NewPush {
    NewPush {
        address,
        message_id: MessageId::generate(now),
        accepted_at: now,
        expires_at: now + message.ttl_ms,
        collapse_key: message.collapse_key.as_deref().map(collapse_key),
        idempotency,
        is_copy: false,
        message: message.json,
    }
}

fn fan_out(
    reach: Reach,
    project: ProjectHash,
    message: ParsedMessage,
    idempotency: Option<IdempotencyKey>,
    now: Millis,
) -> FanOut {
    FanOut {
        message_id: MessageId::generate(now),
        project,
        reach,
        accepted_at: now,
        expires_at: now + message.ttl_ms,
        collapse_key: message.collapse_key.as_deref().map(collapse_key),
        idempotency,
        message: message.json,
    }
}

/// Opens a push token and checks that it is the project's own.
fn own_token(text: &str, project: ProjectHash, public: &Public) -> Result<TokenAddress, ApiError> {
    let (address, _) = public
        .node
        .keys()
        .open_text(text)
        .map_err(|error| match error {
            TokenError::Malformed => ApiError::malformed_token(),
            TokenError::KeyGone => ApiError::unregistered(),
        })?;
    if address.project == project {
        Ok(address)
    } else {
        Err(ApiError::sender_id_mismatch())
    }
}

fn check_package(message: &ParsedMessage, project: &Project) -> Result<(), ApiError> {
    match &message.restricted_package_name {
        Some(package) if *package != project.package_name => Err(ApiError::invalid_field(
            "message.android.restricted_package_name",
            "The restricted package name is not the package of the token's app.",
        )),
        _ => Ok(()),
    }
}

fn take_project_quota(project: &Project, public: &Public) -> Result<(), ApiError> {
    public
        .quotas
        .project_sends
        .take_many(&project.hash(), public.node.nodes())
        .map_err(|wait| {
            public.node.metrics().sheds.count(Shed::ProjectQuota);
            ApiError::project_quota_exceeded(
                wait,
                &project.project_id,
                u64::from(public.sends_per_minute_per_project),
            )
        })
}

fn take_token_quota(address: &TokenAddress, public: &Public) -> Result<(), ApiError> {
    public.quotas.token_sends.take(&address.id).map_err(|wait| {
        public.node.metrics().sheds.count(Shed::TokenQuota);
        ApiError::resource_exhausted(wait, "device", "Message rate of the device exceeded.")
    })
}

fn collapse_key(key: &str) -> CollapseKey {
    half_of_sha256(&[key.as_bytes()])
}

fn idempotency_key(
    headers: &HeaderMap,
    project: ProjectHash,
) -> Result<Option<IdempotencyKey>, ApiError> {
    let Some(header) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let key = header.as_bytes();
    let is_legal = (1..=IDEMPOTENCY_KEY_CHARS_MAX).contains(&key.len())
        && key.iter().all(u8::is_ascii_graphic);
    if !is_legal {
        return Err(ApiError::invalid_argument(
            "Idempotency-Key must be 1 to 128 visible ASCII characters.",
        ));
    }
    let digest = half_of_sha256(&[&project.0, key]);
    Ok(Some(IdempotencyKey(digest)))
}

/// How a refusal of the node reads to a sender: certain ones may be repeated at once, an unknown
/// outcome is 504.
fn refused(error: AppendError, public: &Public) -> ApiError {
    let sheds = &public.node.metrics().sheds;
    match error {
        AppendError::TokenBusy => {
            sheds.count(Shed::TokenQueueFull);
            ApiError::resource_exhausted(BUSY_RETRY, "device", "Too many sends to one token.")
        }
        AppendError::FanOutsBusy => {
            sheds.count(Shed::FanOutsFull);
            let message = "Too many sends to topics are on their way.";
            ApiError::resource_exhausted(BUSY_RETRY, "project", message)
        }
        AppendError::NodeBusy => {
            sheds.count(Shed::MailboxFull);
            ApiError::unavailable(BUSY_RETRY)
        }
        AppendError::TimedOut => ApiError::deadline_exceeded(),
        AppendError::Store(StoreError::Full) => {
            sheds.count(Shed::StoreQueueFull);
            ApiError::unavailable(BUSY_RETRY)
        }
        AppendError::Store(StoreError::Unavailable(cause)) => {
            sheds.count(Shed::StoreUnavailable);
            ApiError::unavailable(BUSY_RETRY).with_cause(cause)
        }
        AppendError::Store(error @ StoreError::OutcomeUnknown(_)) => {
            ApiError::deadline_exceeded().with_cause(error)
        }
        AppendError::Store(error @ StoreError::Corrupt(_)) => {
            tracing::error!(%error, "a send met a corrupt record");
            ApiError::unavailable(BUSY_RETRY).with_cause(error)
        }
    }
}
