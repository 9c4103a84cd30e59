//! `POST /v1/projects/messages:get`: a device without a socket fetches what waits for it.

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use herald_protocol::{SYN_MAX, objects};
use serde::Deserialize;

use crate::http::error::{ApiError, Status};
use crate::http::{Public, body, json_response};
use crate::push::{Push, Syn};
use crate::store::{Contact, PageLimit};
use crate::token::{DeviceId, ProjectHash, TokenAddress, TokenError};

/// Requests of one call.
const REQUESTS_MAX: usize = 100;

/// Messages of one entry, unless it asks for another number.
const LIMIT_DEFAULT: u64 = 100;

/// Most messages an entry may ask for.
const LIMIT_MAX: u64 = 1_000;

#[derive(Deserialize)]
struct Poll {
    #[serde(deserialize_with = "objects")]
    requests: Vec<PollRequest>,
}

#[derive(Deserialize)]
struct PollRequest {
    project_id: String,
    token: String,
    #[serde(default)]
    min_syn: Syn,
    #[serde(default = "default_limit")]
    limit: u64,
}

fn default_limit() -> u64 {
    LIMIT_DEFAULT
}

/// One answered entry, before it is written.
struct Entry {
    pushes: Vec<Push>,
    syn_stored: Syn,
    partial: bool,
    deleted_up_to: Option<Syn>,
}

/// Handles the route.
///
/// # Errors
/// 401, 429, and 400 for a call that is malformed as a whole; an entry's faults are in its entry.
pub async fn poll(
    request: HttpRequest,
    payload: Payload,
    public: Data<Public>,
) -> Result<HttpResponse, ApiError> {
    let origin = (&request).into();
    let device = public.floods.admit_to_poll(&origin, &public.node)?;
    let limit = public.http.poll_body_bytes;
    let body = body::read_json(&request, payload, limit, public.body_patience()).await?;
    let poll: Poll = body::parse_object(&body)?;
    check(&poll)?;
    let mut reply = Reply::new(public.poll_response_bytes);
    for asked in poll.requests {
        match answer(&asked, device, &public, &reply).await {
            Ok(entry) => reply.add(&asked, &entry),
            Err(error) => reply.add_error(&asked, &error),
        }
    }
    Ok(json_response(reply.finish()))
}

fn check(poll: &Poll) -> Result<(), ApiError> {
    if poll.requests.len() > REQUESTS_MAX {
        return Err(ApiError::invalid_field(
            "requests",
            "At most 100 requests in one call.",
        ));
    }
    for (index, request) in poll.requests.iter().enumerate() {
        let out_of_range = |field| {
            let field = format!("requests[{index}].{field}");
            Err(ApiError::invalid_field(
                field,
                "The number is out of range.",
            ))
        };
        if request.min_syn > SYN_MAX {
            return out_of_range("min_syn");
        }
        if !(1..=LIMIT_MAX).contains(&request.limit) {
            return out_of_range("limit");
        }
    }
    Ok(())
}

async fn answer(
    asked: &PollRequest,
    device: DeviceId,
    public: &Public,
    reply: &Reply,
) -> Result<Entry, ApiError> {
    let address = address_of(asked, device, public)?;
    public.floods.take_poll_of(address.project, &public.node)?;
    let min_syn = asked.min_syn.max(1);
    let contact = public
        .node
        .contact(&address, min_syn)
        .await
        .map_err(super::store_error)?;
    let Contact::Live {
        syn_stored,
        acked,
        deleted_up_to,
    } = contact
    else {
        return Err(ApiError::unregistered());
    };
    let after = acked.max(min_syn - 1);
    let mut entry = Entry {
        pushes: Vec::new(),
        syn_stored,
        partial: false,
        deleted_up_to,
    };
    if syn_stored <= after {
        return Ok(entry);
    }
    let Some(bytes) = reply.room() else {
        entry.partial = true;
        return Ok(entry);
    };
    let limit = PageLimit {
        pushes: usize::try_from(asked.limit).unwrap_or(1),
        bytes,
    };
    let page = public
        .node
        .read(&address, after, limit)
        .await
        .map_err(super::store_error)?;
    entry.syn_stored = page.syn_stored;
    // The page may miss pushes that were dropped since the contact.
    entry.deleted_up_to = page.deleted_up_to;
    entry.partial = page.more;
    entry.pushes = page.pushes;
    Ok(entry)
}

fn address_of(
    asked: &PollRequest,
    device: DeviceId,
    public: &Public,
) -> Result<TokenAddress, ApiError> {
    let (address, _) = public
        .node
        .keys()
        .open_text(&asked.token)
        .map_err(|error| match error {
            TokenError::Malformed => ApiError::malformed_token(),
            TokenError::KeyGone => ApiError::unregistered(),
        })?;
    if address.device == device && address.project == ProjectHash::of(&asked.project_id) {
        Ok(address)
    } else {
        Err(ApiError::permission_denied())
    }
}

/// The reply's text, written as it grows: messages are JSON already and must not be parsed again.
struct Reply {
    text: String,
    bytes_max: usize,
    has_message: bool,
}

impl Reply {
    fn new(bytes_max: usize) -> Self {
        Self {
            text: "{\"by_token\":[".to_owned(),
            bytes_max,
            has_message: false,
        }
    }

    /// Message bytes that may still be added. The first message of a reply always has room.
    fn room(&self) -> Option<usize> {
        let left = self.bytes_max.saturating_sub(self.text.len());
        (left > 0 || !self.has_message).then_some(left)
    }

    fn start(&mut self, asked: &PollRequest) {
        if !self.text.ends_with('[') {
            self.text.push(',');
        }
        self.text.push_str("{\"project_id\":");
        self.text.push_str(&quoted(&asked.project_id));
        self.text.push_str(",\"token\":");
        self.text.push_str(&quoted(&asked.token));
    }

    fn add(&mut self, asked: &PollRequest, entry: &Entry) {
        use std::fmt::Write as _;
        self.start(asked);
        self.text.push_str(",\"messages\":[");
        for (index, push) in entry.pushes.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let message = std::str::from_utf8(&push.message).unwrap_or("null");
            // Writing to a String cannot fail.
            let _ = write!(
                self.text,
                "{comma}{{\"syn\":{},\"message_id\":\"{}\",\"time\":{},\"message\":{message}}}",
                push.syn, push.message_id, push.accepted_at
            );
            self.has_message = true;
        }
        let _ = write!(
            self.text,
            "],\"syn_stored\":{},\"partial_content\":{}",
            entry.syn_stored, entry.partial
        );
        if let Some(up_to) = entry.deleted_up_to {
            let _ = write!(self.text, ",\"deleted_up_to\":{up_to}");
        }
        self.text.push('}');
    }

    fn add_error(&mut self, asked: &PollRequest, error: &ApiError) {
        use std::fmt::Write as _;
        self.start(asked);
        let code = actix_web::ResponseError::status_code(error).as_u16();
        let status: Status = error.status();
        let _ = write!(
            self.text,
            ",\"error\":{{\"code\":{code},\"status\":{},\"message\":{}}}}}",
            quoted(status.as_str()),
            quoted(error.message())
        );
    }

    fn finish(mut self) -> String {
        self.text.push_str("]}");
        self.text
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}
