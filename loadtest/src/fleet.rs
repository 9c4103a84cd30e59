//! The child processes of the swarm, seen from the parent.

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::arrivals::{ArrivalCounts, SendSet};
use crate::clock::cpu_ns;
use crate::latency::Latencies;
use crate::pipe::{Order, Progress, Report};
use crate::target::Target;

/// The hidden subcommand that makes a process a child.
pub const CREW_COMMAND: &str = "crew";

/// Sockets that one child holds at most: with so many, its one thread still has time to spare.
const SOCKETS_PER_CHILD: u64 = 10_000;

/// Files that a child needs beside its sockets.
const FILES_SPARE: u64 = 200;

/// Source addresses of each child. One address has about 28,000 ports for connections.
const SOURCES_PER_CHILD: u8 = 4;

/// The first source address is 127.0.0.2; 127.0.0.1 is left to everyone else.
const FIRST_SOURCE: u8 = 2;

/// Children at most, by the addresses of 127.0.0.x.
const CHILDREN_MAX: u64 = 60;

/// Reports that wait to be read.
const REPORTS_MAX: usize = 64;

/// Collecting may take this long.
const COLLECT_TIMEOUT: Duration = Duration::from_secs(60);

struct Member {
    orders: ChildStdin,
    progress: Progress,
    /// Killed when it is dropped; before that it ends because its standard input does.
    _process: Child,
}

/// All children, and the latest they said.
pub struct Fleet {
    members: Vec<Member>,
    reports: mpsc::Receiver<(usize, anyhow::Result<Report>)>,
}

/// The outcome of [`Fleet::open`].
#[derive(Debug, Default)]
pub struct Opened {
    /// Push tokens of the devices that are connected.
    pub tokens: Vec<String>,
    /// Devices that could not be connected.
    pub failed: u32,
    /// Why the first of them could not.
    pub reason: Option<String>,
    /// How long the slowest child took to connect its share.
    pub connecting_ns: u64,
}

/// Everything that arrived anywhere.
pub struct Collected {
    /// Which sends.
    pub seen: SendSet,
    /// From intended send to arrival.
    pub delivery: Latencies,
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

impl Fleet {
    /// Starts so many children.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub async fn start(children: usize, target: &Target) -> anyhow::Result<Self> {
        let (sender, reports) = mpsc::channel(REPORTS_MAX);
        let mut fleet = Self {
            members: Vec::new(),
            reports,
        };
        for index in 0..children {
            let (mut member, output) = launch()?;
            tokio::spawn(listen(index, output, sender.clone()));
            let begin = Order::Begin {
                target: target.clone(),
                sources: sources(target, index),
            };
            member.order(&begin).await?;
            fleet.members.push(member);
        }
        Ok(fleet)
    }

    /// Opens `count` more sockets, spread evenly, `per_second` of them a second in all.
    /// `on_progress` hears how many are open.
    ///
    /// # Errors
    /// When a child is lost. Sockets that cannot be opened are no error here.
    pub async fn open(
        &mut self,
        count: u64,
        per_second: f64,
        mut on_progress: impl FnMut(u64),
    ) -> anyhow::Result<Opened> {
        let children = u32::try_from(self.members.len())?;
        let mut missing = self.members.len();
        for (index, member) in self.members.iter_mut().enumerate() {
            let share = (count + index as u64) / u64::from(children);
            let order = Order::Open {
                count: u32::try_from(share)?,
                per_second: per_second / f64::from(children),
            };
            member.order(&order).await?;
        }
        let mut opened = Opened::default();
        while missing > 0 {
            match self.hear().await? {
                Some(Report::Tokens { tokens }) => opened.tokens.extend(tokens),
                Some(Report::Opened {
                    failed,
                    reason,
                    connecting_ns,
                }) => {
                    missing -= 1;
                    opened.failed += failed;
                    opened.reason = opened.reason.or(reason);
                    opened.connecting_ns = opened.connecting_ns.max(connecting_ns);
                }
                _ => on_progress(self.open_sockets()),
            }
        }
        Ok(opened)
    }

    /// Hears the children until `is_enough`, or until the deadline.
    ///
    /// # Errors
    /// When a child is lost.
    pub async fn watch(
        &mut self,
        deadline: Instant,
        mut is_enough: impl FnMut(&Self) -> bool,
    ) -> anyhow::Result<()> {
        while !is_enough(self) {
            match timeout_at(deadline, self.hear()).await {
                Ok(heard) => drop(heard?),
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Fetches everything that arrived so far.
    ///
    /// # Errors
    /// When a child is lost, or takes too long.
    pub async fn collect(&mut self) -> anyhow::Result<Collected> {
        for member in &mut self.members {
            member.order(&Order::Collect).await?;
        }
        let deadline = Instant::now() + COLLECT_TIMEOUT;
        let mut missing = self.members.len();
        let mut collected = Collected {
            seen: SendSet::default(),
            delivery: Latencies::new(),
        };
        while missing > 0 {
            let heard = timeout_at(deadline, self.hear()).await;
            let heard = heard.context("a swarm process does not answer")??;
            if let Some(Report::Collected { seen, delivery, .. }) = heard {
                missing -= 1;
                collected.seen.merge(&SendSet::from_text(&seen)?);
                collected.delivery.merge(&delivery);
            }
        }
        Ok(collected)
    }

    /// Sockets that are connected now.
    pub fn open_sockets(&self) -> u64 {
        self.members.iter().map(|member| member.progress.open).sum()
    }

    /// What has arrived.
    pub fn arrivals(&self) -> ArrivalCounts {
        let mut counts = ArrivalCounts::default();
        for member in &self.members {
            counts.add(member.progress.arrivals);
        }
        counts
    }

    /// Arrivals that have been acknowledged.
    pub fn acked(&self) -> u64 {
        self.members
            .iter()
            .map(|member| member.progress.acked)
            .sum()
    }

    /// Connections lost so far.
    pub fn disconnects(&self) -> u64 {
        let lost = self
            .members
            .iter()
            .map(|member| member.progress.disconnects);
        lost.sum()
    }

    /// Why one of them was lost.
    pub fn disconnect_reason(&self) -> Option<&str> {
        self.members
            .iter()
            .find_map(|member| member.progress.disconnect_reason.as_deref())
    }

    /// Processor time of every process of the swarm, this one first.
    pub fn cpu_ns(&self) -> Vec<u64> {
        let children = self.members.iter().map(|member| member.progress.cpu_ns);
        std::iter::once(cpu_ns()).chain(children).collect()
    }

    /// The next report; `None` when it was progress, which is kept.
    async fn hear(&mut self) -> anyhow::Result<Option<Report>> {
        let Some((index, report)) = self.reports.recv().await else {
            bail!("all swarm processes are gone");
        };
        let report = report?;
        let progress = match &report {
            Report::Progress(progress) | Report::Collected { progress, .. } => progress,
            _ => return Ok(Some(report)),
        };
        if let Some(member) = self.members.get_mut(index) {
            member.progress = progress.clone();
        }
        Ok(matches!(report, Report::Collected { .. }).then_some(report))
    }
}

impl Member {
    async fn order(&mut self, order: &Order) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        let written = self.orders.write_all(&line).await;
        written.context("a swarm process does not listen")
    }
}

fn launch() -> anyhow::Result<(Member, ChildStdout)> {
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
    let member = Member {
        orders,
        progress: Progress::default(),
        _process: process,
    };
    Ok((member, output))
}

/// Hands every report of one child on, and an error when there are no more.
async fn listen(
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
fn sources(target: &Target, index: usize) -> Vec<Ipv4Addr> {
    if !(target.server.is_ipv4() && target.server.ip().is_loopback()) {
        return Vec::new();
    }
    let first = u8::try_from(index)
        .unwrap_or(0)
        .saturating_mul(SOURCES_PER_CHILD)
        .saturating_add(FIRST_SOURCE);
    (0..SOURCES_PER_CHILD)
        .map(|step| Ipv4Addr::new(127, 0, 0, first.saturating_add(step)))
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
}
