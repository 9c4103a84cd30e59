//! Pushes to many: walks those that a topic or a condition reaches, and has Storage store a copy for
//! each of them.
//!
//! Its sender was answered when it was durably accepted. From then on it is carried out in the
//! background, stretch by stretch: look at some tokens, store their copies, pass a checkpoint. After
//! a crash it goes on from the last checkpoint, and the store knows which copies beyond it are
//! there already. A copy takes the way of any other push; its pace is bounded, so that those are
//! not kept waiting. Fan-outs to the same topic go one after another, so that a newer one never
//! comes before an older one, or is replaced by it.

mod lanes;
mod pace;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{join_all, ready};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::sync::{Semaphore, mpsc};

use crate::actors::fan_out::lanes::{Lane, Lanes};
use crate::actors::fan_out::pace::Pace;
use crate::actors::{AppendError, FastMap, Node, Sent};
use crate::metrics::{FanOutCopy, FanOutState};
use crate::push::MessageId;
use crate::store::{Appended, StoreError};
use crate::token::{ProjectHash, TokenAddress, TokenId};
use crate::topic::{Checkpoint, FanOut, Meeting, TopicName, Walk};

/// Fan-outs that are carried out side by side, so that one to a few does not wait for one to
/// millions; further ones wait.
const AT_ONCE: usize = 32;

/// Tokens looked at from one checkpoint to the next.
const STRETCH: usize = 256;

/// Copies of all fan-outs that are on their way to the store. A send to a single token waits behind
/// so many at worst, and a commit with so many costs hardly more per push than one with more.
const COPIES_AT_ONCE: usize = 128;

/// Tokens of one stretch whose topics the store is asked for side by side.
const QUESTIONS_AT_ONCE: usize = 32;

/// Fan-outs of all projects that may be unfinished: a name and a project each in memory.
const UNFINISHED_MAX: usize = 65_536;

/// Pause before something is tried again that the store did not take, doubled up to the longest.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// How often it is looked for fan-outs that a stopped node of the region has left.
const TAKE_EVERY: Duration = Duration::from_secs(5);

/// What the one who starts them hears.
enum Order {
    CarryOut(MessageId, Lane),
    Ended(Lane),
}

/// The fan-outs of a node.
pub struct FanOuts {
    unfinished: Mutex<FastMap<MessageId, ProjectHash>>,
    /// Not bounded by itself: each unfinished one is in it twice at most.
    orders: mpsc::UnboundedSender<Order>,
    taken: Mutex<Option<mpsc::UnboundedReceiver<Order>>>,
    turns: Semaphore,
    copies: Semaphore,
    pace: Pace,
}

impl FanOuts {
    /// None yet.
    #[must_use]
    pub fn new(copies_per_second: u32) -> Self {
        let (orders, taken) = mpsc::unbounded_channel();
        Self {
            unfinished: Mutex::default(),
            orders,
            taken: Mutex::new(Some(taken)),
            turns: Semaphore::new(AT_ONCE),
            copies: Semaphore::new(COPIES_AT_ONCE),
            pace: Pace::new(copies_per_second),
        }
    }

    /// Copies that the store has not answered for yet.
    pub(in crate::actors) fn copies_under_way(&self) -> usize {
        COPIES_AT_ONCE.saturating_sub(self.copies.available_permits())
    }

    fn known(&self) -> MutexGuard<'_, FastMap<MessageId, ProjectHash>> {
        self.unfinished
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a seat for one more, if its project may have it.
    fn enter(&self, fan_out: &FanOut, per_project: usize) -> Result<(), AppendError> {
        let mut known = self.known();
        if known.len() >= UNFINISHED_MAX {
            return Err(AppendError::NodeBusy);
        }
        let of_project = known.values().filter(|it| **it == fan_out.project);
        if of_project.count() >= per_project {
            return Err(AppendError::FanOutsBusy);
        }
        known.insert(fan_out.message_id, fan_out.project);
        Ok(())
    }

    fn order(&self, order: Order) {
        // Nobody hears only when the process ends.
        let _ = self.orders.send(order);
    }
}

impl Node {
    /// Accepts a push to many: durable when it answers. Goes on when its sender has waited long enough:
    /// it may be durable by then, and somebody must carry it out.
    pub(in crate::actors) async fn accept(&self, fan_out: FanOut) -> Result<Sent, AppendError> {
        let node = self.clone();
        let accepting = actix_rt::spawn(async move { node.accept_to_the_end(fan_out).await });
        let cut_off = StoreError::OutcomeUnknown("the acceptance was cut off");
        accepting.await.unwrap_or(Err(cut_off.into()))
    }

    async fn accept_to_the_end(&self, fan_out: FanOut) -> Result<Sent, AppendError> {
        let message_id = fan_out.message_id;
        let order = Order::CarryOut(message_id, Lane::of(&fan_out));
        let fan_outs = self.fan_outs();
        fan_outs.enter(&fan_out, self.settings().fan_outs_per_project)?;
        self.show_unfinished();
        match self.store().accept_fan_out(&fan_out).await {
            Err(error) if error.is_certainly_not_applied() => {
                self.let_go(message_id);
                Err(error.into())
            }
            // It may be there: whoever carries it out will see.
            Err(error) => {
                fan_outs.order(order);
                Err(error.into())
            }
            Ok(()) => {
                self.metrics().fan_outs.states.count(FanOutState::Accepted);
                fan_outs.order(order);
                Ok(Sent::Stored(message_id))
            }
        }
    }

    /// Begins to carry out pushes to many: those that are accepted from now on, and those that
    /// were left unfinished. To be called once, on the system's own thread.
    pub fn start_fan_outs(&self) {
        let taken = &self.fan_outs().taken;
        let taken = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut orders) = taken else {
            return;
        };
        let node = self.clone();
        actix_rt::spawn(async move {
            let mut lanes = Lanes::default();
            while let Some(order) = orders.recv().await {
                let next = match order {
                    Order::CarryOut(message_id, lane) => lanes.enter(lane, message_id),
                    Order::Ended(lane) => lanes.leave(lane),
                };
                if let Some((message_id, lane)) = next {
                    actix_rt::spawn(node.clone().carry_out_in_turn(message_id, lane));
                }
            }
        });
        actix_rt::spawn(self.clone().take_up_what_was_left());
    }

    /// On a node that is alone, what the process before it has left; in a region again and again,
    /// what other nodes have.
    async fn take_up_what_was_left(self) {
        loop {
            match self.store().take_fan_outs().await {
                Ok(left) => {
                    self.take_up(left).await;
                    if !self.is_in_region() {
                        return;
                    }
                }
                Err(error) => tracing::warn!(%error, "what fan-outs are left is not known yet"),
            }
            tokio::time::sleep(TAKE_EVERY).await;
        }
    }

    /// In the order in which they were accepted: names sort by time.
    async fn take_up(&self, mut left: Vec<(MessageId, ProjectHash)>) {
        left.sort_unstable_by_key(|(message_id, _)| *message_id);
        for (message_id, project) in left {
            let known = self.fan_outs().known().insert(message_id, project);
            if known.is_some() {
                continue;
            }
            self.show_unfinished();
            let lane = match self.store().fan_out(message_id).await {
                Ok(Some((fan_out, _))) => Lane::of(&fan_out),
                // Whoever carries it out will see.
                _ => Lane::alone(message_id),
            };
            self.metrics().fan_outs.states.count(FanOutState::Resumed);
            self.fan_outs().order(Order::CarryOut(message_id, lane));
        }
    }

    fn let_go(&self, message_id: MessageId) {
        self.fan_outs().known().remove(&message_id);
        self.show_unfinished();
    }

    fn show_unfinished(&self) {
        let unfinished = self.fan_outs().known().len();
        let gauge = &self.metrics().fan_outs.unfinished;
        gauge.set(i64::try_from(unfinished).unwrap_or(i64::MAX));
    }

    async fn carry_out_in_turn(self, message_id: MessageId, lane: Lane) {
        // Never closed.
        let _turn = self.fan_outs().turns.acquire().await;
        self.carry_out(message_id).await;
        self.fan_outs().order(Order::Ended(lane));
    }

    /// Carries one out to its end, however often the store fails meanwhile.
    async fn carry_out(&self, message_id: MessageId) {
        let mut pause = RETRY_PAUSE;
        while let Err(error) = self.go_on_with(message_id).await {
            tracing::warn!(%error, %message_id, "a fan-out waits for the store");
            if self.is_draining() || !error.is_retryable() {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
        self.let_go(message_id);
    }

    /// From its last checkpoint to its end, unless the node stops or another one has taken over.
    async fn go_on_with(&self, message_id: MessageId) -> Result<(), StoreError> {
        let Some((fan_out, mut checkpoint)) = self.store().fan_out(message_id).await? else {
            return Ok(());
        };
        let walks = fan_out.reach.walks();
        while checkpoint.walk < walks.len() {
            if self.is_over(&fan_out) {
                break;
            }
            let passed = self.pass_stretch(&fan_out, &walks, &checkpoint).await?;
            let Some((next, copied)) = passed else {
                return Ok(());
            };
            let store = self.store();
            if !store.pass_checkpoint(message_id, &next, &copied).await? {
                return Ok(());
            }
            checkpoint = next;
        }
        self.store().finish_fan_out(message_id).await?;
        self.metrics().fan_outs.states.count(FanOutState::Finished);
        tracing::debug!(%message_id, copies = checkpoint.copies, "a fan-out is finished");
        Ok(())
    }

    /// Copies for everybody on the next stretch, and whose marks may go with its checkpoint. `None` if
    /// the node stops before all have one.
    async fn pass_stretch(
        &self,
        fan_out: &FanOut,
        walks: &[Walk],
        at: &Checkpoint,
    ) -> Result<Option<(Checkpoint, Vec<TokenId>)>, StoreError> {
        let stretch = self
            .store()
            .walk(fan_out.project, &walks[at.walk], &at.place, STRETCH)
            .await?;
        let reached = self.reached(fan_out, walks, at.walk, stretch.met).await?;
        let without = reached.iter().filter(|(_, meeting)| !meeting.has_copy);
        let count = u32::try_from(without.clone().count()).unwrap_or(u32::MAX);
        self.fan_outs().pace.wait_for(count).await;
        let copies = without.map(|(address, _)| self.copy_to(fan_out, *address));
        let copies: Option<Vec<bool>> = join_all(copies).await.into_iter().collect();
        let Some(copies) = copies else {
            return Ok(None);
        };
        let copied = copies.iter().filter(|is_there| **is_there).count() as u64;
        let next = Checkpoint {
            walk: at.walk + usize::from(stretch.next.is_none()),
            place: stretch.next.unwrap_or_default(),
            copies: at.copies + copied,
        };
        let done_with = reached.iter().filter(|(_, meeting)| meeting.is_last);
        let tokens = done_with.map(|(address, _)| address.id).collect();
        Ok(Some((next, tokens)))
    }

    /// Those of the tokens met on a walk that are to have a copy, or have had it on an earlier one.
    async fn reached(
        &self,
        fan_out: &FanOut,
        walks: &[Walk],
        at: usize,
        met: Vec<TokenAddress>,
    ) -> Result<Vec<(TokenAddress, Meeting)>, StoreError> {
        let topics = fan_out.reach.asks_for();
        if topics.is_empty() {
            return Ok(met.into_iter().map(|it| (it, Meeting::ONLY)).collect());
        }
        let asked = met.into_iter().map(|address| {
            let topics = &topics;
            async move {
                let since = self.store().subscribed_since(address.id, topics).await?;
                let since = |asked: &TopicName| {
                    let place = topics.iter().position(|topic| topic == asked)?;
                    since.get(place).copied().flatten()
                };
                let reach = &fan_out.reach;
                let meeting = reach.meets(walks, at, fan_out.accepted_at, since);
                Ok(meeting.map(|meeting| (address, meeting)))
            }
        });
        let reached = futures_util::stream::iter(asked).buffered(QUESTIONS_AT_ONCE);
        reached
            .try_filter_map(|it| ready(Ok(it)))
            .try_collect()
            .await
    }

    /// Stores one copy, however long that takes: a token that has too much to do is tried again.
    /// Answers whether the copy is there, or `None` if the node stops first.
    async fn copy_to(&self, fan_out: &FanOut, address: TokenAddress) -> Option<bool> {
        let copies = &self.metrics().fan_outs.copies;
        let mut pause = RETRY_PAUSE;
        loop {
            // Never closed.
            let room = self.fan_outs().copies.acquire().await;
            // A copy that is cut off would hold up its reader until its number is given up.
            if self.is_draining() {
                return None;
            }
            let appended = self.append_one(fan_out.copy_for(address)).await;
            drop(room);
            match appended {
                Ok(Appended::Stored { .. }) => {
                    copies.count(FanOutCopy::Stored);
                    return Some(true);
                }
                Ok(Appended::Repeated) => {
                    copies.count(FanOutCopy::Repeated);
                    return Some(true);
                }
                Ok(Appended::Unregistered) => {
                    copies.count(FanOutCopy::Unregistered);
                    // Forgotten at the next try otherwise.
                    let _ = self.store().forget_subscriptions(&address).await;
                    return Some(false);
                }
                Err(AppendError::Store(error)) if !error.is_retryable() => {
                    tracing::error!(%error, "a copy met a corrupt record");
                    return Some(false);
                }
                Err(_) if self.is_over(fan_out) => return Some(false),
                Err(_) => {
                    copies.count(FanOutCopy::Retried);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_PAUSE_MAX);
                }
            }
        }
    }

    fn is_over(&self, fan_out: &FanOut) -> bool {
        fan_out.is_expired(self.clock().now()) || !self.is_live_project(fan_out.project)
    }
}
