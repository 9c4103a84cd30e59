//! What a CQL node says of itself, and rows that a test puts there.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::statement::unprepared::Statement;

use crate::stage::Stage;

/// A session of the test's own.
pub struct Cql {
    session: Session,
    nodes: Vec<SocketAddr>,
}

/// Tables that the way of a push may touch.
const TABLES: [&str; 2] = ["push", "push_token"];

impl Cql {
    pub async fn connect(stage: &Stage) -> Self {
        let points = stage.region().cql.contact_points();
        let session = SessionBuilder::new().known_nodes(&points).build().await;
        Self {
            session: session.expect("a session"),
            nodes: points
                .iter()
                .map(|it| it.parse().expect("an address"))
                .collect(),
        }
    }

    /// Runs a statement.
    pub async fn run(&self, text: &str) {
        let done = self.session.query_unpaged(text, ()).await;
        done.unwrap_or_else(|error| panic!("{text}: {error}"));
    }

    /// Numbers and message ids of a token's rows, by the key of its record.
    pub async fn rows(&self, key: &str) -> Vec<(u64, String)> {
        let id = key.trim_start_matches("herald:{").trim_end_matches('}');
        let id = URL_SAFE_NO_PAD.decode(id).expect("an id");
        let select = "SELECT syn, message_id FROM herald.push WHERE token_id = ?";
        let answer = self.session.query_unpaged(select, (id,)).await;
        let rows = answer.expect("rows").into_rows_result().expect("rows");
        let rows = rows.rows::<(i64, Vec<u8>)>().expect("rows");
        rows.map(|row| {
            let (syn, id) = row.expect("a row");
            let id = uuid::Uuid::from_slice(&id).expect("a message id");
            (
                u64::try_from(syn).expect("a number"),
                id.as_simple().to_string(),
            )
        })
        .collect()
    }

    /// How often the nodes were asked to write, and to read, rows of pushes and tokens.
    pub async fn writes_and_reads(&self) -> (u64, u64) {
        let writes = self.count("coordinator_write_latency").await;
        let reads = self.count("coordinator_read_latency").await;
        (writes, reads)
    }

    async fn count(&self, view: &str) -> u64 {
        let mut sum = 0;
        for node in &self.nodes {
            for table in TABLES {
                let mut select = Statement::new(format!(
                    "SELECT count FROM system_views.{view} \
                     WHERE keyspace_name = 'herald' AND table_name = '{table}'"
                ));
                let node = NodeIdentifier::NodeAddress(*node);
                let only = SingleTargetLoadBalancingPolicy::new(node, None);
                select.set_load_balancing_policy(Some(only as Arc<_>));
                let answer = self
                    .session
                    .query_unpaged(select, ())
                    .await
                    .expect("a count");
                let rows = answer.into_rows_result().expect("rows");
                let row = rows.maybe_first_row::<(i64,)>().expect("a row");
                sum += row.map_or(0, |(count,)| u64::try_from(count).expect("a count"));
            }
        }
        sum
    }
}
