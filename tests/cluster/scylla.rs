//! CQL nodes that die or freeze.

use std::time::Duration;

use crate::cql::Cql;
use crate::load::Load;
use crate::stage::{PATIENCE, Stage, eventually};
use crate::witness::Reader::{Poll, Reread, Socket};
use crate::witness::Witness;

#[tokio::test]
async fn a_cql_node_that_is_killed_is_not_missed() {
    let stage = Stage::enter().await;
    let cql = &stage.region().cql;
    let load = Load::on(&stage, &[Socket, Poll, Reread]).await;
    load.during(&stage, async {
        load.accepts_everywhere(10).await;
        cql.kill(1).expect("killed");
        load.accepts_everywhere(30).await;
        cql.restart(1).await.expect("back");
        load.accepts_everywhere(10).await;
    })
    .await;
    load.assert_sockets_stayed();
    let refused: usize = load.witnesses.iter().map(|it| it.refused()).sum();
    assert_eq!(refused, 0, "two of three replicas are enough");
}

#[tokio::test]
async fn writes_that_time_out_and_are_applied_later_do_no_harm() {
    let stage = Stage::enter().await;
    let cql = &stage.region().cql;
    let rows = Cql::connect(&stage).await;
    let (device, token, key) = stage.device_with_record().await;
    let mut load = Load::on(&stage, &[Socket, Poll]).await;
    load.witnesses.push(Witness::new(device, token, Reread));
    load.during(&stage, async {
        for frozen in [[0, 1], [1, 2]] {
            load.accepts_everywhere(10).await;
            for node in frozen {
                cql.pause(node).expect("frozen");
            }
            load.take_slowest();
            let before = load.timed_out();
            eventually("writes time out", async || {
                (load.timed_out() > before + 3).then_some(())
            })
            .await;
            let slowest = load.take_slowest();
            assert!(slowest < Duration::from_millis(3_500), "{slowest:?}");
            for node in frozen {
                cql.resume(node).expect("thawed");
            }
        }
        load.accepts_everywhere(10).await;
    })
    .await;
    load.assert_sockets_stayed();
    cql.until_up(PATIENCE).await.expect("up");
    // However often it was written, a push that was answered 200 is one row.
    let kept = load
        .witnesses
        .last()
        .expect("one that acknowledges nothing");
    eventually("one row for every push", async || {
        let rows = rows.rows(&key).await;
        let count = |id: &String| rows.iter().filter(|row| row.1 == *id).count();
        kept.accepted_ids()
            .iter()
            .all(|id| count(id) == 1)
            .then_some(())
    })
    .await;
}
