//! The store for one machine: an engine on disk, a ledger in memory for every token in use, and
//! one thread that writes.
//!
//! The way of a push: its ledger numbers it under the token's stripe lock and stages its writes;
//! the committer takes what all threads have staged, commits it in one batch with one sync, raises
//! the watermarks, and tells the senders. Nothing is visible before its batch is durable.

mod backlog;
mod committer;
mod deliberate;
mod engine;
mod fan_outs;
mod fsck;
mod housekeeper;
mod ledger;
mod ledgers;
mod options;
mod queue;
mod reading;
mod record;
mod subscriptions;
mod token_logs;
mod topic_record;
mod unswept;

#[cfg(test)]
mod oracle_tests;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use futures_util::future::{BoxFuture, ready};
use tokio::sync::{Mutex, oneshot};

pub use self::committer::Fatal;
pub use self::engine::OpenError;
pub use self::fsck::{FsckReport, fsck};
pub use self::options::{BLOCK_CACHE_BYTES, EmbeddedOptions, LEDGER_CACHE_BYTES, QUEUE_BYTES};

use self::committer::{CommittedTotals, Committer};
use self::engine::{Engine, Op};
use self::housekeeper::{Chore, Housekeeper, ORDERS_MAX, Tidiness, unfinished_endings};
use self::ledgers::Ledgers;
use self::queue::Queue;
use self::record::{
    TOTALS_KEY, answer_key, decode_answer, decode_totals, encode_ending, ending_key, secret_key,
};
use self::token_logs::TokenLogs;
use super::region::Epoch;
use super::{
    Claim, Contact, Page, PageLimit, Saved, Settled, SettledSink, Store, StoreError, StoreLimits,
    Totals,
};
use crate::clock::Millis;
use crate::projects::Project;
use crate::push::{IdempotencyKey, MessageId, NewPush, Syn};
use crate::token::{ProjectHash, TokenAddress};

/// The durable store of a single node.
pub struct EmbeddedStore {
    engine: Arc<Engine>,
    queue: Arc<Queue>,
    logs: Arc<TokenLogs>,
    totals: Arc<CommittedTotals>,
    /// One project or secret is read, judged and written at a time.
    deliberate: Mutex<()>,
    chores: SyncSender<Chore>,
    is_stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl EmbeddedStore {
    /// Opens the store in `directory`, or makes one.
    ///
    /// # Errors
    /// Another process holds the directory, it has another format, or it cannot be read.
    pub fn open(
        directory: &Path,
        limits: StoreLimits,
        options: EmbeddedOptions,
    ) -> Result<Self, OpenError> {
        let engine = Arc::new(Engine::open(directory, options.block_cache_bytes)?);
        let totals = stored_totals(&engine)?;
        let endings = unfinished_endings(&engine).map_err(corrupt)?;
        let queue = Arc::new(Queue::new(options.queue_bytes));
        let logs = Arc::new(TokenLogs {
            engine: engine.clone(),
            queue: queue.clone(),
            ledgers: Ledgers::new(options.ledger_cache_bytes),
            counters: options.counters,
            limits,
        });
        let totals = Arc::new(CommittedTotals::new(totals));
        let committer = Committer {
            engine: engine.clone(),
            queue: queue.clone(),
            logs: logs.clone(),
            totals: totals.clone(),
            observer: options.observer,
            fatal: options.fatal,
        };
        let (chores, orders) = sync_channel(ORDERS_MAX);
        let (opened, swept) = sync_channel(1);
        let is_stopping = Arc::new(AtomicBool::new(false));
        let housekeeper = Housekeeper {
            engine: engine.clone(),
            queue: queue.clone(),
            logs: logs.clone(),
            totals: totals.clone(),
            is_stopping: is_stopping.clone(),
            tidiness: Tidiness::default(),
        };
        let threads = vec![
            start_thread("committer", move || committer.run())?,
            start_thread("housekeeper", move || {
                // Nobody listens any more only when the opening has failed.
                let _ = opened.send(housekeeper.begin(options.now));
                housekeeper.run(&orders, endings);
            })?,
        ];
        let store = Self {
            engine,
            queue,
            logs,
            totals,
            deliberate: Mutex::default(),
            chores,
            is_stopping,
            threads,
        };
        let stopped = |_| OpenError::Failed("the housekeeper stopped".to_owned());
        swept.recv().map_err(stopped)?.map_err(corrupt)?;
        Ok(store)
    }

    /// Pushes that are not durable yet.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.depth()
    }

    /// Bytes on disk, journals included.
    ///
    /// # Errors
    /// The engine could not read.
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.engine.disk_bytes()
    }

    /// Journal files in use; more than a few for long mean that the engine falls behind.
    #[must_use]
    pub fn journals(&self) -> usize {
        self.engine.journals()
    }

    /// Reads from the engine so far.
    #[must_use]
    pub fn engine_reads(&self) -> u64 {
        self.engine.reads()
    }

    async fn commit_now(&self, op: Op) -> Result<(), StoreError> {
        self.queue.stage(|round| round.stage(op))?;
        self.flush_now().await
    }

    async fn flush_now(&self) -> Result<(), StoreError> {
        let committed = self.queue.flush()?.await;
        committed.map_err(|_| StoreError::OutcomeUnknown("the commit failed"))
    }

    fn ask(&self, chore: Chore) -> Result<(), StoreError> {
        let sent = self.chores.try_send(chore);
        sent.map_err(|_| StoreError::Unavailable("the housekeeper is busy"))
    }

    fn claim_now(&self, key: IdempotencyKey, now: Millis) -> Result<Claim, StoreError> {
        let Some(answer) = self.engine.get(&answer_key(key))? else {
            return Ok(Claim::Fresh);
        };
        let (message_id, ends_at) = decode_answer(&answer)
            .map_err(|fault| StoreError::Corrupt(format!("an answer: {fault}")))?;
        Ok(if now < ends_at {
            Claim::Answered(message_id)
        } else {
            Claim::Fresh
        })
    }

    async fn sweep_now(&self, now: Millis) -> Result<(), StoreError> {
        let (done, swept) = oneshot::channel();
        self.ask(Chore::Sweep { now, done })?;
        let stopped = StoreError::Unavailable("the store is closing");
        swept.await.unwrap_or(Err(stopped))
    }

    async fn delete_tokens_of_now(
        &self,
        project: ProjectHash,
        now: Millis,
    ) -> Result<(), StoreError> {
        let note = Op::Put(ending_key(project), encode_ending(now).into());
        self.commit_now(note).await?;
        self.ask(Chore::EndTokensOf { project, now })
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        let (nobody, _) = sync_channel(0);
        self.chores = nobody;
        // The housekeeper may wait for the committer, so it goes first.
        for thread in self.threads.drain(..).rev() {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
            self.queue.stop();
        }
    }
}

impl Store for EmbeddedStore {
    fn append(&self, push: NewPush, ticket: u64, sink: &SettledSink) {
        let outcome = match self.logs.append(push, ticket, sink) {
            Ok(None) => return,
            Ok(Some(refusal)) => Ok(refusal),
            Err(error) => Err(error),
        };
        sink(vec![Settled { ticket, outcome }]);
    }

    fn contact<'a>(
        &'a self,
        address: &'a TokenAddress,
        min_syn: Syn,
        _: Option<Epoch>,
        now: Millis,
    ) -> BoxFuture<'a, Result<Contact, StoreError>> {
        Box::pin(ready(self.logs.contact(address, min_syn, now)))
    }

    fn is_registered<'a>(
        &'a self,
        address: &'a TokenAddress,
        now: Millis,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(ready(self.logs.is_registered(address, now)))
    }

    fn read<'a>(
        &'a self,
        address: &'a TokenAddress,
        after: Syn,
        limit: PageLimit,
        now: Millis,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(ready(self.logs.read(address, after, limit, now)))
    }

    fn ack<'a>(
        &'a self,
        address: &'a TokenAddress,
        up_to: Syn,
        now: Millis,
    ) -> BoxFuture<'a, Result<Syn, StoreError>> {
        Box::pin(ready(self.logs.ack(address, up_to, now)))
    }

    fn delete_token<'a>(
        &'a self,
        address: &'a TokenAddress,
        now: Millis,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.logs.end(address, now)?;
            self.flush_now().await
        })
    }

    fn claim(
        &self,
        key: IdempotencyKey,
        _: MessageId,
        now: Millis,
    ) -> BoxFuture<'_, Result<Claim, StoreError>> {
        Box::pin(ready(self.claim_now(key, now)))
    }

    fn projects(&self) -> BoxFuture<'_, Result<Vec<Project>, StoreError>> {
        Box::pin(ready(self.projects_now()))
    }

    fn save_project<'a>(
        &'a self,
        project: &'a Project,
    ) -> BoxFuture<'a, Result<Saved, StoreError>> {
        Box::pin(self.save_project_now(project))
    }

    fn delete_tokens_of(
        &self,
        project: ProjectHash,
        now: Millis,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.delete_tokens_of_now(project, now))
    }

    fn keep_secret<'a>(
        &'a self,
        name: &'a str,
        proposed: &'a [u8],
    ) -> BoxFuture<'a, Result<Vec<u8>, StoreError>> {
        Box::pin(self.keep_secret_now(name, proposed))
    }

    fn kept_secret<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        let kept = self.engine.get(&secret_key(name));
        Box::pin(ready(kept.map(|kept| kept.map(|value| value.to_vec()))))
    }

    fn sweep(&self, now: Millis) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.sweep_now(now))
    }

    fn totals(&self) -> Totals {
        self.totals.get()
    }

    fn is_healthy(&self) -> bool {
        !self.queue.has_failed()
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.flush_now())
    }
}

fn start_thread(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, OpenError> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder
        .spawn(work)
        .map_err(|error| OpenError::Failed(error.to_string()))
}

fn stored_totals(engine: &Engine) -> Result<Totals, OpenError> {
    let totals = engine.get(&TOTALS_KEY).map_err(corrupt)?;
    let totals = totals.map(|totals| decode_totals(&totals)).transpose();
    let fault = |fault| OpenError::Corrupt(format!("the totals: {fault}"));
    Ok(totals.map_err(fault)?.unwrap_or_default())
}

fn corrupt(error: StoreError) -> OpenError {
    OpenError::Corrupt(error.to_string())
}
