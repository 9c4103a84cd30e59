//! What stands on disk of topics: keys and values of subscriptions and of pushes to many.
//!
//! A subscription stands twice, once by its topic and once by its token, always written together.

use bytes::Bytes;
use fjall::UserKey;

use super::record::{Reader, Undecodable, keyed, kind};
use crate::clock::Millis;
use crate::push::{IdempotencyKey, MessageId};
use crate::token::{DeviceId, ProjectHash, TokenAddress, TokenId};
use crate::topic::{Checkpoint, FanOut, Place, Reach, TopicDigest, TopicName};

/// `kind | project | topic digest | token id`.
pub(super) fn member_key(project: ProjectHash, topic: TopicDigest, token: TokenId) -> UserKey {
    keyed(kind::MEMBER, &[&project.0, &topic, &token.0])
}

/// All members of a topic.
pub(super) fn members_prefix(project: ProjectHash, topic: TopicDigest) -> UserKey {
    keyed(kind::MEMBER, &[&project.0, &topic])
}

/// `kind | token id | topic name`.
pub(super) fn subscription_key(token: TokenId, topic: &str) -> UserKey {
    keyed(kind::SUBSCRIPTION, &[&token.0, topic.as_bytes()])
}

/// `kind | message id`.
pub(super) fn fan_out_key(message_id: MessageId) -> UserKey {
    keyed(kind::FAN_OUT, &[message_id.as_bytes()])
}

/// `kind | message id`: written anew at every checkpoint, so apart from the message.
pub(super) fn checkpoint_key(message_id: MessageId) -> UserKey {
    keyed(kind::CHECKPOINT, &[message_id.as_bytes()])
}

/// `kind | message id | token id`: this token has its copy.
pub(super) fn copy_key(message_id: MessageId, token: TokenId) -> UserKey {
    keyed(kind::COPY, &[message_id.as_bytes(), &token.0])
}

/// All marks of a push to many.
pub(super) fn copies_prefix(message_id: MessageId) -> UserKey {
    keyed(kind::COPY, &[message_id.as_bytes()])
}

/// Project, topic and token of a [`member_key`].
pub(super) fn member_of(key: &[u8]) -> Result<(ProjectHash, TopicDigest, TokenId), Undecodable> {
    let mut reader = Reader(key);
    reader.array::<1>()?;
    let project = ProjectHash(reader.array()?);
    let member = (project, reader.array()?, TokenId(reader.array()?));
    reader.end()?;
    Ok(member)
}

/// Token and topic of a [`subscription_key`].
pub(super) fn subscription_of(key: &[u8]) -> Result<(TokenId, TopicName), Undecodable> {
    let mut reader = Reader(key);
    reader.array::<1>()?;
    let token = TokenId(reader.array()?);
    let name = std::str::from_utf8(reader.0).ok();
    let topic = name.and_then(TopicName::parse).ok_or("no topic's name")?;
    Ok((token, topic))
}

/// The message id of a [`fan_out_key`] or of a key that begins like one.
pub(super) fn fan_out_of(key: &[u8]) -> Result<MessageId, Undecodable> {
    let mut reader = Reader(key);
    reader.array::<1>()?;
    Ok(MessageId::from_bytes(reader.array()?))
}

/// What a member's address needs beyond its key.
pub(super) fn encode_member(address: &TokenAddress) -> Vec<u8> {
    [&address.device.0[..], &address.minted_minutes.to_le_bytes()].concat()
}

/// The address of a member.
pub(super) fn decode_member(key: &[u8], value: &[u8]) -> Result<TokenAddress, Undecodable> {
    let (project, _, id) = member_of(key)?;
    let mut reader = Reader(value);
    let address = TokenAddress {
        id,
        device: DeviceId(reader.array()?),
        project,
        minted_minutes: reader.u32()?,
    };
    reader.end()?;
    Ok(address)
}

/// When a token was subscribed.
pub(super) fn encode_since(since: Millis) -> [u8; 8] {
    since.to_le_bytes()
}

/// The inverse of [`encode_since`].
pub(super) fn decode_since(value: &[u8]) -> Result<Millis, Undecodable> {
    let mut reader = Reader(value);
    let since = reader.u64()?;
    reader.end()?;
    Ok(since)
}

/// A push to many as a value.
pub(super) fn encode_fan_out(fan_out: &FanOut) -> Vec<u8> {
    let reach = fan_out.reach.to_text();
    let mut bytes = Vec::with_capacity(64 + reach.len() + fan_out.message.len());
    bytes.extend_from_slice(&fan_out.project.0);
    bytes.extend_from_slice(&fan_out.accepted_at.to_le_bytes());
    bytes.extend_from_slice(&fan_out.expires_at.to_le_bytes());
    let keys = [
        fan_out.collapse_key,
        fan_out.idempotency.map(|IdempotencyKey(key)| key),
    ];
    for key in keys {
        bytes.push(u8::from(key.is_some()));
        bytes.extend_from_slice(key.as_ref().map_or(&[], |key| &key[..]));
    }
    let length = u32::try_from(reach.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(reach.as_bytes());
    bytes.extend_from_slice(&fan_out.message);
    bytes
}

/// The inverse of [`encode_fan_out`].
pub(super) fn decode_fan_out(message_id: MessageId, value: &[u8]) -> Result<FanOut, Undecodable> {
    let mut reader = Reader(value);
    let project = ProjectHash(reader.array()?);
    let (accepted_at, expires_at) = (reader.u64()?, reader.u64()?);
    let collapse_key = optional_key(&mut reader)?;
    let idempotency = optional_key(&mut reader)?.map(IdempotencyKey);
    let length = usize::try_from(reader.u32()?).map_err(|_| "too long")?;
    let (reach, message) = reader.0.split_at_checked(length).ok_or("too short")?;
    let reach = std::str::from_utf8(reach).ok().and_then(Reach::from_text);
    Ok(FanOut {
        message_id,
        project,
        reach: reach.ok_or("it is for nobody")?,
        accepted_at,
        expires_at,
        collapse_key,
        idempotency,
        message: Bytes::copy_from_slice(message),
    })
}

fn optional_key(reader: &mut Reader<'_>) -> Result<Option<[u8; 16]>, Undecodable> {
    Ok(match reader.flag()? {
        true => Some(reader.array()?),
        false => None,
    })
}

/// How far a push to many has come, as a value.
pub(super) fn encode_checkpoint(checkpoint: &Checkpoint) -> Vec<u8> {
    let walk = u8::try_from(checkpoint.walk).unwrap_or(u8::MAX);
    let copies = checkpoint.copies.to_le_bytes();
    [&[walk], &copies[..], &checkpoint.place.0].concat()
}

/// The inverse of [`encode_checkpoint`].
pub(super) fn decode_checkpoint(value: &[u8]) -> Result<Checkpoint, Undecodable> {
    let mut reader = Reader(value);
    let [walk] = reader.array()?;
    Ok(Checkpoint {
        walk: usize::from(walk),
        copies: reader.u64()?,
        place: Place(reader.0.to_vec()),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hostile_tests::{Change, changed, changes, nonsense, thriftily};

    fn id() -> MessageId {
        MessageId::from_bytes([9; 16])
    }

    /// Every decoder of values, on the same bytes: what decodes is what was encoded, to the byte.
    fn decode_values(bytes: &[u8]) {
        if let Ok(fan_out) = thriftily(bytes, |bytes| decode_fan_out(id(), bytes)) {
            assert_eq!(encode_fan_out(&fan_out), bytes);
        }
        if let Ok(checkpoint) = thriftily(bytes, decode_checkpoint) {
            assert_eq!(encode_checkpoint(&checkpoint), bytes);
        }
        if let Ok(since) = decode_since(bytes) {
            assert_eq!(encode_since(since), bytes);
        }
        let key = member_key(ProjectHash([1; 8]), [2; 16], TokenId([3; 16]));
        if let Ok(address) = decode_member(&key, bytes) {
            assert_eq!(encode_member(&address), bytes);
            assert_eq!((address.project.0, address.id.0), ([1; 8], [3; 16]));
        }
    }

    /// Likewise of keys; their first byte is their kind, by which they were found.
    fn decode_keys(key: &[u8]) {
        if let Ok((project, topic, token)) = member_of(key) {
            assert_eq!(member_key(project, topic, token)[1..], key[1..]);
        }
        if let Ok((token, topic)) = thriftily(key, subscription_of) {
            assert_eq!(subscription_key(token, topic.as_str())[1..], key[1..]);
        }
        if let Ok(id) = fan_out_of(key) {
            assert_eq!(fan_out_key(id)[1..], key[1..17]);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_decode_to_what_they_are_not(bytes in nonsense()) {
            decode_values(&bytes);
            decode_keys(&bytes);
        }

        #[test]
        fn changed_values_decode_to_what_they_say_or_not_at_all(
            numbers in any::<[u64; 3]>(),
            has_keys in any::<[bool; 2]>(),
            is_condition in any::<bool>(),
            message in "\\PC{0,40}",
            place in nonsense(),
            changes in prop_oneof![1 => Just(Vec::<Change>::new()), 3 => changes()],
        ) {
            let reach = match is_condition {
                true => "condition 'a' in topics && !('b.c' in  topics || 'd' in topics)",
                false => "topic news_2~%",
            };
            let fan_out = FanOut {
                message_id: id(),
                project: ProjectHash([1; 8]),
                reach: Reach::from_text(reach).expect("a reach"),
                accepted_at: numbers[0],
                expires_at: numbers[1],
                collapse_key: has_keys[0].then_some([2; 16]),
                idempotency: has_keys[1].then_some(IdempotencyKey([3; 16])),
                message: message.into_bytes().into(),
            };
            prop_assert_eq!(decode_fan_out(id(), &encode_fan_out(&fan_out)), Ok(fan_out.clone()));
            let checkpoint = Checkpoint { walk: 3, copies: numbers[2], place: Place(place) };
            for value in [encode_fan_out(&fan_out), encode_checkpoint(&checkpoint), vec![7; 20]] {
                decode_values(&changed(value, &changes));
            }
            let token = TokenId([4; 16]);
            for key in [
                member_key(fan_out.project, [5; 16], token),
                subscription_key(token, "a-topic.of~mine%"),
                copy_key(id(), token),
            ] {
                decode_keys(&changed(key.to_vec(), &changes));
            }
        }
    }
}
