//! The public listener: one port for HTTP/1.1, HTTP/2 and device sockets, plain or with TLS.
//!
//! Each worker builds its own services here and starts its share of the actors beside them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_http::{HttpService, KeepAlive, Protocol, Request};
use actix_server::ServerBuilder;
use actix_service::{Service, ServiceFactory, boxed, fn_factory, fn_service, map_config};
use actix_web::App;
use actix_web::body::BoxBody;
use actix_web::dev::{AppConfig, ServiceRequest, ServiceResponse};
use actix_web::middleware::{Next, from_fn};
use actix_web::web::Data;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::actors::stream::{self, Connection};
use crate::actors::worker;
use crate::http::h2::{self, H2Settings};
use crate::http::{Public, connect, routes, unread};
use crate::metrics::Shed;

/// How a client shows that it speaks HTTP/2 without having asked: the start of RFC 9113's preface.
const H2_PREFACE: &[u8; 12] = b"PRI * HTTP/2";

/// A client that is still sending when it has its answer is listened to for so long before the
/// connection is closed: bytes that nobody reads would reset it, and the answer might be lost.
const GOODBYE: Duration = Duration::from_secs(1);

/// What a request takes of its connection's turn, of which tokio grants 128: so many are answered
/// before others get theirs.
const REQUEST_COST: usize = 128 / 16;

/// A preface that comes in pieces is looked at again after this long.
const PREFACE_RETRY: Duration = Duration::from_millis(5);

/// What the listener's workers share.
#[derive(Clone)]
pub struct PublicListener {
    /// The routes' state.
    pub public: Data<Public>,
    /// TLS, if it ends here.
    pub tls: Option<TlsAcceptor>,
    /// Turns true when the node drains.
    pub draining: watch::Receiver<bool>,
}

impl PublicListener {
    /// Adds the listener to a server. Each worker that the server starts takes the next number of
    /// the node's workers.
    ///
    /// # Errors
    /// When the socket cannot be listened on.
    pub fn attach(self, server: ServerBuilder, socket: TcpListener) -> io::Result<ServerBuilder> {
        let next_worker = Arc::new(AtomicUsize::new(0));
        let open = Arc::new(AtomicUsize::new(0));
        server.listen("public", socket, move || {
            let (listener, next_worker) = (self.clone(), Arc::clone(&next_worker));
            let open = Arc::clone(&open);
            fn_factory(move || {
                let index = next_worker.fetch_add(1, Ordering::Relaxed);
                listener.clone().start_worker(index, Arc::clone(&open))
            })
        })
    }

    /// Builds one worker's services, on its thread.
    async fn start_worker(
        self,
        index: usize,
        open: Arc<AtomicUsize>,
    ) -> Result<impl Service<TcpStream, Response = (), Error = io::Error>, ()> {
        let node = self.public.node.clone();
        let entrance = worker::start::<Connection>(&node, index).map_err(|error| {
            tracing::error!(%error, index, "a worker could not be started");
        })?;
        let public = self.public.clone();
        let upgrade = fn_service(move |(request, framed): (Request, _)| {
            let (entrance, public) = (entrance.clone(), public.clone());
            async move {
                connect::upgrade(request, framed, entrance, &public).await;
                Ok::<_, actix_web::Error>(())
            }
        });
        let http = &self.public.http;
        let draining = self.draining.clone();
        let h1 = HttpService::build()
            .graceful_shutdown_signal(move || {
                let mut draining = draining.clone();
                async move {
                    // An error means that the server is gone, which is a drain too.
                    let _ = draining.wait_for(|draining| *draining).await;
                }
            })
            .keep_alive(KeepAlive::Timeout(Duration::from_millis(
                http.keep_alive_ms,
            )))
            .client_request_timeout(Duration::from_millis(http.headers_timeout_ms))
            .client_disconnect_timeout(GOODBYE)
            .upgrade(upgrade)
            .finish(map_config(app(self.public.clone()), |()| {
                AppConfig::default()
            }))
            .new_service(())
            .await?;
        let h2 = map_config(app(self.public.clone()), |()| AppConfig::default())
            .new_service(())
            .await?;
        let front = Rc::new(Front {
            listener: self,
            open,
            h1: boxed::service(h1),
            h2: Rc::new(boxed::service(h2)),
        });
        Ok(fn_service(move |stream: TcpStream| {
            let front = Rc::clone(&front);
            async move {
                front.serve(stream).await;
                Ok(())
            }
        }))
    }
}

/// The routes, as an actix app.
fn app(
    public: Data<Public>,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    App::new().configure(routes(public)).wrap(from_fn(in_turns))
}

/// Answers a request when it is its connection's turn: a client may have sent thousands at once, and
/// without a word from here they would all be answered before anybody else's. What is left of its body
/// is seen to in the same layer, because each further one costs every request an allocation.
async fn in_turns(
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse, actix_web::Error> {
    for _ in 0..REQUEST_COST {
        tokio::task::coop::consume_budget().await;
    }
    unread::hold(request, next).await
}

type H1Service = boxed::BoxService<
    (Connection, Protocol, Option<SocketAddr>),
    (),
    actix_http::error::DispatchError,
>;

type H2Service = boxed::BoxService<Request, ServiceResponse, actix_web::Error>;

/// One worker's way from an accepted connection to the services.
struct Front {
    listener: PublicListener,
    /// Connections of all workers that are no sessions.
    open: Arc<AtomicUsize>,
    h1: H1Service,
    h2: Rc<H2Service>,
}

impl Front {
    async fn serve(&self, mut tcp: TcpStream) {
        let public = &self.listener.public;
        let _open = Open::count(&self.open);
        if self.open.load(Ordering::Relaxed) > public.http.connections_max {
            public.node.metrics().sheds.count(Shed::ConnectionsFull);
            let _ = tcp.write_all(full().as_bytes()).await;
            return;
        }
        // A push is one small write that must not wait for the next.
        let _ = tcp.set_nodelay(true);
        // Of who takes no byte of its answers, the kernel knows before anybody else does.
        let taken_in = Duration::from_millis(public.http.answer_timeout_ms);
        let _ = stream::give_up_after(&tcp, Some(taken_in));
        let peer = tcp.peer_addr().ok();
        let patience = Duration::from_millis(public.http.headers_timeout_ms);
        let opened = tokio::time::timeout(patience, self.open(tcp)).await;
        let Ok(Ok((connection, protocol))) = opened else {
            // Not one byte in time, or a broken handshake: there is nothing to answer to.
            return;
        };
        if protocol == Protocol::Http2 {
            let settings = H2Settings {
                patience,
                keep_alive: Duration::from_millis(public.http.keep_alive_ms),
                draining: self.listener.draining.clone(),
            };
            h2::serve(connection, peer, Rc::clone(&self.h2), settings).await;
        } else if let Err(error) = self.h1.call((connection, protocol, peer)).await {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    /// Finds out what the client speaks: by ALPN, or by its first bytes.
    async fn open(&self, stream: TcpStream) -> io::Result<(Connection, Protocol)> {
        let Some(acceptor) = &self.listener.tls else {
            let protocol = peek_protocol(&stream).await?;
            return Ok((Connection::Plain(stream), protocol));
        };
        let stream = acceptor.accept(stream).await?;
        let protocol = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Protocol::Http2,
            _ => Protocol::Http1,
        };
        Ok((Connection::Tls(Box::new(stream)), protocol))
    }
}

async fn peek_protocol(stream: &TcpStream) -> io::Result<Protocol> {
    loop {
        let mut bytes = [0; H2_PREFACE.len()];
        let seen = stream.peek(&mut bytes).await?;
        if seen == H2_PREFACE.len() && bytes == *H2_PREFACE {
            return Ok(Protocol::Http2);
        }
        if seen == 0 || bytes[..seen] != H2_PREFACE[..seen] {
            return Ok(Protocol::Http1);
        }
        tokio::time::sleep(PREFACE_RETRY).await;
    }
}

/// What a connection beyond the limit is told.
fn full() -> String {
    let body = concat!(
        r#"{"error":{"code":503,"message":"Too many connections are open.","status":"UNAVAILABLE","#,
        r#""details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","#,
        r#""errorCode":"UNAVAILABLE"}]}}"#
    );
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {}\r\nConnection: close\r\n\
         Content-Type: application/json; charset=UTF-8\r\nContent-Length: {}\r\n\r\n{body}",
        crate::actors::OVERLOAD_RETRY.as_secs(),
        body.len()
    )
}

/// Counts a connection for as long as it is HTTP's.
struct Open<'a>(&'a AtomicUsize);

impl<'a> Open<'a> {
    fn count(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
