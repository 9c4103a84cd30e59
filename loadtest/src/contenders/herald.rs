//! Herald: durable sends over HTTP; devices that say hello on a WebSocket and acknowledge.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use herald_protocol::{CONNECT_PATH, DeviceFrame, Hello, ServerFrame, TokenCursor, Welcome};
use serde::Deserialize;

use super::{Answered, Connection, Greeted, Hearing, Pushed, Running, Service, hear_frame};
use crate::http::{CallError, Caller, write_request};
use crate::ledger::Outcome;
use crate::register::Identity;
use crate::target::{Target, from_dev_file};
use crate::websocket::{Incoming, Opcode, read_frame, write_frame};

/// Starts a development server with default settings.
pub async fn start(binary: &Path, scratch: &Path) -> anyhow::Result<Running> {
    let mut running = Running::prepare(scratch)?;
    let data = running.directory().to_owned();
    running.spawn(binary, |command| {
        command
            .args(["serve", "--dev", "--listen", "127.0.0.1:0"])
            .args(["--admin-listen", "127.0.0.1:0", "--data"])
            .arg(data);
    })?;
    let dev = running.directory().join("dev.json");
    let (target, operator) = running
        .until_ready(async || {
            let text = std::fs::read_to_string(&dev)?;
            let (target, mut operator) = from_dev_file(&text)?;
            operator.process_facts().await?;
            anyhow::Ok((target, operator))
        })
        .await?;
    running.open(Service::Herald(target), Some(operator));
    Ok(running)
}

/// Says hello and waits for the welcome.
pub async fn greet(
    mut connection: Connection,
    target: &Target,
    identity: &Identity,
    min_syn: u64,
) -> anyhow::Result<Greeted> {
    connection.upgrade(&target.host, CONNECT_PATH).await?;
    let welcome = connection
        .ask(&hello(identity, min_syn), take_welcome)
        .await?;
    let state = welcome.tokens.first();
    if let Some(error) = state.and_then(|token| token.error.as_ref()) {
        bail!("the welcome refuses the token: {error}");
    }
    Ok(Greeted {
        connection,
        ping_interval: Some(Duration::from_millis(welcome.ping_interval_ms.max(1))),
        syn_stored: state.and_then(|token| token.syn_stored).unwrap_or(0),
    })
}

fn hello(identity: &Identity, min_syn: u64) -> Vec<u8> {
    let hello = DeviceFrame::Hello(Hello {
        device_id: Some(identity.device_id.clone()),
        device_secret: Some(identity.device_secret.clone()),
        tokens: vec![TokenCursor {
            token: identity.token.clone(),
            min_syn,
        }],
        client: Some(concat!("swarm/", env!("CARGO_PKG_VERSION")).to_owned()),
    });
    let mut frame = Vec::new();
    write_frame(&mut frame, Opcode::Text, hello.to_text().as_bytes());
    frame
}

/// The welcome at the front of `bytes`, once it is whole.
fn take_welcome(bytes: &[u8]) -> anyhow::Result<Option<(Welcome, usize)>> {
    let Some((frame, taken)) =
        read_frame(bytes).map_err(|broken| anyhow::anyhow!("{}", broken.0))?
    else {
        return Ok(None);
    };
    match frame {
        Incoming::Text(text) => match ServerFrame::parse(text)? {
            ServerFrame::Welcome(welcome) => Ok(Some((welcome, taken))),
            other => bail!("not a welcome: {}", other.to_text()),
        },
        Incoming::Close(code, reason) => bail!("closed with {code} {reason}"),
        _ => bail!("not a welcome"),
    }
}

/// A push as the server wrote it, as far as the swarm looks at it. Read in one pass without
/// copying, because this is the swarm's hot path.
#[derive(Deserialize)]
struct PushView<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    syn: u64,
    #[serde(borrow)]
    message: MessageView<'a>,
}

/// A message, as far as the swarm looks at it.
#[derive(Deserialize)]
pub struct MessageView<'a> {
    /// Its data.
    #[serde(borrow)]
    pub data: DataView<'a>,
}

/// What the swarm writes into each push.
#[derive(Deserialize)]
pub struct DataView<'a> {
    send: &'a str,
    at: &'a str,
}

impl DataView<'_> {
    /// The number of the send, and when it was meant to be.
    pub fn numbers(&self) -> Option<(u64, u64)> {
        Some((self.send.parse().ok()?, self.at.parse().ok()?))
    }
}

/// See [`Service::hear`].
pub fn hear<'a>(bytes: &'a [u8], reply: &mut Vec<u8>, pushed: Pushed<'_, 'a>) -> Hearing<'a> {
    hear_frame(bytes, reply, |message, _| {
        let Incoming::Text(text) = message else {
            return Err("a frame is not text".to_owned());
        };
        if let Ok(push) = serde_json::from_str::<PushView<'a>>(text)
            && push.kind == "push"
        {
            pushed(Some(push.syn), push.message.data);
            return Ok(());
        }
        match ServerFrame::parse(text) {
            Ok(ServerFrame::Push(_)) => Err("a push is not the swarm's".to_owned()),
            Ok(ServerFrame::Error { status, message }) => {
                Err(format!("error frame: {status} {message}"))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(format!("a broken frame: {error}")),
        }
    })
}

/// By hand into a kept buffer: one for every push.
pub fn write_ack(out: &mut String, token: &str, syn: u64) {
    use std::fmt::Write as _;
    out.clear();
    let _ = write!(
        out,
        "{{\"type\":\"ack\",\"token\":\"{token}\",\"syn\":{syn}}}"
    );
}

/// Writes send requests.
pub struct Letter {
    head: String,
}

impl Letter {
    /// Letters to the target's project.
    pub fn new(target: &Target) -> Self {
        let head = format!(
            "POST /v1/projects/{}/messages:send HTTP/1.1\r\nhost: {}\r\n\
             authorization: Bearer {}\r\ncontent-type: application/json\r\n",
            target.project_id, target.host, target.service_token
        );
        Self { head }
    }

    /// Replaces `out` with the request to send `data`.
    pub fn write(&self, out: &mut Vec<u8>, token: &str, data: &str, validate_only: bool) {
        out.clear();
        let validate_only = if validate_only {
            r#""validate_only":true,"#
        } else {
            ""
        };
        let body = format!(r#"{{{validate_only}"message":{{"token":"{token}","data":{data}}}}}"#);
        write_request(out, &self.head, body.as_bytes());
    }
}

/// One sender.
pub struct Publisher {
    caller: Caller,
    letter: Letter,
    request: Vec<u8>,
}

impl Publisher {
    /// See [`Service::publisher`].
    pub fn new(target: &Target) -> Self {
        Self {
            caller: Caller::new(target.server, None),
            letter: Letter::new(target),
            request: Vec::new(),
        }
    }

    /// See [`super::Publisher::publish`].
    pub async fn publish(&mut self, to: &str, data: &str) -> Result<Answered, CallError> {
        self.letter.write(&mut self.request, to, data, false);
        let answer = self.caller.call(&self.request).await?;
        Ok(match outcome_of(answer.status) {
            Outcome::Accepted => Answered::yes(),
            outcome => Answered::no(outcome, answer.to_string()),
        })
    }
}

/// What an answer says of the push (the contract's table of answers).
fn outcome_of(status: u16) -> Outcome {
    match status {
        200 => Outcome::Accepted,
        400..=499 | 503 => Outcome::Refused,
        _ => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sender::data;

    #[test]
    fn a_letter_has_the_payload_that_was_asked_for() {
        for (payload, number, at_ns) in [(200, 0, 0), (4_096, 123, u64::MAX), (0, 10, 99)] {
            let mut request = Vec::new();
            let letter = Letter::new(&Target::of_nobody());
            let data = data(number, at_ns, payload);
            letter.write(&mut request, "tok", &data, payload == 0);
            let text = String::from_utf8(request).expect("is text");
            let (head, body) = text.split_once("\r\n\r\n").expect("has a body");
            assert!(head.contains(&format!("content-length: {}", body.len())));
            let body: serde_json::Value = serde_json::from_str(body).expect("is JSON");
            assert_eq!(
                body["validate_only"].as_bool(),
                (payload == 0).then_some(true)
            );
            let data = body["message"]["data"].as_object().expect("has data");
            let bytes: usize = data
                .iter()
                .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
                .sum();
            assert_eq!(bytes, payload.max("sendatpad".len() + 4));
        }
    }

    #[test]
    fn answers_mean_what_the_contract_says() {
        assert_eq!(outcome_of(200), Outcome::Accepted);
        for status in [400, 404, 429, 503] {
            assert_eq!(outcome_of(status), Outcome::Refused);
        }
        for status in [500, 502, 504] {
            assert_eq!(outcome_of(status), Outcome::Unknown);
        }
    }
}
