//! One worker of the simulated node: the server's own actors on a thread of their own, and the
//! devices of its share.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_rt::Arbiter;
use anyhow::Context as _;
use herald::actors::Node;
use herald::actors::worker::{Entrance, start};
use herald_protocol::{DeviceFrame, Hello, TokenCursor};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::device::{Counts, MemoryStream, Witness};
use super::population::Population;
use crate::arrivals::{ArrivalCounts, SendSet};
use crate::latency::LatencyCounts;
use crate::websocket::{Opcode, write_frame};

/// Devices that wait for their welcome at a time.
const GREETING_MAX: u64 = 512;

/// A welcome that takes longer than this does not come.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(30);

/// Everything that the devices of one worker have seen.
pub struct Seen {
    pub sends: SendSet,
    pub counts: ArrivalCounts,
    pub delivery: LatencyCounts,
    pub fault: Option<String>,
}

/// A worker, from the thread that leads the simulation.
pub struct Worker {
    pub counts: Arc<Counts>,
    /// Set to make it stop taking in devices.
    pub enough: Arc<AtomicBool>,
    /// How the taking in ended.
    filled: Option<oneshot::Receiver<anyhow::Result<()>>>,
    collect: oneshot::Sender<oneshot::Sender<Seen>>,
    _thread: Arbiter,
}

impl Worker {
    /// Starts worker number `index` on a thread of its own; it takes in its devices at once.
    pub fn launch(node: &Node, index: usize, population: Population) -> Self {
        let (counts, enough) = (Arc::<Counts>::default(), Arc::<AtomicBool>::default());
        let (tell_filled, filled) = oneshot::channel();
        let (collect, asked) = oneshot::channel();
        let share = Share {
            node: node.clone(),
            index,
            population,
            enough: Arc::clone(&enough),
        };
        let thread = Arbiter::new();
        let counted = Arc::clone(&counts);
        thread.spawn_fn(move || {
            // What a session holds cannot change threads, so it is made here.
            actix_rt::spawn(live(share, counted, tell_filled, asked));
        });
        Self {
            counts,
            enough,
            filled: Some(filled),
            collect,
            _thread: thread,
        }
    }

    /// How many of its devices are welcomed.
    pub fn welcomed(&self) -> u64 {
        self.counts.welcomed.load(Ordering::Relaxed)
    }

    /// Waits until all devices are welcomed, or it was told that there are enough.
    ///
    /// # Errors
    /// When a device was not welcomed.
    pub async fn filled(&mut self) -> anyhow::Result<()> {
        match self.filled.take() {
            Some(filled) => filled.await.context("a worker is gone")?,
            None => Ok(()),
        }
    }

    /// Fetches everything that its devices have seen.
    ///
    /// # Errors
    /// When it is gone.
    pub async fn collect(self) -> anyhow::Result<Seen> {
        let (reply, seen) = oneshot::channel();
        let _ = self.collect.send(reply);
        seen.await.context("a worker is gone")
    }
}

struct Share {
    node: Node,
    index: usize,
    population: Population,
    enough: Arc<AtomicBool>,
}

async fn live(
    share: Share,
    counts: Arc<Counts>,
    filled: oneshot::Sender<anyhow::Result<()>>,
    asked: oneshot::Receiver<oneshot::Sender<Seen>>,
) {
    let witness = Rc::new(Witness::new(counts));
    let _ = filled.send(share.fill(&witness).await);
    let Ok(reply) = asked.await else { return };
    let arrivals = witness.arrivals.borrow();
    let _ = reply.send(Seen {
        sends: arrivals.seen().clone(),
        counts: arrivals.counts(),
        delivery: witness.delivery.borrow().counts(),
        fault: witness.fault.borrow().clone(),
    });
}

impl Share {
    /// Starts the worker's actors and takes in its devices, some at a time.
    async fn fill(&self, witness: &Rc<Witness>) -> anyhow::Result<()> {
        let entrance = start::<MemoryStream>(&self.node, self.index)?;
        self.node.started().await;
        let mut entered = 0;
        for number in self.population.of_worker(self.index) {
            if self.enough.load(Ordering::Relaxed) {
                break;
            }
            self.enter(&entrance, witness, number);
            entered += 1;
            if entered % 64 == 0 {
                yield_now().await;
            }
            wait_for_welcomes(witness, entered - GREETING_MAX.min(entered)).await?;
        }
        wait_for_welcomes(witness, entered).await
    }

    /// A device comes as one does whose credential was in the upgrade, with its hello right behind.
    fn enter(&self, entrance: &Entrance<MemoryStream>, witness: &Rc<Witness>, number: u64) {
        let address = self.population.address(number, self.node.clock().now());
        let hello = DeviceFrame::Hello(Hello {
            device_id: None,
            device_secret: None,
            tokens: vec![TokenCursor {
                token: self.node.keys().seal(address).to_text(),
                min_syn: 1,
            }],
            client: None,
        });
        let mut frame = Vec::new();
        write_frame(&mut frame, Opcode::Text, hello.to_text().as_bytes());
        let stream = MemoryStream::new(witness, self.population.parks(number));
        entrance.enter(stream, &frame, Some(address.device));
    }
}

/// Waits until so many devices are welcomed.
async fn wait_for_welcomes(witness: &Witness, wanted: u64) -> anyhow::Result<()> {
    while witness.counts.welcomed.load(Ordering::Relaxed) < wanted {
        let welcome = timeout(WELCOME_TIMEOUT, witness.welcome.notified()).await;
        let fault = || witness.fault.borrow().clone().unwrap_or_default();
        welcome.with_context(|| format!("a device was not welcomed: {}", fault()))?;
    }
    Ok(())
}
