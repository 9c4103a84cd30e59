//! The admin token: where it comes from, and how it is checked.

use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::{Secret, SettingValue as _};
use crate::private_file;

/// The token's file in the data directory, mode 0600.
pub const ADMIN_TOKEN_FILE: &str = "admin.token";

const SECRET_BYTES: usize = 32;

/// What is kept of the admin token to check others against: its SHA-256, so that neither length
/// nor contents show in how long a comparison takes.
#[derive(Clone)]
pub struct AdminTokenHash([u8; 32]);

impl AdminTokenHash {
    /// The hash of a token.
    #[must_use]
    pub fn of(token: &Secret) -> Self {
        Self(digest(token.reveal()))
    }

    /// Whether this is the token.
    #[must_use]
    pub fn admits(&self, presented: &str) -> bool {
        digest(presented).ct_eq(&self.0).into()
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// A new random token.
#[must_use]
pub fn generate() -> Secret {
    let mut bytes = zeroize::Zeroizing::new([0_u8; SECRET_BYTES]);
    rand::fill(&mut bytes[..]);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Secret::new(format!("herald_admin_{hex}"))
}

/// Reads the token from a data directory; `None` if there is none yet.
///
/// # Errors
/// The file cannot be read, or what is in it cannot be a token.
pub fn read(data_dir: &Path) -> io::Result<Option<Secret>> {
    let path = data_dir.join(ADMIN_TOKEN_FILE);
    let Some(text) = private_file::read(&path)? else {
        return Ok(None);
    };
    Secret::from_text(text.trim()).map(Some).map_err(|reason| {
        let message = format!("{}: the admin token {reason}", path.display());
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

/// The token in a data directory, made if there is none.
///
/// # Errors
/// The file cannot be read or written.
pub fn read_or_make(data_dir: &Path) -> io::Result<Secret> {
    if let Some(token) = read(data_dir)? {
        return Ok(token);
    }
    let token = generate();
    let line = zeroize::Zeroizing::new(format!("{}\n", token.reveal()));
    private_file::write(&data_dir.join(ADMIN_TOKEN_FILE), &line)?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(read(directory.path()).expect("no error").is_none());
        let made = read_or_make(directory.path()).expect("made");
        let again = read_or_make(directory.path()).expect("read");
        assert_eq!(made.reveal(), again.reveal());
        assert_ne!(made.reveal(), generate().reveal());
        let hash = AdminTokenHash::of(&made);
        assert!(hash.admits(again.reveal()));
        assert!(!hash.admits("") && !hash.admits(&again.reveal()[1..]));
    }

    #[test]
    fn an_empty_file_is_no_token() {
        let directory = tempfile::tempdir().expect("a directory");
        private_file::write(&directory.path().join(ADMIN_TOKEN_FILE), "\n").expect("written");
        let error = read_or_make(directory.path()).expect_err("refused");
        assert!(error.to_string().contains("must not be empty"), "{error}");
    }
}
