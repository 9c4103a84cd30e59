//! The faults of the contract, by name.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, WWW_AUTHENTICATE};

use super::{ApiError, Detail, FcmErrorCode, FieldViolation, QuotaViolation, Scheme, Status};

/// 400: the request is wrong.
impl ApiError {
    /// A fault that no single field is to blame for.
    pub fn invalid_argument(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Status::InvalidArgument, message)
            .with_detail(Detail::fcm_error(FcmErrorCode::InvalidArgument))
    }

    /// A fault of one field, named by its path.
    pub fn invalid_field(
        field: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        let message = message.into();
        let violation = FieldViolation::new(field, message.clone());
        Self::invalid_argument(message).with_detail(Detail::bad_request(vec![violation]))
    }

    /// The body does not fit the schema: all that is wrong with it, in one answer.
    #[must_use]
    pub fn schema_mismatch(violations: Vec<FieldViolation>) -> Self {
        let messages: Vec<&str> = violations.iter().map(FieldViolation::description).collect();
        Self::new(Status::InvalidArgument, messages.join("\n"))
            .with_detail(Detail::bad_request(violations))
    }

    /// The body is no JSON.
    pub fn malformed_json(reason: impl fmt::Display) -> Self {
        let message = format!("Invalid JSON payload received. {reason}");
        Self::schema_mismatch(vec![FieldViolation::of_request(message)])
    }

    /// A condition that does not parse. Production answers without details, so this does too.
    pub fn invalid_condition(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(
            Status::InvalidArgument,
            "Request contains an invalid argument.",
        )
        .with_cause(cause)
    }

    /// The target is no push token of ours.
    #[must_use]
    pub fn malformed_token() -> Self {
        Self::invalid_field(
            "message.token",
            "The registration token is not a valid FCM registration token",
        )
    }

    /// The same, where the token stands in the path.
    #[must_use]
    pub fn malformed_registration() -> Self {
        Self::invalid_field(
            "registration",
            "The registration token is not a valid FCM registration token",
        )
    }

    /// The token has as many topics as it may have. Not 429, which would be tried again.
    #[must_use]
    pub fn too_many_topics() -> Self {
        Self::new(
            Status::FailedPrecondition,
            "The registration is subscribed to as many topics as it may be.",
        )
    }

    /// The payload is above its limit. Its `BadRequest` names no field, as in production.
    #[must_use]
    pub fn message_too_large(limit_bytes: usize) -> Self {
        let limit = match limit_bytes {
            whole if whole % 1024 == 0 => format!("{}K ({whole} bytes)", whole / 1024),
            odd => format!("{odd} bytes"),
        };
        Self::invalid_argument(format!("Message is too large. The maximum is {limit}."))
            .with_detail(Detail::bad_request(Vec::new()))
    }

    /// 413: the body is above its limit.
    #[must_use]
    pub fn payload_too_large(limit_bytes: usize) -> Self {
        Self::invalid_argument(format!(
            "The request body is larger than {limit_bytes} bytes."
        ))
        .with_http(StatusCode::PAYLOAD_TOO_LARGE)
    }

    /// 415: the body is not JSON by its own account.
    #[must_use]
    pub fn unsupported_media_type() -> Self {
        Self::new(
            Status::InvalidArgument,
            "The content type must be application/json.",
        )
        .with_http(StatusCode::UNSUPPORTED_MEDIA_TYPE)
    }

    /// 405: the path is there, but not for this method.
    #[must_use]
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self::new(
            Status::InvalidArgument,
            "The method is not allowed on this path.",
        )
        .with_http(StatusCode::METHOD_NOT_ALLOWED)
        .with_header(ALLOW, allow)
    }

    /// 408: the request did not arrive in time. Nothing was accepted.
    #[must_use]
    pub fn request_timeout() -> Self {
        Self::new(
            Status::DeadlineExceeded,
            "The request was not complete in time.",
        )
        .with_http(StatusCode::REQUEST_TIMEOUT)
    }
}

/// 401 and 403: who may do what.
impl ApiError {
    /// A credential was shown, and it is wrong.
    #[must_use]
    pub fn unauthenticated(scheme: Scheme) -> Self {
        let message = match scheme {
            Scheme::Bearer => {
                "Request had invalid authentication credentials. Expected OAuth 2 access token, \
                 login cookie or other valid authentication credential. \
                 See https://developers.google.com/identity/sign-in/web/devconsole-project."
            }
            Scheme::Device => "The device credential is wrong.",
        };
        Self::challenge(scheme, message, "ACCESS_TOKEN_EXPIRED")
    }

    /// No credential was shown.
    #[must_use]
    pub fn credentials_missing(scheme: Scheme) -> Self {
        let message = match scheme {
            Scheme::Bearer => {
                "Request is missing required authentication credential. Expected OAuth 2 access \
                 token, login cookie or other valid authentication credential. \
                 See https://developers.google.com/identity/sign-in/web/devconsole-project."
            }
            Scheme::Device => "The device credential is missing.",
        };
        Self::challenge(scheme, message, "CREDENTIALS_MISSING")
    }

    /// The reasons are those of FCM, so only its own scheme gets them.
    fn challenge(scheme: Scheme, message: &'static str, reason: &'static str) -> Self {
        let refusal = Self::new(Status::Unauthenticated, message)
            .with_header(WWW_AUTHENTICATE, scheme.as_str());
        match scheme {
            Scheme::Bearer => refusal.with_detail(Detail::credential_refused(reason)),
            Scheme::Device => refusal,
        }
    }

    /// The caller is known and may not do this. Carries no `FcmError`.
    #[must_use]
    pub fn permission_denied() -> Self {
        Self::new(
            Status::PermissionDenied,
            "The caller does not have permission",
        )
    }

    /// The token belongs to another project than the one that sends.
    #[must_use]
    pub fn sender_id_mismatch() -> Self {
        Self::new(Status::PermissionDenied, "SenderId mismatch")
            .with_detail(Detail::fcm_error(FcmErrorCode::SenderIdMismatch))
    }
}

/// 404 and 409: what is there and what is not.
impl ApiError {
    /// The token is dead: stop sending to it.
    #[must_use]
    pub fn unregistered() -> Self {
        Self::new(Status::NotFound, "Requested entity was not found.")
            .with_detail(Detail::fcm_error(FcmErrorCode::Unregistered))
    }

    /// There is no such path, project or service token.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Status::NotFound, message)
    }

    /// What was to be made is there, or was once.
    pub fn already_exists(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Status::AlreadyExists, message)
    }

    /// Somebody else changed it first, or there are as many as there may be.
    pub fn conflict(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Status::Aborted, message)
    }
}

/// 429 and 5xx: come back later.
impl ApiError {
    /// 429: a quota or a queue is full. `subject` is what it belongs to.
    pub fn resource_exhausted(
        retry_after: Duration,
        subject: impl Into<String>,
        description: impl Into<Cow<'static, str>>,
    ) -> Self {
        let description = description.into();
        let violation = QuotaViolation::new(subject, description.clone());
        Self::new(Status::ResourceExhausted, description)
            .with_retry_after(retry_after)
            .with_detail(Detail::fcm_error(FcmErrorCode::QuotaExceeded))
            .with_detail(Detail::quota_failure(violation))
    }

    /// 429: the project has used up its sends for this minute.
    #[must_use]
    pub fn project_quota_exceeded(
        retry_after: Duration,
        project_id: &str,
        sends_per_minute: u64,
    ) -> Self {
        let message = format!(
            "Quota exceeded for quota metric 'Send requests' and limit 'Send requests per minute' \
             of service 'fcm.googleapis.com' for consumer 'project_number:{project_id}'."
        );
        Self::resource_exhausted(retry_after, format!("projects/{project_id}"), message)
            .with_detail(Detail::rate_limit_exceeded(project_id, sends_per_minute))
    }

    /// 429: the project changes more subscriptions a second than it may.
    #[must_use]
    pub fn topic_quota_exceeded(retry_after: Duration, project_id: &str) -> Self {
        let message = "Topic subscription rate of the project exceeded.";
        Self::resource_exhausted(retry_after, format!("projects/{project_id}"), message)
    }

    /// 429 before any quota is touched: too many new devices or tokens at once.
    #[must_use]
    pub fn minting_limited(retry_after: Duration) -> Self {
        Self::new(
            Status::ResourceExhausted,
            "Too many registrations at the moment.",
        )
        .with_retry_after(retry_after)
    }

    /// 429 for a device, or for somebody who may be one: too many sockets or polls at once.
    #[must_use]
    pub fn calls_limited(retry_after: Duration) -> Self {
        Self::new(Status::ResourceExhausted, "Too many calls at the moment.")
            .with_retry_after(retry_after)
    }

    /// 503: certainly not applied.
    #[must_use]
    pub fn unavailable(retry_after: Duration) -> Self {
        Self::new(Status::Unavailable, "The service is currently unavailable.")
            .with_retry_after(retry_after)
            .with_detail(Detail::fcm_error(FcmErrorCode::Unavailable))
    }

    /// 504: the outcome is unknown.
    #[must_use]
    pub fn deadline_exceeded() -> Self {
        Self::new(
            Status::DeadlineExceeded,
            "Deadline expired before operation could complete.",
        )
    }

    /// 500: a fault of the server itself, never of any input.
    pub fn internal(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Status::Internal, "Internal error encountered.")
            .with_detail(Detail::fcm_error(FcmErrorCode::Internal))
            .with_cause(cause)
    }
}
