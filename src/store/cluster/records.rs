//! Token records in Redis: calls of the functions in `functions.lua`, one round trip each.
//!
//! The connections here are multiplexed: many calls share each, none blocks it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use redis::cluster::ClusterClient;
use redis::io::tcp::TcpSettings;
use redis::{Cmd, RedisError, ToRedisArgs};
use sha2::{Digest, Sha256};

use super::clocks::clock_us;
use super::line::Line;
use super::primaries::Primaries;
use super::reply::Reply;
use crate::store::StoreError;
use crate::token::{DeviceId, TokenId};

/// The library as it is loaded, with its names still open.
const SOURCE: &str = include_str!("functions.lua");

/// What the records look like; a library of another format must not touch them.
const FORMAT: &str = "1";

/// No answer is waited for longer: a server that was paused must not be believed when it wakes,
/// and a sender is to have its answer within two seconds.
pub(super) const ANSWER_MAX: Duration = Duration::from_millis(900);

/// Connecting to one server takes no longer.
const CONNECT_MAX: Duration = Duration::from_millis(800);

/// Times that the client follows a moved slot or a broken connection by itself. Every function may
/// be run twice.
const RETRIES: u32 = 3;

/// Connections to every server. More than one, because each is driven by one task.
const CONNECTIONS: usize = 2;

/// Calls under way on one connection; more of them wait.
const CALLS_MAX: usize = 4_096;

/// The functions of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Alloc,
    Settle,
    Void,
    Unmark,
    Stamp,
    Contact,
    Touch,
    Page,
    Create,
    Finish,
    Propose,
    Stage,
    Heal,
    Detach,
    Claim,
    Release,
    Lease,
}

impl Function {
    fn name(self) -> &'static str {
        match self {
            Self::Alloc => "alloc",
            Self::Settle => "settle",
            Self::Void => "void",
            Self::Unmark => "unmark",
            Self::Stamp => "stamp",
            Self::Contact => "contact",
            Self::Touch => "touch",
            Self::Page => "page",
            Self::Create => "create",
            Self::Finish => "finish",
            Self::Propose => "propose",
            Self::Stage => "stage",
            Self::Heal => "heal",
            Self::Detach => "detach",
            Self::Claim => "claim",
            Self::Release => "release",
            Self::Lease => "lease",
        }
    }
}

/// The library under the names of this build: those of other builds stay beside it, so that nodes
/// can be upgraded one by one.
#[derive(Debug)]
pub(super) struct Library {
    version: String,
    source: String,
}

impl Library {
    pub(super) fn of_this_build() -> Self {
        let digest: [u8; 32] = Sha256::digest(SOURCE.as_bytes()).into();
        let [a, b, c, d, ..] = digest;
        let version = format!("_{FORMAT}_{a:02x}{b:02x}{c:02x}{d:02x}");
        let source = SOURCE
            .replace("@library@", &format!("herald{version}"))
            .replace("@version@", &version);
        Self { version, source }
    }

    /// The text to load.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    fn function(&self, function: Function) -> String {
        format!("{}{}", function.name(), self.version)
    }
}

/// One call on its way.
pub(super) struct Call {
    command: Cmd,
    line: usize,
}

impl Call {
    /// With one more argument.
    pub(super) fn arg(mut self, argument: impl ToRedisArgs) -> Self {
        self.command.arg(argument);
        self
    }
}

/// All records.
pub(super) struct Records {
    lines: Vec<Arc<Line>>,
    key_prefix: String,
    library: Library,
    primaries: Arc<Primaries>,
}

/// How the clients of this store connect.
pub(super) fn client(urls: &[String]) -> Result<redis::cluster::ClusterClientBuilder, RedisError> {
    let nodes: Vec<redis::ConnectionInfo> = urls
        .iter()
        .map(|url| redis::IntoConnectionInfo::into_connection_info(url.as_str()))
        .collect::<Result<_, _>>()?;
    Ok(ClusterClient::builder(nodes)
        .connection_timeout(CONNECT_MAX)
        .response_timeout(ANSWER_MAX)
        .overall_response_timeout(Some(ANSWER_MAX))
        .retries(RETRIES)
        .connection_concurrency_limit(CALLS_MAX)
        .tcp_settings(TcpSettings::default().set_nodelay(true)))
}

impl Records {
    /// Connects, and loads the library where it is missing.
    pub(super) async fn connect(
        urls: &[String],
        key_prefix: &str,
        primaries: Arc<Primaries>,
    ) -> Result<Self, RedisError> {
        let client = client(urls)?.build()?;
        let mut lines = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            lines.push(Line::open(client.clone()).await?);
        }
        let records = Self {
            lines,
            key_prefix: key_prefix.to_owned(),
            library: Library::of_this_build(),
            primaries,
        };
        records.load_library().await?;
        Ok(records)
    }

    /// A call on a token's record.
    pub(super) fn on_token(&self, function: Function, token: TokenId) -> Call {
        let [first, ..] = token.0;
        self.call(
            function,
            &self.key("", &URL_SAFE_NO_PAD.encode(token.0)),
            first,
        )
    }

    /// A call on a device's record.
    pub(super) fn on_device(&self, function: Function, device: DeviceId) -> Call {
        let [first, ..] = device.0;
        self.call(function, &self.key("device:", &device.to_text()), first)
    }

    /// A call on the list of nodes.
    pub(super) fn on_nodes(&self, function: Function) -> Call {
        self.call(function, &self.key("", "nodes"), 0)
    }

    /// A name in Redis that no other region uses. All names with one tag live in one slot.
    pub(super) fn key(&self, kind: &str, tag: &str) -> String {
        format!("{}:{kind}{{{tag}}}", self.key_prefix)
    }

    fn call(&self, function: Function, key: &str, spread: u8) -> Call {
        let mut command = redis::cmd("FCALL");
        command.arg(self.library.function(function)).arg(1).arg(key);
        Call {
            command,
            line: usize::from(spread) % self.lines.len().max(1),
        }
    }

    /// Runs a call. A server that has never seen the library, because it is new or was wiped, is
    /// given it first.
    ///
    /// # Errors
    /// No answer, or one that this build does not understand. The step may have been taken.
    pub(super) async fn run(&self, call: Call) -> Result<Reply, StoreError> {
        let Call { command, line } = call;
        let before_us = clock_us();
        let answer = match self.send(&command, line).await {
            Err(error) if is_unknown_function(&error) => {
                self.load_library().await.map_err(no_answer)?;
                self.send(&command, line).await
            }
            answer => answer,
        };
        let value = answer.map_err(no_answer)?;
        Reply::read(value)
            .map(|reply| reply.that_came_between(before_us, clock_us()))
            .ok_or_else(|| StoreError::Corrupt("a function's answer cannot be read".to_owned()))
    }

    async fn send(&self, command: &Cmd, line: usize) -> Result<redis::Value, RedisError> {
        let line = self.lines.get(line).or(self.lines.first());
        let line = line.ok_or((redis::ErrorKind::Client, "there is no connection"))?;
        line.call(command).await
    }

    /// Publishes on a sharded channel; answers how many heard it.
    ///
    /// # Errors
    /// No answer.
    pub(super) async fn publish(&self, channel: &str, message: &[u8]) -> Result<u64, StoreError> {
        let mut command = redis::cmd("SPUBLISH");
        command.arg(channel).arg(message);
        match self.send(&command, 0).await.map_err(no_answer)? {
            redis::Value::Int(heard) => Ok(u64::try_from(heard).unwrap_or_default()),
            _ => Ok(0),
        }
    }

    async fn load_library(&self) -> Result<(), RedisError> {
        self.primaries.load(&self.library).await
    }
}

fn is_unknown_function(error: &RedisError) -> bool {
    error.to_string().contains("Function not found")
}

fn no_answer(error: RedisError) -> StoreError {
    tracing::debug!(%error, "redis did not do what it was asked");
    StoreError::Unavailable("redis does not answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_names_itself_and_all_its_functions_by_version() {
        let library = Library::of_this_build();
        assert!(!library.source().contains('@'));
        assert!(library.source().starts_with("#!lua name=herald_1_"));
        for function in [
            Function::Alloc,
            Function::Settle,
            Function::Void,
            Function::Unmark,
            Function::Stamp,
            Function::Contact,
            Function::Touch,
            Function::Page,
            Function::Create,
            Function::Finish,
            Function::Propose,
            Function::Stage,
            Function::Heal,
            Function::Detach,
            Function::Claim,
            Function::Release,
            Function::Lease,
        ] {
            let registered = format!("register_function('{}'", library.function(function));
            assert!(library.source().contains(&registered), "{registered}");
        }
    }
}
