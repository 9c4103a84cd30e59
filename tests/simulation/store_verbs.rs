//! The verbs of the faulty store: what sessions and senders use is faulty, the rest is as in memory.

use futures_util::future::BoxFuture;
use herald::clock::Millis;
use herald::projects::Project;
use herald::push::{IdempotencyKey, MessageId, NewPush, Syn};
use herald::store::region::Epoch;
use herald::store::{
    Claim, Contact, Page, PageLimit, Saved, SettledSink, Store, StoreError, Stretch, Subscribed,
    Subscription, Topics, Totals, Unsubscribed,
};
use herald::token::{ProjectHash, TokenAddress, TokenId};
use herald::topic::{Checkpoint, FanOut, Place, TopicName, Walk};

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
            self.note_contact(address, min_syn, now);
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
            self.note_ack(address, up_to, acked, now);
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
fn not_simulated<T>() -> BoxFuture<'static, Result<T, StoreError>> {
    Box::pin(async { panic!("this verb is not simulated") })
}

impl Topics for FaultyStore {
    fn subscribe<'a>(
        &'a self,
        _: &'a TokenAddress,
        _: &'a TopicName,
        _: Millis,
    ) -> BoxFuture<'a, Result<Subscribed, StoreError>> {
        not_simulated()
    }

    fn unsubscribe<'a>(
        &'a self,
        _: &'a TokenAddress,
        _: &'a TopicName,
        _: Millis,
    ) -> BoxFuture<'a, Result<Unsubscribed, StoreError>> {
        not_simulated()
    }

    fn subscriptions<'a>(
        &'a self,
        _: TokenId,
        _: &'a str,
        _: usize,
    ) -> BoxFuture<'a, Result<Vec<Subscription>, StoreError>> {
        not_simulated()
    }

    fn subscribed_since<'a>(
        &'a self,
        _: TokenId,
        _: &'a [TopicName],
    ) -> BoxFuture<'a, Result<Vec<Option<Millis>>, StoreError>> {
        not_simulated()
    }

    fn forget_subscriptions<'a>(
        &'a self,
        _: &'a TokenAddress,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        not_simulated()
    }

    fn walk<'a>(
        &'a self,
        _: ProjectHash,
        _: &'a Walk,
        _: &'a Place,
        _: usize,
    ) -> BoxFuture<'a, Result<Stretch, StoreError>> {
        not_simulated()
    }

    fn accept_fan_out<'a>(&'a self, _: &'a FanOut) -> BoxFuture<'a, Result<(), StoreError>> {
        not_simulated()
    }

    fn take_fan_outs(&self) -> BoxFuture<'_, Result<Vec<(MessageId, ProjectHash)>, StoreError>> {
        not_simulated()
    }

    fn fan_out(
        &self,
        _: MessageId,
    ) -> BoxFuture<'_, Result<Option<(FanOut, Checkpoint)>, StoreError>> {
        not_simulated()
    }

    fn pass_checkpoint<'a>(
        &'a self,
        _: MessageId,
        _: &'a Checkpoint,
        _: &'a [TokenId],
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        not_simulated()
    }

    fn finish_fan_out(&self, _: MessageId) -> BoxFuture<'_, Result<(), StoreError>> {
        not_simulated()
    }
}
