//! A child process of the swarm: it holds devices, one socket each, does what its parent orders,
//! and ends with its parent.

mod device;
mod poller;
mod socket;
mod tally;

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use futures_util::stream::{self, FuturesUnordered};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::clock::monotonic_ns;
use crate::contenders::Service;
use crate::habit::Habit;
use crate::pacing::Schedule;
use crate::pipe::{Order, Report};
use crate::register::Identity;
use device::Seat;
use poller::Poller;
pub use tally::Crew;

/// How often the parent hears of this process.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Devices registered at a time.
const REGISTRARS: usize = 16;

/// Sockets on their way at a time.
const CONNECTORS: usize = 64;

/// Tokens in one report.
const TOKENS_PER_REPORT: usize = 200;

/// Reports that wait to be written.
const REPORTS_MAX: usize = 16;

/// Serves the parent on standard input and output until it hangs up.
///
/// # Errors
/// When the parent says something this program does not understand, or the pipes break.
pub async fn run() -> anyhow::Result<()> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let stdout = io::stdout().as_fd().try_clone_to_owned()?;
    let mut orders = BufReader::new(pipe::Receiver::from_owned_fd(stdin)?).lines();
    let mut out = pipe::Sender::from_owned_fd(stdout)?;

    let Some(first) = orders.next_line().await? else {
        return Ok(());
    };
    let Order::Begin { service, sources } = read_order(&first)? else {
        bail!("the first order is not to begin");
    };
    let sources: Vec<IpAddr> = sources.into_iter().map(IpAddr::V4).collect();
    let crew = Rc::new(Crew::new(service, sources));
    let (reports, mut to_write) = mpsc::channel(REPORTS_MAX);
    let mut tick = interval(PROGRESS_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            line = orders.next_line() => match line? {
                None => return Ok(()),
                Some(line) => obey(&crew, read_order(&line)?, &reports, &mut out).await?,
            },
            Some(report) = to_write.recv() => write_report(&mut out, &report).await?,
            due = tick.tick() => {
                let lag = Instant::now().saturating_duration_since(due);
                let lag_ns = u64::try_from(lag.as_nanos()).unwrap_or(u64::MAX);
                crew.tally.borrow_mut().lag.record_ns(lag_ns);
                let progress = Report::Progress(crew.progress());
                write_report(&mut out, &progress).await?;
            }
        }
    }
}

/// Devices in this process instead of in children, for commands that need few: registered,
/// connected and held until the process ends. Answers with their push tokens.
///
/// # Errors
/// When one of them cannot be registered or connected.
pub async fn open_here(service: &Service, count: u32) -> anyhow::Result<(Rc<Crew>, Vec<String>)> {
    let crew = Rc::new(Crew::new(service.clone(), Vec::new()));
    let mut tokens = Vec::new();
    for identity in service.register(None, count).await {
        let seat = Seat::take(&crew, identity?, Habit::Good).await?;
        tokens.push(seat.token().to_owned());
        spawn_local(seat.hold(Rc::clone(&crew)));
    }
    Ok((crew, tokens))
}

fn read_order(line: &str) -> anyhow::Result<Order> {
    serde_json::from_str(line).context("an order cannot be read")
}

async fn write_report(out: &mut pipe::Sender, report: &Report) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    out.write_all(&line).await?;
    Ok(())
}

async fn obey(
    crew: &Rc<Crew>,
    order: Order,
    reports: &mpsc::Sender<Report>,
    out: &mut pipe::Sender,
) -> anyhow::Result<()> {
    match order {
        Order::Begin { .. } => bail!("this process has begun already"),
        Order::Register { count } => {
            spawn_local(register(Rc::clone(crew), count, reports.clone()));
            Ok(())
        }
        Order::Connect { per_second, habit } => {
            let crew = Rc::clone(crew);
            spawn_local(connect_all(crew, per_second, habit, reports.clone()));
            Ok(())
        }
        Order::Cut(cut) => {
            crew.standing.send_modify(|standing| {
                standing.cuts += 1;
                standing.cut = Some(cut);
            });
            Ok(())
        }
        Order::Calm => {
            crew.standing.send_modify(|standing| standing.calm = true);
            Ok(())
        }
        Order::Collect => {
            let collected = {
                let tally = crew.tally.borrow();
                Report::Collected {
                    seen: tally.arrivals.seen().to_text(),
                    delivery: tally.delivery.counts(),
                    storm_back: tally.storm_back.counts(),
                    storm_caught_up: tally.storm_caught_up.counts(),
                    lag: tally.lag.counts(),
                    progress: crew.progress(),
                }
            };
            write_report(out, &collected).await
        }
    }
}

/// What an order has failed at so far.
#[derive(Default)]
struct Failures {
    count: u32,
    first: Option<String>,
}

impl Failures {
    fn keep<T>(&mut self, outcome: anyhow::Result<T>) -> Option<T> {
        outcome
            .map_err(|error| {
                self.count += 1;
                self.first.get_or_insert_with(|| format!("{error:#}"));
            })
            .ok()
    }
}

/// Registers devices. A report that cannot be handed over means that the parent is gone, and this
/// process with it.
async fn register(crew: Rc<Crew>, count: u32, reports: mpsc::Sender<Report>) {
    let mut failures = Failures::default();
    let identities = register_all(&crew, count, &mut failures).await;
    crew.registered.borrow_mut().extend(identities);
    let registered = Report::Registered {
        failed: failures.count,
        reason: failures.first,
    };
    let _ = reports.send(registered).await;
}

/// Connects all devices that are registered and not connected yet, at an even rate.
async fn connect_all(crew: Rc<Crew>, per_second: f64, habit: Habit, reports: mpsc::Sender<Report>) {
    let mut failures = Failures::default();
    let identities = crew.registered.take();
    let start_ns = monotonic_ns();
    let schedule = Schedule::new(start_ns, per_second, identities.len() as u64);
    let mut connected = stream::iter(identities.into_iter().enumerate())
        .map(|(index, identity)| connect(&crew, schedule.at(index as u64), identity, habit))
        .buffer_unordered(CONNECTORS);
    let mut tokens = Vec::new();
    while let Some(outcome) = connected.next().await {
        tokens.extend(failures.keep(outcome));
        if tokens.len() >= TOKENS_PER_REPORT {
            let tokens = std::mem::take(&mut tokens);
            let _ = reports.send(Report::Tokens { tokens }).await;
        }
    }
    let opened = Report::Opened {
        failed: failures.count,
        reason: failures.first,
        connecting_ns: monotonic_ns() - start_ns,
    };
    let _ = reports.send(Report::Tokens { tokens }).await;
    let _ = reports.send(opened).await;
}

async fn register_all(crew: &Crew, count: u32, failures: &mut Failures) -> Vec<Identity> {
    let registrars = u32::try_from(REGISTRARS).unwrap_or(1);
    let shares = (0..registrars).map(|registrar| {
        let share = (count + registrar) / registrars;
        crew.service.register(crew.next_source(), share)
    });
    let mut outcomes: FuturesUnordered<_> = shares.collect();
    let mut identities = Vec::new();
    while let Some(outcome) = outcomes.next().await {
        let registered = outcome.into_iter();
        identities.extend(registered.filter_map(|outcome| failures.keep(outcome)));
    }
    identities
}

/// Connects a device, or lets it begin to poll; answers with its token.
async fn connect(
    crew: &Rc<Crew>,
    at_ns: u64,
    identity: Identity,
    habit: Habit,
) -> anyhow::Result<String> {
    let wait = Duration::from_nanos(at_ns.saturating_sub(monotonic_ns()));
    sleep_until(Instant::now() + wait).await;
    if let Habit::Polling { every_ms } = habit {
        let token = identity.token.clone();
        let poller = Poller::new(crew, identity, every_ms);
        spawn_local(poller.poll(Rc::clone(crew)));
        return Ok(token);
    }
    let seat = Seat::take(crew, identity, habit).await?;
    let token = seat.token().to_owned();
    spawn_local(seat.hold(Rc::clone(crew)));
    Ok(token)
}
