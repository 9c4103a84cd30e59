//! Reads a request's body within its limit and its deadline, which actix does not do by itself.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use actix_web::web::Payload;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use herald_protocol::Object;
use serde::Deserialize;

use crate::http::error::ApiError;

/// The whole body, JSON as far as its media type says.
///
/// # Errors
/// 413 at the declared length or at the byte that passes the limit, 408 past the deadline, 415 for
/// another media type, 400 when the client breaks off.
pub async fn read_json(
    request: &HttpRequest,
    payload: Payload,
    limit_bytes: usize,
    patience: Duration,
) -> Result<Bytes, ApiError> {
    check_media_type(request)?;
    if declared_length(request).is_some_and(|length| length > limit_bytes as u64) {
        return Err(ApiError::payload_too_large(limit_bytes));
    }
    tokio::time::timeout(patience, collect(payload, limit_bytes))
        .await
        .unwrap_or_else(|_| Err(ApiError::request_timeout()))
}

/// Reads a body that must be a JSON object.
///
/// # Errors
/// 400 for everything else.
pub fn parse_object<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, ApiError> {
    match serde_json::from_slice(body) {
        Ok(Object(parsed)) => Ok(parsed),
        Err(error) => Err(ApiError::malformed_json(error)),
    }
}

/// A body without a media type is taken for JSON: many plain clients leave it out.
fn check_media_type(request: &HttpRequest) -> Result<(), ApiError> {
    let Some(header) = request.headers().get(CONTENT_TYPE) else {
        return Ok(());
    };
    let essence = header.to_str().ok().and_then(|text| text.split(';').next());
    match essence.map(str::trim) {
        Some(essence) if essence.eq_ignore_ascii_case("application/json") => Ok(()),
        _ => Err(ApiError::unsupported_media_type()),
    }
}

fn declared_length(request: &HttpRequest) -> Option<u64> {
    request
        .headers()
        .get(CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

async fn collect(mut payload: Payload, limit_bytes: usize) -> Result<Bytes, ApiError> {
    let mut whole = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| {
            ApiError::invalid_argument("The request body could not be read.")
                .with_cause(error.to_string())
        })?;
        if whole.len() + chunk.len() > limit_bytes {
            return Err(ApiError::payload_too_large(limit_bytes));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}
