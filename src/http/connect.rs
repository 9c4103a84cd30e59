//! `GET /v1/connect`: the upgrade that leaves HTTP for good. The stream goes to a Session actor.

use std::time::Duration;

use actix_codec::Framed;
use actix_http::h1::{Codec, SendResponse};
use actix_http::header::{AUTHORIZATION, SEC_WEBSOCKET_KEY};
use actix_http::{ConnectionType, HttpMessage as _, Method, Request, Response, Version, ws};
use actix_web::body::to_bytes;
use actix_web::{HttpResponse, ResponseError as _};
use bytes::{Bytes, BytesMut};
use herald_protocol::{CONNECT_PATH, CloseCode, RetryAdvice};
use tokio::io::AsyncWriteExt as _;
use tokio_util::codec::Encoder as _;

use crate::actors::OVERLOAD_RETRY;
use crate::actors::stream::Connection;
use crate::actors::worker::Entrance;
use crate::http::error::ApiError;
use crate::http::{Public, auth};
use crate::metrics::{Handshake, Shed};
use crate::token::DeviceId;

/// Bytes of the nonce in `Sec-WebSocket-Key`, in base64: RFC 6455 demands 16 bytes.
const KEY_CHARS: usize = 24;

/// A device that is sent away has this long to close its end.
const GOODBYE: Duration = Duration::from_secs(1);

/// Takes an upgrade request: a session, or an answer that says why not.
pub async fn upgrade(
    request: Request,
    framed: Framed<Connection, Codec>,
    entrance: Entrance<Connection>,
    public: &Public,
) {
    let node = &public.node;
    let (device, response) = match judge(&request, public) {
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
    let crowded = public.floods.take_handshake().err();
    let Ok(framed) = SendResponse::new(framed, response).await else {
        return;
    };
    let parts = framed.into_parts();
    match crowded {
        None => {
            parts.io.wait_for_device();
            entrance.enter(parts.io, &parts.read_buf, device);
        }
        Some(wait) => {
            node.metrics().handshakes.count(Handshake::Shed);
            node.metrics().sheds.count(Shed::HandshakeLimit);
            send_away(parts.io, wait).await;
        }
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

/// Closes with 1013 a socket that was only opened for that: browsers show a page no HTTP status of a
/// refused upgrade, and no header of it.
async fn send_away(mut io: Connection, wait: Duration) {
    let retry_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let reason = ws::CloseReason {
        code: CloseCode::TryAgainLater.as_u16().into(),
        description: Some(RetryAdvice { retry_ms }.to_reason()),
    };
    let mut frame = BytesMut::new();
    let Ok(()) = ws::Codec::new().encode(ws::Message::Close(Some(reason)), &mut frame) else {
        return;
    };
    let goodbye = async {
        io.write_all(&frame).await?;
        io.shutdown().await?;
        // Until the device has closed too: bytes that nobody reads would reset the connection, and
        // the close frame might be lost with it.
        tokio::io::copy(&mut io, &mut tokio::io::sink()).await
    };
    // Who does not close in time is left.
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
}

type Accepted = (Option<DeviceId>, Response<()>);

fn judge(request: &Request, public: &Public) -> Result<Accepted, Refusal> {
    let node = &public.node;
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
    if let Err(error) = public
        .floods
        .admit_to_connect(&request.into(), device, node)
    {
        return refuse(Handshake::Shed, error);
    }
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
