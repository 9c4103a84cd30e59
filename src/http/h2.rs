//! HTTP/2 of the public listener, by prior knowledge or by ALPN.
//!
//! Served here rather than by actix-http's dispatcher because a drain must say GOAWAY, so that
//! senders move their next requests elsewhere and nothing in flight is cut.

mod idle_frames;
mod scheme;

use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::h2::RecvStream;
use ::h2::server::{Connection as H2Connection, SendResponse};
use actix_http::error::PayloadError;
use actix_http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use actix_http::{BoxedPayloadStream, Method, Payload, Request, Response};
use actix_service::Service;
use actix_web::body::MessageBody;
use actix_web::dev::ServiceResponse;
use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::watch;

use crate::actors::stream::Connection;
use crate::http::h2::scheme::MendedScheme;

/// Requests of one connection at a time: an SDK's batch is 500 messages over a few connections.
const STREAMS_MAX: u32 = 256;

/// Headers of one request, all together.
const HEADERS_BYTES_MAX: u32 = 32 * 1024;

/// What a connection needs to know.
#[derive(Clone)]
pub struct H2Settings {
    /// The client's preface and settings must come this soon, and after a GOAWAY its last request.
    pub patience: Duration,
    /// How long a connection may have no request.
    pub keep_alive: Duration,
    /// Turns true when the node drains.
    pub draining: watch::Receiver<bool>,
}

/// Serves one connection until it ends.
pub async fn serve<S, B>(
    io: Connection,
    peer: Option<SocketAddr>,
    app: Rc<S>,
    mut settings: H2Settings,
) where
    S: Service<Request, Response = ServiceResponse<B>> + 'static,
    B: MessageBody + 'static,
{
    let mut builder = ::h2::server::Builder::new();
    builder
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX);
    let handshake = builder.handshake(MendedScheme::new(io));
    let handshake = tokio::time::timeout(settings.patience, handshake);
    let Ok(Ok(mut connection)) = handshake.await else {
        return;
    };
    let running = Rc::new(Cell::new(0_usize));
    while let Some((request, respond)) = next(&mut connection, &running, &mut settings).await {
        let (app, running) = (Rc::clone(&app), Running::count(&running));
        actix_rt::spawn(async move {
            let _running = running;
            if let Err(error) = answer(app, peer, request, respond).await {
                tracing::debug!(%error, "an HTTP/2 answer was cut off");
            }
        });
    }
}

type Incoming = (http::Request<RecvStream>, SendResponse<Bytes>);

/// The next request; `None` when the connection is over. A quiet connection and a draining node
/// let the client know with GOAWAY and serve what still comes; a quiet one not for long, because a
/// client need not heed it.
async fn next(
    connection: &mut H2Connection<MendedScheme<Connection>, Bytes>,
    running: &Cell<usize>,
    settings: &mut H2Settings,
) -> Option<Incoming> {
    loop {
        tokio::select! {
            accepted = connection.accept() => return accepted.and_then(Result::ok),
            changed = settings.draining.changed() => {
                connection.graceful_shutdown();
                if changed.is_err() {
                    // The server is gone: no second change will come.
                    return connection.accept().await.and_then(Result::ok);
                }
            }
            () = tokio::time::sleep(settings.keep_alive) => {
                if running.get() == 0 {
                    connection.graceful_shutdown();
                    let last = tokio::time::timeout(settings.patience, connection.accept()).await;
                    return last.ok().flatten().and_then(Result::ok);
                }
            }
        }
    }
}

async fn answer<S, B>(
    app: Rc<S>,
    peer: Option<SocketAddr>,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), ::h2::Error>
where
    S: Service<Request, Response = ServiceResponse<B>>,
    B: MessageBody,
{
    let is_head = request.method() == Method::HEAD;
    let Ok(response) = app.call(to_actix(request, peer)).await else {
        // The app turns every error into a response; what is left is its own end.
        respond.send_reset(::h2::Reason::INTERNAL_ERROR);
        return Ok(());
    };
    let (head, body) = Response::<B>::from(response).into_parts();
    let body = actix_web::body::to_bytes(body).await.unwrap_or_default();
    let mut reply = http::Response::new(());
    *reply.status_mut() = head.status();
    for (name, value) in head.headers() {
        // Framing is HTTP/2's own affair.
        if ![CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH].contains(name) {
            reply.headers_mut().append(name, value.clone());
        }
    }
    reply
        .headers_mut()
        .insert(CONTENT_LENGTH, body.len().into());
    let ends_here = is_head || body.is_empty();
    let mut stream = respond.send_response(reply, ends_here)?;
    if !ends_here {
        stream.send_data(body, true)?;
    }
    Ok(())
}

fn to_actix(request: http::Request<RecvStream>, peer: Option<SocketAddr>) -> Request {
    let (parts, stream) = request.into_parts();
    let payload: BoxedPayloadStream = Box::pin(Body { stream });
    let payload = Payload::Stream { payload };
    let mut request = Request::with_payload(payload);
    let head = request.head_mut();
    head.uri = parts.uri;
    head.method = parts.method;
    head.version = parts.version;
    head.headers = parts.headers.into();
    head.peer_addr = peer;
    request
}

/// A request's body; gives the window back as it is read.
struct Body {
    stream: RecvStream,
}

impl Stream for Body {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let stream = &mut self.get_mut().stream;
        stream.poll_data(cx).map(|chunk| {
            chunk.map(|chunk| {
                let chunk = chunk.map_err(PayloadError::Http2Payload)?;
                stream
                    .flow_control()
                    .release_capacity(chunk.len())
                    .map_err(PayloadError::Http2Payload)?;
                Ok(chunk)
            })
        })
    }
}

/// Counts a request for as long as it runs.
struct Running(Rc<Cell<usize>>);

impl Running {
    fn count(counter: &Rc<Cell<usize>>) -> Self {
        counter.set(counter.get() + 1);
        Self(Rc::clone(counter))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
