//! The keys that seal tokens and make device secrets: from the settings, or made once and kept in
//! the store.

use std::sync::Arc;

use anyhow::Context as _;

use crate::admin_token;
use crate::clock::{Clock, Millis};
use crate::config::{Config, Secret, SettingValue as _, StoreKind};
use crate::sealing_keys::SealingKeys;
use crate::store::Store;
use crate::token::{Key, Keyring};

/// Names of the kept secrets.
const DEVICE_KEY: &str = "device_key";
const ADMIN_TOKEN: &str = "admin_token";

/// The number of a device key that the server has made for itself.
const OWN_KEY_ID: u8 = 1;

/// A new sealing key is known in a region for this long before one seals with it. A node that has
/// not reached its store in this time has other troubles.
const REGION_LEAD_MS: Millis = 10 * 60 * 1_000;

/// The node's keyring, and what adds sealing keys to it.
///
/// # Errors
/// When the store fails, or holds something that is no key.
pub async fn load(
    config: &Config,
    store: &Arc<dyn Store>,
    clock: &Clock,
) -> anyhow::Result<(Arc<Keyring>, SealingKeys)> {
    let named = config.secrets.sealing_keys.as_slice();
    let sealing = match named {
        [] => vec![SealingKeys::first(&**store).await?],
        keys => keys.to_vec(),
    };
    let device = match config.secrets.device_keys.as_slice() {
        [] => vec![kept_key(DEVICE_KEY, &**store).await?],
        keys => keys.to_vec(),
    };
    let ring = Keyring::new(&sealing, device).context("a keyring needs keys")?;
    let (ring, clock) = (Arc::new(ring), clock.clone());
    let keys = if named.is_empty() {
        let lead_ms = match config.store.kind {
            StoreKind::Cluster => REGION_LEAD_MS,
            StoreKind::Embedded | StoreKind::Memory => 0,
        };
        SealingKeys::load(Arc::clone(&ring), Arc::clone(store), clock, lead_ms).await?
    } else {
        SealingKeys::of_settings(Arc::clone(&ring), clock)
    };
    Ok((ring, keys))
}

/// The admin token that a region has made for itself.
///
/// # Errors
/// When the store fails, or holds something that is no token.
pub async fn kept_admin_token(store: &dyn Store) -> anyhow::Result<Secret> {
    let proposed = admin_token::generate();
    let kept = store.keep_secret(ADMIN_TOKEN, proposed.reveal().as_bytes());
    let kept = zeroize::Zeroizing::new(kept.await?);
    let text = std::str::from_utf8(&kept).context("the kept admin token is no text")?;
    Secret::from_text(text).map_err(|reason| anyhow::anyhow!("the kept admin token {reason}"))
}

async fn kept_key(name: &str, store: &dyn Store) -> anyhow::Result<Key> {
    let kept = store.keep_secret(name, &Key::random_bytes()[..]).await?;
    let kept = zeroize::Zeroizing::new(kept);
    Key::new(OWN_KEY_ID, &kept).with_context(|| format!("the kept secret {name} is no key"))
}
