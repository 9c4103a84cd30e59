//! Every message between actors, grouped by the actor that hears it. An order is named as an order,
//! a fact as a fact.

use actix::Message;
use tokio::sync::oneshot;

use crate::actors::AppendError;
use crate::actors::registry::SessionKey;
use crate::push::{Delivery, NewPush};
use crate::store::region::Epoch;
use crate::store::{Appended, Settled};
use crate::token::{DeviceId, ProjectHash, TokenId};

// --- Storage ---------------------------------------------------------------------------------

/// Number this push, make it durable, answer, deliver.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Append {
    /// The push.
    pub push: NewPush,
    /// Where the answer goes; a sender that has left is no reason to stop.
    pub reply: oneshot::Sender<Result<Appended, AppendError>>,
}

/// These appends became durable together, or failed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Committed(pub Vec<Settled>);

// --- Router ----------------------------------------------------------------------------------

/// This session is now the device's only one, unless a newer one has claimed it already; the older
/// one is told to go.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Claim {
    /// The device.
    pub device: DeviceId,
    /// Its session.
    pub session: SessionKey,
    /// The claim's number.
    pub epoch: Epoch,
}

/// A session on another node is now the device's only one: the one of this claim is told to go.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Supersede {
    /// The device.
    pub device: DeviceId,
    /// The claim that no longer counts, and all before it.
    pub epoch: Epoch,
}

/// Which tokens do sessions of this node hold, and by which claims?
#[derive(Debug, Message)]
#[rtype(result = "Vec<(TokenId, Epoch)>")]
pub struct ListHeld;

/// Which of these tokens do sessions of this node hold, and by which claims?
#[derive(Debug, Message)]
#[rtype(result = "Vec<(TokenId, Epoch)>")]
pub struct ListHeldOf(pub Vec<TokenId>);

/// A newer session of its device holds this token elsewhere: the one that holds it by this claim,
/// or an older one, has to go.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct SupersedeHolder(pub TokenId, pub Epoch);

/// Pushes of these tokens go to this session. Answered once that is so.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Attach {
    /// The session.
    pub session: SessionKey,
    /// The number of its claim.
    pub epoch: Epoch,
    /// Tokens of the router's shard.
    pub tokens: Vec<TokenId>,
}

/// This session no longer wants these tokens, or this device. A newer session's claim stands.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Detach {
    /// The session.
    pub session: SessionKey,
    /// The device, when the session ends.
    pub device: Option<DeviceId>,
    /// Tokens of the router's shard.
    pub tokens: Vec<TokenId>,
}

/// These pushes are settled: hand them to whoever holds their tokens.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Route(pub Vec<Delivery>);

/// Deliveries of these tokens were lost before they reached the router.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct RouteBehind(pub Vec<TokenId>);

/// This token has ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct EndToken(pub TokenId);

// --- Registry --------------------------------------------------------------------------------

/// Tell these sessions of this worker.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Notify(pub Vec<(SessionKey, SessionEvent)>);

/// All tokens of this project have ended.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct EndProject(pub ProjectHash);

/// Close all sessions of this worker, evenly over the window.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct CloseAll {
    /// How long it may take, in milliseconds.
    pub window_ms: u64,
}

/// Answered by every worker: it is alive.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Beat;

// --- Session ---------------------------------------------------------------------------------

/// Something happened that a session should know.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum SessionEvent {
    /// A push for one of its tokens is settled.
    Deliver(Delivery),
    /// Deliveries of this token were lost on the way.
    Behind(TokenId),
    /// A newer session of the device took over.
    Replaced,
    /// One of its tokens ended.
    Ended(TokenId),
    /// All tokens of this project ended.
    EndProject(ProjectHash),
    /// The node restarts.
    Restart {
        /// When the device should come back.
        retry_ms: u64,
    },
    /// A deadline may have passed.
    Check,
}
