//! One child process: how it is started, where it connects from, how it is spoken to.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;

use super::CREW_COMMAND;
use crate::pipe::{Order, Progress, Report};

/// Sockets that one child holds at most: with so many, its one thread still has time to spare.
const SOCKETS_PER_CHILD: u64 = 10_000;

/// Files that a child needs beside its sockets.
const FILES_SPARE: u64 = 200;

/// Source addresses of each child, one for a thousand sockets. An address has about 28,000 ports,
/// but the more of them are taken, the longer the kernel looks for a free one.
const SOURCES_PER_CHILD: u16 = 10;

/// The first source address is 127.0.0.2; 127.0.0.1 is left to everyone else.
const FIRST_SOURCE: u16 = 2;

/// Children at most: a run is then at the end of what one machine can do.
const CHILDREN_MAX: u64 = 60;

/// A child process.
pub struct Member {
    orders: ChildStdin,
    /// The latest it said.
    pub progress: Progress,
    /// Killed when it is dropped; before that it ends because its standard input does.
    _process: Child,
}

/// How many children are needed for so many sockets.
///
/// # Errors
/// When this machine allows fewer.
pub fn children_for(sockets: u64) -> anyhow::Result<usize> {
    let per_child = files_allowed()?
        .saturating_sub(FILES_SPARE)
        .clamp(1, SOCKETS_PER_CHILD);
    let children = sockets.div_ceil(per_child).max(1);
    ensure!(
        children <= CHILDREN_MAX,
        "{sockets} sockets need {children} processes; {CHILDREN_MAX} is the most"
    );
    Ok(usize::try_from(children)?)
}

/// Raises the limit of open files as far as it goes; children inherit it.
fn files_allowed() -> anyhow::Result<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("cannot raise the limit of open files")?;
    Ok(limit.current.unwrap_or(u64::MAX))
}

impl Member {
    /// Starts a child; what it says comes from the second of the pair.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn launch() -> anyhow::Result<(Self, ChildStdout)> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut process = Command::new(program)
            .arg(CREW_COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a swarm process")?;
        let (Some(orders), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            bail!("a swarm process has no pipes");
        };
        let member = Self {
            orders,
            progress: Progress::default(),
            _process: process,
        };
        Ok((member, output))
    }

    /// Tells the child what to do.
    ///
    /// # Errors
    /// When it is gone.
    pub async fn order(&mut self, order: &Order) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        let written = self.orders.write_all(&line).await;
        written.context("a swarm process does not listen")
    }
}

/// Hands every report of one child on, and an error when there are no more.
pub async fn listen(
    index: usize,
    output: ChildStdout,
    reports: mpsc::Sender<(usize, anyhow::Result<Report>)>,
) {
    let mut lines = BufReader::new(output).lines();
    loop {
        let report = match lines.next_line().await {
            Ok(Some(line)) => serde_json::from_str(&line).context("a report cannot be read"),
            Ok(None) => Err(anyhow::anyhow!("swarm process {index} has ended")),
            Err(error) => Err(error).context("the pipe of a swarm process broke"),
        };
        let is_last = report.is_err();
        if reports.send((index, report)).await.is_err() || is_last {
            return;
        }
    }
}

/// Addresses of this machine for one child to connect from; only for a server on this machine.
pub fn sources(server: SocketAddr, index: usize) -> Vec<Ipv4Addr> {
    if !(server.is_ipv4() && server.ip().is_loopback()) {
        return Vec::new();
    }
    let first = u16::try_from(index)
        .unwrap_or(0)
        .saturating_mul(SOURCES_PER_CHILD)
        .saturating_add(FIRST_SOURCE);
    (0..SOURCES_PER_CHILD)
        .map(|step| {
            let [high, low] = first.saturating_add(step).to_be_bytes();
            Ipv4Addr::new(127, 0, high, low)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_come_with_the_sockets() {
        assert_eq!(children_for(0).expect("fits"), 1);
        assert!(children_for(16_000).expect("fits") >= 2);
        assert!(children_for(100_000_000).is_err());
    }

    #[test]
    fn children_come_from_addresses_of_their_own() {
        let here = SocketAddr::from(([127, 9, 9, 9], 1));
        let mut all: Vec<Ipv4Addr> = (0..60).flat_map(|index| sources(here, index)).collect();
        assert!(all.iter().all(|it| it.octets()[..2] == [127, 0]));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 600);
        assert_eq!(all.first(), Some(&Ipv4Addr::new(127, 0, 0, 2)));
        assert!(sources(SocketAddr::from(([10, 0, 0, 1], 1)), 0).is_empty());
    }
}
