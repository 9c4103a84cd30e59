//! What is left of a request's body when its answer is ready.
//!
//! To use a connection again, actix-http reads and throws away the rest of a chunked body that nobody
//! wants, without an end and without a deadline: who goes on sending keeps a worker busy for ever,
//! and who stops in the middle keeps the connection. As long as somebody holds the body it closes the
//! connection behind the answer instead, so the answer holds it. A length that was declared is no such
//! promise to go on: there it closes by itself.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_http::HttpMessage as _;
use actix_http::error::PayloadError;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use bytes::Bytes;
use futures_util::{FutureExt as _, Stream, StreamExt as _};

/// How much of a body that came with its head is read, only so that the connection can stay.
const SKIPPED_BYTES_MAX: usize = 16 * 1024;

/// Answers a request, and lets the connection close if its body has not come to an end by then.
///
/// # Errors
/// Those of the service.
pub async fn hold(
    mut request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse, actix_web::Error> {
    if !request.chunked().unwrap_or(false) {
        return next.call(request).await;
    }
    let mut rest = Rest(Rc::new(RefCell::new(Some(request.take_payload()))));
    request.set_payload(Payload::Stream {
        payload: Box::pin(rest.clone()),
    });
    let response = next.call(request).await?;
    rest.skip_what_has_come().await;
    Ok(response.map_body(|_, body| BoxBody::new(Answer { body, _rest: rest })))
}

/// A body, until it has ended.
#[derive(Clone)]
struct Rest(Rc<RefCell<Option<Payload>>>);

impl Rest {
    /// A refusal that needs no body is ready before anything of one was looked at, and a body of a
    /// few bytes has mostly come by then.
    async fn skip_what_has_come(&mut self) {
        if self.0.borrow().is_none() {
            return;
        }
        // Once around, so that the connection hands on what it has.
        tokio::task::yield_now().await;
        let mut skipped = 0;
        while let Some(Some(Ok(chunk))) = self.next().now_or_never() {
            skipped += chunk.len();
            if skipped > SKIPPED_BYTES_MAX {
                break;
            }
        }
    }
}

impl Stream for Rest {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut rest = self.0.borrow_mut();
        let Some(payload) = rest.as_mut() else {
            return Poll::Ready(None);
        };
        let item = Pin::new(payload).poll_next(cx);
        if let Poll::Ready(None | Some(Err(_))) = item {
            *rest = None;
        }
        item
    }
}

/// An answer that holds the body of its request.
struct Answer {
    body: BoxBody,
    _rest: Rest,
}

impl MessageBody for Answer {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_next(cx)
    }
}
