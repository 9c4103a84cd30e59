//! What stands in a message from one node to another. New fields and words may be added: nodes of
//! two versions live side by side while a region is upgraded.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::push::{Delivery, MessageId, Push};
use crate::store::region::{Epoch, Hint};
use crate::token::{DeviceId, ProjectHash, TokenAddress, TokenId};

/// One message on a channel. New fields may be added; a reader ignores those it does not know.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Letter {
    pub(super) from: [u8; 8],
    /// Counts what this sender has told this receiver.
    pub(super) number: u64,
    pub(super) word: Word,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Word {
    /// Nothing, but that the number is right.
    Beat,
    Settled(Box<SettledWord>),
    Replaced {
        device: [u8; 16],
        epoch: Epoch,
    },
    Ended {
        token: [u8; 16],
    },
    LookAfter {
        token: [u8; 16],
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SettledWord {
    token: [u8; 16],
    device: [u8; 16],
    project: [u8; 8],
    minted_minutes: u32,
    prev_syn: u64,
    syn_stored: u64,
    deleted_up_to: Option<u64>,
    syn: u64,
    message_id: [u8; 16],
    accepted_at: u64,
    expires_at: u64,
    #[serde(with = "serde_bytes")]
    message: Vec<u8>,
}

impl Word {
    /// The word for a hint, if other nodes have any use for it.
    pub(super) fn of(hint: Hint) -> Option<Self> {
        Some(match hint {
            Hint::Settled(delivery) => Self::Settled(Box::new(settled_word(&delivery))),
            Hint::Replaced(device, epoch) => Self::Replaced {
                device: device.0,
                epoch,
            },
            Hint::Ended(token) => Self::Ended { token: token.0 },
            Hint::LookAfter(token) => Self::LookAfter { token: token.0 },
            Hint::Resync => return None,
        })
    }
}

fn settled_word(delivery: &Delivery) -> SettledWord {
    let TokenAddress {
        id,
        device,
        project,
        minted_minutes,
    } = delivery.address;
    SettledWord {
        token: id.0,
        device: device.0,
        project: project.0,
        minted_minutes,
        prev_syn: delivery.prev_syn,
        syn_stored: delivery.syn_stored,
        deleted_up_to: delivery.deleted_up_to,
        syn: delivery.push.syn,
        message_id: *delivery.push.message_id.as_bytes(),
        accepted_at: delivery.push.accepted_at,
        expires_at: delivery.push.expires_at,
        message: delivery.push.message.to_vec(),
    }
}

/// The hint that a word is.
pub(super) fn hint_of(word: Word) -> Option<Hint> {
    Some(match word {
        Word::Beat => return None,
        Word::Settled(word) => Hint::Settled(delivery(*word)),
        Word::Replaced { device, epoch } => Hint::Replaced(DeviceId(device), epoch),
        Word::Ended { token } => Hint::Ended(TokenId(token)),
        Word::LookAfter { token } => Hint::LookAfter(TokenId(token)),
    })
}

fn delivery(word: SettledWord) -> Delivery {
    Delivery {
        address: TokenAddress {
            id: TokenId(word.token),
            device: DeviceId(word.device),
            project: ProjectHash(word.project),
            minted_minutes: word.minted_minutes,
        },
        prev_syn: word.prev_syn,
        syn_stored: word.syn_stored,
        deleted_up_to: word.deleted_up_to,
        push: Arc::new(Push {
            syn: word.syn,
            message_id: MessageId::from_bytes(word.message_id),
            accepted_at: word.accepted_at,
            expires_at: word.expires_at,
            message: word.message.into(),
        }),
    }
}
