//! Devices and their push tokens: minting writes nothing, deleting is for ever.

use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::http::error::ApiError;
use crate::http::{Public, auth, body, json_response, store_error};
use crate::token::{ProjectHash, TokenAddress, TokenError};

/// `POST /v1/devices`: a new device and its secret.
///
/// # Errors
/// 429 when too many were asked for, with a challenge if work would help.
pub async fn register(
    request: HttpRequest,
    payload: Payload,
    public: Data<Public>,
) -> Result<HttpResponse, ApiError> {
    let node = &public.node;
    let proof = public.floods.admit_new_device(&(&request).into(), node)?;
    let limit = public.http.send_body_bytes;
    let body = body::read_json(&request, payload, limit, public.body_patience()).await?;
    if !body.is_empty() {
        let _: std::collections::BTreeMap<String, IgnoredAny> = body::parse_object(&body)?;
    }
    let (device, secret) = match proof {
        Some(proof) => node.keys().mint_proven_device(&proof),
        None => node.keys().mint_device(node.clock().now()),
    };
    let id = device.to_text();
    Ok(json_response(format!(
        "{{\"device_id\":\"{id}\",\"device_secret\":\"{}\"}}",
        *secret
    )))
}

#[derive(Deserialize)]
struct MintToken {
    package_name: String,
    cert_sha256: String,
}

/// `POST /v1/projects/{project_id}/tokens`: a new push token for an app on this device.
///
/// # Errors
/// 401, 403 when the app is not the project's, 404 for an unknown project, 429.
pub async fn mint_token(
    request: HttpRequest,
    path: Path<String>,
    payload: Payload,
    public: Data<Public>,
) -> Result<HttpResponse, ApiError> {
    let origin = (&request).into();
    let device = public.floods.admit_to_mint(&origin, &public.node)?;
    let limit = public.http.send_body_bytes;
    let body = body::read_json(&request, payload, limit, public.body_patience()).await?;
    let asked: MintToken = body::parse_object(&body)?;
    let project = public
        .projects
        .get(&path)
        .ok_or_else(|| ApiError::not_found("The project does not exist."))?;
    if !project.admits(&asked.package_name, &asked.cert_sha256) {
        return Err(ApiError::permission_denied());
    }
    public
        .floods
        .take_token_of(project.hash(), device, &public.node)?;
    let address = TokenAddress::mint(device, project.hash(), public.node.clock().now());
    let token = public.node.keys().seal(address).to_text();
    Ok(json_response(format!("{{\"token\":\"{token}\"}}")))
}

/// `DELETE /v1/projects/{project_id}/tokens/{token}`: the token is UNREGISTERED from now on.
///
/// # Errors
/// 401, 403 for another device's token or another project's, 400 for what is no token.
pub async fn delete_token(
    request: HttpRequest,
    path: Path<(String, String)>,
    public: Data<Public>,
) -> Result<HttpResponse, ApiError> {
    let device = auth::device(request.headers(), public.node.keys())?;
    let (project_id, token) = path.into_inner();
    let address = match public.node.keys().open_text(&token) {
        Ok((address, _)) => address,
        Err(TokenError::Malformed) => return Err(ApiError::malformed_token()),
        // Its key is gone, and so is the token.
        Err(TokenError::KeyGone) => return Ok(HttpResponse::NoContent().finish()),
    };
    if address.device != device || address.project != ProjectHash::of(&project_id) {
        return Err(ApiError::permission_denied());
    }
    public
        .node
        .delete_token(&address)
        .await
        .map_err(store_error)?;
    Ok(HttpResponse::NoContent().finish())
}
