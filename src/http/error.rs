//! The one place where errors meet HTTP: every fault of the contract, as the body and headers that
//! a client sees (the public half) and the cause that only logs see (the private half).
//!
//! Bodies have the shape of `google.rpc.Status`. The FCM client libraries look at the first
//! `FcmError` among the details, then at `status`, then at the HTTP code; so the `FcmError` comes
//! first and `status` is always a canonical code.

mod detail;
mod faults;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, RETRY_AFTER, SEC_WEBSOCKET_VERSION};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;

pub use detail::{Detail, FcmErrorCode, FieldViolation, QuotaViolation};

/// Content type of every error body.
const JSON_UTF8: &str = "application/json; charset=UTF-8";

/// The canonical google.rpc codes that Herald answers with. A client library in Java throws on any
/// other text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// The request is wrong, whatever the state of the server.
    InvalidArgument,
    /// No credential, or a wrong one.
    Unauthenticated,
    /// The caller is known and may not do this.
    PermissionDenied,
    /// What was asked for is not there.
    NotFound,
    /// What was to be made is there.
    AlreadyExists,
    /// Something else must change first.
    FailedPrecondition,
    /// Somebody else was faster, or a limit on the number of things is reached.
    Aborted,
    /// A quota or a queue is full.
    ResourceExhausted,
    /// A fault of the server that repeating will not mend.
    Internal,
    /// The server cannot take this now and has certainly not applied it.
    Unavailable,
    /// Time ran out.
    DeadlineExceeded,
}

impl Status {
    /// The text on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
        }
    }

    /// The HTTP code that goes with it, unless the fault has one of its own.
    const fn http(self) -> StatusCode {
        match self {
            Self::InvalidArgument | Self::FailedPrecondition => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists | Self::Aborted => StatusCode::CONFLICT,
            Self::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

/// A refused call: what the client is told, and why it really happened.
///
/// `Display` and `Debug` are for logs: they leave out a message that was made up for this very
/// request, because it may quote the sender's payload.
pub struct ApiError(Box<Fault>);

struct Fault {
    http: StatusCode,
    status: Status,
    message: Cow<'static, str>,
    details: Vec<Detail>,
    header: Option<(HeaderName, Cow<'static, str>)>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

/// How a client is to prove itself, by the route that it called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Senders and operators: `Authorization: Bearer`.
    Bearer,
    /// Devices: `Authorization: Device`.
    Device,
}

impl Scheme {
    /// The scheme's name in the header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bearer => "Bearer",
            Self::Device => "Device",
        }
    }
}

impl ApiError {
    fn new(status: Status, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Fault {
            http: status.http(),
            status,
            message: message.into(),
            details: Vec::new(),
            header: None,
            cause: None,
        }))
    }

    fn with_http(mut self, http: StatusCode) -> Self {
        self.0.http = http;
        self
    }

    fn with_header(mut self, name: HeaderName, value: impl Into<Cow<'static, str>>) -> Self {
        self.0.header = Some((name, value.into()));
        self
    }

    /// 426: the path is for WebSockets of version 13 only.
    #[must_use]
    pub fn upgrade_required() -> Self {
        Self::new(
            Status::InvalidArgument,
            "This path wants a WebSocket upgrade of version 13.",
        )
        .with_http(StatusCode::UPGRADE_REQUIRED)
        .with_header(SEC_WEBSOCKET_VERSION, "13")
    }

    /// Whole seconds, rounded up: a client that comes back earlier is refused again.
    fn with_retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.with_header(RETRY_AFTER, seconds.max(1).to_string())
    }

    /// Adds one detail behind those that are there.
    #[must_use]
    pub fn with_detail(mut self, detail: Detail) -> Self {
        self.0.details.push(detail);
        self
    }

    /// Adds the private half.
    #[must_use]
    pub fn with_cause(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// The `error` object alone, for bodies that carry one error per entry.
    pub fn to_status(&self) -> impl Serialize + '_ {
        StatusView {
            code: self.0.http.as_u16(),
            message: &self.0.message,
            status: self.0.status,
            details: &self.0.details,
        }
    }

    /// The canonical code.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.status
    }

    /// The public message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The private half.
    #[must_use]
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync)> {
        self.0.cause.as_deref()
    }
}

#[derive(Serialize)]
struct StatusView<'a> {
    code: u16,
    message: &'a str,
    status: Status,
    #[serde(skip_serializing_if = "<[Detail]>::is_empty")]
    details: &'a [Detail],
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.0.http
    }

    fn error_response(&self) -> HttpResponse {
        #[derive(Serialize)]
        struct Body<T> {
            error: T,
        }
        let mut response = HttpResponse::build(self.0.http);
        response.content_type(JSON_UTF8);
        if let Some((name, value)) = &self.0.header {
            response.insert_header((name.clone(), value.as_ref()));
        }
        response.json(Body {
            error: self.to_status(),
        })
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = &self.0;
        write!(
            formatter,
            "{} {}",
            fault.http.as_u16(),
            fault.status.as_str()
        )?;
        if let Cow::Borrowed(constant) = fault.message {
            write!(formatter, ": {constant}")?;
        }
        match &fault.cause {
            Some(cause) => write!(formatter, " ({cause})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for ApiError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ApiError({self})")
    }
}

impl Error for ApiError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0.cause {
            Some(cause) => Some(cause.as_ref()),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests;
