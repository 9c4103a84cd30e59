//! Service tokens: made, shown once, kept as a hash, compared in constant time.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::ServiceToken;
use crate::clock::Millis;

/// What every service token begins with, so that scanners recognise a leaked one.
pub const SERVICE_TOKEN_PREFIX: &str = "herald_";

const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// A service token that was just made: the only moment its text is known.
pub struct NewServiceToken {
    /// What the server keeps of it.
    pub kept: ServiceToken,
    /// `herald_<id>_<secret>`, both in hex so that a double click selects it whole.
    pub text: Zeroizing<String>,
}

impl NewServiceToken {
    pub(super) fn generate(name: String, now: Millis) -> Self {
        let mut id = [0; ID_BYTES];
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        rand::fill(&mut id);
        rand::fill(&mut secret[..]);
        let (id, secret) = (hex(&id), Zeroizing::new(hex(&secret[..])));
        Self {
            text: Zeroizing::new(format!("{SERVICE_TOKEN_PREFIX}{id}_{}", *secret)),
            kept: ServiceToken {
                id,
                name,
                hash: digest(&secret),
                created_at: now,
            },
        }
    }
}

impl fmt::Debug for NewServiceToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "NewServiceToken({}, redacted)", self.kept.id)
    }
}

/// A service token as a sender shows it.
pub(super) struct Presented<'a> {
    pub(super) id: &'a str,
    secret: &'a str,
}

impl<'a> Presented<'a> {
    /// Takes a text apart; `None` if its form is wrong, which is no secret.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(SERVICE_TOKEN_PREFIX)?.split_once('_')?;
        let is_ours = id.len() == 2 * ID_BYTES && secret.len() == 2 * SECRET_BYTES;
        is_ours.then_some(Self { id, secret })
    }

    /// Whether the secret is that of `kept`. Takes as long when there is none.
    pub(super) fn matches(&self, kept: Option<&ServiceToken>) -> bool {
        let expected = kept.map_or([0; 32], |kept| kept.hash);
        let is_equal: bool = digest(self.secret).ct_eq(&expected).into();
        is_equal & kept.is_some()
    }
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
