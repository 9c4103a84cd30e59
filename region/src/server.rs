//! One server as a child process: started, killed, paused, and gone when its owner is.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use crate::background;
use crate::waiting::{PAUSE, until};

/// Lines of a log that an error shows.
const LOG_TAIL_LINES: usize = 30;

/// Bytes of a log that are read for them.
const LOG_TAIL_BYTES: u64 = 64 * 1024;

/// Has Linux kill the child when the thread that started it ends: the one thread that lives as long
/// as this process, so servers do not outlive it even when it is killed.
const WITH_PARENT: [&str; 3] = ["setpriv", "--pdeathsig", "KILL"];

/// Whether this machine's `setpriv` can do that. Without it a killed parent leaves its servers.
static CAN_DIE_WITH_PARENT: LazyLock<bool> = LazyLock::new(|| {
    let [program, arguments @ ..] = WITH_PARENT;
    let tried = Command::new(program)
        .args(arguments)
        .arg("true")
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
});

/// How to start a server.
#[derive(Debug)]
pub(crate) struct Launch {
    /// Its name in errors.
    pub name: String,
    /// What to run.
    pub program: OsString,
    /// With what.
    pub arguments: Vec<OsString>,
    /// Beside the environment of this process, of which names with `HERALD_` are left out.
    pub environment: Vec<(OsString, OsString)>,
    /// Where it runs, and where its log is.
    pub directory: PathBuf,
}

/// A server that may be running. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    launch: Launch,
    process: Mutex<Option<Process>>,
    is_paused: AtomicBool,
}

/// A child process, killed and waited for when it is dropped: also when whoever started it has gone
/// before he got it.
#[derive(Debug)]
struct Process(Child);

impl Server {
    /// Nothing runs yet.
    pub fn new(launch: Launch) -> Self {
        Self {
            launch,
            process: Mutex::new(None),
            is_paused: AtomicBool::new(false),
        }
    }

    /// Starts the process, and does not wait until it is of use.
    ///
    /// # Errors
    /// It runs already, or cannot be started.
    pub async fn start(&self) -> anyhow::Result<()> {
        ensure!(!self.is_running(), "{} runs already", self.launch.name);
        let mut command = self.command()?;
        let started = background::there(async move { command.spawn().map(Process) }).await?;
        let process = started.with_context(|| {
            let program = self.launch.program.display();
            format!("{}: cannot start {program}", self.launch.name)
        })?;
        self.is_paused.store(false, Ordering::Relaxed);
        *self.process() = Some(process);
        Ok(())
    }

    fn command(&self) -> anyhow::Result<Command> {
        let launch = &self.launch;
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .with_context(|| format!("{}: no log", launch.name))?;
        let mut words: Vec<&OsStr> = Vec::new();
        if *CAN_DIE_WITH_PARENT {
            words.extend(WITH_PARENT.map(OsStr::new));
        }
        words.push(&launch.program);
        words.extend(launch.arguments.iter().map(OsString::as_os_str));
        let mut command = Command::new(words.remove(0));
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_own(name)) {
            command.env_remove(name);
        }
        command
            .args(words)
            .envs(launch.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&launch.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A Ctrl-C in the terminal is for this process, which then ends its servers in order.
            .process_group(0);
        Ok(command)
    }

    /// Asks a started server until it answers.
    ///
    /// # Errors
    /// It ends, or does not answer within `limit`; with the end of its log.
    pub async fn until_up<T>(
        &self,
        limit: Duration,
        mut ask: impl AsyncFnMut() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let name = &self.launch.name;
        // An end is an answer, though not the one that was hoped for.
        let answer = until(name, limit, async || match self.ended() {
            Some(end) => Ok(Err(anyhow!("{name} has ended: {end}"))),
            None => ask().await.map(Ok),
        });
        answer.await.and_then(|up| up).map_err(|error| {
            // What went wrong first, and below it what its log may say about that.
            let log = self.log();
            let tail = self.log_tail();
            anyhow!("{error:#}\nthe end of {}:\n{tail}", log.display())
        })
    }

    /// Kills the process with SIGKILL, if it runs, and waits until it is gone.
    ///
    /// # Errors
    /// The system's.
    pub fn kill(&self) -> anyhow::Result<()> {
        let process = self.process().take();
        process.map_or(Ok(()), |mut process| process.end())
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// It does not run, or does not end within `limit`.
    pub async fn terminate(&self, limit: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                *self.process() = None;
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("{} does not end within {limit:?}", self.launch.name);
            }
            sleep(PAUSE).await;
        }
    }

    /// Stops the process where it is: it answers nothing, and its sockets stay open.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)?;
        self.is_paused.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)?;
        self.is_paused.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Ends a pause, if there is one; starts the process, if it does not run. Whether it was started.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn mend(&self) -> anyhow::Result<bool> {
        if self.is_running() {
            self.resume()?;
            return Ok(false);
        }
        self.start().await?;
        Ok(true)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        // As long as it is held, nobody waits for the child, so the id is still its own.
        let process = self.process();
        let id = process.as_ref().map(|process| process.0.id());
        let id = id.with_context(|| format!("{} does not run", self.launch.name))?;
        kill(Pid::from_raw(i32::try_from(id)?), signal)?;
        Ok(())
    }

    /// How the process ended, if it did so by itself.
    fn ended(&self) -> Option<ExitStatus> {
        let mut process = self.process();
        process.as_mut()?.0.try_wait().ok()?
    }

    /// Whether there is a process that has not ended; it may be paused.
    pub fn is_running(&self) -> bool {
        self.process().is_some() && self.ended().is_none()
    }

    /// Whether it can answer.
    pub fn is_awake(&self) -> bool {
        self.is_running() && !self.is_paused.load(Ordering::Relaxed)
    }

    /// The process, if there is one.
    pub fn process_id(&self) -> Option<u32> {
        self.process().as_ref().map(|process| process.0.id())
    }

    /// Everything the process has written, over all its runs.
    pub fn log(&self) -> PathBuf {
        self.launch.directory.join("server.log")
    }

    /// The last lines of that.
    pub fn log_tail(&self) -> String {
        tail(&self.log()).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    fn end(&mut self) -> anyhow::Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, and nobody is left to tell.
        let _ = self.end();
    }
}

/// Whether a variable of this process is for it, not for its servers: Herald would take it for a
/// setting.
fn is_own(variable: &OsStr) -> bool {
    variable.as_encoded_bytes().starts_with(b"HERALD_")
}

fn tail(log: &Path) -> std::io::Result<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = fs::File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.len().saturating_sub(LOG_TAIL_LINES);
    Ok(lines.get(start..).unwrap_or_default().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(directory: &Path, script: &str) -> Server {
        Server::new(Launch {
            name: "a shell".to_owned(),
            program: "sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: Vec::new(),
            directory: directory.to_owned(),
        })
    }

    #[tokio::test]
    async fn a_server_that_ends_at_start_is_shown_with_its_log() {
        let directory = tempfile::tempdir().expect("a directory");
        let server = shell(directory.path(), "seq 100; exit 3");
        server.start().await.expect("started");
        let up = server.until_up(Duration::from_secs(60), async || {
            Err::<(), _>(anyhow!("never"))
        });
        let error = format!("{:#}", up.await.expect_err("an error"));
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(
            error.contains("\n71\n") && error.contains("\n100"),
            "{error}"
        );
        assert!(!error.contains("\n70\n"), "{error}");
    }

    #[tokio::test]
    async fn a_server_is_told_to_end_or_killed_even_when_paused() {
        let directory = tempfile::tempdir().expect("a directory");
        let server = shell(
            directory.path(),
            "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done",
        );
        server.start().await.expect("started");
        let is_up = async || {
            ensure!(server.log_tail() == "up", "not up");
            Ok(())
        };
        server
            .until_up(Duration::from_secs(60), is_up)
            .await
            .expect("up");
        let status = server.terminate(Duration::from_secs(60)).await;
        assert_eq!(status.expect("ended").code(), Some(7));
        server.start().await.expect("started again");
        server.pause().expect("paused");
        assert!(server.is_running() && !server.is_awake());
        server.kill().expect("killed");
        assert!(!server.is_running());
        assert!(server.pause().is_err());
    }
}
