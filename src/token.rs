//! Sealed push tokens and device credentials: secrets that cost nothing to mint, because all that
//! the server must know of them is inside them.
//!
//! A push token is AES-256-GCM-SIV over {token id, device id, project hash, minutes}, so a forged
//! one fails its tag before any storage is touched. GCM-SIV because nonces are random on every
//! node of a region, and a repeated nonce must not be a catastrophe. A device secret is an HMAC of
//! the device id, checked by computing it again.

use std::fmt;

use aes_gcm_siv::aead::{Aead, KeyInit, Payload};
use aes_gcm_siv::{Aes256GcmSiv, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

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

impl DeviceId {
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
            minted_minutes: u32::try_from(now / MILLIS_PER_MINUTE).unwrap_or(u32::MAX),
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

/// One secret key and the number it goes by. Never printed, wiped when dropped.
#[derive(Clone)]
pub struct Key {
    /// Its number, unique in its ring.
    pub id: u8,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl Key {
    /// A key of 32 bytes; `None` at any other length.
    #[must_use]
    pub fn new(id: u8, bytes: &[u8]) -> Option<Self> {
        let bytes = Zeroizing::new(bytes.try_into().ok()?);
        Some(Self { id, bytes })
    }

    /// 32 random bytes to make a key of.
    #[must_use]
    pub fn random_bytes() -> Zeroizing<[u8; KEY_BYTES]> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        rand::fill(&mut bytes[..]);
        bytes
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Key({}, redacted)", self.id)
    }
}

/// Seals and opens push tokens, makes and checks device secrets. The first key of each list makes,
/// all of them open.
pub struct Keyring {
    sealing: Vec<(u8, Aes256GcmSiv)>,
    device: Vec<Key>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Keyring(redacted)")
    }
}

impl Keyring {
    /// A ring of at least one key of each sort; `None` when a list is empty.
    #[must_use]
    pub fn new(sealing: &[Key], device: Vec<Key>) -> Option<Self> {
        if sealing.is_empty() || device.is_empty() {
            return None;
        }
        let sealing = sealing
            .iter()
            .map(|key| (key.id, Aes256GcmSiv::new((&*key.bytes).into())))
            .collect();
        Some(Self { sealing, device })
    }

    /// Seals an address under a fresh nonce.
    #[must_use]
    pub fn seal(&self, address: TokenAddress) -> SealedToken {
        let (key, cipher) = &self.sealing[0];
        let mut nonce = [0; NONCE_BYTES];
        rand::fill(&mut nonce);
        encrypt(cipher, Seal { key: *key, nonce }, address)
    }

    /// Writes a token as it was written before: the cipher makes the same of the same key, nonce and
    /// address. `None` if the key is gone.
    #[must_use]
    pub fn seal_again(&self, address: TokenAddress, seal: Seal) -> Option<SealedToken> {
        let (_, cipher) = self.sealing.iter().find(|(id, _)| *id == seal.key)?;
        Some(encrypt(cipher, seal, address))
    }

    /// Opens a sealed token.
    ///
    /// # Errors
    /// [`TokenError`] says whether it was ever ours.
    pub fn open(&self, sealed: &SealedToken) -> Result<TokenAddress, TokenError> {
        let (header, rest) = sealed.0.split_at(HEADER_BYTES);
        let (nonce, body) = rest
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or(TokenError::Malformed)?;
        if header[0] != VERSION {
            return Err(TokenError::Malformed);
        }
        let (_, cipher) = self
            .sealing
            .iter()
            .find(|(id, _)| *id == header[1])
            .ok_or(TokenError::KeyGone)?;
        let plain = cipher
            .decrypt(
                &Nonce::from(*nonce),
                Payload {
                    msg: body,
                    aad: header,
                },
            )
            .map_err(|_| TokenError::Malformed)?;
        TokenAddress::from_plain(&plain).ok_or(TokenError::Malformed)
    }

    /// Reads and opens the text form of a token.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_text(&self, text: &str) -> Result<(TokenAddress, Seal), TokenError> {
        let sealed = SealedToken::from_text(text)?;
        Ok((self.open(&sealed)?, sealed.seal()))
    }

    /// A new device and its secret. Nothing is kept of either.
    #[must_use]
    pub fn mint_device(&self) -> (DeviceId, Zeroizing<String>) {
        let mut id = [0; 16];
        rand::fill(&mut id);
        let device = DeviceId(id);
        (device, self.device_secret(&device))
    }

    fn device_secret(&self, device: &DeviceId) -> Zeroizing<String> {
        let key = &self.device[0];
        let mut secret = Zeroizing::new([0; 33]);
        secret[0] = key.id;
        secret[1..].copy_from_slice(&device_mac(key, device));
        Zeroizing::new(URL_SAFE_NO_PAD.encode(&secret[..]))
    }

    /// Checks a device's public id and secret, in constant time.
    #[must_use]
    pub fn check_device(&self, device_id: &str, device_secret: &str) -> Option<DeviceId> {
        let device = DeviceId::from_text(device_id)?;
        let secret: Zeroizing<[u8; 33]> = Zeroizing::new(decode_exact(device_secret)?);
        let key = self.device.iter().find(|key| key.id == secret[0])?;
        let expected = device_mac(key, &device);
        bool::from(expected.ct_eq(&secret[1..])).then_some(device)
    }
}

fn encrypt(cipher: &Aes256GcmSiv, seal: Seal, address: TokenAddress) -> SealedToken {
    let (header, plain) = ([VERSION, seal.key], address.to_plain());
    let payload = Payload {
        msg: &plain,
        aad: &header,
    };
    // Encryption of 44 bytes into a Vec cannot fail: the limit is 64 GiB.
    let body = cipher
        .encrypt(&Nonce::from(seal.nonce), payload)
        .unwrap_or_default();
    let mut sealed = [0; SEALED_BYTES];
    sealed[..HEADER_BYTES].copy_from_slice(&header);
    sealed[HEADER_BYTES..HEADER_BYTES + NONCE_BYTES].copy_from_slice(&seal.nonce);
    sealed[HEADER_BYTES + NONCE_BYTES..].copy_from_slice(&body);
    SealedToken(sealed)
}

fn device_mac(key: &Key, device: &DeviceId) -> [u8; 32] {
    // HMAC takes keys of any length, so this cannot fail.
    let Ok(mut mac) = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(&key.bytes[..]) else {
        return [0; 32];
    };
    mac.update(&[key.id]);
    mac.update(&device.0);
    mac.finalize().into_bytes().into()
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
    use super::*;

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
        let (device, secret) = ring.mint_device();
        let (other, _) = ring.mint_device();
        assert_eq!(ring.check_device(&device.to_text(), &secret), Some(device));
        assert_eq!(ring.check_device(&other.to_text(), &secret), None);
        assert_eq!(ring.check_device(&device.to_text(), &secret[1..]), None);
        assert_eq!(ring.check_device("", ""), None);
    }

    #[test]
    fn nothing_secret_is_printed() {
        let ring = ring(&[1]);
        let sealed = ring.seal(address());
        let printed = format!("{ring:?} {:?} {sealed:?} {:?}", key(7), address());
        assert!(!printed.contains(&sealed.to_text()));
        assert!(printed.contains("redacted"));
    }
}
