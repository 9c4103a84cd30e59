//! The proof of work that a server under pressure asks of a device that registers.

use sha2::{Digest as _, Sha256};

/// Hardest challenge a device takes up: 2^24 hashes are a few seconds of a phone's time.
pub(crate) const PROOF_BITS_MAX: u32 = 24;

/// The value of the `Herald-Proof` header: `<challenge>:<nonce>` whose SHA-256 begins with `bits`
/// zero bits. Takes about 2^bits hashes, so call it off the async threads.
pub(crate) fn solve(challenge: &str, bits: u32) -> String {
    let mut started = Sha256::new();
    started.update(challenge.as_bytes());
    started.update(b":");
    let mut nonce: u64 = 0;
    loop {
        let text = format!("{nonce:x}");
        let digest = started.clone().chain_update(text.as_bytes()).finalize();
        if leading_zero_bits(&digest) >= bits {
            return format!("{challenge}:{text}");
        }
        nonce = nonce.wrapping_add(1);
    }
}

fn leading_zero_bits(digest: &[u8]) -> u32 {
    let mut bits = 0;
    for byte in digest {
        bits += byte.leading_zeros();
        if *byte != 0 {
            break;
        }
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_has_the_bits_it_claims() {
        let proof = solve("some-challenge", 12);
        assert!(proof.starts_with("some-challenge:"));
        let digest = Sha256::digest(proof.as_bytes());
        assert_eq!(digest.first(), Some(&0));
        assert!(digest.get(1).is_some_and(|byte| *byte < 16));
    }

    #[test]
    fn zero_bits_are_counted_over_byte_borders() {
        assert_eq!(leading_zero_bits(&[0, 0x10, 0xff]), 11);
        assert_eq!(leading_zero_bits(&[0x80, 0]), 0);
        assert_eq!(leading_zero_bits(&[0, 0]), 16);
    }
}
