//! Herald nodes that die or are restarted: senders and devices go on at the others.

use std::time::{Duration, Instant};

use crate::load::Load;
use crate::stage::{PATIENCE, Stage};
use crate::witness::Reader::{Poll, Reread, Socket};

/// A number that was given is somebody's for so long, and a little more.
const FENCE: Duration = Duration::from_millis(4_500);

#[tokio::test]
async fn a_node_that_is_killed_loses_nothing_and_its_devices_move() {
    let stage = Stage::enter().await;
    let load = Load::on(&stage, &[Socket, Socket, Poll, Reread]).await;
    load.during(&stage, async {
        // The one that devices are on, then the one that senders are on.
        for node in [1, 0] {
            load.accepts_everywhere(20).await;
            stage.region().nodes[node].kill().expect("killed");
            load.accepts_everywhere(20).await;
            stage.region().nodes[node].restart().await.expect("back");
        }
        load.accepts_everywhere(20).await;
    })
    .await;
}

#[tokio::test]
async fn a_node_that_freezes_holds_up_nobody_elses_pushes_for_long() {
    let stage = Stage::enter().await;
    let load = Load::on(&stage, &[Socket, Poll, Reread]).await;
    load.during(&stage, async {
        // Longer than a number stays pending, and shorter.
        for at_least in [FENCE, Duration::ZERO, Duration::ZERO] {
            load.accepts_everywhere(10).await;
            stage.region().nodes[0].pause().expect("frozen");
            let deadline = Instant::now() + at_least;
            load.accepts_everywhere(5).await;
            tokio::time::sleep_until(deadline.into()).await;
            stage.region().nodes[0].resume().expect("thawed");
        }
        load.accepts_everywhere(10).await;
    })
    .await;
    load.assert_sockets_stayed();
}

#[tokio::test]
async fn a_rolling_restart_loses_nothing_and_every_device_comes_back() {
    let stage = Stage::enter().await;
    let load = Load::on(&stage, &[Socket, Socket, Poll, Reread]).await;
    load.during(&stage, async {
        for node in &stage.region().nodes {
            load.accepts_everywhere(20).await;
            let status = node.terminate().await.expect("ended");
            assert_eq!(status.code(), Some(0), "{}", node.log_tail());
            load.accepts_everywhere(20).await;
            node.restart().await.expect("back");
            node.until_ready(PATIENCE).await.expect("ready");
        }
        load.accepts_everywhere(20).await;
    })
    .await;
}
