//! Commands to one node, past its link: tests look at nodes that are cut off, too.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo as _, Value};

use super::RedisCluster;

/// A node on this machine connects and answers within this time, unless it is dead or paused.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Calls the node at this address, on a connection of its own.
pub(super) async fn call(node: SocketAddr, words: &[&str]) -> anyhow::Result<Value> {
    call_in_turn(node, &[words]).await
}

/// Calls the node on one connection, again and again; the last answer.
async fn call_in_turn(node: SocketAddr, commands: &[&[&str]]) -> anyhow::Result<Value> {
    let tcp = TcpSettings::default().set_nodelay(true);
    let info = format!("redis://{node}").into_connection_info()?;
    let limits = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ANSWER_MAX))
        .set_response_timeout(Some(ANSWER_MAX));
    let mut connection = Client::open(info.set_tcp_settings(tcp))?
        .get_multiplexed_async_connection_with_config(&limits)
        .await?;
    let mut last = Value::Nil;
    for words in commands {
        let [name, arguments @ ..] = words else {
            anyhow::bail!("no command");
        };
        let mut command = redis::cmd(name);
        let answer = command.arg(arguments).query_async(&mut connection).await;
        last = answer.with_context(|| format!("{node}: {words:?}"))?;
    }
    Ok(last)
}

/// As [`call`], for answers that are text.
pub(super) async fn call_for_text(node: SocketAddr, words: &[&str]) -> anyhow::Result<String> {
    let answer = call(node, words).await?;
    redis::from_redis_value(answer).with_context(|| format!("{node}: {words:?}: no text"))
}

impl RedisCluster {
    /// Sends a command to a node and to no other, past its link, so that no cut holds it back.
    ///
    /// # Errors
    /// There is no such node, it does not answer within 2 s, or it answers with an error (`MOVED`
    /// among them).
    pub async fn command(&self, node: usize, words: &[&str]) -> anyhow::Result<Value> {
        call(self.node(node)?.back(), words).await
    }

    /// Like [`RedisCluster::command`], for one that only reads: a replica answers it too, from what
    /// has reached it.
    ///
    /// # Errors
    /// As [`RedisCluster::command`].
    pub async fn command_on_replica(&self, node: usize, words: &[&str]) -> anyhow::Result<Value> {
        call_in_turn(self.node(node)?.back(), &[&["READONLY"], words]).await
    }

    /// A section of what a node says of itself (`INFO`): lines of `name:value`.
    ///
    /// # Errors
    /// As [`RedisCluster::command`].
    pub async fn info(&self, node: usize, section: &str) -> anyhow::Result<String> {
        call_for_text(self.node(node)?.back(), &["INFO", section]).await
    }
}

/// The value of a line `name:value`.
pub(super) fn value_of<'a>(text: &'a str, name: &str) -> anyhow::Result<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim_end)
        .with_context(|| format!("no {name}"))
}
