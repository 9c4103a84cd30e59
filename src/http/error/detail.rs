//! The details of an error body: typed extras that client libraries and people read.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;

/// The service that FCM's client libraries expect to hear from.
const SERVICE: &str = "fcm.googleapis.com";

/// Domain of every `ErrorInfo`.
const DOMAIN: &str = "googleapis.com";

/// One entry of an error body's `details`.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "@type")]
#[non_exhaustive]
pub enum Detail {
    /// What FCM's client libraries map to their own errors.
    #[serde(rename = "type.googleapis.com/google.firebase.fcm.v1.FcmError")]
    FcmError {
        /// FCM's own code.
        #[serde(rename = "errorCode")]
        error_code: FcmErrorCode,
    },
    /// Which fields are wrong.
    #[serde(rename = "type.googleapis.com/google.rpc.BadRequest")]
    BadRequest {
        /// Absent when no field is to blame.
        #[serde(rename = "fieldViolations", skip_serializing_if = "Vec::is_empty")]
        field_violations: Vec<FieldViolation>,
    },
    /// Why, for programs.
    #[serde(rename = "type.googleapis.com/google.rpc.ErrorInfo")]
    ErrorInfo {
        /// A constant in upper case.
        reason: &'static str,
        /// Whose constant it is.
        domain: &'static str,
        /// What it is about.
        metadata: BTreeMap<&'static str, Cow<'static, str>>,
    },
    /// Which quota is used up.
    #[serde(rename = "type.googleapis.com/google.rpc.QuotaFailure")]
    QuotaFailure {
        /// At least one.
        violations: Vec<QuotaViolation>,
    },
    /// Work to do before asking again for a device or a token.
    #[serde(rename = "type.googleapis.com/herald.v1.ProofOfWork")]
    ProofOfWork {
        /// What the proof begins with.
        challenge: String,
        /// Zero bits that the proof's hash must begin with.
        bits: u32,
    },
}

/// FCM's own error codes, as far as Herald gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FcmErrorCode {
    /// The request is wrong.
    InvalidArgument,
    /// The token is dead.
    Unregistered,
    /// The token is another project's.
    SenderIdMismatch,
    /// A quota is used up.
    QuotaExceeded,
    /// Overload.
    Unavailable,
    /// A fault of the server.
    Internal,
}

/// What is wrong with one field, or with the request as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldViolation {
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<Cow<'static, str>>,
    description: Cow<'static, str>,
}

impl FieldViolation {
    /// Blames a field, named by its path from the top.
    pub fn new(
        field: impl Into<Cow<'static, str>>,
        description: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            field: Some(field.into()),
            description: description.into(),
        }
    }

    /// Blames no field: the fault is at the top.
    pub fn of_request(description: impl Into<Cow<'static, str>>) -> Self {
        Self {
            field: None,
            description: description.into(),
        }
    }

    /// What is wrong.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }
}

/// One used-up quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuotaViolation {
    subject: String,
    description: Cow<'static, str>,
}

impl QuotaViolation {
    /// `subject` is what the quota belongs to, such as `projects/demo`.
    pub fn new(subject: impl Into<String>, description: impl Into<Cow<'static, str>>) -> Self {
        Self {
            subject: subject.into(),
            description: description.into(),
        }
    }
}

impl Detail {
    pub(super) fn fcm_error(error_code: FcmErrorCode) -> Self {
        Self::FcmError { error_code }
    }

    pub(super) fn bad_request(field_violations: Vec<FieldViolation>) -> Self {
        Self::BadRequest { field_violations }
    }

    pub(super) fn quota_failure(violation: QuotaViolation) -> Self {
        Self::QuotaFailure {
            violations: vec![violation],
        }
    }

    pub(super) fn credential_refused(reason: &'static str) -> Self {
        Self::ErrorInfo {
            reason,
            domain: DOMAIN,
            metadata: BTreeMap::from([
                (
                    "method",
                    "google.firebase.fcm.v1.FcmService.SendMessage".into(),
                ),
                ("service", SERVICE.into()),
            ]),
        }
    }

    pub(super) fn rate_limit_exceeded(project_id: &str, sends_per_minute: u64) -> Self {
        Self::ErrorInfo {
            reason: "RATE_LIMIT_EXCEEDED",
            domain: DOMAIN,
            metadata: BTreeMap::from([
                ("consumer", format!("projects/{project_id}").into()),
                ("quota_limit", "SendsPerMinutePerProject".into()),
                ("quota_limit_value", sends_per_minute.to_string().into()),
                ("quota_location", "global".into()),
                ("quota_metric", "fcm.googleapis.com/send_requests".into()),
                ("quota_unit", "1/min/{project}".into()),
                ("service", SERVICE.into()),
            ]),
        }
    }
}
