//! The keys that seal push tokens, where Herald has made them itself: kept in the store, one more
//! with each rotation, known on every node before one seals with it.

use std::sync::Arc;

use thiserror::Error;

use crate::clock::{Clock, Millis};
use crate::store::{Store, StoreError};
use crate::token::{KEY_BYTES, Key, Keyring};

/// The number of the first key that a server makes for itself.
const FIRST_ID: u8 = 1;

/// The name of the first key in the store; the others have their number behind it.
const NAME: &str = "sealing_key";

/// A kept key but the first begins with the time from which it seals.
const TIME_BYTES: usize = size_of::<Millis>();

/// One key, without its secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealingKeyView {
    /// Its number.
    pub id: u8,
    /// When it begins to seal, milliseconds since 1970; 0 for the first.
    pub seals_from: Millis,
    /// Whether it is the one that seals now.
    pub seals: bool,
}

/// Why the keys were not rotated.
#[derive(Debug, Error)]
pub enum RotationError {
    /// An operator keeps them.
    #[error("The sealing keys stand in secrets.sealing_keys: put a new one in front of them.")]
    InSettings,
    /// The last rotation is not over.
    #[error("Key {id} was added and does not seal yet.")]
    UnderWay {
        /// Its number.
        id: u8,
    },
    /// There are as many as there are numbers.
    #[error("There are 255 keys.")]
    TooMany,
    /// The store did not keep the key, or what it keeps is none.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The sealing keys of this node, and of its region.
pub struct SealingKeys {
    ring: Arc<Keyring>,
    clock: Clock,
    /// `None` when the settings name the keys.
    kept: Option<Kept>,
}

struct Kept {
    store: Arc<dyn Store>,
    /// Between the making of a key and its first use: all nodes must know it by then.
    lead_ms: Millis,
}

impl SealingKeys {
    /// Keys that stand in the settings, for a ring that has them.
    #[must_use]
    pub fn of_settings(ring: Arc<Keyring>, clock: Clock) -> Self {
        Self {
            ring,
            clock,
            kept: None,
        }
    }

    /// Keys that are kept in the store, for a ring with the first of them; reads the others.
    ///
    /// # Errors
    /// When the store fails, or holds something that is no key.
    pub async fn load(
        ring: Arc<Keyring>,
        store: Arc<dyn Store>,
        clock: Clock,
        lead_ms: Millis,
    ) -> Result<Self, StoreError> {
        let kept = Some(Kept { store, lead_ms });
        let keys = Self { ring, clock, kept };
        keys.refresh().await?;
        Ok(keys)
    }

    /// The first key that is kept, made if there is none.
    ///
    /// # Errors
    /// When the store fails, or holds something that is no key.
    pub async fn first(store: &dyn Store) -> Result<Key, StoreError> {
        let kept = store.keep_secret(NAME, &Key::random_bytes()[..]).await?;
        let kept = zeroize::Zeroizing::new(kept);
        Key::new(FIRST_ID, &kept).ok_or_else(|| no_key(FIRST_ID))
    }

    /// Reads keys that were added since, and lets the newest seal whose time has come. Called every
    /// few seconds.
    ///
    /// # Errors
    /// When the store fails, or holds something that is no key.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let Some(kept) = &self.kept else {
            return Ok(());
        };
        while let Some(next) = self.newest().checked_add(1) {
            let Some(found) = kept.store.kept_secret(&name_of(next)).await? else {
                break;
            };
            self.add(next, &zeroize::Zeroizing::new(found))?;
        }
        self.ring.seal_with_newest(self.clock.now());
        Ok(())
    }

    /// Makes a new key and keeps it. It opens on this node at once, on the others as soon as they
    /// look, and seals on all of them from the same time on. Tokens sealed before stay as they are.
    ///
    /// # Errors
    /// [`RotationError`] says why there is no new key.
    pub async fn rotate(&self) -> Result<SealingKeyView, RotationError> {
        let kept = self.kept.as_ref().ok_or(RotationError::InSettings)?;
        self.refresh().await?;
        let id = self.newest();
        if self.ring.seals_with() != id {
            return Err(RotationError::UnderWay { id });
        }
        let id = id.checked_add(1).ok_or(RotationError::TooMany)?;
        let seals_from = self.clock.now() + kept.lead_ms;
        let mut proposed = zeroize::Zeroizing::new([0; TIME_BYTES + KEY_BYTES]);
        proposed[..TIME_BYTES].copy_from_slice(&seals_from.to_be_bytes());
        proposed[TIME_BYTES..].copy_from_slice(&Key::random_bytes()[..]);
        // If another node was faster, it is its key that is kept, and the rotation is one.
        let made = kept.store.keep_secret(&name_of(id), &proposed[..]).await?;
        self.add(id, &zeroize::Zeroizing::new(made))?;
        self.ring.seal_with_newest(self.clock.now());
        let made = self.list().into_iter().find(|key| key.id == id);
        made.ok_or_else(|| no_key(id).into())
    }

    /// All keys, in the order of their numbers.
    #[must_use]
    pub fn list(&self) -> Vec<SealingKeyView> {
        let seals_with = self.ring.seals_with();
        let keys = self.ring.sealing_keys();
        keys.map(|(id, seals_from)| SealingKeyView {
            id,
            seals_from,
            seals: id == seals_with,
        })
        .collect()
    }

    fn newest(&self) -> u8 {
        let newest = self.ring.sealing_keys().last();
        newest.map_or(FIRST_ID, |(id, _)| id)
    }

    fn add(&self, id: u8, kept: &[u8]) -> Result<(), StoreError> {
        let (time, key) = kept
            .split_first_chunk::<TIME_BYTES>()
            .ok_or_else(|| no_key(id))?;
        let key = Key::new(id, key).ok_or_else(|| no_key(id))?;
        self.ring
            .add_sealing_key(&key, Millis::from_be_bytes(*time));
        Ok(())
    }
}

fn name_of(id: u8) -> String {
    format!("{NAME}_{id}")
}

fn no_key(id: u8) -> StoreError {
    StoreError::Corrupt(format!("what is kept as sealing key {id} is no key"))
}

#[cfg(test)]
pub(crate) mod tests;
