//! What a send may say and what it may not: documents with the exact JSON that comes out, and
//! documents with the exact body that refuses them.

mod accepted;
mod hostile;
mod mismatched;
mod refused;

use serde_json::Value;

use super::*;
use crate::http::error::ApiError;
use crate::token::SealedToken;

/// Has the form of a push token.
fn token() -> String {
    "A".repeat(SealedToken::TEXT_BYTES)
}

/// A body with `TOKEN` in it replaced by a text that has a token's form.
fn parse(body: &str) -> Result<SendRequest, ApiError> {
    let body = body.replace("TOKEN", &token());
    parse_send(body.as_bytes(), &MessageLimits::default())
}

fn accept(body: &str) -> SendRequest {
    parse(body).unwrap_or_else(|error| panic!("{body}: {error}: {}", error.message()))
}

fn refuse(body: &str) -> ApiError {
    match parse(body) {
        Ok(_) => panic!("accepted: {body}"),
        Err(error) => error,
    }
}

/// The `error` object of a refusal.
fn status_of(error: &ApiError) -> Value {
    serde_json::to_value(error.to_status()).expect("a refusal is JSON")
}

/// The JSON that the device gets.
fn device_json(request: &SendRequest) -> &str {
    std::str::from_utf8(&request.message.json).expect("JSON is UTF-8")
}
