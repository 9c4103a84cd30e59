//! What was done to the store, to be done again after a crash, and what was not done.

use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use herald::clock::Millis;
use herald::push::{MessageId, NewPush, Syn};
use herald::store::memory::MemoryStore;
use herald::store::{Appended, Settled, SettledSink, Store as _, StoreError, Topics as _};
use herald::token::{TokenAddress, TokenId};
use herald::topic::{Checkpoint, FanOut, TopicName};

/// One thing.
#[derive(Clone)]
pub enum Step {
    Append(NewPush),
    Contact(TokenAddress, Syn, Millis),
    Ack(TokenAddress, Syn, Millis),
    Subscribe(TokenAddress, TopicName, Millis),
    Unsubscribe(TokenAddress, TopicName, Millis),
    Accept(Box<FanOut>),
    Pass(MessageId, Checkpoint, Vec<TokenId>),
    Finish(MessageId),
}

/// What becomes of a write that was not refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Done,
    /// Nobody knows, and it is.
    DoneInSilence,
    /// Nobody knows, and it is not.
    Lost,
}

pub const UNKNOWN: StoreError = StoreError::OutcomeUnknown("as it likes");

impl Step {
    /// Does it again.
    pub fn redo(self, memory: &MemoryStore) {
        let redone = match self {
            Self::Append(push) => {
                append_now(memory, push);
                Ok(())
            }
            Self::Contact(address, min_syn, now) => {
                at_once(memory.contact(&address, min_syn, None, now)).map(drop)
            }
            Self::Ack(address, up_to, now) => at_once(memory.ack(&address, up_to, now)).map(drop),
            Self::Subscribe(address, topic, now) => {
                at_once(memory.subscribe(&address, &topic, now)).map(drop)
            }
            Self::Unsubscribe(address, topic, now) => {
                at_once(memory.unsubscribe(&address, &topic, now)).map(drop)
            }
            Self::Accept(fan_out) => at_once(memory.accept_fan_out(&fan_out)),
            Self::Pass(id, checkpoint, copied) => {
                at_once(memory.pass_checkpoint(id, &checkpoint, &copied)).map(drop)
            }
            Self::Finish(id) => at_once(memory.finish_fan_out(id)),
        };
        redone.expect("taken");
    }
}

/// The memory store answers at once: polling its futures once is enough.
pub fn at_once<T>(answer: BoxFuture<'_, Result<T, StoreError>>) -> Result<T, StoreError> {
    answer.now_or_never().expect("at once")
}

/// Appends that are durable when this returns: so is the memory store's nature.
pub fn append_now(memory: &MemoryStore, push: NewPush) -> Appended {
    let outcome = Arc::new(Mutex::new(None));
    let told = Arc::clone(&outcome);
    let sink: SettledSink = Arc::new(move |group: Vec<Settled>| {
        let settled = group.into_iter().next().map(|it| it.outcome);
        *told.lock().expect("whole") = settled;
    });
    memory.append(push, 0, &sink);
    let settled = outcome.lock().expect("whole").take();
    settled.expect("told at once").expect("memory takes all")
}
