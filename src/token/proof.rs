//! Proofs of work that cost nothing to ask for: everything about a challenge stands in it, under a
//! MAC of the keyring, so that no node must remember it and any node of a region can judge it.
//!
//! A proof buys one device: the device's id is computed from the proof, so who shows the same
//! proof again, here or on another node, gets the same device again.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    DEVICE_RANDOM_BYTES, DeviceId, Keyring, MILLIS_PER_MINUTE, URL_SAFE_NO_PAD, decode_exact,
    minute_of,
};
use crate::clock::Millis;
use base64::Engine as _;

/// Longest nonce of a proof, in characters.
const NONCE_CHARS_MAX: usize = 64;

const VERSION: u8 = 1;
const SALT_BYTES: usize = 12;
const MAC_BYTES: usize = 16;
const CLAIM_BYTES: usize = 2 + 4 + SALT_BYTES;
const CHALLENGE_BYTES: usize = CLAIM_BYTES + MAC_BYTES;

/// What separates the two uses of the keyring's first device key here from each other, and both
/// from device secrets.
const CHALLENGE_LABEL: &[u8] = b"herald challenge of a proof of work";
const DEVICE_LABEL: &[u8] = b"herald device of a proof of work";

/// What a challenge is asked under.
#[derive(Debug, Clone, Copy)]
pub struct ProofTerms {
    /// Zero bits that the proof's hash must begin with.
    pub bits: u8,
    /// How long the challenge is good for.
    pub lifetime_ms: Millis,
}

/// Work that was done for a challenge of ours.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    digest: [u8; 32],
    /// When the challenge was made, so that who shows it later gets the same device.
    minute: u32,
}

impl std::fmt::Debug for Proof {
    /// Who knows a proof can get its device, so it is not printed.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Proof(redacted)")
    }
}

impl Keyring {
    /// A fresh challenge for callers of one network, 46 characters.
    #[must_use]
    pub fn challenge(&self, terms: ProofTerms, network: &[u8], now: Millis) -> String {
        let mut challenge = [0; CHALLENGE_BYTES];
        challenge[0] = VERSION;
        challenge[1] = terms.bits;
        challenge[2..6].copy_from_slice(&minute_of(now).to_be_bytes());
        // Two devices of a network that begin to count at the same nonce must not find one proof.
        rand::fill(&mut challenge[6..CLAIM_BYTES]);
        let mac = self.challenge_mac(&challenge[..CLAIM_BYTES], network);
        challenge[CLAIM_BYTES..].copy_from_slice(&mac[..MAC_BYTES]);
        URL_SAFE_NO_PAD.encode(challenge)
    }

    /// Judges `<challenge>:<nonce>`: whether the challenge is ours, for this network, not too old,
    /// and the work done. Touches no memory but its own.
    #[must_use]
    pub fn check_proof(
        &self,
        text: &str,
        network: &[u8],
        lifetime_ms: Millis,
        now: Millis,
    ) -> Option<Proof> {
        let (challenge, nonce) = text.split_once(':')?;
        if nonce.len() > NONCE_CHARS_MAX || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let challenge: [u8; CHALLENGE_BYTES] = decode_exact(challenge)?;
        let (claim, mac) = challenge.split_first_chunk::<CLAIM_BYTES>()?;
        let [version, bits, minute @ ..] = claim;
        let minute = minute.first_chunk().copied().map(u32::from_be_bytes)?;
        let is_good = *version == VERSION && is_fresh(minute, lifetime_ms, now);
        let expected = self.challenge_mac(claim, network);
        let is_ours = bool::from(expected[..MAC_BYTES].ct_eq(mac));
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let is_done = leading_zero_bits(&digest) >= u32::from(*bits);
        (is_good && is_ours && is_done).then_some(Proof { digest, minute })
    }

    /// The one device that a proof buys, and its secret.
    #[must_use]
    pub fn mint_proven_device(&self, proof: &Proof) -> (DeviceId, Zeroizing<String>) {
        let mac = self.labelled_mac(DEVICE_LABEL, &[&proof.digest]);
        let mut random = [0; DEVICE_RANDOM_BYTES];
        random.copy_from_slice(&mac[..DEVICE_RANDOM_BYTES]);
        let device = DeviceId::made_in(random, proof.minute);
        (device, self.device_secret(&device))
    }

    fn challenge_mac(&self, claim: &[u8], network: &[u8]) -> [u8; 32] {
        self.labelled_mac(CHALLENGE_LABEL, &[claim, network])
    }
}

/// Whether a challenge of this minute is still good. One of the minute to come may be another
/// node's, whose clock is a little ahead.
fn is_fresh(minute: u32, lifetime_ms: Millis, now: Millis) -> bool {
    let begun = Millis::from(minute) * MILLIS_PER_MINUTE;
    let good_until = begun + MILLIS_PER_MINUTE + lifetime_ms;
    begun <= now + MILLIS_PER_MINUTE && now < good_until
}

fn leading_zero_bits(digest: &[u8]) -> u32 {
    let whole = digest.iter().take_while(|byte| **byte == 0).count();
    let rest = digest.get(whole).map_or(0, |byte| byte.leading_zeros());
    u32::try_from(whole * 8).unwrap_or(u32::MAX) + rest
}

#[cfg(test)]
mod tests {
    use super::super::{KEY_BYTES, Key};
    use super::*;

    const NOW: Millis = 1_732_200_030_000;
    const HERE: &[u8] = b"4\x0a\x00\x00";
    const TERMS: ProofTerms = ProofTerms {
        bits: 8,
        lifetime_ms: 120_000,
    };

    fn ring(device: u8) -> Keyring {
        let key = |id: u8| Key::new(id, &[id; KEY_BYTES]).expect("32 bytes");
        Keyring::new(&[key(1)], vec![key(device)]).expect("keys")
    }

    fn solve(challenge: &str) -> String {
        let tries = (0..).map(|nonce: u64| format!("{challenge}:{nonce}"));
        let mut good = tries.filter(|text| {
            let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
            leading_zero_bits(&digest) >= u32::from(TERMS.bits)
        });
        good.next().expect("there is one")
    }

    fn check(ring: &Keyring, text: &str, network: &[u8], now: Millis) -> Option<Proof> {
        ring.check_proof(text, network, TERMS.lifetime_ms, now)
    }

    #[test]
    fn work_that_was_asked_for_is_taken() {
        let challenge = ring(9).challenge(TERMS, HERE, NOW);
        assert_eq!(challenge.len(), 46);
        let text = solve(&challenge);
        assert!(check(&ring(9), &text, HERE, NOW).is_some());
        assert!(
            check(&ring(9), &text, b"4\x0a\x00\x01", NOW).is_none(),
            "elsewhere"
        );
        assert!(check(&ring(8), &text, HERE, NOW).is_none(), "another ring");
    }

    #[test]
    fn work_that_is_not_done_is_not_taken() {
        let ring = ring(9);
        let challenge = ring.challenge(TERMS, HERE, NOW);
        let undone = (0..).map(|nonce: u64| format!("{challenge}:{nonce}"));
        let undone = undone.filter(|text| {
            let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
            leading_zero_bits(&digest) < 8
        });
        for text in undone.take(20) {
            assert!(check(&ring, &text, HERE, NOW).is_none(), "{text}");
        }
        let long = format!("{challenge}:{}", "x".repeat(65));
        for text in ["", ":", "x:1", challenge.as_str(), long.as_str()] {
            assert!(check(&ring, text, HERE, NOW).is_none(), "{text}");
        }
    }

    #[test]
    fn a_challenge_cannot_be_made_easier_or_younger() {
        let ring = ring(9);
        let challenge = ring.challenge(TERMS, HERE, NOW);
        let made: [u8; CHALLENGE_BYTES] = decode_exact(&challenge).expect("a challenge");
        for (place, byte) in [(0, 2), (1, 0), (5, made[5].wrapping_add(1)), (7, !made[7])] {
            let mut forged = made;
            forged[place] = byte;
            let forged = URL_SAFE_NO_PAD.encode(forged);
            assert!(
                check(&ring, &solve(&forged), HERE, NOW).is_none(),
                "byte {place}"
            );
        }
    }

    #[test]
    fn a_challenge_grows_old() {
        let ring = ring(9);
        let text = solve(&ring.challenge(TERMS, HERE, NOW));
        for (later_ms, is_good) in [(0, true), (119_999, true), (150_000, false)] {
            let outcome = check(&ring, &text, HERE, NOW + later_ms);
            assert_eq!(outcome.is_some(), is_good, "{later_ms} ms later");
        }
        assert!(
            check(&ring, &text, HERE, NOW - 60_000).is_some(),
            "a slow clock"
        );
        assert!(check(&ring, &text, HERE, NOW - 120_000).is_none());
    }

    #[test]
    fn a_proof_buys_one_device() {
        let ring = ring(9);
        let mint = |text: &str| {
            let proof = check(&ring, text, HERE, NOW).expect("a proof");
            ring.mint_proven_device(&proof)
        };
        let text = solve(&ring.challenge(TERMS, HERE, NOW));
        let (device, secret) = mint(&text);
        assert!(device.is_younger_than(120_000, NOW));
        assert_eq!(mint(&text), (device, secret.clone()));
        assert_eq!(ring.check_device(&device.to_text(), &secret), Some(device));
        let other = solve(&ring.challenge(TERMS, HERE, NOW));
        assert_ne!(mint(&other).0, device);
    }

    #[test]
    fn zero_bits_are_counted_over_byte_borders() {
        assert_eq!(leading_zero_bits(&[0, 0x10, 0xff]), 11);
        assert_eq!(leading_zero_bits(&[0x80, 0]), 0);
        assert_eq!(leading_zero_bits(&[0, 0]), 16);
    }
}
