//! `herald serve`: starts the server, waits for SIGTERM or Ctrl-C, drains.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{Exit, SettingsOptions, say};
use crate::config::{Config, LogFormat};
use crate::dev::{self, DevFile};
use crate::server::{self, Running};
use crate::store::cluster::ConnectError;

/// Runs the server until it has drained.
#[must_use]
pub fn run(options: &SettingsOptions) -> Exit {
    let config = match options.load() {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return Exit::Usage;
        }
    };
    start_log(&config);
    for warning in config.warnings() {
        tracing::warn!(warning, "the configuration deserves a look");
    }
    match actix::System::new().block_on(serve(config, options.dev)) {
        Ok(()) => Exit::Success,
        Err(error) => {
            eprintln!("error: {error:#}");
            match error.downcast_ref() {
                Some(ConnectError::Refused(_)) => Exit::Usage,
                _ => Exit::Fault,
            }
        }
    }
}

async fn serve(config: Config, is_dev: bool) -> anyhow::Result<()> {
    let data_dir = config.data_dir.clone();
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
    let running = tokio::select! {
        started = server::start(config) => started?,
        // Whoever waits for backends has nothing to drain.
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    if is_dev {
        let (file, path) = write_dev_file(&running, &data_dir).await?;
        say(&file.banner(&path));
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::select! {
        drained = running.drain() => drained,
        // Somebody is in a hurry: what is durable stays durable.
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

async fn write_dev_file(
    running: &Running,
    data_dir: &std::path::Path,
) -> anyhow::Result<(DevFile, std::path::PathBuf)> {
    let last_time = DevFile::read(data_dir).context("cannot read the development file")?;
    let made = dev::prepare_project(running.projects(), last_time.as_ref()).await;
    let (project, service_token) = made.context("cannot make the development project")?;
    let file = DevFile::new(
        &project,
        &service_token,
        running.admin_token().reveal(),
        running.listen(),
        running.admin_listen(),
    );
    let path = file
        .write(data_dir)
        .context("cannot write the development file")?;
    Ok((file, path))
}

/// What these log as errors and warnings are faults of their clients: any stranger could fill the log.
/// Who names them in the filter hears them.
const SILENCED: &str = "actix_http=off,h2=off";

fn start_log(config: &Config) {
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(format!(
            "{SILENCED},{}",
            config.log.filter.directives()
        )))
        .with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
