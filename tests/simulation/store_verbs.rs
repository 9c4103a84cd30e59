//! The verbs of the faulty store: what sessions and senders use is faulty, the rest is as in memory.

use futures_util::future::BoxFuture;
use herald::clock::Millis;
use herald::projects::Project;
use herald::push::{IdempotencyKey, MessageId, NewPush, Syn};
use herald::store::region::Epoch;
use herald::store::{
    Claim, Contact, Page, PageLimit, Saved, SettledSink, Store, StoreError, Totals,
};
use herald::token::{ProjectHash, TokenAddress};

use crate::journal::Step;
use crate::store::FaultyStore;

impl Store for FaultyStore {
    fn append(&self, push: NewPush, ticket: u64, sink: &SettledSink) {
        self.stage(push, ticket, sink);
    }

    fn contact<'a>(
        &'a self,
        address: &'a TokenAddress,
        min_syn: Syn,
        held: Option<Epoch>,
        now: Millis,
    ) -> BoxFuture<'a, Result<Contact, StoreError>> {
        Box::pin(async move {
            self.hop(true).await?;
            let contact = self.memory().contact(address, min_syn, held, now).await;
            let acked = min_syn.saturating_sub(1);
            self.note_ack(address, acked, Step::Contact(*address, min_syn, now));
            self.hop(false).await?;
            contact
        })
    }

    fn is_registered<'a>(
        &'a self,
        address: &'a TokenAddress,
        now: Millis,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move { self.memory().is_registered(address, now).await })
    }

    fn read<'a>(
        &'a self,
        address: &'a TokenAddress,
        after: Syn,
        limit: PageLimit,
        now: Millis,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(async move {
            self.hop(true).await?;
            let page = self.memory().read(address, after, limit, now).await;
            // Much may happen until it is here.
            self.hop(false).await?;
            page
        })
    }

    fn ack<'a>(
        &'a self,
        address: &'a TokenAddress,
        up_to: Syn,
        now: Millis,
    ) -> BoxFuture<'a, Result<Syn, StoreError>> {
        Box::pin(async move {
            self.hop(true).await?;
            let acked = self.memory().ack(address, up_to, now).await?;
            self.note_ack(address, acked, Step::Ack(*address, up_to, now));
            self.hop(false).await?;
            Ok(acked)
        })
    }

    fn delete_token<'a>(
        &'a self,
        _: &'a TokenAddress,
        _: Millis,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        not_simulated()
    }

    fn claim(
        &self,
        _: IdempotencyKey,
        _: MessageId,
        _: Millis,
    ) -> BoxFuture<'_, Result<Claim, StoreError>> {
        not_simulated()
    }

    fn projects(&self) -> BoxFuture<'_, Result<Vec<Project>, StoreError>> {
        not_simulated()
    }

    fn save_project<'a>(&'a self, _: &'a Project) -> BoxFuture<'a, Result<Saved, StoreError>> {
        not_simulated()
    }

    fn delete_tokens_of(&self, _: ProjectHash, _: Millis) -> BoxFuture<'_, Result<(), StoreError>> {
        not_simulated()
    }

    fn keep_secret<'a>(
        &'a self,
        _: &'a str,
        _: &'a [u8],
    ) -> BoxFuture<'a, Result<Vec<u8>, StoreError>> {
        not_simulated()
    }

    fn kept_secret<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        not_simulated()
    }

    fn sweep(&self, _: Millis) -> BoxFuture<'_, Result<(), StoreError>> {
        not_simulated()
    }

    fn totals(&self) -> Totals {
        self.memory().totals()
    }

    fn is_healthy(&self) -> bool {
        true
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        not_simulated()
    }
}

/// A verb that nobody calls in a simulation: to be given its faults when somebody does.
pub fn not_simulated<T>() -> BoxFuture<'static, Result<T, StoreError>> {
    Box::pin(async { panic!("this verb is not simulated") })
}
