//! What stands for a name of any length where keys must stay small.

use sha2::{Digest as _, Sha256};

/// The first half of the SHA-256 of all parts, one after the other: to find two names that share one takes
/// 2^64 tries.
#[must_use]
pub(crate) fn half_of_sha256(parts: &[&[u8]]) -> [u8; 16] {
    let mut sha256 = Sha256::new();
    for part in parts {
        sha256.update(part);
    }
    let whole: [u8; 32] = sha256.finalize().into();
    let mut half = [0; 16];
    half.copy_from_slice(&whole[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_one_text() {
        // The example of FIPS 180-2.
        let abc = 0xba78_16bf_8f01_cfea_4141_40de_5dae_2223_u128.to_be_bytes();
        assert_eq!(half_of_sha256(&[b"abc"]), abc);
        assert_eq!(half_of_sha256(&[b"a", b"bc"]), abc);
    }
}
