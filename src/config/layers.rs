//! What the file, the environment and the flags say, laid over each other.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::mistake::Mistake;
use super::value::SettingValue;

/// Sets `secrets.admin_token`, and is what the client commands show.
pub const ADMIN_TOKEN_VARIABLE: &str = "HERALD_ADMIN_TOKEN";
/// Where the client commands find the admin listener; the server leaves it alone.
pub const ADMIN_URL_VARIABLE: &str = "HERALD_ADMIN_URL";

const PREFIX: &str = "HERALD_";
/// An unknown name is answered with a known one at least this alike (0 to 1).
const ALIKE_ENOUGH: f64 = 0.75;

/// Where a configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// The process's environment; only names that begin with `HERALD_` are looked at.
    pub environment: Vec<(OsString, OsString)>,
    /// What flags set.
    pub flags: Vec<Flag>,
    /// Whether the defaults are those of a development server.
    pub dev: bool,
}

/// A flag of the command line that is a setting.
#[derive(Debug, Clone)]
pub struct Flag {
    /// As it was typed.
    pub flag: &'static str,
    /// The setting's full name.
    pub key: &'static str,
    /// Its value.
    pub text: String,
}

/// What a layer says about one setting.
#[derive(Debug)]
enum Said {
    Toml(toml::Value),
    Text(String),
}

/// Every value that was set anywhere, strongest layer only, and what was wrong on the way.
#[derive(Debug, Default)]
pub(super) struct Layers {
    said: BTreeMap<String, (Said, String)>,
    mistakes: Vec<Mistake>,
}

impl Layers {
    /// Reads all layers; what cannot be read becomes a mistake.
    pub(super) fn gather(sources: &Sources, keys: &[&str], sections: &[&str]) -> Self {
        let mut layers = Self::default();
        if let Some(path) = &sources.file {
            layers.add_file(path, keys, sections);
        }
        layers.add_environment(&sources.environment, keys);
        for Flag { flag, key, text } in &sources.flags {
            layers.say(key, Said::Text(text.clone()), (*flag).to_owned());
        }
        layers
    }

    /// The value of `key`, or its default; a value that is wrong is a mistake.
    pub(super) fn take<T: SettingValue>(
        &mut self,
        key: &str,
        default: T,
        range: Option<RangeInclusive<u64>>,
    ) -> T {
        let Some((said, origin)) = self.said.remove(key) else {
            return default;
        };
        let read = match &said {
            Said::Toml(value) => T::from_toml(value),
            Said::Text(text) => T::from_text(text),
        };
        match read.and_then(|value| within(value, range)) {
            Ok(value) => value,
            Err(message) => {
                self.mistakes.push(Mistake::at(key, &origin, message));
                default
            }
        }
    }

    /// Everything that was wrong. What nobody took is unknown.
    pub(super) fn into_mistakes(self, keys: &[&str]) -> Vec<Mistake> {
        let mut mistakes = self.mistakes;
        let unknown = self.said.into_iter().map(|(key, (_, origin))| {
            let message = match nearest(&key, keys) {
                Some(known) => format!("there is no such setting; did you mean {known}?"),
                None => "there is no such setting".to_owned(),
            };
            Mistake::at(&key, &origin, message)
        });
        mistakes.extend(unknown);
        mistakes
    }

    fn say(&mut self, key: &str, said: Said, origin: String) {
        self.said.insert(key.to_owned(), (said, origin));
    }

    fn add_file(&mut self, path: &Path, keys: &[&str], sections: &[&str]) {
        let origin = path.display().to_string();
        let table = match read_toml(path) {
            Ok(table) => table,
            Err(message) => return self.mistakes.push(Mistake::of(&origin, message)),
        };
        for (name, value) in table {
            match value {
                toml::Value::Table(rows) if !rows.is_empty() && !keys.contains(&name.as_str()) => {
                    for (row, value) in rows {
                        let key = format!("{name}.{row}");
                        self.say(&key, Said::Toml(value), origin.clone());
                    }
                }
                toml::Value::Table(_) if sections.contains(&name.as_str()) => {}
                other if sections.contains(&name.as_str()) => {
                    drop(other);
                    let message = format!("is a section: write [{name}] above its settings");
                    self.mistakes.push(Mistake::at(&name, &origin, message));
                }
                other => self.say(&name, Said::Toml(other), origin.clone()),
            }
        }
    }

    fn add_environment(&mut self, environment: &[(OsString, OsString)], keys: &[&str]) {
        let mut named: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in environment {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            let Some(key) = key_of_variable(name, keys) else {
                continue;
            };
            if let Some(other) = named.insert(key.clone(), name.to_owned()) {
                let message = format!("is set by {other} and by {name}: keep one");
                self.mistakes.push(Mistake::of(&key, message));
            }
            match value.to_str() {
                Some(text) => self.say(&key, Said::Text(text.to_owned()), name.to_owned()),
                None => self
                    .mistakes
                    .push(Mistake::at(&key, name, "is not valid UTF-8")),
            }
        }
    }
}

fn within<T: SettingValue>(value: T, range: Option<RangeInclusive<u64>>) -> Result<T, String> {
    match (value.number(), range) {
        (Some(number), Some(range)) if !range.contains(&number) => Err(format!(
            "must be from {} to {}, is {number}",
            range.start(),
            range.end()
        )),
        _ => Ok(value),
    }
}

fn read_toml(path: &Path) -> Result<toml::Table, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    text.parse().map_err(|error: toml::de::Error| {
        // The error's own display quotes the line, which may hold a secret.
        let before = error.span().and_then(|span| text.get(..span.start));
        match before {
            Some(before) => format!(
                "line {} is not TOML: {}",
                before.matches('\n').count() + 1,
                error.message()
            ),
            None => format!("is not TOML: {}", error.message()),
        }
    })
}

/// The setting that a variable names, known or not; `None` for variables that are not settings.
fn key_of_variable(name: &str, keys: &[&str]) -> Option<String> {
    if name == ADMIN_TOKEN_VARIABLE {
        return Some("secrets.admin_token".to_owned());
    }
    let key = name
        .strip_prefix(PREFIX)?
        .to_ascii_lowercase()
        .replace("__", ".");
    let is_known = keys.contains(&key.as_str());
    (is_known || !(name == ADMIN_URL_VARIABLE || is_service_link(name))).then_some(key)
}

/// Kubernetes puts variables like these into every container for a service called `herald`.
fn is_service_link(name: &str) -> bool {
    let Some((_, port)) = name.rsplit_once("_PORT") else {
        return name.ends_with("_SERVICE_HOST");
    };
    let is_protocol = |text: &str| matches!(text, "TCP" | "UDP" | "SCTP");
    let mut words = port.split('_').skip(1);
    match (words.next(), words.next()) {
        (None, _) => port.is_empty(),
        (Some(number), Some(protocol)) if number.parse::<u16>().is_ok() => is_protocol(protocol),
        _ => name.contains("_SERVICE_PORT_"),
    }
}

fn nearest<'a>(key: &str, keys: &[&'a str]) -> Option<&'a str> {
    let alike = |known: &&str| strsim::jaro_winkler(key, known);
    keys.iter()
        .copied()
        .max_by(|a, b| alike(a).total_cmp(&alike(b)))
        .filter(|known| alike(known) >= ALIKE_ENOUGH)
}
