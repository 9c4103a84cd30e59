//! A device: opens a socket, and another one when that is over, or before.

use std::rc::Rc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use crate::socket;
use crate::world::{Door, World};

/// Lives until the node is gone.
pub async fn live(world: Rc<World>, door: Door, device: usize, mut random: SmallRng) {
    loop {
        let pause_max = if world.is_calm() { 200 } else { 1_500 };
        sleep(Duration::from_millis(random.random_range(0..pause_max))).await;
        let seed = SmallRng::seed_from_u64(random.random());
        let life = socket::live(Rc::clone(&world), door.clone(), device, seed);
        let mut life = spawn_local(life);
        if !world.is_calm() && random.random_range(0..3) == 0 {
            // It opens another one, whatever becomes of this one.
            let patience = Duration::from_millis(random.random_range(10..3_000));
            let _ = timeout(patience, &mut life).await;
        } else {
            let _ = life.await;
        }
    }
}
