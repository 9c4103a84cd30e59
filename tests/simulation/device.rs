//! A device: opens a socket, and another one when that is over, or before.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::sleep;

use crate::socket;
use crate::worker::Door;
use crate::world::World;

/// Lives until the node is gone.
pub async fn live(world: Rc<World>, door: Door, device: usize, mut random: SmallRng) {
    let mut crowds = world.crowds();
    let mut lives: Vec<JoinHandle<()>> = Vec::new();
    loop {
        lives.retain(|life| !life.is_finished());
        let at_once = if world.is_calm() { 1..=3 } else { 1..=1 };
        for _ in 0..random.random_range(at_once) {
            lives.push(open(&world, &door, device, &mut random));
        }
        // It may open another one, whatever becomes of those.
        let is_impatient = !world.is_calm() && random.random_range(0..3) == 0;
        let patience = Duration::from_millis(random.random_range(10..3_000));
        tokio::select! {
            // In the order in which they stand here: the same seed must tell the same story.
            biased;
            _ = crowds.recv() => continue,
            () = sleep(patience), if is_impatient => {}
            _ = join_all(&mut lives) => {}
        }
        let pause_max = if world.is_calm() { 200 } else { 1_500 };
        sleep(Duration::from_millis(random.random_range(0..pause_max))).await;
    }
}

fn open(world: &Rc<World>, door: &Door, device: usize, random: &mut SmallRng) -> JoinHandle<()> {
    let seed = SmallRng::seed_from_u64(random.random());
    let life = socket::live(Rc::clone(world), Rc::clone(door), device, seed);
    spawn_local(life)
}
