//! `herald keys …`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use reqwest::Method;
use serde_json::Value;
use zeroize::Zeroizing;

use super::admin_client::{AdminOptions, Call};
use super::{Exit, say};
use crate::token::Key;

/// What to do with the keys that seal push tokens.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a new key, which seals from now on. In a region all nodes know it before one seals with
    /// it. Tokens sealed before stay valid.
    Rotate,
    /// List the keys, without their secrets.
    List,
    /// Print a new key for `secrets.sealing_keys` or `secrets.device_keys`. Asks no server.
    Generate {
        /// Its number: one that no key of the list has or had.
        id: u8,
    },
}

impl KeysCommand {
    /// Asks the server, or makes a key.
    pub async fn run(self, admin: &AdminOptions) -> Exit {
        let call = |method| Call {
            method,
            path: vec!["sealing-keys".to_owned()],
            body: None,
        };
        match self {
            Self::Rotate => admin.run(call(Method::POST), show_new).await,
            Self::List => admin.run(call(Method::GET), show_list).await,
            Self::Generate { id } => {
                say(&generated(id));
                Exit::Success
            }
        }
    }
}

/// A line that the settings take.
fn generated(id: u8) -> Zeroizing<String> {
    let secret = Zeroizing::new(STANDARD.encode(&Key::random_bytes()[..]));
    Zeroizing::new(format!("{id}:{}\n", *secret))
}

fn show_new(answer: &Value) -> String {
    let (id, from) = (&answer["id"], &answer["seals_from"]);
    match answer["seals"].as_bool() {
        Some(true) => format!("key {id} seals from now on\n"),
        _ => format!("key {id} opens now, and seals from {from} ms on\n"),
    }
}

fn show_list(answer: &Value) -> String {
    let keys = answer["sealing_keys"].as_array();
    let lines = keys.into_iter().flatten().map(|key| {
        let what = match key["seals"].as_bool() {
            Some(true) => "seals and opens",
            _ => "opens",
        };
        let id = key["id"].to_string();
        format!(
            "{id:<3} {what}, made to seal from {} ms on\n",
            key["seals_from"]
        )
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SettingValue as _;

    #[test]
    fn a_generated_key_is_one_for_the_settings() {
        let (one, other) = (generated(7), generated(7));
        assert_ne!(one, other);
        let keys = Vec::<Key>::from_text(one.trim()).expect("keys");
        assert_eq!(keys.iter().map(|key| key.id).collect::<Vec<_>>(), [7]);
    }
}
