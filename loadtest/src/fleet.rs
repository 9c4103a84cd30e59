//! The child processes of the swarm, seen from the parent.

mod member;

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::arrivals::SendSet;
use crate::clock::cpu_ns;
use crate::contenders::Service;
use crate::habit::Habit;
use crate::latency::Latencies;
use crate::memory::resident_bytes;
use crate::pipe::{Order, Progress, Report};
pub use member::children_for;
use member::{Member, listen, sources};

/// The hidden subcommand that makes a process a child.
pub const CREW_COMMAND: &str = "crew";

/// Reports that wait to be read.
const REPORTS_MAX: usize = 64;

/// Collecting may take this long.
const COLLECT_TIMEOUT: Duration = Duration::from_secs(60);

/// All children, and the latest they said.
pub struct Fleet {
    members: Vec<Member>,
    reports: mpsc::Receiver<(usize, anyhow::Result<Report>)>,
}

/// The outcome of [`Fleet::register`] or [`Fleet::connect`].
#[derive(Debug, Default)]
pub struct Opened {
    /// Push tokens of the devices that are connected.
    pub tokens: Vec<String>,
    /// Devices that could not be registered, or connected.
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
    /// From the cut of a storm to the welcome.
    pub storm_back: Latencies,
    /// From the cut of a storm to having seen everything.
    pub storm_caught_up: Latencies,
    /// How late the children were when they wanted to run.
    pub lag: Latencies,
}

impl Opened {
    /// Some devices more failed.
    pub fn fail(&mut self, failed: u32, reason: Option<String>) {
        self.failed += failed;
        self.reason = self.reason.take().or(reason);
    }
}

impl Fleet {
    /// Starts so many children.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub async fn start(children: usize, service: &Service) -> anyhow::Result<Self> {
        let (sender, reports) = mpsc::channel(REPORTS_MAX);
        let mut fleet = Self {
            members: Vec::new(),
            reports,
        };
        for index in 0..children {
            let (mut member, output) = Member::launch()?;
            tokio::spawn(listen(index, output, sender.clone()));
            let begin = Order::Begin {
                service: service.clone(),
                sources: sources(service.address(), index),
            };
            member.order(&begin).await?;
            fleet.members.push(member);
        }
        Ok(fleet)
    }

    /// Registers `count` more devices, spread evenly. `on_progress` is called now and then.
    ///
    /// # Errors
    /// When a child is lost. Devices that cannot be registered are no error here.
    pub async fn register(
        &mut self,
        count: u64,
        on_progress: impl FnMut(u64),
    ) -> anyhow::Result<Opened> {
        let children = self.members.len() as u64;
        for (index, member) in self.members.iter_mut().enumerate() {
            let share = (count + index as u64) / children;
            let count = u32::try_from(share)?;
            member.order(&Order::Register { count }).await?;
        }
        self.hear_all(on_progress).await
    }

    /// Connects all that are registered, `per_second` of them a second in all, as devices with this
    /// habit. `on_progress` hears how many are open.
    ///
    /// # Errors
    /// When a child is lost. Sockets that cannot be opened are no error here.
    pub async fn connect(
        &mut self,
        per_second: f64,
        habit: Habit,
        on_progress: impl FnMut(u64),
    ) -> anyhow::Result<Opened> {
        let children = u32::try_from(self.members.len())?;
        let per_second = per_second / f64::from(children);
        self.order_all(&Order::Connect { per_second, habit })
            .await?;
        self.hear_all(on_progress).await
    }

    /// Hears what becomes of an order until every child has done it.
    async fn hear_all(&mut self, mut on_progress: impl FnMut(u64)) -> anyhow::Result<Opened> {
        let mut missing = self.members.len();
        let mut opened = Opened::default();
        while missing > 0 {
            match self.hear().await? {
                Some(Report::Tokens { tokens }) => opened.tokens.extend(tokens),
                Some(Report::Registered { failed, reason }) => {
                    missing -= 1;
                    opened.fail(failed, reason);
                }
                Some(Report::Opened {
                    failed,
                    reason,
                    connecting_ns,
                }) => {
                    missing -= 1;
                    opened.fail(failed, reason);
                    opened.connecting_ns = opened.connecting_ns.max(connecting_ns);
                }
                _ => on_progress(self.total().open),
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
        self.order_all(&Order::Collect).await?;
        let deadline = Instant::now() + COLLECT_TIMEOUT;
        let mut missing = self.members.len();
        let mut collected = Collected {
            seen: SendSet::default(),
            delivery: Latencies::new(),
            storm_back: Latencies::new(),
            storm_caught_up: Latencies::new(),
            lag: Latencies::new(),
        };
        while missing > 0 {
            let heard = timeout_at(deadline, self.hear()).await;
            let heard = heard.context("a swarm process does not answer")??;
            if let Some(Report::Collected {
                seen,
                delivery,
                storm_back,
                storm_caught_up,
                lag,
                ..
            }) = heard
            {
                missing -= 1;
                collected.seen.merge(&SendSet::from_text(&seen)?);
                collected.delivery.merge(&delivery);
                collected.storm_back.merge(&storm_back);
                collected.storm_caught_up.merge(&storm_caught_up);
                collected.lag.merge(&lag);
            }
        }
        Ok(collected)
    }

    /// Tells every child to do something.
    ///
    /// # Errors
    /// When one of them is gone.
    pub async fn order_all(&mut self, order: &Order) -> anyhow::Result<()> {
        for member in &mut self.members {
            member.order(order).await?;
        }
        Ok(())
    }

    /// How all children together are doing.
    pub fn total(&self) -> Progress {
        let mut total = Progress::default();
        for member in &self.members {
            total.add(&member.progress);
        }
        total
    }

    /// Whether every child has said something.
    pub fn has_heard_all(&self) -> bool {
        let mut children = self.members.iter();
        children.all(|member| member.progress.rss_bytes > 0)
    }

    /// Whether every child has heard that everybody is to be good.
    pub fn is_calm(&self) -> bool {
        self.members.iter().all(|member| member.progress.calm)
    }

    /// Resident memory of every process of the swarm together.
    pub fn rss_bytes(&self) -> u64 {
        resident_bytes() + self.total().rss_bytes
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
