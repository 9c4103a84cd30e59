//! The keys of a node: they seal and open push tokens, and make and check device secrets.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use aes_gcm_siv::aead::{Aead, KeyInit, Payload};
use aes_gcm_siv::{Aes256GcmSiv, Nonce};
use base64::Engine as _;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    DEVICE_RANDOM_BYTES, DeviceId, HEADER_BYTES, KEY_BYTES, NONCE_BYTES, SEALED_BYTES, Seal,
    SealedToken, TokenAddress, TokenError, URL_SAFE_NO_PAD, VERSION, decode_exact, minute_of,
};
use crate::clock::Millis;

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

/// Numbers that a key can have.
const KEY_IDS: usize = 1 << u8::BITS;

/// A key that seals and opens push tokens, and from when on it is the one that seals.
struct SealingKey {
    cipher: Aes256GcmSiv,
    seals_from: Millis,
}

/// Seals and opens push tokens, makes and checks device secrets. One key of each sort makes, all of
/// them open. Sealing keys can be added while others seal.
pub struct Keyring {
    /// By their numbers. A key that is here stays.
    sealing: Box<[OnceLock<Box<SealingKey>>]>,
    /// The number of the key that seals.
    seals_with: AtomicU8,
    device: Vec<Key>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Keyring(redacted)")
    }
}

impl Keyring {
    /// A ring of at least one key of each sort, the first of each list being the one that makes;
    /// `None` when a list is empty.
    #[must_use]
    pub fn new(sealing: &[Key], device: Vec<Key>) -> Option<Self> {
        let first = sealing.first()?;
        let ring = Self {
            sealing: (0..KEY_IDS).map(|_| OnceLock::new()).collect(),
            seals_with: AtomicU8::new(first.id),
            device,
        };
        for key in sealing {
            ring.add_sealing_key(key, 0);
        }
        (!ring.device.is_empty()).then_some(ring)
    }

    /// Adds a key that opens at once and may seal from a certain time on, see
    /// [`Self::seal_with_newest`]. Another one of its number stays.
    pub fn add_sealing_key(&self, key: &Key, seals_from: Millis) {
        let cipher = Aes256GcmSiv::new((&*key.bytes).into());
        self.sealing[usize::from(key.id)]
            .get_or_init(|| Box::new(SealingKey { cipher, seals_from }));
    }

    /// From now on the key with the highest number whose time has come seals. For rings whose
    /// numbers are given in the order of time.
    pub fn seal_with_newest(&self, now: Millis) {
        let newest = self.sealing_keys().filter(|(_, from)| *from <= now).last();
        if let Some((id, _)) = newest {
            self.seals_with.store(id, Ordering::Relaxed);
        }
    }

    /// The number of the key that seals.
    #[must_use]
    pub fn seals_with(&self) -> u8 {
        self.seals_with.load(Ordering::Relaxed)
    }

    /// The numbers of all sealing keys, in order, and from when on each may seal.
    pub fn sealing_keys(&self) -> impl Iterator<Item = (u8, Millis)> + '_ {
        let keys = (0..=u8::MAX).zip(&self.sealing);
        keys.filter_map(|(id, key)| Some((id, key.get()?.seals_from)))
    }

    fn cipher(&self, id: u8) -> Option<&Aes256GcmSiv> {
        Some(&self.sealing[usize::from(id)].get()?.cipher)
    }

    /// Seals an address under a fresh nonce.
    #[must_use]
    pub fn seal(&self, address: TokenAddress) -> SealedToken {
        let key = self.seals_with();
        let mut nonce = [0; NONCE_BYTES];
        rand::fill(&mut nonce);
        let sealed = self.seal_again(address, Seal { key, nonce });
        // A ring always has the key that it seals with.
        sealed.unwrap_or(SealedToken([0; SEALED_BYTES]))
    }

    /// Writes a token as it was written before: the cipher makes the same of the same key, nonce and
    /// address. `None` if the key is gone.
    #[must_use]
    pub fn seal_again(&self, address: TokenAddress, seal: Seal) -> Option<SealedToken> {
        let cipher = self.cipher(seal.key)?;
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
        let cipher = self.cipher(header[1]).ok_or(TokenError::KeyGone)?;
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
    pub fn mint_device(&self, now: Millis) -> (DeviceId, Zeroizing<String>) {
        let mut random = [0; DEVICE_RANDOM_BYTES];
        rand::fill(&mut random);
        let device = DeviceId::made_in(random, minute_of(now));
        (device, self.device_secret(&device))
    }

    pub(super) fn device_secret(&self, device: &DeviceId) -> Zeroizing<String> {
        let key = &self.device[0];
        let mut secret = Zeroizing::new([0; 33]);
        secret[0] = key.id;
        secret[1..].copy_from_slice(&device_mac(key, device));
        Zeroizing::new(URL_SAFE_NO_PAD.encode(&secret[..]))
    }

    /// A MAC under the first device key, for another use than device secrets. Every part but the
    /// last must be of one length for its label.
    pub(super) fn labelled_mac(&self, label: &[u8], parts: &[&[u8]]) -> [u8; 32] {
        let parts = std::iter::once(label).chain(parts.iter().copied());
        mac(&self.device[0], parts)
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
    mac(key, [&[key.id][..], &device.0])
}

fn mac<'a>(key: &Key, parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    // HMAC takes keys of any length, so this cannot fail.
    let Ok(mut mac) = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(&key.bytes[..]) else {
        return [0; 32];
    };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::super::ProjectHash;
    use super::*;

    fn key(id: u8) -> Key {
        Key::new(id, &[id; KEY_BYTES]).expect("32 bytes")
    }

    fn address() -> TokenAddress {
        TokenAddress::mint(DeviceId([3; 16]), ProjectHash::of("demo"), 0)
    }

    #[test]
    fn a_key_that_is_added_opens_at_once_and_seals_when_its_time_has_come() {
        let ring = Keyring::new(&[key(1)], vec![key(9)]).expect("keys");
        let others = Keyring::new(&[key(2)], vec![key(9)]).expect("keys");
        let (old, theirs) = (ring.seal(address()), others.seal(address()));
        assert_eq!(ring.open(&theirs), Err(TokenError::KeyGone));
        ring.add_sealing_key(&key(2), 100);
        assert!(
            ring.open(&theirs).is_ok(),
            "another node may seal with it already"
        );
        ring.seal_with_newest(99);
        assert_eq!(ring.seals_with(), 1);
        ring.seal_with_newest(100);
        assert_eq!(ring.seals_with(), 2);
        assert!(others.open(&ring.seal(address())).is_ok());
        assert!(ring.open(&old).is_ok(), "what was sealed before stays");
        assert_eq!(ring.sealing_keys().collect::<Vec<_>>(), [(1, 0), (2, 100)]);
    }

    #[test]
    fn a_key_is_not_replaced_by_another_of_its_number() {
        let ring = Keyring::new(&[key(1)], vec![key(9)]).expect("keys");
        let old = ring.seal(address());
        let impostor = Key::new(1, &[7; KEY_BYTES]).expect("32 bytes");
        ring.add_sealing_key(&impostor, 0);
        assert!(ring.open(&old).is_ok());
    }

    #[test]
    fn a_ring_needs_keys_of_both_sorts() {
        assert!(Keyring::new(&[], vec![key(9)]).is_none());
        assert!(Keyring::new(&[key(1)], Vec::new()).is_none());
    }
}
