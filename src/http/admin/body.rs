//! What an operator's JSON body must be, once it is read.

use actix_web::{HttpRequest, web};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::AdminState;
use crate::http::body;
use crate::http::error::ApiError;

/// Reads and parses a body.
///
/// # Errors
/// Those of [`body::read_json`], and 400 for what is not the JSON wanted.
pub(super) async fn read<T: DeserializeOwned>(
    state: &AdminState,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<T, ApiError> {
    let body = body::read_json(request, payload, state.body_bytes_max, state.body_timeout).await?;
    // Serde would fill a struct from a list, field by field.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(ApiError::malformed_json("The body must be a JSON object."));
    }
    serde_json::from_slice(&body).map_err(|error| match error.classify() {
        Category::Data => ApiError::invalid_argument(error.to_string()),
        Category::Io | Category::Syntax | Category::Eof => ApiError::malformed_json(error),
    })
}
