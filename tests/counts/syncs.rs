//! Syncs of many senders: commits of the store by its own count, each of which ends with a sync if a
//! sender waits for it. Not under `strace`, where a slower server would gather more senders in each.

use crate::bounds::SYNCS_PER_PUSH_OF_64;
use crate::harness::{Door, Server};
use crate::load::{connect_all, push_to_all};
use crate::options;

const SENDERS: usize = 64;
const PUSHES_EACH: usize = 20;

async fn commits(door: &Door) -> f64 {
    door.metric("herald_store_batch_pushes_count").await
}

#[tokio::test]
async fn many_senders_share_their_syncs() {
    let server = Server::with(options(Vec::new())).await;
    let mut receivers = connect_all(&server, SENDERS).await;
    push_to_all(&server, &mut receivers, 2).await;
    let before = commits(&server).await;
    push_to_all(&server, &mut receivers, PUSHES_EACH).await;
    let made = commits(&server).await - before;
    SYNCS_PER_PUSH_OF_64.judge(made / (SENDERS * PUSHES_EACH) as f64);
}
