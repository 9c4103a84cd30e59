//! A store that notes each verb that is called, reads and writes alike.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use herald::clock::Millis;
use herald::projects::Project;
use herald::push::{IdempotencyKey, MessageId, NewPush, Syn};
use herald::store::memory::MemoryStore;
use herald::store::region::Epoch;
use herald::store::{
    Claim, Contact, Page, PageLimit, Saved, SettledSink, Store, StoreError, StoreLimits, Stretch,
    Subscribed, Subscription, Topics, Totals, Unsubscribed,
};
use herald::token::{ProjectHash, TokenAddress, TokenId};
use herald::topic::{Checkpoint, FanOut, Place, TopicName, Walk};

/// The store.
pub struct NotingStore {
    memory: MemoryStore,
    verbs: Mutex<Vec<&'static str>>,
}

type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

impl NotingStore {
    pub fn new(limits: StoreLimits) -> Self {
        Self {
            memory: MemoryStore::new(limits, Arc::default()),
            verbs: Mutex::default(),
        }
    }

    /// What was called since somebody asked last.
    pub fn take_verbs(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.verbs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn noting(&self, verb: &'static str) -> &MemoryStore {
        let mut verbs = self.verbs.lock().unwrap_or_else(PoisonError::into_inner);
        verbs.push(verb);
        &self.memory
    }
}

impl Store for NotingStore {
    fn append(&self, push: NewPush, ticket: u64, sink: &SettledSink) {
        self.noting("append").append(push, ticket, sink);
    }

    fn contact<'a>(
        &'a self,
        address: &'a TokenAddress,
        min_syn: Syn,
        held: Option<Epoch>,
        now: Millis,
    ) -> Answer<'a, Contact> {
        self.noting("contact").contact(address, min_syn, held, now)
    }

    fn is_registered<'a>(&'a self, address: &'a TokenAddress, now: Millis) -> Answer<'a, bool> {
        self.noting("is_registered").is_registered(address, now)
    }

    fn read<'a>(
        &'a self,
        address: &'a TokenAddress,
        after: Syn,
        limit: PageLimit,
        now: Millis,
    ) -> Answer<'a, Page> {
        self.noting("read").read(address, after, limit, now)
    }

    fn ack<'a>(&'a self, address: &'a TokenAddress, up_to: Syn, now: Millis) -> Answer<'a, Syn> {
        self.noting("ack").ack(address, up_to, now)
    }

    fn delete_token<'a>(&'a self, address: &'a TokenAddress, now: Millis) -> Answer<'a, ()> {
        self.noting("delete_token").delete_token(address, now)
    }

    fn claim(&self, key: IdempotencyKey, proposed: MessageId, now: Millis) -> Answer<'_, Claim> {
        self.noting("claim").claim(key, proposed, now)
    }

    fn projects(&self) -> Answer<'_, Vec<Project>> {
        self.noting("projects").projects()
    }

    fn save_project<'a>(&'a self, project: &'a Project) -> Answer<'a, Saved> {
        self.noting("save_project").save_project(project)
    }

    fn delete_tokens_of(&self, project: ProjectHash, now: Millis) -> Answer<'_, ()> {
        self.noting("delete_tokens_of")
            .delete_tokens_of(project, now)
    }

    fn keep_secret<'a>(&'a self, name: &'a str, proposed: &'a [u8]) -> Answer<'a, Vec<u8>> {
        self.noting("keep_secret").keep_secret(name, proposed)
    }

    fn kept_secret<'a>(&'a self, name: &'a str) -> Answer<'a, Option<Vec<u8>>> {
        self.noting("kept_secret").kept_secret(name)
    }

    fn sweep(&self, now: Millis) -> Answer<'_, ()> {
        self.noting("sweep").sweep(now)
    }

    fn totals(&self) -> Totals {
        self.noting("totals").totals()
    }

    fn is_healthy(&self) -> bool {
        self.noting("is_healthy").is_healthy()
    }

    fn flush(&self) -> Answer<'_, ()> {
        self.noting("flush").flush()
    }
}

impl Topics for NotingStore {
    fn subscribe<'a>(
        &'a self,
        address: &'a TokenAddress,
        topic: &'a TopicName,
        now: Millis,
    ) -> Answer<'a, Subscribed> {
        self.noting("subscribe").subscribe(address, topic, now)
    }

    fn unsubscribe<'a>(
        &'a self,
        address: &'a TokenAddress,
        topic: &'a TopicName,
        now: Millis,
    ) -> Answer<'a, Unsubscribed> {
        self.noting("unsubscribe").unsubscribe(address, topic, now)
    }

    fn subscriptions<'a>(
        &'a self,
        token: TokenId,
        after: &'a str,
        limit: usize,
    ) -> Answer<'a, Vec<Subscription>> {
        self.noting("subscriptions")
            .subscriptions(token, after, limit)
    }

    fn subscribed_since<'a>(
        &'a self,
        token: TokenId,
        topics: &'a [TopicName],
    ) -> Answer<'a, Vec<Option<Millis>>> {
        self.noting("subscribed_since")
            .subscribed_since(token, topics)
    }

    fn forget_subscriptions<'a>(&'a self, address: &'a TokenAddress) -> Answer<'a, ()> {
        self.noting("forget_subscriptions")
            .forget_subscriptions(address)
    }

    fn walk<'a>(
        &'a self,
        project: ProjectHash,
        walk: &'a Walk,
        from: &'a Place,
        limit: usize,
    ) -> Answer<'a, Stretch> {
        self.noting("walk").walk(project, walk, from, limit)
    }

    fn accept_fan_out<'a>(&'a self, fan_out: &'a FanOut) -> Answer<'a, ()> {
        self.noting("accept_fan_out").accept_fan_out(fan_out)
    }

    fn take_fan_outs(&self) -> Answer<'_, Vec<(MessageId, ProjectHash)>> {
        self.noting("take_fan_outs").take_fan_outs()
    }

    fn fan_out(&self, message_id: MessageId) -> Answer<'_, Option<(FanOut, Checkpoint)>> {
        self.noting("fan_out").fan_out(message_id)
    }

    fn pass_checkpoint<'a>(
        &'a self,
        message_id: MessageId,
        checkpoint: &'a Checkpoint,
        copied: &'a [TokenId],
    ) -> Answer<'a, bool> {
        self.noting("pass_checkpoint")
            .pass_checkpoint(message_id, checkpoint, copied)
    }

    fn finish_fan_out(&self, message_id: MessageId) -> Answer<'_, ()> {
        self.noting("finish_fan_out").finish_fan_out(message_id)
    }
}
