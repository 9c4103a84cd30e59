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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::hints::read_letter;
    use super::*;
    use crate::hostile_tests::{changed, changes, nonsense, thriftily};

    fn letters(numbers: [u64; 4], message: Vec<u8>) -> Vec<Letter> {
        let [number, syn, deleted, time] = numbers;
        let settled = SettledWord {
            token: [1; 16],
            device: [2; 16],
            project: [3; 8],
            minted_minutes: 4,
            prev_syn: syn.saturating_sub(1),
            syn_stored: syn,
            deleted_up_to: (deleted % 2 == 0).then_some(deleted),
            syn,
            message_id: [5; 16],
            accepted_at: time,
            expires_at: time.saturating_add(1),
            message,
        };
        let words = [
            Word::Beat,
            Word::Settled(Box::new(settled)),
            Word::Replaced {
                device: [6; 16],
                epoch: syn,
            },
            Word::Ended { token: [7; 16] },
            Word::LookAfter { token: [8; 16] },
        ];
        let from = [9; 8];
        let words = words.into_iter();
        words.map(|word| Letter { from, number, word }).collect()
    }

    /// A letter that can be read can be written, and means the same then; its hint means what it says.
    fn read(bytes: &[u8]) {
        let Ok(letter) = thriftily(bytes, read_letter) else {
            return;
        };
        let written = rmp_serde::to_vec_named(&letter).expect("a letter");
        let again = read_letter(&written).expect("what was written");
        assert_eq!(format!("{letter:?}"), format!("{again:?}"));
        let is_beat = matches!(letter.word, Word::Beat);
        let said = format!("{:?}", letter.word);
        let hint = hint_of(letter.word);
        assert_eq!(hint.is_none(), is_beat);
        let back = hint.and_then(Word::of);
        assert!(is_beat || format!("{:?}", back.expect("a word")) == said);
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_fall_over(bytes in nonsense()) {
            read(&bytes);
        }

        #[test]
        fn changed_letters_mean_what_they_say_or_nothing(
            numbers in any::<[u64; 4]>(),
            message in nonsense(),
            changes in changes(),
        ) {
            for letter in letters(numbers, message) {
                let bytes = rmp_serde::to_vec_named(&letter).expect("a letter");
                read(&bytes);
                read(&changed(bytes, &changes));
            }
        }
    }

    #[test]
    fn lengths_are_not_believed_nor_depths_followed() {
        // An array, a map, a text and bytes of 2^32 - 1.
        for first in [0xdd, 0xdf, 0xdb, 0xc6] {
            read(&[first, 0xff, 0xff, 0xff, 0xff]);
            // The same as the message of a letter.
            let mut letter = b"\x83\xa4from\x98".to_vec();
            letter.extend([1; 8]);
            letter.extend(b"\xa6number\x01\xa4word\x81\xa7Settled\x81\xa7message");
            letter.extend([first, 0xff, 0xff, 0xff, 0xff]);
            read(&letter);
        }
        // A list in a list, in a field that this version does not know.
        let mut deep = b"\x81\xa3new".to_vec();
        deep.extend(vec![0x91; 1_000_000]);
        read(&deep);
    }
}
