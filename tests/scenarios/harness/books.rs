//! Whether nothing was lost in the counting: on the metrics of a running server, and in the store
//! of one that has stopped.

use std::process::Command;
use std::time::{Duration, Instant};

use super::server::binary;
use super::{PATIENCE, Server};

/// What of the pushes is counted when they end.
const ENDS: [&str; 5] = ["acked", "expired", "collapsed", "dropped", "deleted"];

/// What the metrics say of all pushes at one moment.
#[derive(Debug, PartialEq, Eq)]
struct Books {
    came: u64,
    went: u64,
    pending: u64,
}

impl Books {
    fn balance(&self) -> bool {
        self.came == self.went + self.pending
    }
}

impl Server {
    /// Waits until every push is accounted for and this many are pending. Only for a server at
    /// which nobody is sending.
    pub async fn books_balance_at(&self, pending: u64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let books = self.books().await;
            if books.balance() && books.pending == pending {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{books:?}, not {pending} pending"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until every push is accounted for, and stays so; answers with the number that is
    /// pending.
    pub async fn books_balance(&self) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        let mut earlier = self.books().await;
        let mut agreeing = 0;
        while agreeing < 5 {
            let books = self.books().await;
            let agrees = books.balance() && books == earlier;
            agreeing = if agrees { agreeing + 1 } else { 0 };
            earlier = books;
            assert!(Instant::now() < deadline, "{earlier:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        earlier.pending
    }

    async fn books(&self) -> Books {
        let metrics = self.metrics().await;
        let count = |state: &str| {
            let sample = format!("herald_pushes_total{{state=\"{state}\"}}");
            metrics[&sample] as u64
        };
        Books {
            came: count("accepted") + count("recovered"),
            went: ENDS.iter().map(|end| count(end)).sum(),
            pending: metrics["herald_pushes_pending"] as u64,
        }
    }

    /// How many pushes have come to this end.
    pub async fn pushes(&self, state: &str) -> u64 {
        let name = format!("herald_pushes_total{{state=\"{state}\"}}");
        self.metric(&name).await as u64
    }

    /// The last check of a scenario: the metrics balance, SIGTERM ends in a clean exit, and the
    /// store at rest holds what the metrics said.
    pub async fn stop_and_audit(mut self) {
        let pending = self.books_balance().await;
        self.terminate();
        assert_eq!(self.exit_status().await.code(), Some(0));
        assert_eq!(self.fsck(), pending, "pending at rest, and by the metrics");
    }

    /// Checks the store of a server that is not running; the pushes pending in it.
    pub fn fsck(&self) -> u64 {
        let report = self.fsck_report();
        let pending = report
            .lines()
            .find_map(|line| line.strip_prefix("pending "));
        pending.expect("a count").trim().parse().expect("a number")
    }

    /// Checks the store of a server that is not running; what the check says.
    pub fn fsck_report(&self) -> String {
        let mut fsck = Command::new(binary());
        let output = fsck.arg("fsck").arg("--data").arg(self.data()).output();
        let output = output.expect("fsck runs");
        let report = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{report}");
        report.into_owned()
    }
}
