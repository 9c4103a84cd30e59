//! Deletes rows that nobody will be shown any more, later and in groups: what hides a row is that
//! Redis no longer lists its number, so its deletion may wait, and may even be lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio::sync::{mpsc, oneshot};

use super::cql::Cql;
use super::push_rows::PushRows;
use super::token_rows::TokenRows;
use super::topic_rows::TopicRows;
use crate::clock::Millis;
use crate::push::Syn;
use crate::store::StoreError;
use crate::token::{ProjectHash, TokenId};

/// Orders that may wait; what comes beyond them is left to the rows' own expiry.
const ORDERS_MAX: usize = 65_536;

/// Orders of one token are put together for this long: one range deletion instead of many.
const GATHER: Duration = Duration::from_millis(500);

/// Forgetting the subscriptions of one token takes no longer.
const FORGET_MAX: Duration = Duration::from_secs(5);

/// Tokens that are cleaned up at once.
const AT_ONCE: usize = 32;

enum Order {
    /// One row, which may still be on its way to some replica.
    Row(TokenId, Syn),
    /// Everything up to a number is acknowledged.
    Acked(TokenId, Syn),
    /// The pending cap has dropped everything up to a number. The token's row must say so before
    /// the rows go, or a reader would never hear of it.
    Dropped(TokenId, Syn),
    /// A token of this project has ended: its subscriptions go. What is left of them is met, and
    /// forgotten, by the next push to their topic.
    Ended(TokenId, ProjectHash),
    /// Say when everything before this is done.
    Flush(oneshot::Sender<()>),
}

/// What is left to do for one token.
#[derive(Debug, Default, PartialEq, Eq)]
struct Leftovers {
    rows: Vec<Syn>,
    acked: Syn,
    dropped: Syn,
    ended_in: Option<ProjectHash>,
}

/// Where orders go. Cheap to clone.
#[derive(Clone)]
pub(super) struct Cleanup {
    orders: mpsc::Sender<Order>,
}

impl Cleanup {
    /// Starts the task that does the work, on this runtime.
    pub(super) fn start(
        cql: Arc<Cql>,
        pushes: Arc<PushRows>,
        tokens: Arc<TokenRows>,
        topics: Arc<TopicRows>,
        life_ms: Millis,
    ) -> Self {
        let (orders, queue) = mpsc::channel(ORDERS_MAX);
        let worker = Worker {
            cql,
            pushes,
            tokens,
            topics,
            life_ms,
        };
        tokio::spawn(worker.run(queue));
        Self { orders }
    }

    /// These rows are not to be shown to anybody.
    pub(super) fn rows(&self, token: TokenId, freed: &[Syn]) {
        for syn in freed {
            self.order(Order::Row(token, *syn));
        }
    }

    /// Everything up to a number is acknowledged.
    pub(super) fn acked(&self, token: TokenId, up_to: Syn) {
        self.order(Order::Acked(token, up_to));
    }

    /// The pending cap has dropped everything up to a number.
    pub(super) fn dropped(&self, token: TokenId, up_to: Syn) {
        self.order(Order::Dropped(token, up_to));
    }

    /// A token has ended.
    pub(super) fn ended(&self, token: TokenId, project: ProjectHash) {
        self.order(Order::Ended(token, project));
    }

    fn order(&self, order: Order) {
        if self.orders.try_send(order).is_err() {
            tracing::debug!("too many rows wait for their deletion: some are left to expire");
        }
    }

    /// Waits until everything ordered so far is done.
    ///
    /// # Errors
    /// The worker has stopped.
    pub(super) async fn flush(&self) -> Result<(), StoreError> {
        let (done, flushed) = oneshot::channel();
        let stopped = || StoreError::Unavailable("the store is closing");
        let ordered = self.orders.send(Order::Flush(done)).await;
        ordered.map_err(|_| stopped())?;
        flushed.await.map_err(|_| stopped())
    }
}

struct Worker {
    cql: Arc<Cql>,
    pushes: Arc<PushRows>,
    tokens: Arc<TokenRows>,
    topics: Arc<TopicRows>,
    life_ms: Millis,
}

impl Worker {
    async fn run(self, mut queue: mpsc::Receiver<Order>) {
        let mut batch = Vec::new();
        while queue.recv_many(&mut batch, ORDERS_MAX).await > 0 {
            let is_awaited = batch.iter().any(|order| matches!(order, Order::Flush(_)));
            if !is_awaited {
                tokio::time::sleep(GATHER).await;
                while let Ok(order) = queue.try_recv() {
                    batch.push(order);
                }
            }
            let (leftovers, flushes) = gather(batch.drain(..));
            futures_util::stream::iter(leftovers)
                .for_each_concurrent(AT_ONCE, |(token, leftovers)| self.clean(token, leftovers))
                .await;
            for done in flushes {
                // Nobody waits any more, which changes nothing.
                let _ = done.send(());
            }
        }
    }

    async fn clean(&self, token: TokenId, leftovers: Leftovers) {
        if let Err(error) = self.try_clean(token, leftovers).await {
            tracing::debug!(%error, ?token, "rows are left to expire");
        }
    }

    async fn try_clean(&self, token: TokenId, leftovers: Leftovers) -> Result<(), StoreError> {
        let Leftovers {
            rows,
            acked,
            dropped,
            ended_in,
        } = leftovers;
        for syn in rows {
            self.pushes.delete(&self.cql, token, syn).await?;
        }
        if dropped > 0 {
            let noted = self
                .tokens
                .write_dropped(&self.cql, token, dropped, self.life_ms);
            noted.await?;
        }
        if let Some(project) = ended_in {
            let deadline = Instant::now() + FORGET_MAX;
            let forgotten = self.topics.forget(&self.cql, project, token, deadline);
            forgotten.await?;
        }
        match acked.max(dropped) {
            0 => Ok(()),
            up_to => self.pushes.delete_up_to(&self.cql, token, up_to).await,
        }
    }
}

fn gather(
    orders: impl Iterator<Item = Order>,
) -> (HashMap<TokenId, Leftovers>, Vec<oneshot::Sender<()>>) {
    let mut leftovers: HashMap<TokenId, Leftovers> = HashMap::new();
    let mut flushes = Vec::new();
    for order in orders {
        match order {
            Order::Row(token, syn) => leftovers.entry(token).or_default().rows.push(syn),
            Order::Acked(token, up_to) => {
                let acked = &mut leftovers.entry(token).or_default().acked;
                *acked = up_to.max(*acked);
            }
            Order::Dropped(token, up_to) => {
                let dropped = &mut leftovers.entry(token).or_default().dropped;
                *dropped = up_to.max(*dropped);
            }
            Order::Ended(token, project) => {
                leftovers.entry(token).or_default().ended_in = Some(project);
            }
            Order::Flush(done) => flushes.push(done),
        }
    }
    (leftovers, flushes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_of_one_token_become_one_range() {
        let (one, other) = (TokenId([1; 16]), TokenId([2; 16]));
        let orders = [
            Order::Acked(one, 4),
            Order::Row(one, 9),
            Order::Acked(one, 7),
            Order::Dropped(other, 3),
            Order::Acked(one, 5),
        ];
        let (leftovers, flushes) = gather(orders.into_iter());
        assert!(flushes.is_empty());
        let expected = Leftovers {
            rows: vec![9],
            acked: 7,
            ..Leftovers::default()
        };
        assert_eq!(leftovers.get(&one), Some(&expected));
        let expected = Leftovers {
            dropped: 3,
            ..Leftovers::default()
        };
        assert_eq!(leftovers.get(&other), Some(&expected));
    }
}
