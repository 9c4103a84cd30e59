//! What many nodes over one store must agree upon: who holds a device, and how nodes tell each
//! other of pushes. A node that is alone has no region.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::StoreError;
use crate::clock::Millis;
use crate::push::Delivery;
use crate::token::{DeviceId, TokenId};

/// The number of a claim of a device: of two sessions of one device, the one with the higher is
/// the newer. Unique in its region.
pub type Epoch = u64;

/// Names one running node; another one after every restart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId([u8; 8]);

impl NodeId {
    /// A new name.
    #[must_use]
    pub fn generate() -> Self {
        let mut id = [0; 8];
        rand::fill(&mut id);
        Self(id)
    }

    /// The bytes that messages between nodes carry.
    #[must_use]
    pub fn bytes(self) -> [u8; 8] {
        self.0
    }

    /// The inverse of [`Self::bytes`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The text form, 11 characters.
    #[must_use]
    pub fn to_text(self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// The inverse of [`Self::to_text`].
    #[must_use]
    pub fn from_text(text: &[u8]) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "NodeId({})", self.to_text())
    }
}

/// Who holds a token or a device: a session's claim, and the node it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The node.
    pub node: NodeId,
    /// The claim.
    pub epoch: Epoch,
}

/// How claiming a device ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed {
    /// The claim's number.
    pub epoch: Epoch,
    /// Who held the device before, if it was on another node.
    pub previous: Option<Holder>,
}

/// What one node tells another. Each is a hint: a lost one costs latency, never a push.
#[derive(Debug, Clone)]
pub enum Hint {
    /// A push was settled for a session of yours.
    Settled(Delivery),
    /// A newer session of this device lives elsewhere.
    Replaced(DeviceId, Epoch),
    /// The token has ended.
    Ended(TokenId),
    /// Redis has forgotten who holds this token, or a slow writer's time is over: if you hold it,
    /// say so again, and look into the store.
    LookAfter(TokenId),
    /// Hints to this node were lost, or presence was: look after every token that you hold.
    Resync,
}

/// What became of saying again that a token is held here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// It is.
    Here,
    /// A newer session of its device holds it, wherever that is.
    ByNewer,
    /// The token has ended.
    Ended,
    /// There is no answer: to be said again.
    Unknown,
}

/// The other nodes.
pub trait Region: Send + Sync + 'static {
    /// The device's only session from now on is one of this node.
    fn claim(&self, device: DeviceId) -> BoxFuture<'_, Result<Claimed, StoreError>>;

    /// That session is over; changes nothing if a newer one holds the device by now.
    fn release(&self, device: DeviceId, epoch: Epoch) -> BoxFuture<'_, ()>;

    /// Sessions of this node hold these tokens, each by a claim: says so again, in case it was
    /// forgotten. Answers for each token, in order.
    fn hold<'a>(&'a self, tokens: &'a [(TokenId, Epoch)], now: Millis) -> BoxFuture<'a, Vec<Held>>;

    /// That session lets go of a token; changes nothing if a newer one holds it by now.
    fn let_go(&self, token: TokenId, epoch: Epoch) -> BoxFuture<'_, ()>;

    /// Tells another node, if it lives. Does not wait.
    fn tell(&self, node: NodeId, hint: Hint);

    /// What other nodes tell this one. To be called once.
    fn listen(&self) -> Option<mpsc::Receiver<Hint>>;

    /// How many nodes live, this one included; at least 1.
    fn nodes(&self) -> usize;

    /// This node stops: nobody is to tell it anything from now on.
    fn leave(&self) -> BoxFuture<'_, ()>;
}

/// A region, or none.
pub type MaybeRegion = Option<Arc<dyn Region>>;
