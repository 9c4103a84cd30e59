//! Servers of several kinds behind one set of verbs: started and stopped, registered at, published
//! to, listened to. Only what stands here knows one kind from another.

mod connection;
mod herald;
mod mosquitto;
mod nats;
mod nchan;
mod running;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

// `self`, because a crate of the workspace has this name, and is none of the swarm's business.
pub use self::herald::{DataView, Letter, MessageView};
use crate::http::CallError;
use crate::ledger::Outcome;
use crate::register::{Identity, register_some};
use crate::sender::data;
use crate::target::Target;
use crate::websocket::{Incoming, Opcode, read_frame, write_frame};
pub use connection::Connection;
use running::is_installed;
pub use running::{Running, Usage};

/// From the first SYN to the welcome.
const GREETING_TIMEOUT: Duration = Duration::from_secs(30);

/// A server that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contender {
    /// Herald, with the path of its binary.
    Herald(PathBuf),
    /// A server that others made.
    Peer(Peer),
}

/// Servers beside Herald, as Debian packages them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// Mosquitto: MQTT over TCP, QoS 1.
    Mosquitto,
    /// Nchan, the publish and subscribe module of nginx: HTTP in, WebSockets out.
    Nchan,
    /// NATS with `JetStream` on files: its own protocol in, WebSockets out.
    Nats,
}

/// A server as its clients see it: where it is, and what is spoken there. Children get it over
/// their pipe, never on their command line: it may hold secrets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Service {
    /// Herald, and the app to be.
    Herald(Target),
    /// Mosquitto's listener.
    Mosquitto(SocketAddr),
    /// nginx's listener.
    Nchan(SocketAddr),
    /// Both listeners of NATS.
    Nats(nats::Listeners),
}

/// A connection that has been greeted.
pub struct Greeted {
    /// The connection, and what came after the welcome.
    pub connection: Connection,
    /// How often the server wants to hear something; `None` when it asks for itself.
    pub ping_interval: Option<Duration>,
    /// Up to where the recipient's log goes; 0 where there are no numbers.
    pub syn_stored: u64,
}

/// What was at the front of a server's bytes.
pub struct Heard<'a> {
    /// How many bytes it takes.
    pub taken: usize,
    /// Code and reason, if the server said goodbye.
    pub goodbye: Option<(u16, &'a str)>,
}

/// `None` when more must come; the error says what is wrong with what came.
pub type Hearing<'a> = Result<Option<Heard<'a>>, String>;

/// Where pushes go that were heard, with their numbers where they have some.
pub type Pushed<'p, 'a> = &'p mut dyn FnMut(Option<u64>, DataView<'a>);

/// What became of a publish that was answered.
pub struct Answered {
    /// What the answer says of the push.
    pub outcome: Outcome,
    /// What was said instead of a yes.
    pub trouble: Option<String>,
}

/// One publisher: a connection of its own, on which one push at a time is on its way.
pub struct Publisher {
    payload_bytes: usize,
    spoken: Spoken,
}

/// What it speaks.
enum Spoken {
    Herald(self::herald::Publisher),
    Mosquitto(mosquitto::Publisher),
    Nchan(nchan::Publisher),
    Nats(nats::Publisher),
}

impl Contender {
    /// Starts one in a directory of its own below `scratch`, and waits until it is ready.
    ///
    /// # Errors
    /// When it is not installed, or does not start.
    pub async fn start(&self, scratch: &Path) -> anyhow::Result<Running> {
        let started = match self {
            Self::Herald(binary) => self::herald::start(binary, scratch).await,
            Self::Peer(Peer::Mosquitto) => mosquitto::start(scratch).await,
            Self::Peer(Peer::Nchan) => nchan::start(scratch).await,
            Self::Peer(Peer::Nats) => nats::start(scratch).await,
        };
        started.with_context(|| format!("starting {self}"))
    }
}

impl std::fmt::Display for Contender {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Herald(binary) => binary.display().fmt(formatter),
            Self::Peer(peer) => formatter.write_str(&possible_name(*peer)),
        }
    }
}

impl Peer {
    /// Whether it can be started.
    pub fn is_installed(self) -> bool {
        match self {
            Self::Mosquitto => is_installed(mosquitto::PROGRAM),
            Self::Nchan => is_installed(nchan::PROGRAM) && Path::new(nchan::MODULE).exists(),
            Self::Nats => is_installed(nats::PROGRAM),
        }
    }
}

/// How a value is called on the command line.
pub fn possible_name(value: impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

impl Service {
    /// Where devices connect.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Herald(target) => target.server,
            Self::Mosquitto(server) | Self::Nchan(server) => *server,
            Self::Nats(listeners) => listeners.websocket,
        }
    }

    /// Herald's app.
    ///
    /// # Errors
    /// When this is another server.
    pub fn target(&self) -> anyhow::Result<&Target> {
        match self {
            Self::Herald(target) => Ok(target),
            _ => bail!("only Herald has this"),
        }
    }

    /// Makes `count` recipients, one after the other.
    pub async fn register(
        &self,
        source: Option<IpAddr>,
        count: u32,
    ) -> Vec<anyhow::Result<Identity>> {
        match self {
            Self::Herald(target) => register_some(target, source, count).await,
            _ => (0..count).map(|_| Ok(Identity::of_a_name())).collect(),
        }
    }

    /// Connects a recipient that has acknowledged everything below `min_syn`.
    ///
    /// # Errors
    /// When the server does not let it in.
    pub async fn connect(
        &self,
        source: Option<IpAddr>,
        identity: &Identity,
        min_syn: u64,
    ) -> anyhow::Result<Greeted> {
        let connect = async {
            let connection = Connection::open(self.address(), source)
                .await
                .context("connecting")?;
            let mut greeted = self.greet(connection, identity, min_syn).await?;
            greeted.connection.bytes.shrink_to_fit();
            Ok(greeted)
        };
        timeout(GREETING_TIMEOUT, connect)
            .await
            .context("no welcome in time")?
    }

    async fn greet(
        &self,
        mut connection: Connection,
        identity: &Identity,
        min_syn: u64,
    ) -> anyhow::Result<Greeted> {
        let name = identity.token.as_str();
        match self {
            Self::Herald(target) => {
                return self::herald::greet(connection, target, identity, min_syn).await;
            }
            Self::Mosquitto(_) => mosquitto::subscribe(&mut connection, name).await?,
            Self::Nchan(_) => nchan::subscribe(&mut connection, name).await?,
            Self::Nats(_) => nats::subscribe(&mut connection, name).await?,
        }
        Ok(Greeted {
            connection,
            ping_interval: None,
            syn_stored: 0,
        })
    }

    /// Reads what is at the front of `bytes`; `None` when more must come. Pushes go to `pushed`,
    /// with their numbers if they have some; what the protocol wants to be answered at once is
    /// appended to `reply`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn hear<'a>(
        &self,
        bytes: &'a [u8],
        reply: &mut Vec<u8>,
        pushed: Pushed<'_, 'a>,
    ) -> Hearing<'a> {
        match self {
            Self::Herald(_) => self::herald::hear(bytes, reply, pushed),
            Self::Mosquitto(_) => mosquitto::hear(bytes, reply, pushed),
            Self::Nchan(_) => nchan::hear(bytes, reply, pushed),
            Self::Nats(_) => nats::hear(bytes, reply, pushed),
        }
    }

    /// Appends what acknowledges everything up to `syn`; nothing where each push is acknowledged
    /// as it is heard, or never. `text` is working memory.
    pub fn write_ack(&self, text: &mut String, out: &mut Vec<u8>, token: &str, syn: u64) {
        if matches!(self, Self::Herald(_)) {
            self::herald::write_ack(text, token, syn);
            write_frame(out, Opcode::Text, text.as_bytes());
        }
    }

    /// One publisher of pushes with `payload_bytes` of data each.
    pub fn publisher(&self, payload_bytes: usize) -> Publisher {
        let spoken = match self {
            Self::Herald(target) => Spoken::Herald(self::herald::Publisher::new(target)),
            Self::Mosquitto(server) => Spoken::Mosquitto(mosquitto::Publisher::new(*server)),
            Self::Nchan(server) => Spoken::Nchan(nchan::Publisher::new(*server)),
            Self::Nats(listeners) => Spoken::Nats(nats::Publisher::new(listeners.own)),
        };
        Publisher {
            payload_bytes,
            spoken,
        }
    }
}

impl Publisher {
    /// Publishes send `number`, which was meant for `at_ns`, to one recipient, and waits for the
    /// answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn publish(
        &mut self,
        to: &str,
        number: u64,
        at_ns: u64,
    ) -> Result<Answered, CallError> {
        let data = data(number, at_ns, self.payload_bytes);
        match &mut self.spoken {
            Spoken::Herald(publisher) => publisher.publish(to, &data).await,
            Spoken::Mosquitto(publisher) => publisher.publish(to, &data).await,
            Spoken::Nchan(publisher) => publisher.publish(to, &data).await,
            Spoken::Nats(publisher) => publisher.publish(to, &data).await,
        }
    }
}

impl Answered {
    /// A yes.
    pub fn yes() -> Self {
        Self {
            outcome: Outcome::Accepted,
            trouble: None,
        }
    }

    /// Anything else.
    pub fn no(outcome: Outcome, trouble: String) -> Self {
        Self {
            outcome,
            trouble: Some(trouble),
        }
    }
}

/// Reads one WebSocket frame: a message goes to `message`, a ping is answered.
fn hear_frame<'a>(
    bytes: &'a [u8],
    reply: &mut Vec<u8>,
    message: impl FnOnce(Incoming<'a>, &mut Vec<u8>) -> Result<(), String>,
) -> Hearing<'a> {
    let Some((frame, taken)) = read_frame(bytes).map_err(|broken| broken.0)? else {
        return Ok(None);
    };
    let mut goodbye = None;
    match frame {
        Incoming::Ping(content) => write_frame(reply, Opcode::Pong, content),
        Incoming::Pong => {}
        Incoming::Close(code, reason) => {
            write_frame(reply, Opcode::Close, &code.to_be_bytes());
            goodbye = Some((code, reason));
        }
        Incoming::Text(_) | Incoming::Binary(_) => message(frame, reply)?,
    }
    Ok(Some(Heard { taken, goodbye }))
}

/// What the swarm wrote into a push that has nothing around it.
fn read_data(content: &[u8]) -> Result<DataView<'_>, String> {
    serde_json::from_slice(content).map_err(|error| format!("a push is not the swarm's: {error}"))
}
