//! A worker: its actors have a thread of their own, so to speak, which is without a processor now and
//! then. Meanwhile other workers go on, and what they tell it waits in its mailboxes.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use herald::actors::{Node, worker};
use herald::token::DeviceId;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

use crate::pipe::Pipe;
use crate::world::World;

/// A socket at the door, and whose it is.
type Newcomer = (Pipe, DeviceId);

/// Where sockets come in, by worker.
pub type Door = Rc<Vec<UnboundedSender<Newcomer>>>;

/// Starts every worker of a node.
pub fn start_all(world: &Rc<World>, node: &Node, random: &mut SmallRng) -> Door {
    let count = node.settings().workers;
    let doors = (0..count).map(|index| {
        let (door, newcomers) = unbounded_channel();
        let own = SmallRng::seed_from_u64(random.random());
        let thread = LocalSet::new();
        thread.spawn_local(work(node.clone(), index, newcomers));
        spawn_local(give_turns(Rc::clone(world), thread, own));
        door
    });
    Rc::new(doors.collect())
}

async fn work(node: Node, index: usize, mut newcomers: UnboundedReceiver<Newcomer>) {
    let entrance = worker::start(&node, index).expect("started");
    while let Some((pipe, device)) = newcomers.recv().await {
        entrance.enter(pipe, &[], Some(device));
    }
}

/// Between any two turns of the thread the others may go on, for as long as the seed says.
async fn give_turns(world: Rc<World>, mut thread: LocalSet, mut random: SmallRng) {
    loop {
        let pause_ms = match random.random_range(0..400) {
            0 if !world.is_calm() => random.random_range(0..700),
            0..5 => random.random_range(20..100),
            5..25 => random.random_range(1..20),
            _ => 0,
        };
        if pause_ms > 0 {
            sleep(Duration::from_millis(pause_ms)).await;
        }
        let mut has_had_it = false;
        poll_fn(|cx| {
            if has_had_it {
                return Poll::Ready(());
            }
            has_had_it = true;
            let _ = Pin::new(&mut thread).poll(cx);
            // Woken when there is something to do again.
            Poll::Pending
        })
        .await;
    }
}
