//! The keys that seal tokens and make device secrets: from the settings, or made once and kept in
//! the store.

use anyhow::Context as _;

use crate::admin_token;
use crate::config::{Config, Secret, SettingValue as _};
use crate::store::Store;
use crate::token::{Key, Keyring};

/// Names of the kept secrets.
const SEALING_KEY: &str = "sealing_key";
const DEVICE_KEY: &str = "device_key";
const ADMIN_TOKEN: &str = "admin_token";

/// The number of a key that the server has made for itself.
const OWN_KEY_ID: u8 = 1;

/// The node's keyring.
///
/// # Errors
/// When the store fails, or holds something that is no key.
pub async fn load(config: &Config, store: &dyn Store) -> anyhow::Result<Keyring> {
    let sealing = match config.secrets.sealing_keys.as_slice() {
        [] => vec![kept_key(SEALING_KEY, store).await?],
        keys => keys.to_vec(),
    };
    let device = match config.secrets.device_keys.as_slice() {
        [] => vec![kept_key(DEVICE_KEY, store).await?],
        keys => keys.to_vec(),
    };
    Keyring::new(&sealing, device).context("a keyring needs keys")
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
