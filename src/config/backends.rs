//! Settings that say where the backends of a region are.

use std::fmt;

use zeroize::Zeroizing;

use super::value::{REDACTED, SettingValue};

/// Reads a list out of a TOML array of strings, or out of a text with commas.
macro_rules! listed {
    ($type:ty) => {
        impl SettingValue for Vec<$type> {
            fn from_text(text: &str) -> Result<Self, String> {
                let entries = text.split(',').map(str::trim).filter(|it| !it.is_empty());
                entries.map(<$type>::read).collect()
            }

            fn from_toml(value: &toml::Value) -> Result<Self, String> {
                let toml::Value::Array(entries) = value else {
                    return Err("must be a list of strings".to_owned());
                };
                let entries = entries.iter().map(|entry| match entry {
                    toml::Value::String(text) => <$type>::read(text),
                    _ => Err("must hold strings only".to_owned()),
                });
                entries.collect()
            }

            fn show(&self) -> Option<String> {
                let shown = self.iter().map(|it| toml::Value::from(it.shown()));
                Some(toml::Value::Array(shown.collect()).to_string())
            }
        }
    };
}

/// Where a node of the Redis Cluster is: `redis://user:password@host:port`. Never printed with its
/// password, and wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(Zeroizing<String>);

impl RedisUrl {
    /// The whole URL, for the one place that connects.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn read(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("redis://") else {
            return Err("must hold URLs like redis://host:6379".to_owned());
        };
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        match place.trim_end_matches('/').is_empty() {
            true => Err("has a URL without a host".to_owned()),
            false => Ok(Self(Zeroizing::new(text.to_owned()))),
        }
    }

    fn shown(&self) -> String {
        match self.0.rsplit_once('@') {
            Some((_, place)) => format!("redis://{REDACTED}@{place}"),
            None => self.0.to_string(),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown())
    }
}

listed!(RedisUrl);

/// Where a node of the Scylla cluster is: `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContactPoint(String);

impl ContactPoint {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn read(text: &str) -> Result<Self, String> {
        let is_good = text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        match is_good {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "must hold host:port like scylla-1:9042, holds `{text}`"
            )),
        }
    }

    fn shown(&self) -> String {
        self.0.clone()
    }
}

listed!(ContactPoint);

/// A name that needs no quotes anywhere: of a keyspace, of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identifier(String);

/// What CQL allows for the name of a keyspace.
const IDENTIFIER_CHARS_MAX: usize = 48;

impl Identifier {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name that is known to be good.
    #[must_use]
    pub fn fixed(text: &'static str) -> Self {
        Self(text.to_owned())
    }
}

impl SettingValue for Identifier {
    fn from_text(text: &str) -> Result<Self, String> {
        let begins_well = text.starts_with(|first: char| first.is_ascii_lowercase());
        let is_plain = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_';
        if begins_well && text.chars().all(is_plain) && text.len() <= IDENTIFIER_CHARS_MAX {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "must be at most {IDENTIFIER_CHARS_MAX} of a-z, 0-9 and _, a letter first, is `{text}`"
        ))
    }

    fn show(&self) -> Option<String> {
        Some(toml::Value::from(self.0.as_str()).to_string())
    }
}

/// A name as Scylla has them: of a data centre, of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

/// Longer names are mistakes.
const NAME_CHARS_MAX: usize = 128;

impl Name {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name that is known to be good.
    #[must_use]
    pub fn fixed(text: &'static str) -> Self {
        Self(text.to_owned())
    }
}

impl SettingValue for Name {
    fn from_text(text: &str) -> Result<Self, String> {
        let is_plain = |it: char| it.is_ascii_alphanumeric() || "_-.".contains(it);
        if !text.is_empty() && text.chars().all(is_plain) && text.len() <= NAME_CHARS_MAX {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "must be letters, digits and any of _-. up to {NAME_CHARS_MAX} of them, is `{text}`"
        ))
    }

    fn show(&self) -> Option<String> {
        Some(toml::Value::from(self.0.as_str()).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_never_shown() {
        let urls = Vec::<RedisUrl>::from_text("redis://app:hunter2@one:6379, redis://two:6379");
        let urls = urls.expect("good urls");
        let shown = urls.show().expect("shown");
        assert_eq!(
            shown,
            r#"["redis://(redacted)@one:6379", "redis://two:6379"]"#
        );
        assert!(!format!("{urls:?}").contains("hunter2"));
        assert_eq!(
            urls.first().map(RedisUrl::reveal),
            Some("redis://app:hunter2@one:6379")
        );
    }

    #[test]
    fn what_is_no_address_or_name_is_refused() {
        for text in ["one:6379", "http://one:6379", "redis://", "redis://user:x@"] {
            assert!(Vec::<RedisUrl>::from_text(text).is_err(), "{text}");
        }
        for text in ["one", "one:", ":9042", "one:0", "one:70000"] {
            assert!(Vec::<ContactPoint>::from_text(text).is_err(), "{text}");
        }
        for text in ["", "Herald", "1a", "a-b", "a; drop", &"a".repeat(49)] {
            assert!(Identifier::from_text(text).is_err(), "{text}");
        }
        for text in ["", "dc'1", "dc 1"] {
            assert!(Name::from_text(text).is_err(), "{text}");
        }
    }
}
