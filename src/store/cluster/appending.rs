//! The way of a push into a region's store: a number from Redis, a row in Scylla, and the settle in
//! Redis that makes it count.
//!
//! Only a settled push is answered 200 or delivered. A writer that is too late, or whose number a
//! failover has lost, finds it gone: it deletes its row and begins again under another number.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backends::{Backends, Beginning, Step, deadline};
use super::clocks::{ANOTHER_TIME, clock_us};
use super::records::Function;
use super::reply::{Reply, Status};
use crate::push::{NewPush, Syn};
use crate::store::counters::PushCounts;
use crate::store::region::{Holder, NodeId};
use crate::store::{Appended, Audience, StoreError};

/// Pause before a call is made again.
const RETRY_PAUSE: Duration = Duration::from_millis(15);

/// A settle that has begun may take this much longer than everything before it.
const SETTLE_GRACE: Duration = Duration::from_millis(150);

/// How asking for a number ended.
enum Numbered {
    /// This one.
    As(Syn),
    /// It is a copy that the token has.
    Copied,
    /// The token has ended.
    Dead,
}

/// How one try to settle ended.
enum Settled {
    /// The push is in.
    In(Appended),
    /// It is a copy, and another writer was quicker.
    Copied,
    /// The number is not ours any more.
    Gone,
    /// The token has ended meanwhile.
    Dead,
}

impl Backends {
    /// Numbers a push, makes it durable, settles it.
    ///
    /// # Errors
    /// A backend did not answer in time; [`StoreError::is_certainly_not_applied`] says what is
    /// known.
    pub(super) async fn append(self: &Arc<Self>, push: &NewPush) -> Result<Appended, StoreError> {
        self.health.check()?;
        let deadline = deadline();
        let mut may_be_applied = false;
        loop {
            let nonce = format!("{:016x}", rand::random::<u64>());
            let numbered = self.number(push, &nonce, deadline);
            let syn = match tokio::time::timeout_at(deadline.into(), numbered).await {
                Ok(Ok(Numbered::As(syn))) => syn,
                Ok(Ok(Numbered::Copied)) => return Ok(Appended::Repeated),
                Ok(Ok(Numbered::Dead)) => return Ok(Appended::Unregistered),
                Ok(Err(error)) => return Err(doubted(error, may_be_applied)),
                // The number passes at its own deadline, if it was given.
                Err(_) => {
                    let error = StoreError::Unavailable("redis does not answer");
                    return Err(doubted(error, may_be_applied));
                }
            };
            self.write(push, syn, &nonce, deadline)
                .await
                .map_err(|error| doubted(error, may_be_applied))?;
            match self.settle(push, syn, &nonce, deadline).await? {
                Settled::In(appended) => return Ok(appended),
                Settled::Copied => return Ok(Appended::Repeated),
                Settled::Dead => return Ok(Appended::Unregistered),
                Settled::Gone => {
                    may_be_applied |= !push.is_now_or_never();
                    self.cleanup.rows(push.address.id, &[syn]);
                }
            }
        }
    }

    /// The push's number, if it gets one.
    async fn number(
        self: &Arc<Self>,
        push: &NewPush,
        nonce: &str,
        deadline: Instant,
    ) -> Result<Numbered, StoreError> {
        let ends_before = self.ended_if_heard_by(push.accepted_at);
        loop {
            let call = || {
                let call = self.records.on_token(Function::Alloc, push.address.id);
                let call = call.arg(nonce).arg(ends_before).arg(clock_us());
                call.arg(copied(push))
            };
            let now = push.accepted_at;
            match self
                .step(&push.address, Beginning::Allowed, now, deadline, call)
                .await?
            {
                Step::Dead | Step::NotBegun => return Ok(Numbered::Dead),
                Step::Taken(reply) => match reply.status {
                    Status::Done => return Ok(Numbered::As(reply.number(0))),
                    Status::Copied => return Ok(Numbered::Copied),
                    Status::Full if Instant::now() + RETRY_PAUSE < deadline => {
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                    Status::Full => return Err(StoreError::Full),
                    _ => return Err(StoreError::Unavailable(ANOTHER_TIME)),
                },
            }
        }
    }

    /// Makes the row durable, if the push has one. When it certainly does not exist, its number is
    /// given back at once, so that nobody waits for it.
    async fn write(
        self: &Arc<Self>,
        push: &NewPush,
        syn: Syn,
        nonce: &str,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        if push.is_now_or_never() {
            return Ok(());
        }
        let written = self.pushes.insert(&self.cql, push, syn, deadline).await;
        if let Err(error) = &written
            && error.is_certainly_not_applied()
        {
            let (backends, token, nonce) = (Arc::clone(self), push.address.id, nonce.to_owned());
            tokio::spawn(async move {
                let call = backends.records.on_token(Function::Void, token);
                // If this is lost, the number passes at its deadline.
                let _ = backends.records.run(call.arg(syn).arg(nonce)).await;
            });
        }
        written
    }

    /// Settles; a call whose answer was lost is made again, until the deadline.
    async fn settle(
        self: &Arc<Self>,
        push: &NewPush,
        syn: Syn,
        nonce: &str,
        deadline: Instant,
    ) -> Result<Settled, StoreError> {
        let expiry = match push.is_now_or_never() {
            true => 0,
            false => push.expires_at,
        };
        let call = || {
            let collapse_key = push.collapse_key.as_ref().map_or(&[][..], |key| key);
            let call = self.records.on_token(Function::Settle, push.address.id);
            let call = call.arg(syn).arg(nonce).arg(expiry).arg(collapse_key);
            call.arg(self.limits.pending_per_token.max(1))
                .arg(push.accepted_at)
                .arg(copied(push))
        };
        loop {
            let now = push.accepted_at;
            let step = self.step(&push.address, Beginning::NotHere, now, deadline, call);
            let step = tokio::time::timeout_at((deadline + SETTLE_GRACE).into(), step);
            match step.await {
                Ok(Ok(Step::Dead | Step::NotBegun)) => return Ok(Settled::Dead),
                Ok(Ok(Step::Taken(reply))) if reply.status == Status::Done => {
                    return Ok(Settled::In(self.count_in(push, syn, &reply)));
                }
                Ok(Ok(Step::Taken(reply))) if reply.status == Status::Copied => {
                    return Ok(Settled::Copied);
                }
                Ok(Ok(Step::Taken(_))) => return Ok(Settled::Gone),
                Ok(Err(_)) if Instant::now() + RETRY_PAUSE < deadline => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                _ => return Err(StoreError::OutcomeUnknown("redis does not answer")),
            }
        }
    }

    fn count_in(&self, push: &NewPush, syn: Syn, reply: &Reply) -> Appended {
        let is_shown = reply.number(3) == 1;
        let counts = PushCounts {
            stored: 1,
            expired: reply.number(4) + u64::from(push.is_now_or_never()),
            collapsed: reply.number(5),
            dropped: reply.number(6),
            ..PushCounts::default()
        };
        self.counters.add(&counts);
        let deleted_up_to = Some(reply.number(2)).filter(|up_to| *up_to > 0);
        if let Some(up_to) = deleted_up_to.filter(|_| counts.dropped > 0) {
            self.cleanup.dropped(push.address.id, up_to);
        }
        Appended::Stored {
            syn,
            prev_syn: reply.number(0),
            syn_stored: reply.number(1),
            deleted_up_to,
            audience: match is_shown {
                true => self.audience(reply),
                false => Audience::Nobody,
            },
        }
    }

    fn audience(&self, reply: &Reply) -> Audience {
        match NodeId::from_text(reply.word(0)) {
            Some(node) if node != self.node && self.health.may_live(node) => {
                Audience::Elsewhere(Holder {
                    node,
                    epoch: reply.number(7),
                })
            }
            _ => Audience::Here,
        }
    }
}

/// The push to many that this is a copy of, or nothing.
fn copied(push: &NewPush) -> &[u8] {
    match push.is_copy {
        true => push.message_id.as_bytes(),
        false => &[],
    }
}

/// A failure after a row was handed out under an earlier number leaves the outcome open.
fn doubted(error: StoreError, may_be_applied: bool) -> StoreError {
    match may_be_applied && error.is_certainly_not_applied() {
        true => StoreError::OutcomeUnknown("the store was cut off while it tried again"),
        false => error,
    }
}
