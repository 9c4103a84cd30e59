//! NATS with `JetStream`: a recipient is a WebSocket with a subscription to a subject of its own; a
//! publish goes over TCP into a stream that is kept in files, and is over when the stream has said
//! so (`PubAck`).

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

use super::connection::Line;
use super::{Answered, Connection, Hearing, Pushed, Running, Service, hear_frame, read_data};
use crate::http::CallError;
use crate::ledger::Outcome;
use crate::websocket::{Incoming, Opcode, read_frame, write_frame};

/// The server's program.
pub const PROGRAM: &str = "nats-server";

const HOST: &str = "nats";

/// Who introduces itself so is not told of every line that it was understood.
const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";

/// One stream for all recipients.
const STREAM: &str = r#"{"name":"push","subjects":["push.*"],"storage":"file"}"#;

/// Where NATS listens.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Listeners {
    /// For WebSockets.
    pub websocket: SocketAddr,
    /// For its own protocol.
    pub own: SocketAddr,
}

/// Starts a server and makes the stream.
pub async fn start(scratch: &Path) -> anyhow::Result<Running> {
    let mut running = Running::prepare(scratch)?;
    let listeners = Listeners {
        websocket: running.free_address()?,
        own: running.free_address()?,
    };
    let file = running.write_file(
        "nats.conf",
        &format!(
            "listen: \"{}\"\nwebsocket {{ listen: \"{}\", no_tls: true }}\n\
             jetstream {{ store_dir: \"{}\" }}\n",
            listeners.own,
            listeners.websocket,
            running.directory().display()
        ),
    )?;
    running.spawn(PROGRAM, |command| {
        command.arg("-c").arg(file);
    })?;
    running
        .until_ready(async || {
            Connection::open(listeners.websocket, None).await?;
            make_stream(listeners.own).await
        })
        .await?;
    running.open(Service::Nats(listeners), None);
    Ok(running)
}

async fn make_stream(server: SocketAddr) -> anyhow::Result<()> {
    let inbox = new_inbox();
    let mut connection = connect(server, &inbox).await?;
    let question = request("$JS.API.STREAM.CREATE.push", &inbox, STREAM);
    let answer = connection.ask(question.as_bytes(), take_answer).await?;
    ensure!(!is_error(&answer), "no stream: {answer}");
    Ok(())
}

/// A subject that only one connection listens to.
fn new_inbox() -> String {
    format!("_INBOX.{:016x}", rand::random::<u64>())
}

/// A connection over TCP that hears what comes to its inbox.
async fn connect(server: SocketAddr, inbox: &str) -> anyhow::Result<Connection> {
    let mut connection = Connection::open(server, None).await?;
    connection
        .ask(introduction(inbox).as_bytes(), until_pong)
        .await?;
    Ok(connection)
}

/// The PING asks for a sign that all before it was understood.
fn introduction(subject: &str) -> String {
    format!("{CONNECT}SUB {subject} 1\r\nPING\r\n")
}

fn request(subject: &str, inbox: &str, body: &str) -> String {
    format!("PUB {subject} {inbox} {}\r\n{body}\r\n", body.len())
}

fn is_error(answer: &str) -> bool {
    answer.contains("\"error\"")
}

/// Subscribes a recipient to its subject.
pub async fn subscribe(connection: &mut Connection, name: &str) -> anyhow::Result<()> {
    connection.upgrade(HOST, "/").await?;
    let mut frame = Vec::new();
    let introduction = introduction(&format!("push.{name}"));
    write_frame(&mut frame, Opcode::Binary, introduction.as_bytes());
    let take = |bytes: &[u8]| {
        let mut taken = 0;
        // The server's own introduction comes first, in a frame of its own.
        while let Some((frame, length)) = read_frame(bytes.get(taken..).unwrap_or_default())
            .map_err(|broken| anyhow::anyhow!("{}", broken.0))?
        {
            taken += length;
            let Incoming::Binary(content) = frame else {
                bail!("not a welcome: {frame:?}");
            };
            if until_pong(content)?.is_some() {
                return Ok(Some(((), taken)));
            }
        }
        Ok(None)
    };
    connection.ask(&frame, take).await
}

/// See [`Service::hear`].
pub fn hear<'a>(bytes: &'a [u8], reply: &mut Vec<u8>, pushed: Pushed<'_, 'a>) -> Hearing<'a> {
    hear_frame(bytes, reply, |message, reply| {
        let Incoming::Binary(mut content) = message else {
            return Err("a frame is text".to_owned());
        };
        while !content.is_empty() {
            let read = read_operation(content).map_err(|error| error.to_string())?;
            let (operation, taken) = read.ok_or("a message is spread over frames")?;
            match operation {
                Operation::Message(payload) => pushed(None, read_data(payload)?),
                Operation::Ping => write_frame(reply, Opcode::Binary, b"PONG\r\n"),
                Operation::Pong | Operation::Other => {}
            }
            content = content.get(taken..).unwrap_or_default();
        }
        Ok(())
    })
}

/// One publisher.
pub struct Publisher {
    server: SocketAddr,
    inbox: String,
    line: Line,
}

impl Publisher {
    /// See [`Service::publisher`].
    pub fn new(server: SocketAddr) -> Self {
        Self {
            server,
            inbox: new_inbox(),
            line: Line::default(),
        }
    }

    /// See [`super::Publisher::publish`].
    pub async fn publish(&mut self, to: &str, data: &str) -> Result<Answered, CallError> {
        let question = request(&format!("push.{to}"), &self.inbox, data);
        let (server, inbox) = (self.server, &self.inbox);
        let open = async || connect(server, inbox).await;
        let answer = self
            .line
            .ask(open, question.as_bytes(), take_answer)
            .await?;
        Ok(if is_error(&answer) {
            Answered::no(Outcome::Refused, answer)
        } else {
            Answered::yes()
        })
    }
}

/// What the server says, a line each, and a message with its payload.
enum Operation<'a> {
    Message(&'a [u8]),
    Ping,
    Pong,
    Other,
}

/// The operation at the front and how many bytes it takes; `None` when more must come.
fn read_operation(bytes: &[u8]) -> anyhow::Result<Option<(Operation<'_>, usize)>> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        return Ok(None);
    };
    let line = bytes.get(..end).unwrap_or_default();
    let line = std::str::from_utf8(line).context("a line is not text")?;
    let start = end + 2;
    let operation = match line.split(' ').next() {
        Some("MSG") => {
            let length = line.rsplit(' ').next().unwrap_or_default();
            let length: usize = length.parse().context("a message without a length")?;
            let payload = bytes.get(start..start + length);
            let whole = start + length + 2;
            return Ok(payload
                .filter(|_| bytes.len() >= whole)
                .map(|payload| (Operation::Message(payload), whole)));
        }
        Some("PING") => Operation::Ping,
        Some("PONG") => Operation::Pong,
        Some("-ERR") => bail!("the server refused: {line}"),
        _ => Operation::Other,
    };
    Ok(Some((operation, start)))
}

fn until_pong(bytes: &[u8]) -> anyhow::Result<Option<((), usize)>> {
    find(bytes, |operation| {
        matches!(operation, Operation::Pong).then_some(())
    })
}

/// The message that answers a request.
fn take_answer(bytes: &[u8]) -> anyhow::Result<Option<(String, usize)>> {
    find(bytes, |operation| match operation {
        Operation::Message(payload) => Some(String::from_utf8_lossy(payload).into_owned()),
        _ => None,
    })
}

/// The first operation that `wanted` wants; those before it are taken with it.
fn find<T>(
    bytes: &[u8],
    wanted: impl Fn(Operation<'_>) -> Option<T>,
) -> anyhow::Result<Option<(T, usize)>> {
    let mut taken = 0;
    while let Some((operation, length)) = read_operation(bytes.get(taken..).unwrap_or_default())? {
        taken += length;
        if let Some(found) = wanted(operation) {
            return Ok(Some((found, taken)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sender::data;

    fn frame(content: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x82, u8::try_from(content.len()).expect("is short")];
        frame.extend_from_slice(content);
        frame
    }

    #[test]
    fn messages_are_heard_and_pings_answered() {
        let data = data(7, 9, 20);
        let message = format!("MSG push.a 1 {}\r\n{data}\r\n", data.len());
        let content = format!("PING\r\n{message}{message}");
        let (mut reply, mut heard) = (Vec::new(), Vec::new());
        let bytes = frame(content.as_bytes());
        let taken = hear(&bytes, &mut reply, &mut |_, data| {
            heard.push(data.numbers())
        });
        assert_eq!(taken.expect("good").expect("whole").taken, bytes.len());
        assert_eq!(heard, [Some((7, 9)), Some((7, 9))]);
        assert!(!reply.is_empty());
        let cut = frame(&message.as_bytes()[..message.len() - 1]);
        assert!(hear(&cut, &mut reply, &mut |_, _| {}).is_err());
    }

    #[test]
    fn what_comes_before_an_answer_is_taken_with_it() {
        let bytes = b"INFO {}\r\nPING\r\nMSG _INBOX.a 1 2\r\n{}\r\nPONG\r\n";
        let (answer, taken) = take_answer(bytes).expect("good").expect("whole");
        assert_eq!((answer.as_str(), taken), ("{}", bytes.len() - 6));
        assert!(until_pong(&bytes[..20]).expect("good").is_none());
        assert!(until_pong(b"-ERR 'no'\r\n").is_err());
    }
}
