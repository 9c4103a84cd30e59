//! The flags that are settings, `herald check-config` and `herald print-config`.

use std::path::PathBuf;

use clap::Args;

use super::{Exit, say};
use crate::config::{Config, Flag, Mistakes, Sources};

/// Where the configuration comes from. Flags win over `HERALD_SECTION__KEY` in the environment,
/// that over the file.
#[derive(Debug, Args)]
pub struct SettingsOptions {
    /// TOML file with settings.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory for everything that must survive [default: ./herald-data].
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Where devices and senders connect [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where operators connect [default: 127.0.0.1:8081].
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<String>,
    /// For development: no quotas, a quick drain, a project `demo`, and secrets on the terminal.
    #[arg(long)]
    pub dev: bool,
}

impl SettingsOptions {
    /// The configuration of all layers.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn load(&self) -> Result<Config, Mistakes> {
        let flags = [
            ("--data", "data_dir", &self.data),
            ("--listen", "listen", &self.listen),
            ("--admin-listen", "admin_listen", &self.admin_listen),
        ];
        let given = flags.into_iter().filter_map(|(flag, key, text)| {
            Some(Flag {
                flag,
                key,
                text: text.clone()?,
            })
        });
        Config::load(&Sources {
            file: self.config.clone(),
            environment: std::env::vars_os().collect(),
            flags: given.collect(),
            dev: self.dev,
        })
    }

    /// `herald check-config`.
    #[must_use]
    pub fn check(&self) -> Exit {
        self.load_and(|config| {
            for warning in config.warnings() {
                say(&format!("warning: {warning}\n"));
            }
            say("the configuration is good\n");
        })
    }

    /// `herald print-config`.
    #[must_use]
    pub fn print(&self) -> Exit {
        self.load_and(|config| say(&config.to_toml()))
    }

    fn load_and(&self, show: impl FnOnce(&Config)) -> Exit {
        match self.load() {
            Ok(config) => {
                show(&config);
                Exit::Success
            }
            Err(mistakes) => {
                eprintln!("{mistakes}");
                Exit::Usage
            }
        }
    }
}
