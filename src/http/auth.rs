//! Who is calling: a sender with a service token, or a device with its secret.

use std::sync::Arc;

use actix_web::http::header::{AUTHORIZATION, HeaderMap};

use crate::http::error::{ApiError, Scheme};
use crate::projects::{Project, Projects};
use crate::token::{DeviceId, Keyring};

/// The sender, if its service token is of the project in the path.
///
/// # Errors
/// 401 without a live service token, 403 for another project's path or an unknown one.
pub fn sender(
    headers: &HeaderMap,
    projects: &Projects,
    project_id: &str,
) -> Result<Arc<Project>, ApiError> {
    let token = credential(headers, Scheme::Bearer)?;
    let project = projects
        .authenticate(token)
        .ok_or_else(|| ApiError::unauthenticated(Scheme::Bearer))?;
    if project.project_id == project_id {
        Ok(project)
    } else {
        Err(ApiError::permission_denied())
    }
}

/// The device.
///
/// # Errors
/// 401 without its credential.
pub fn device(headers: &HeaderMap, keys: &Keyring) -> Result<DeviceId, ApiError> {
    let refused = || ApiError::unauthenticated(Scheme::Device);
    let (id, secret) = credential(headers, Scheme::Device)?
        .split_once('.')
        .ok_or_else(refused)?;
    keys.check_device(id, secret).ok_or_else(refused)
}

/// What stands behind the scheme's name in the `Authorization` header.
///
/// # Errors
/// 401 without the header, and for another scheme.
pub fn credential(headers: &HeaderMap, scheme: Scheme) -> Result<&str, ApiError> {
    let header = headers
        .get(AUTHORIZATION)
        .ok_or_else(|| ApiError::credentials_missing(scheme))?;
    header
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(name, _)| name.eq_ignore_ascii_case(scheme.as_str()))
        .map(|(_, credential)| credential.trim())
        .ok_or_else(|| ApiError::unauthenticated(scheme))
}
