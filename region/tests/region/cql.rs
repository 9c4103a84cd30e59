//! A CQL ring that goes on without a node, and takes it back with all it had.

use std::time::Duration;

use herald_region::{CqlRing, Place};
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::{Consistency, Statement};

use super::{PATIENCE, runs};

const KEYSPACE: &str = "CREATE KEYSPACE region WITH replication = \
                        {'class': 'NetworkTopologyStrategy', 'datacenter1': 3}";

async fn session(ring: &CqlRing) -> Session {
    // A node that was killed is asked for a while before it is held for dead.
    let profile = ExecutionProfile::builder()
        .request_timeout(Some(PATIENCE))
        .build();
    SessionBuilder::new()
        .known_nodes(ring.contact_points())
        .default_execution_profile_handle(profile.into_handle())
        .build()
        .await
        .expect("a session")
}

/// As the driver would do it for a statement that may be repeated, and beyond what it would.
async fn query(session: &Session, text: &str, consistency: Consistency) -> usize {
    let mut statement = Statement::new(text);
    statement.set_consistency(consistency);
    statement.set_is_idempotent(true);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match session.query_unpaged(statement.clone(), ()).await {
            Ok(result) => return result.into_rows_result().map_or(0, |rows| rows.rows_num()),
            Err(error) if tokio::time::Instant::now() > deadline => panic!("{text}: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

#[tokio::test]
async fn a_ring_goes_on_without_a_node_and_takes_it_back() {
    let place = Place::temporary().expect("a place");
    let ring = CqlRing::start(&place, 3).await.expect("started");
    assert_eq!((ring.datacenter(), ring.node_count()), ("datacenter1", 3));
    let session = session(&ring).await;
    let quorum = Consistency::LocalQuorum;
    query(&session, KEYSPACE, quorum).await;
    let table = "CREATE TABLE region.word (key int PRIMARY KEY, word text)";
    query(&session, table, quorum).await;
    let insert = "INSERT INTO region.word (key, word) VALUES";
    query(
        &session,
        &format!("{insert} (1, 'before')"),
        Consistency::All,
    )
    .await;

    ring.kill(1).expect("killed");
    query(&session, &format!("{insert} (2, 'meanwhile')"), quorum).await;
    let select = "SELECT word FROM region.word WHERE key IN (1, 2)";
    assert_eq!(query(&session, select, quorum).await, 2);

    ring.restart(1).await.expect("restarted");
    assert_eq!(query(&session, select, Consistency::All).await, 2);

    let processes: Vec<u32> = (0..3).filter_map(|node| ring.process_id(node)).collect();
    assert_eq!(processes.len(), 3);
    drop(ring);
    assert!(!processes.into_iter().any(runs));
}
