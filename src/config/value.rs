//! What a setting can be: how each type is read from TOML and from text, and how it is shown.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use tracing_subscriber::EnvFilter;
use zeroize::Zeroizing;

use crate::token::{KEY_BYTES, Key};

/// Stands for every secret that is shown.
pub const REDACTED: &str = "(redacted)";

/// A type that a setting can have. Error texts continue the sentence "this setting …" and never
/// repeat a secret.
pub trait SettingValue: Sized {
    /// Reads what a flag or the environment says.
    ///
    /// # Errors
    /// What is wrong with the text.
    fn from_text(text: &str) -> Result<Self, String>;

    /// Reads what a file says: a string, unless the type has a TOML form of its own.
    ///
    /// # Errors
    /// What is wrong with the value.
    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::String(text) => Self::from_text(text),
            other => Err(format!("must be a string, is {}", name_of(other))),
        }
    }

    /// The value as TOML, redacted if it is a secret; `None` when it is not set.
    fn show(&self) -> Option<String>;

    /// The number that a range applies to.
    fn number(&self) -> Option<u64> {
        None
    }
}

fn name_of(value: &toml::Value) -> &'static str {
    match value {
        toml::Value::String(_) => "a string",
        toml::Value::Integer(_) => "a whole number",
        toml::Value::Float(_) => "a fraction",
        toml::Value::Boolean(_) => "a boolean",
        toml::Value::Datetime(_) => "a date",
        toml::Value::Array(_) => "a list",
        toml::Value::Table(_) => "a table",
    }
}

fn quoted(text: &str) -> Option<String> {
    Some(toml::Value::from(text).to_string())
}

macro_rules! whole_number {
    ($($type:ty),+) => { $(
        impl SettingValue for $type {
            fn from_text(text: &str) -> Result<Self, String> {
                text.replace('_', "")
                    .parse()
                    .map_err(|_| format!("must be a whole number, is `{text}`"))
            }

            fn from_toml(value: &toml::Value) -> Result<Self, String> {
                match value {
                    toml::Value::Integer(number) => Self::try_from(*number)
                        .map_err(|_| format!("{number} is out of range")),
                    other => Err(format!("must be a whole number, is {}", name_of(other))),
                }
            }

            fn show(&self) -> Option<String> {
                Some(self.to_string())
            }

            fn number(&self) -> Option<u64> {
                u64::try_from(*self).ok()
            }
        }
    )+ };
}

whole_number!(u32, u64, usize);

impl SettingValue for SocketAddr {
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| {
            format!("must be an IP address and a port like 127.0.0.1:8080, is `{text}`")
        })
    }

    fn show(&self) -> Option<String> {
        quoted(&self.to_string())
    }
}

impl SettingValue for PathBuf {
    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("must not be empty".to_owned());
        }
        Ok(Self::from(text))
    }

    fn show(&self) -> Option<String> {
        quoted(&self.to_string_lossy())
    }
}

impl<T: SettingValue> SettingValue for Option<T> {
    fn from_text(text: &str) -> Result<Self, String> {
        T::from_text(text).map(Some)
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        T::from_toml(value).map(Some)
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(T::show)
    }
}

/// Text that is never printed, and wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

impl SettingValue for Secret {
    /// Must fit into an `Authorization` header.
    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("must not be empty".to_owned());
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("must be visible ASCII without spaces".to_owned());
        }
        Ok(Self::new(text.to_owned()))
    }

    fn show(&self) -> Option<String> {
        quoted(REDACTED)
    }
}

impl SettingValue for Vec<Key> {
    /// Keys separated by commas.
    fn from_text(text: &str) -> Result<Self, String> {
        let keys = text.split(',').map(|key| read_key(key.trim()));
        distinct(keys.collect::<Result<_, _>>()?)
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        let toml::Value::Array(list) = value else {
            return Err(format!("must be a list of strings, is {}", name_of(value)));
        };
        let keys = list.iter().map(|entry| match entry {
            toml::Value::String(text) => read_key(text),
            other => Err(format!("must hold strings only, holds {}", name_of(other))),
        });
        distinct(keys.collect::<Result<_, _>>()?)
    }

    fn show(&self) -> Option<String> {
        let shown = |key: &Key| toml::Value::from(format!("{}:{REDACTED}", key.id));
        Some(toml::Value::Array(self.iter().map(shown).collect()).to_string())
    }
}

fn read_key(text: &str) -> Result<Key, String> {
    let (id, secret) = text
        .split_once(':')
        .ok_or("must hold keys of the form <id>:<base64 of 32 bytes>")?;
    let id: u8 = id
        .parse()
        .map_err(|_| format!("has a key whose id `{id}` is not a number from 0 to 255"))?;
    let secret = secret.trim_end_matches('=');
    let bytes = STANDARD_NO_PAD
        .decode(secret)
        .or_else(|_| URL_SAFE_NO_PAD.decode(secret))
        .map(Zeroizing::new)
        .map_err(|_| format!("has key {id} whose secret is not base64"))?;
    Key::new(id, &bytes)
        .ok_or_else(|| format!("has key {id} of {} bytes, not {KEY_BYTES}", bytes.len()))
}

fn distinct(keys: Vec<Key>) -> Result<Vec<Key>, String> {
    let mut seen = std::collections::BTreeSet::new();
    match keys.iter().find(|key| !seen.insert(key.id)) {
        Some(twice) => Err(format!("has two keys with the id {}", twice.id)),
        None => Ok(keys),
    }
}

/// Which log events are written; understood by `tracing_subscriber`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The directives' text.
    #[must_use]
    pub fn directives(&self) -> &str {
        &self.0
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl SettingValue for LogFilter {
    fn from_text(text: &str) -> Result<Self, String> {
        match EnvFilter::builder().parse(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(format!("is no log filter: {error}")),
        }
    }

    fn show(&self) -> Option<String> {
        quoted(&self.0)
    }
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $( $(#[$variant_doc:meta])* $variant:ident = $text:literal ),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $( $(#[$variant_doc])* $variant, )+
        }

        impl SettingValue for $name {
            fn from_text(text: &str) -> Result<Self, String> {
                match text {
                    $( $text => Ok(Self::$variant), )+
                    _ => Err(format!(
                        "must be one of {}, is `{text}`",
                        [$( concat!("`", $text, "`") ),+].join(", ")
                    )),
                }
            }

            fn show(&self) -> Option<String> {
                quoted(match self {
                    $( Self::$variant => $text, )+
                })
            }
        }
    };
}

choice!(
    /// Which store holds the pushes.
    StoreKind {
        /// In the data directory of this node.
        Embedded = "embedded",
        /// In this process only.
        Memory = "memory",
        /// In a Redis Cluster and a Scylla cluster that many nodes share.
        Cluster = "cluster",
    }
);

choice!(
    /// The header in which a trusted proxy names the client.
    ClientHeader {
        /// `X-Forwarded-For`, which nearly every proxy writes.
        XForwardedFor = "x-forwarded-for",
        /// `Forwarded` of RFC 7239.
        Forwarded = "forwarded",
    }
);

choice!(
    /// How log lines look.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
);
