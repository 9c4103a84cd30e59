//! The command line: what may be typed, and the commands that are no server.

mod admin_client;
mod fsck;
mod keys;
pub mod listen;
mod project;
pub mod serve;
mod service_token;
mod settings;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use admin_client::AdminOptions;
pub use fsck::FsckOptions;
pub use keys::KeysCommand;
pub use listen::ListenOptions;
pub use project::ProjectCommand;
pub use service_token::ServiceTokenCommand;
pub use settings::SettingsOptions;

use crate::clock::Clock;
use crate::store::embedded::{OpenError, fsck};

/// How a command ended, as the shell sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All well.
    Success,
    /// A check found a fault in what it checked.
    Failed,
    /// The command line or the configuration is wrong (`EX_USAGE` of `sysexits.h`).
    Usage,
    /// Something broke that should not (`EX_SOFTWARE` of `sysexits.h`).
    Fault,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Failed => 1,
            Exit::Usage => 64,
            Exit::Fault => 70,
        })
    }
}

/// A push-notification transport: one WebSocket a device, an FCM v1 drop-in for senders.
#[derive(Debug, Parser)]
#[command(
    name = "herald",
    version,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// What `herald` can be told to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server.
    Serve(SettingsOptions),
    /// Check the configuration and say what is wrong with it.
    CheckConfig(SettingsOptions),
    /// Print the configuration in force as TOML, secrets redacted.
    PrintConfig(SettingsOptions),
    /// Make, show, change and end projects of a running server.
    Project {
        /// What to do.
        #[command(subcommand)]
        command: ProjectCommand,
        /// Which server.
        #[command(flatten)]
        admin: AdminOptions,
    },
    /// Make, list and revoke the service tokens of a project on a running server.
    ServiceToken {
        /// What to do.
        #[command(subcommand)]
        command: ServiceTokenCommand,
        /// Which server.
        #[command(flatten)]
        admin: AdminOptions,
    },
    /// Rotate and list the keys that seal push tokens, or make one for the settings.
    Keys {
        /// What to do.
        #[command(subcommand)]
        command: KeysCommand,
        /// Which server.
        #[command(flatten)]
        admin: AdminOptions,
    },
    /// Be a device in this terminal: print a push token, then every push as it comes.
    Listen(ListenOptions),
    /// Count and check a store at rest; refuses beside a running server.
    Fsck(FsckOptions),
}

/// Reads the command line.
///
/// # Errors
/// What to exit with, after help, the version or what is wrong was printed.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Exit> {
    match Arguments::try_parse_from(arguments) {
        Ok(arguments) => Ok(arguments.command),
        Err(error) => {
            // Nobody to tell if this fails: the terminal is gone.
            let _ = error.print();
            Err(if error.exit_code() == 0 {
                Exit::Success
            } else {
                Exit::Usage
            })
        }
    }
}

/// Runs a client command on a runtime of its own.
fn block_on(command: impl Future<Output = Exit>) -> Exit {
    match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => {
            eprintln!("error: {error}");
            Exit::Fault
        }
    }
}

/// Runs what the command line asks for.
#[must_use]
pub fn run(command: Command) -> Exit {
    match command {
        Command::Serve(options) => serve::run(&options),
        Command::CheckConfig(options) => options.check(),
        Command::PrintConfig(options) => options.print(),
        Command::Project { command, admin } => block_on(command.run(&admin)),
        Command::ServiceToken { command, admin } => block_on(command.run(&admin)),
        Command::Keys { command, admin } => block_on(command.run(&admin)),
        Command::Listen(options) => block_on(listen(options)),
        Command::Fsck(options) => options.run(|data_dir| {
            let directory = data_dir.join(crate::server::STORE_DIRECTORY);
            let report = fsck(&directory, Clock::system().now())?;
            let is_well = report.fault_count == 0;
            Ok::<_, OpenError>((report, is_well))
        }),
    }
}

async fn listen(options: ListenOptions) -> Exit {
    match listen::run(options).await {
        Ok(()) => Exit::Success,
        Err(error) => {
            eprintln!("error: {error:#}");
            Exit::Fault
        }
    }
}

/// Writes to standard output. A reader that has left (`| head`) is no fault.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests;
