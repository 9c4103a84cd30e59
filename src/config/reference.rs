//! The table of settings as text: `herald print-config` and `docs/settings.md`.

use std::fmt::Write as _;

use super::Config;
use super::table::{Row, Section};

impl Config {
    /// This configuration as a TOML file with every setting in it, secrets redacted.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for section in self.sections() {
            if !section.name.is_empty() {
                text.push_str(&format!("\n[{}]\n", section.name));
            }
            for row in &section.rows {
                match &row.value {
                    Some(value) => text.push_str(&format!("{} = {value}\n", row.name())),
                    None => text.push_str(&format!("# {} is not set\n", row.name())),
                }
            }
        }
        text
    }
}

/// The text of `docs/settings.md`.
#[must_use]
pub fn settings_reference() -> String {
    let mut text = String::from(
        "# Settings\n\n\
         Written from the table in `src/config.rs`; do not edit by hand.\n\n\
         Layers, weakest first: the defaults below, the TOML file of `--config`, environment\n\
         variables, flags. A setting `name` of the section `[section]` is `HERALD_SECTION__NAME` in\n\
         the environment; lists are separated by commas there. Unknown names and values out of\n\
         range are refused, all at once, before anything starts: `herald check-config` tells, and\n\
         `herald print-config` shows what is in force.\n",
    );
    let dev = Config::dev().sections();
    for (section, dev) in Config::default().sections().iter().zip(&dev) {
        section.describe(dev, &mut text);
    }
    text
}

impl Section {
    fn describe(&self, dev: &Self, text: &mut String) {
        let title = match self.name {
            "" => "At the top of the file".to_owned(),
            name => format!("`[{name}]`"),
        };
        text.push_str(&format!("\n## {title}\n\n"));
        if !self.reason.is_empty() {
            text.push_str(&format!("{}\n\n", self.reason.trim()));
        }
        text.push_str("| setting | default | range | what for |\n| --- | --- | --- | --- |\n");
        for (row, dev) in self.rows.iter().zip(&dev.rows) {
            row.describe(dev, text);
        }
    }
}

impl Row {
    fn name(&self) -> &'static str {
        self.key.rsplit_once('.').map_or(self.key, |(_, name)| name)
    }

    fn describe(&self, dev: &Self, text: &mut String) {
        let mut default = shown(self.value.as_deref());
        if dev.value != self.value {
            let dev = shown(dev.value.as_deref());
            // Writing to a string cannot fail.
            let _ = write!(default, " ({dev} with `--dev`)");
        }
        let range = self.range.as_ref().map_or_else(String::new, |range| {
            format!("{} to {}", range.start(), range.end())
        });
        let reason = self.reason.trim();
        let _ = writeln!(text, "| `{}` | {default} | {range} | {reason} |", self.key);
    }
}

fn shown(value: Option<&str>) -> String {
    value.map_or_else(|| "not set".to_owned(), |value| format!("`{value}`"))
}
