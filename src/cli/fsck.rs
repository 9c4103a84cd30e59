//! `herald fsck`: what the check of a store at rest says, and what it exits with.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Exit, say};

/// Which store to check.
#[derive(Debug, Args)]
pub struct FsckOptions {
    /// The data directory of a server that is not running.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

impl FsckOptions {
    /// Runs a check that gives a report and whether all is well, or the reason why it could not
    /// look.
    pub fn run<R: Display, E: Display>(
        &self,
        check: impl FnOnce(&Path) -> Result<(R, bool), E>,
    ) -> Exit {
        match check(&self.data) {
            Ok((report, is_well)) => {
                say(&format!("{report}\n"));
                if is_well { Exit::Success } else { Exit::Failed }
            }
            Err(error) => {
                eprintln!("error: {}: {error}", self.data.display());
                Exit::Fault
            }
        }
    }
}
