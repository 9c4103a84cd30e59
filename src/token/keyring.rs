//! The keys of a node: they seal and open push tokens, and make and check device secrets.

use std::fmt;

use aes_gcm_siv::aead::{Aead, KeyInit, Payload};
use aes_gcm_siv::{Aes256GcmSiv, Nonce};
use base64::Engine as _;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    DeviceId, HEADER_BYTES, KEY_BYTES, NONCE_BYTES, SEALED_BYTES, Seal, SealedToken, TokenAddress,
    TokenError, URL_SAFE_NO_PAD, VERSION, decode_exact,
};

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
