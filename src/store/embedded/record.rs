//! What stands on disk: the keys, and the values behind them.
//!
//! The first byte of a key is its kind, so that one keyspace holds everything and a kind is one
//! stretch of it. Numbers in keys are big-endian, so that they sort.

use std::ops::{Range, RangeInclusive};

use bytes::Bytes;
use fjall::UserKey;

use super::ledger::{Ledger, WakeSeconds};
use crate::clock::Millis;
use crate::push::{CollapseKey, IdempotencyKey, MessageId, NewPush, Push, Syn};
use crate::store::Totals;
use crate::token::{DeviceId, ProjectHash, TokenAddress, TokenId};

/// Version of everything in this file. A store of another version is refused.
pub(super) const FORMAT_VERSION: u8 = 2;

/// Kinds of keys.
pub(super) mod kind {
    pub(crate) const META: u8 = 0;
    pub(crate) const TOKEN: u8 = 1;
    pub(crate) const ROW: u8 = 2;
    pub(crate) const WAKE: u8 = 3;
    pub(crate) const ANSWER: u8 = 4;
    pub(crate) const ANSWER_END: u8 = 5;
    pub(crate) const PROJECT: u8 = 6;
    pub(crate) const SECRET: u8 = 7;
    pub(crate) const MEMBER: u8 = 8;
    pub(crate) const SUBSCRIPTION: u8 = 9;
    pub(crate) const FAN_OUT: u8 = 10;
    pub(crate) const CHECKPOINT: u8 = 11;
    pub(crate) const COPY: u8 = 12;
}

/// Where the format's version stands.
pub(super) const VERSION_KEY: [u8; 2] = [kind::META, 0];

/// Where the totals stand; written with every batch, so that opening needs no scan.
pub(super) const TOTALS_KEY: [u8; 2] = [kind::META, 1];

/// Projects whose tokens are being ended, so that a restart goes on with it.
pub(super) const ENDING_PREFIX: [u8; 2] = [kind::META, 2];

/// A value that does not decode.
pub(super) type Undecodable = &'static str;

/// `kind | token id`.
pub(super) fn token_key(token: TokenId) -> UserKey {
    keyed(kind::TOKEN, &[&token.0])
}

/// `kind | token id | syn`.
pub(super) fn row_key(token: TokenId, syn: Syn) -> UserKey {
    keyed(kind::ROW, &[&token.0, &syn.to_be_bytes()])
}

/// All rows of a token from `first` to `last`.
pub(super) fn row_range(token: TokenId, first: Syn, last: Syn) -> RangeInclusive<UserKey> {
    row_key(token, first)..=row_key(token, last)
}

/// `kind | seconds | token id`.
pub(super) fn wake_key(wake: WakeSeconds, token: TokenId) -> UserKey {
    keyed(kind::WAKE, &[&wake.to_be_bytes(), &token.0])
}

/// `kind | idempotency key`.
pub(super) fn answer_key(key: IdempotencyKey) -> UserKey {
    keyed(kind::ANSWER, &[&key.0])
}

/// `kind | seconds | idempotency key`.
pub(super) fn answer_end_key(ends_at: Millis, key: IdempotencyKey) -> UserKey {
    keyed(
        kind::ANSWER_END,
        &[&end_seconds(ends_at).to_be_bytes(), &key.0],
    )
}

/// Every key of a kind.
pub(super) fn all_of_kind(kind: u8) -> Range<UserKey> {
    keyed(kind, &[])..keyed(kind + 1, &[])
}

/// What a time index has from one second on and before another.
pub(super) fn time_index_between(index: u8, from: u32, until: u32) -> Range<UserKey> {
    let beginning = |second: u32| keyed(index, &[&second.to_be_bytes()]);
    beginning(from)..beginning(until)
}

/// Which time index a key is of, and its second.
pub(super) fn time_index_entry(key: &[u8]) -> Option<(u8, u32)> {
    let index = *key.first()?;
    if !matches!(index, kind::WAKE | kind::ANSWER_END) {
        return None;
    }
    let (second, _) = timed_of(key).ok()?;
    Some((index, second))
}

/// `kind | project id`.
pub(super) fn project_key(project_id: &str) -> UserKey {
    keyed(kind::PROJECT, &[project_id.as_bytes()])
}

/// `kind | name`.
pub(super) fn secret_key(name: &str) -> UserKey {
    keyed(kind::SECRET, &[name.as_bytes()])
}

/// Where it is noted that a project's tokens are being ended.
pub(super) fn ending_key(project: ProjectHash) -> UserKey {
    UserKey::from([&ENDING_PREFIX, &project.0[..]].concat())
}

pub(super) fn keyed(kind: u8, parts: &[&[u8]]) -> UserKey {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(kind);
    for part in parts {
        key.extend_from_slice(part);
    }
    UserKey::from(key)
}

fn end_seconds(ends_at: Millis) -> u32 {
    u32::try_from(ends_at.div_ceil(1_000)).unwrap_or(u32::MAX)
}

/// The token id of a [`token_key`].
pub(super) fn token_of(key: &[u8]) -> Result<TokenId, Undecodable> {
    let mut reader = Reader(key);
    reader.array::<1>()?;
    let id = reader.array()?;
    reader.end()?;
    Ok(TokenId(id))
}

/// Token id and syn of a [`row_key`].
pub(super) fn row_of(key: &[u8]) -> Result<(TokenId, Syn), Undecodable> {
    let mut reader = Reader(key);
    reader.array::<1>()?;
    let row = (
        TokenId(reader.array()?),
        Syn::from_be_bytes(reader.array()?),
    );
    reader.end()?;
    Ok(row)
}

/// Seconds and id of a key of the wake index or of the index of answers.
pub(super) fn timed_of(key: &[u8]) -> Result<(u32, [u8; 16]), Undecodable> {
    let mut reader = Reader(key);
    reader.array::<1>()?;
    let timed = (u32::from_be_bytes(reader.array()?), reader.array()?);
    reader.end()?;
    Ok(timed)
}

/// What is written down about a token. A push that only adds its row to others leaves the record as
/// it is, so the highest number is the larger of [`Record::syn`] and that of the last row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) device: DeviceId,
    pub(super) project: ProjectHash,
    pub(super) minted_minutes: u32,
    pub(super) is_ended: bool,
    pub(super) syn: Syn,
    pub(super) acked: Syn,
    pub(super) deleted_up_to: Syn,
    pub(super) last_contact: Millis,
    pub(super) wake: WakeSeconds,
    /// Whether there may be rows beyond `acked`.
    pub(super) may_have_rows: bool,
}

impl Record {
    /// The record as it stands once everything staged for the token is committed.
    pub(super) fn of(address: &TokenAddress, ledger: &Ledger) -> Self {
        Self {
            device: address.device,
            project: address.project,
            minted_minutes: address.minted_minutes,
            is_ended: ledger.is_ended(),
            syn: ledger.numbered(),
            acked: ledger.acked(),
            deleted_up_to: ledger.staged_deleted_up_to(),
            last_contact: ledger.last_contact(),
            wake: ledger.wake(),
            may_have_rows: ledger.is_marked,
        }
    }

    /// The address this is the record of.
    pub(super) fn address(&self, id: TokenId) -> TokenAddress {
        TokenAddress {
            id,
            device: self.device,
            project: self.project,
            minted_minutes: self.minted_minutes,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(66);
        bytes.extend_from_slice(&self.device.0);
        bytes.extend_from_slice(&self.project.0);
        bytes.extend_from_slice(&self.minted_minutes.to_le_bytes());
        bytes.push(u8::from(self.is_ended));
        for number in [self.syn, self.acked, self.deleted_up_to, self.last_contact] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.wake.to_le_bytes());
        bytes.push(u8::from(self.may_have_rows));
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Undecodable> {
        let mut reader = Reader(bytes);
        let record = Self {
            device: DeviceId(reader.array()?),
            project: ProjectHash(reader.array()?),
            minted_minutes: reader.u32()?,
            is_ended: reader.flag()?,
            syn: reader.u64()?,
            acked: reader.u64()?,
            deleted_up_to: reader.u64()?,
            last_contact: reader.u64()?,
            wake: reader.u32()?,
            may_have_rows: reader.flag()?,
        };
        reader.end()?;
        Ok(record)
    }
}

/// What a ledger must know of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowHead {
    pub(super) syn: Syn,
    pub(super) expires_at: Millis,
    pub(super) collapse_key: Option<CollapseKey>,
}

/// A push as its row's value.
pub(super) fn encode_row(push: &NewPush) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(49 + push.message.len());
    bytes.extend_from_slice(&push.accepted_at.to_le_bytes());
    bytes.extend_from_slice(&push.expires_at.to_le_bytes());
    bytes.extend_from_slice(push.message_id.as_bytes());
    bytes.push(u8::from(push.collapse_key.is_some()));
    if let Some(key) = &push.collapse_key {
        bytes.extend_from_slice(key);
    }
    bytes.extend_from_slice(&push.message);
    bytes
}

/// The inverse of [`encode_row`].
pub(super) fn decode_row(syn: Syn, bytes: &[u8]) -> Result<(RowHead, Push), Undecodable> {
    let mut reader = Reader(bytes);
    let accepted_at = reader.u64()?;
    let expires_at = reader.u64()?;
    let message_id = MessageId::from_bytes(reader.array()?);
    let collapse_key = if reader.flag()? {
        Some(reader.array()?)
    } else {
        None
    };
    let head = RowHead {
        syn,
        expires_at,
        collapse_key,
    };
    let push = Push {
        syn,
        message_id,
        accepted_at,
        expires_at,
        message: Bytes::copy_from_slice(reader.0),
    };
    Ok((head, push))
}

/// Only the head of a row's value, without copying the message.
pub(super) fn decode_row_head(syn: Syn, bytes: &[u8]) -> Result<RowHead, Undecodable> {
    let mut reader = Reader(bytes);
    let _accepted_at = reader.u64()?;
    let expires_at = reader.u64()?;
    let _message_id = reader.array::<16>()?;
    let collapse_key = if reader.flag()? {
        Some(reader.array()?)
    } else {
        None
    };
    Ok(RowHead {
        syn,
        expires_at,
        collapse_key,
    })
}

/// The answer kept under an idempotency key, and when it is forgotten.
pub(super) fn encode_answer(message_id: MessageId, ends_at: Millis) -> Vec<u8> {
    [&message_id.as_bytes()[..], &ends_at.to_le_bytes()].concat()
}

/// The inverse of [`encode_answer`].
pub(super) fn decode_answer(bytes: &[u8]) -> Result<(MessageId, Millis), Undecodable> {
    let mut reader = Reader(bytes);
    let answer = (MessageId::from_bytes(reader.array()?), reader.u64()?);
    reader.end()?;
    Ok(answer)
}

/// The counts of the whole store.
pub(super) fn encode_totals(totals: Totals) -> Vec<u8> {
    [totals.tokens.to_le_bytes(), totals.pending.to_le_bytes()].concat()
}

/// The inverse of [`encode_totals`].
pub(super) fn decode_totals(bytes: &[u8]) -> Result<Totals, Undecodable> {
    let mut reader = Reader(bytes);
    let totals = Totals {
        tokens: reader.u64()?,
        pending: reader.u64()?,
    };
    reader.end()?;
    Ok(totals)
}

/// When a project's end was asked for.
pub(super) fn encode_ending(now: Millis) -> [u8; 8] {
    now.to_le_bytes()
}

/// The project of an [`ending_key`], and when its end was asked for.
pub(super) fn decode_ending(
    key: &[u8],
    value: &[u8],
) -> Result<(ProjectHash, Millis), Undecodable> {
    let mut key = Reader(key);
    key.array::<2>()?;
    let project = ProjectHash(key.array()?);
    key.end()?;
    let mut value = Reader(value);
    let now = value.u64()?;
    value.end()?;
    Ok((project, now))
}

/// Takes fixed pieces off the front of a value.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Undecodable> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or("too short")?;
        self.0 = rest;
        Ok(*array)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Undecodable> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Undecodable> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn flag(&mut self) -> Result<bool, Undecodable> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err("a flag that is neither 0 nor 1"),
        }
    }

    pub(super) fn end(&self) -> Result<(), Undecodable> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err("too long")
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hostile_tests::{Change, changed, changes, nonsense, thriftily};

    /// What decodes is what was encoded, to the byte.
    #[track_caller]
    fn assert_exact<T>(
        bytes: &[u8],
        decode: impl FnOnce(&[u8]) -> Result<T, Undecodable>,
        encode: impl FnOnce(T) -> Vec<u8>,
    ) {
        if let Ok(decoded) = thriftily(bytes, decode) {
            assert_eq!(encode(decoded), bytes);
        }
    }

    fn push_again(head: RowHead, push: Push) -> NewPush {
        NewPush {
            address: Record::decode(&[0; 66])
                .expect("a record")
                .address(TokenId([0; 16])),
            message_id: push.message_id,
            accepted_at: push.accepted_at,
            expires_at: head.expires_at,
            collapse_key: head.collapse_key,
            idempotency: None,
            is_copy: false,
            message: push.message,
        }
    }

    /// Every decoder of this file, on the same bytes.
    fn decode_all(bytes: &[u8]) {
        assert_exact(bytes, Record::decode, |record| record.encode());
        assert_exact(
            bytes,
            |bytes| decode_row(7, bytes),
            |(head, push)| encode_row(&push_again(head, push)),
        );
        let head = decode_row_head(7, bytes);
        assert_eq!(
            head,
            decode_row(7, bytes).map(|(head, _)| head),
            "one truth"
        );
        assert_exact(bytes, decode_answer, |(id, ends_at)| {
            encode_answer(id, ends_at)
        });
        assert_exact(bytes, decode_totals, encode_totals);
        let (key, value) = bytes.split_at(bytes.len().min(10));
        assert_exact(
            value,
            |value| decode_ending(key, value),
            |(project, now)| {
                // The first two bytes are the key's kind, by which it was found.
                assert_eq!(ending_key(project)[2..], key[2..]);
                encode_ending(now).to_vec()
            },
        );
    }

    /// Likewise of keys; their first byte is their kind, by which they were found.
    fn decode_keys(key: &[u8]) {
        if let Ok(token) = token_of(key) {
            assert_eq!(token_key(token)[1..], key[1..]);
        }
        if let Ok((token, syn)) = row_of(key) {
            assert_eq!(row_key(token, syn)[1..], key[1..]);
        }
        if let Ok((seconds, id)) = timed_of(key) {
            assert_eq!(wake_key(seconds, TokenId(id))[1..], key[1..]);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_decode_to_what_they_are_not(bytes in nonsense()) {
            decode_all(&bytes);
            decode_keys(&bytes);
        }

        #[test]
        fn changed_values_decode_to_what_they_say_or_not_at_all(
            numbers in any::<[u64; 4]>(),
            flags in any::<[bool; 3]>(),
            message in "\\PC{0,40}",
            changes in prop_oneof![1 => Just(Vec::<Change>::new()), 3 => changes()],
        ) {
            let [syn, acked, deleted_up_to, last_contact] = numbers;
            let [is_ended, may_have_rows, has_key] = flags;
            let record = Record {
                device: DeviceId([1; 16]),
                project: ProjectHash([2; 8]),
                minted_minutes: 3,
                is_ended,
                syn,
                acked,
                deleted_up_to,
                last_contact,
                wake: 4,
                may_have_rows,
            };
            prop_assert_eq!(Record::decode(&record.encode()), Ok(record.clone()));
            let push = NewPush {
                address: record.address(TokenId([5; 16])),
                message_id: MessageId::from_bytes([6; 16]),
                accepted_at: syn,
                expires_at: acked,
                collapse_key: has_key.then_some([7; 16]),
                idempotency: None,
                is_copy: false,
                message: message.into_bytes().into(),
            };
            let totals = Totals { tokens: syn, pending: acked };
            let ending = [&ending_key(record.project)[..], &encode_ending(syn)].concat();
            for value in [
                record.encode(),
                encode_row(&push),
                encode_answer(push.message_id, syn),
                encode_totals(totals),
                ending,
            ] {
                decode_all(&changed(value, &changes));
            }
            for key in [
                token_key(push.address.id),
                row_key(push.address.id, syn),
                wake_key(4, push.address.id),
                answer_end_key(syn, IdempotencyKey([8; 16])),
            ] {
                decode_keys(&changed(key.to_vec(), &changes));
            }
        }
    }
}
