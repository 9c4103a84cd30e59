//! Sealed push tokens and device credentials: secrets that cost nothing to mint, because all that
//! the server must know of them is inside them.
//!
//! A push token is AES-256-GCM-SIV over {token id, device id, project hash, minutes}, so a forged
//! one fails its tag before any storage is touched. GCM-SIV because nonces are random on every
//! node of a region, and a repeated nonce must not be a catastrophe. A device secret is an HMAC of
//! the device id, checked by computing it again.

mod keyring;
mod proof;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use thiserror::Error;

pub use keyring::{Key, Keyring};
pub use proof::{Proof, ProofTerms};

use crate::clock::Millis;

/// Length in bytes of every key in a [`Keyring`].
pub const KEY_BYTES: usize = 32;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 2;
const NONCE_BYTES: usize = 12;
const PLAIN_BYTES: usize = 16 + 16 + 8 + 4;
const TAG_BYTES: usize = 16;
const SEALED_BYTES: usize = HEADER_BYTES + NONCE_BYTES + PLAIN_BYTES + TAG_BYTES;
const MILLIS_PER_MINUTE: Millis = 60_000;

macro_rules! opaque_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $bytes]);

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!(stringify!($name), "({})"), short_hash(&self.0))
            }
        }
    };
}

opaque_id!(
    /// Names a push token inside the server.
    TokenId, 16
);
opaque_id!(
    /// Names a device inside the server. Its text form is public.
    DeviceId, 16
);
opaque_id!(
    /// The first 8 bytes of the SHA-256 of a project's id: short enough to ride in every token.
    ProjectHash, 8
);

impl TokenId {
    /// A number to shard by. The id is random, so its first bytes are as good as any hash.
    #[must_use]
    pub fn shard_hash(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

/// Bytes of a device's id that are random; the rest tells the minute in which it was made.
const DEVICE_RANDOM_BYTES: usize = 12;

impl DeviceId {
    /// The id of a device that is made in this minute.
    fn made_in(random: [u8; DEVICE_RANDOM_BYTES], minute: u32) -> Self {
        let mut id = [0; 16];
        id[..DEVICE_RANDOM_BYTES].copy_from_slice(&random);
        id[DEVICE_RANDOM_BYTES..].copy_from_slice(&minute.to_be_bytes());
        Self(id)
    }

    /// Whether the device was made within the last `age`.
    #[must_use]
    pub fn is_younger_than(&self, age: Millis, now: Millis) -> bool {
        let minute = self.0.last_chunk().copied().map_or(0, u32::from_be_bytes);
        let made_at = Millis::from(minute) * MILLIS_PER_MINUTE;
        // What is still to come, beyond what a node's clock may be ahead, is no minute but the random
        // end of an id from a time when ids told none: such a device is an old one.
        made_at <= now + MILLIS_PER_MINUTE && now < made_at + age
    }

    /// A number to shard by.
    #[must_use]
    pub fn shard_hash(&self) -> u64 {
        TokenId(self.0).shard_hash()
    }

    /// The public text form, 22 characters.
    #[must_use]
    pub fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// The inverse of [`Self::to_text`].
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        decode_exact(text).map(Self)
    }
}

impl ProjectHash {
    /// The hash of a project's id.
    #[must_use]
    pub fn of(project_id: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(project_id.as_bytes()).into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        Self([a, b, c, d, e, f, g, h])
    }
}

fn minute_of(now: Millis) -> u32 {
    u32::try_from(now / MILLIS_PER_MINUTE).unwrap_or(u32::MAX)
}

/// Eight hex digits that stand for a secret or an id in logs.
#[must_use]
pub fn short_hash(bytes: &[u8]) -> String {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let [a, b, c, d, ..] = digest;
    format!("{a:02x}{b:02x}{c:02x}{d:02x}")
}

/// What a push token says once it is opened: the address of one app of one project on one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenAddress {
    /// Names the token's log.
    pub id: TokenId,
    /// The only device that may read it.
    pub device: DeviceId,
    /// The only project that may send to it.
    pub project: ProjectHash,
    /// When it was minted, minutes since 1970.
    pub minted_minutes: u32,
}

impl TokenAddress {
    /// A new address for an app of `project` on `device`.
    #[must_use]
    pub fn mint(device: DeviceId, project: ProjectHash, now: Millis) -> Self {
        let mut id = [0; 16];
        rand::fill(&mut id);
        Self {
            id: TokenId(id),
            device,
            project,
            minted_minutes: minute_of(now),
        }
    }

    /// When it was minted, milliseconds since 1970, rounded down to a minute.
    #[must_use]
    pub fn minted_at(&self) -> Millis {
        Millis::from(self.minted_minutes) * MILLIS_PER_MINUTE
    }

    fn to_plain(self) -> [u8; PLAIN_BYTES] {
        let mut plain = [0; PLAIN_BYTES];
        plain[..16].copy_from_slice(&self.id.0);
        plain[16..32].copy_from_slice(&self.device.0);
        plain[32..40].copy_from_slice(&self.project.0);
        plain[40..].copy_from_slice(&self.minted_minutes.to_be_bytes());
        plain
    }

    fn from_plain(plain: &[u8]) -> Option<Self> {
        let (id, rest) = plain.split_first_chunk::<16>()?;
        let (device, rest) = rest.split_first_chunk::<16>()?;
        let (project, rest) = rest.split_first_chunk::<8>()?;
        Some(Self {
            id: TokenId(*id),
            device: DeviceId(*device),
            project: ProjectHash(*project),
            minted_minutes: u32::from_be_bytes(rest.try_into().ok()?),
        })
    }
}

/// Why a text is no token that opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Not base64url, wrong length, or its tag fails: nobody here ever sealed it.
    #[error("no token of ours")]
    Malformed,
    /// Well formed, but sealed with a key that is gone.
    #[error("sealed with a key that is gone")]
    KeyGone,
}

/// A sealed push token in its binary form.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SealedToken([u8; SEALED_BYTES]);

impl SealedToken {
    /// Length of the text form.
    pub const TEXT_BYTES: usize = (SEALED_BYTES * 8).div_ceil(6);

    /// Reads the text form; says nothing yet about who sealed it.
    ///
    /// # Errors
    /// [`TokenError::Malformed`].
    pub fn from_text(text: &str) -> Result<Self, TokenError> {
        decode_exact(text).map(Self).ok_or(TokenError::Malformed)
    }

    /// The text form: 99 characters of base64url.
    #[must_use]
    pub fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// What it has beyond its address.
    fn seal(&self) -> Seal {
        let [_version, key, rest @ ..] = &self.0;
        let nonce = rest.first_chunk().copied().unwrap_or_default();
        Seal { key: *key, nonce }
    }
}

/// What a token's text has beyond its address: a session keeps these 13 bytes instead of the 74 of
/// the whole, and frames still name the token exactly as the device does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    key: u8,
    nonce: [u8; NONCE_BYTES],
}

impl fmt::Debug for Seal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Seal({})", short_hash(&self.nonce))
    }
}

impl fmt::Debug for SealedToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SealedToken({})", short_hash(&self.0))
    }
}

fn decode_exact<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != (N * 8).div_ceil(6) {
        return None;
    }
    let mut bytes = [0; N];
    let written = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
    (written == N).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hostile_tests::{changed_text, changes, thriftily};

    fn key(id: u8) -> Key {
        Key::new(id, &[id; KEY_BYTES]).expect("32 bytes")
    }

    fn ring(sealing: &[u8]) -> Keyring {
        let sealing: Vec<Key> = sealing.iter().map(|id| key(*id)).collect();
        Keyring::new(&sealing, vec![key(9)]).expect("keys")
    }

    fn address() -> TokenAddress {
        TokenAddress::mint(
            DeviceId([3; 16]),
            ProjectHash::of("demo"),
            1_732_200_000_000,
        )
    }

    #[test]
    fn a_sealed_token_opens_to_its_address() {
        let ring = ring(&[1]);
        let address = address();
        let text = ring.seal(address).to_text();
        assert_eq!(text.len(), SealedToken::TEXT_BYTES);
        assert!(text.len() <= 128, "the contract's limit");
        assert_eq!(ring.open_text(&text).map(|(opened, _)| opened), Ok(address));
    }

    #[test]
    fn an_opened_token_can_be_written_again_as_it_was() {
        let text = ring(&[1]).seal(address()).to_text();
        let rotated = ring(&[2, 1]);
        let (address, seal) = rotated.open_text(&text).expect("an old key");
        let again = rotated.seal_again(address, seal).map(|it| it.to_text());
        assert_eq!(again, Some(text));
        assert_eq!(ring(&[2]).seal_again(address, seal), None);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let ring = ring(&[1]);
        let sealed = ring.seal(address());
        for bit in 0..SEALED_BYTES * 8 {
            let mut forged = sealed;
            forged.0[bit / 8] ^= 1 << (bit % 8);
            assert!(ring.open(&forged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn rotation_opens_old_tokens_until_their_key_is_gone() {
        let old = ring(&[1]).seal(address());
        assert_eq!(ring(&[2, 1]).open(&old), ring(&[1]).open(&old));
        assert_eq!(ring(&[2]).open(&old), Err(TokenError::KeyGone));
    }

    #[test]
    fn junk_is_malformed() {
        let ring = ring(&[1]);
        let long = "A".repeat(SealedToken::TEXT_BYTES);
        for text in [
            "",
            "junk",
            "é",
            long.as_str(),
            &long[1..],
            "A=".repeat(60).as_str(),
        ] {
            assert_eq!(
                ring.open_text(text).err(),
                Some(TokenError::Malformed),
                "{text}"
            );
        }
    }

    #[test]
    fn device_secrets_fit_their_device_only() {
        let ring = ring(&[1]);
        let (device, secret) = ring.mint_device(0);
        let (other, _) = ring.mint_device(0);
        assert_eq!(ring.check_device(&device.to_text(), &secret), Some(device));
        assert_eq!(ring.check_device(&other.to_text(), &secret), None);
        assert_eq!(ring.check_device(&device.to_text(), &secret[1..]), None);
        assert_eq!(ring.check_device("", ""), None);
    }

    #[test]
    fn a_device_tells_how_old_it_is() {
        const NOW: Millis = 1_732_200_030_000;
        let (device, _) = ring(&[1]).mint_device(NOW);
        let is_new = |now| device.is_younger_than(600_000, now);
        assert!(is_new(NOW) && is_new(NOW + 500_000) && !is_new(NOW + 600_000));
        assert!(is_new(NOW - 60_000), "by a clock that is behind");
        assert!(!is_new(NOW - 200_000));
        let without_a_minute = DeviceId([0x9c; 16]);
        assert!(!without_a_minute.is_younger_than(600_000, NOW));
        let (other, _) = ring(&[1]).mint_device(NOW);
        assert_ne!(device.shard_hash(), other.shard_hash());
    }

    #[test]
    fn nothing_secret_is_printed() {
        let ring = ring(&[1]);
        let sealed = ring.seal(address());
        let printed = format!("{ring:?} {:?} {sealed:?} {:?}", key(7), address());
        assert!(!printed.contains(&sealed.to_text()));
        assert!(printed.contains("redacted"));
    }

    /// A ring with two keys of each sort, a token and a device of it.
    fn hoard() -> (Keyring, String, DeviceId, String) {
        let ring = Keyring::new(&[key(2), key(1)], vec![key(9), key(8)]).expect("keys");
        let token = ring.seal(address()).to_text();
        let (device, secret) = ring.mint_device(0);
        (ring, token, device, secret.to_string())
    }

    proptest! {
        #[test]
        fn no_text_opens(text in "[A-Za-z0-9_-]{99}|[A-Za-z0-9_+/=-]{22,110}|\\PC{0,99}") {
            let (ring, _, device, _) = hoard();
            prop_assert!(thriftily(text.as_bytes(), |_| ring.open_text(&text)).is_err());
            prop_assert_eq!(ring.check_device(&device.to_text(), &text), None);
            prop_assert_eq!(ring.check_device(&text, &text), None);
            prop_assert_eq!(ring.check_proof(&text, b"here", 600_000, 0), None);
        }

        /// One text for each token: whatever else opens would be a second name for it.
        #[test]
        fn a_changed_token_does_not_open(changes in changes()) {
            let (ring, token, ..) = hoard();
            let text = changed_text(&token, &changes);
            prop_assert!(text == token || ring.open_text(&text).is_err(), "{}", text);
        }

        #[test]
        fn a_changed_device_is_nobody(changes in changes(), of_the_secret in any::<bool>()) {
            let (ring, _, device, secret) = hoard();
            let id = device.to_text();
            let (other_id, other_secret) = match of_the_secret {
                true => (id.clone(), changed_text(&secret, &changes)),
                false => (changed_text(&id, &changes), secret.clone()),
            };
            let is_same = other_id == id && other_secret == secret;
            prop_assert_eq!(ring.check_device(&other_id, &other_secret).is_some(), is_same);
        }

        /// Work is always shown for what was asked: of a changed challenge nothing counts.
        #[test]
        fn a_changed_challenge_is_not_ours(changes in changes(), nonce in "[!-9;-~]{0,70}") {
            let (ring, ..) = hoard();
            let terms = ProofTerms { bits: 0, lifetime_ms: 600_000 };
            let challenge = ring.challenge(terms, b"here", 60_000);
            let check = |text: &str| ring.check_proof(text, b"here", 600_000, 60_000).is_some();
            prop_assert_eq!(check(&format!("{challenge}:{nonce}")), nonce.len() <= 64);
            let other = changed_text(&challenge, &changes).replace(':', "");
            prop_assert!(other == challenge || !check(&format!("{other}:{nonce}")), "{}", other);
        }
    }
}
