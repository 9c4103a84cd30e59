//! `GET /v1/connect`: the upgrade that leaves HTTP for good. The stream goes to a Session actor.

use actix_codec::Framed;
use actix_http::h1::{Codec, SendResponse};
use actix_http::header::{AUTHORIZATION, SEC_WEBSOCKET_KEY};
use actix_http::{ConnectionType, HttpMessage as _, Method, Request, Response, Version, ws};
use actix_web::body::to_bytes;
use actix_web::{HttpResponse, ResponseError as _};
use bytes::Bytes;
use herald_protocol::CONNECT_PATH;

use crate::actors::stream::Connection;
use crate::actors::worker::Entrance;
use crate::actors::{Node, OVERLOAD_RETRY};
use crate::http::auth;
use crate::http::error::ApiError;
use crate::metrics::{Handshake, Shed};
use crate::token::DeviceId;

/// Bytes of the nonce in `Sec-WebSocket-Key`, in base64: RFC 6455 demands 16 bytes.
const KEY_CHARS: usize = 24;

/// Takes an upgrade request: a session, or an answer that says why not.
pub async fn upgrade(
    request: Request,
    framed: Framed<Connection, Codec>,
    entrance: Entrance<Connection>,
    node: Node,
) {
    let (device, response) = match judge(&request, &node) {
        Ok(accepted) => accepted,
        Err(refusal) => {
            node.metrics().handshakes.count(refusal.label);
            // The client may be gone already; there is nobody else to tell.
            if let Some(response) = refusal.into_response().await {
                let _ = SendResponse::new(framed, response).await;
            }
            return;
        }
    };
    if let Ok(framed) = SendResponse::new(framed, response).await {
        let parts = framed.into_parts();
        entrance.enter(parts.io, &parts.read_buf, device);
    }
}

/// A plain `GET` without the upgrade.
///
/// # Errors
/// Always: 426 in words of the contract's error shape.
pub async fn without_upgrade() -> Result<HttpResponse, ApiError> {
    Err(ApiError::upgrade_required())
}

struct Refusal {
    label: Handshake,
    error: ApiError,
}

impl Refusal {
    async fn into_response(self) -> Option<Response<Bytes>> {
        let response: Response<_> = self.error.error_response().into();
        let (response, body) = response.into_parts();
        let mut response = response.set_body(to_bytes(body).await.ok()?);
        response
            .head_mut()
            .set_connection_type(ConnectionType::Close);
        Some(response)
    }
}

type Accepted = (Option<DeviceId>, Response<()>);

fn judge(request: &Request, node: &Node) -> Result<Accepted, Refusal> {
    let refuse = |label, error| Err(Refusal { label, error });
    if request.path() != CONNECT_PATH {
        let error = ApiError::not_found("The requested URL was not found on this server.");
        return refuse(Handshake::BadRequest, error);
    }
    if request.method() != Method::GET {
        return refuse(Handshake::BadRequest, ApiError::method_not_allowed("GET"));
    }
    if let Err(error) = check_handshake(request) {
        return refuse(Handshake::BadRequest, error);
    }
    let headers = request.headers();
    let device = if headers.contains_key(AUTHORIZATION) {
        match auth::device(headers, node.keys()) {
            Ok(device) => Some(device),
            Err(error) => return refuse(Handshake::CredentialRefused, error),
        }
    } else {
        None
    };
    if node.is_draining() || !node.has_seat() {
        let label = if node.is_draining() {
            Shed::Draining
        } else {
            Shed::SessionsFull
        };
        node.metrics().sheds.count(label);
        return refuse(Handshake::Shed, ApiError::unavailable(OVERLOAD_RETRY));
    }
    let response = ws::handshake_response(request.head()).finish();
    Ok((device, response.drop_body()))
}

/// What actix-http checks, and two things that it lets pass.
fn check_handshake(request: &Request) -> Result<(), ApiError> {
    let keys: Vec<_> = request.headers().get_all(SEC_WEBSOCKET_KEY).collect();
    let key_is_good = matches!(keys.as_slice(), [key] if key.len() == KEY_CHARS);
    if request.version() != Version::HTTP_11 || !key_is_good {
        return Err(ApiError::invalid_argument(
            "The WebSocket handshake is malformed.",
        ));
    }
    ws::verify_handshake(request.head()).map_err(|error| match error {
        ws::HandshakeError::UnsupportedVersion | ws::HandshakeError::NoVersionHeader => {
            ApiError::upgrade_required()
        }
        _ => ApiError::invalid_argument("The WebSocket handshake is malformed.")
            .with_cause(error.to_string()),
    })
}
