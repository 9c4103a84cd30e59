//! Sends under an idempotency key: one at a time for a key, and at most one that ends well.
//!
//! A repeat that comes while the first still runs waits for it. If the first is refused it leaves
//! no trace, and the next one in line runs with its own push. The run goes on when its sender
//! hangs up, because its outcome belongs to everybody who shows the key.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::actors::{AppendError, FastMap, Node, Sent};
use crate::push::{IdempotencyKey, MessageId, NewPush};
use crate::store::{Claim, StoreError};
use crate::topic::FanOut;

/// Repeats that may wait for one key.
const WAITING_PER_KEY: usize = 64;

/// Keys that may be running at once.
const KEYS_MAX: usize = 65_536;

/// Pause before a key that another node is at is asked for again.
const ELSEWHERE_PAUSE: Duration = Duration::from_millis(100);

/// What a sender sends.
#[derive(Debug)]
pub enum Outgoing {
    /// A push for one token.
    ToOne(NewPush),
    /// A push for everybody that a topic or a condition reaches.
    ToMany(FanOut),
}

impl Outgoing {
    /// The key under which it may be sent once.
    #[must_use]
    pub fn idempotency(&self) -> Option<IdempotencyKey> {
        match self {
            Self::ToOne(push) => push.idempotency,
            Self::ToMany(fan_out) => fan_out.idempotency,
        }
    }

    fn message_id(&mut self) -> &mut MessageId {
        match self {
            Self::ToOne(push) => &mut push.message_id,
            Self::ToMany(fan_out) => &mut fan_out.message_id,
        }
    }
}

/// Somebody who wants the outcome of a key.
struct Candidate {
    outgoing: Outgoing,
    reply: oneshot::Sender<Result<Sent, AppendError>>,
}

type Lines = Arc<Mutex<FastMap<IdempotencyKey, VecDeque<Candidate>>>>;

/// The keys that are running now, each with those who wait for it.
#[derive(Default)]
pub struct Once {
    lines: Lines,
}

impl Once {
    /// Runs a send under `key`, or waits for the one that is running.
    pub async fn run(
        &self,
        node: &Node,
        key: IdempotencyKey,
        outgoing: Outgoing,
    ) -> Result<Sent, AppendError> {
        let (reply, answer) = oneshot::channel();
        let candidate = Candidate { outgoing, reply };
        if let Some(first) = self.enter(key, candidate)? {
            let (node, lines) = (node.clone(), Arc::clone(&self.lines));
            actix_rt::spawn(async move { run_line(&node, &lines, key, first).await });
        }
        answer.await.unwrap_or(Err(
            StoreError::OutcomeUnknown("the send was cut off").into()
        ))
    }

    /// Enters the key's line; gives the candidate back if it is the first and must run.
    fn enter(
        &self,
        key: IdempotencyKey,
        candidate: Candidate,
    ) -> Result<Option<Candidate>, AppendError> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get_mut(&key) {
            if line.len() >= WAITING_PER_KEY {
                return Err(AppendError::TokenBusy);
            }
            line.push_back(candidate);
            return Ok(None);
        }
        if lines.len() >= KEYS_MAX {
            return Err(AppendError::NodeBusy);
        }
        lines.insert(key, VecDeque::new());
        Ok(Some(candidate))
    }
}

/// Runs candidates until one ends well, or none is left; then the key is free again.
async fn run_line(node: &Node, lines: &Lines, key: IdempotencyKey, first: Candidate) {
    let mut current = first;
    loop {
        let outcome = send(node, key, current.outgoing).await;
        let settled = matches!(outcome, Ok(Sent::Stored(_)));
        let _ = current.reply.send(outcome.clone());
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(line) = lines.get_mut(&key) else {
            return;
        };
        if settled {
            for waiting in line.drain(..) {
                let _ = waiting.reply.send(outcome.clone());
            }
        }
        match line.pop_front() {
            Some(next) => current = next,
            None => {
                lines.remove(&key);
                return;
            }
        }
    }
}

async fn send(
    node: &Node,
    key: IdempotencyKey,
    mut outgoing: Outgoing,
) -> Result<Sent, AppendError> {
    loop {
        let now = node.clock().now();
        let proposed = *outgoing.message_id();
        match node.store().claim(key, proposed, now).await? {
            Claim::Answered(earlier) => return Ok(Sent::Stored(earlier)),
            // Another node's run ends, or is given up; the sender's own patience is elsewhere.
            Claim::Elsewhere => tokio::time::sleep(ELSEWHERE_PAUSE).await,
            // Without a deadline: whether this run ended well decides whether the next may start.
            Claim::CutOff(earlier) => {
                *outgoing.message_id() = earlier;
                return node.take_on(outgoing).await;
            }
            Claim::Fresh => return node.take_on(outgoing).await,
        }
    }
}
