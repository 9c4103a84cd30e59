//! One server process with its data directory.

use std::ffi::OsString;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::Door;

/// What a server is started with.
#[derive(Default)]
pub struct ServerOptions {
    /// Environment settings, such as `("HERALD_SOCKET__PING_INTERVAL_MS", "200")`.
    pub settings: Vec<(&'static str, String)>,
}

impl ServerOptions {
    fn tls_chain(&self) -> Option<&str> {
        let mut settings = self.settings.iter();
        settings.find_map(|(name, value)| (*name == "HERALD_TLS__CERT").then_some(value.as_str()))
    }

    /// Whom a client trusts: the server's chain ends with its authority.
    fn certificates(&self) -> Vec<reqwest::Certificate> {
        let Some(chain) = self.tls_chain() else {
            return Vec::new();
        };
        let chain = std::fs::read(chain).expect("a certificate chain");
        reqwest::Certificate::from_pem_bundle(&chain).expect("certificates")
    }
}

/// A running server on free ports. Killed when dropped.
pub struct Server {
    process: Child,
    data: TempDir,
    /// A command that runs the server, such as one that looks on.
    wrapper: Vec<String>,
    options: ServerOptions,
    door: Option<Door>,
    /// When the development file of the last run was written.
    dev_modified: Option<SystemTime>,
}

impl Server {
    /// A development server with default settings.
    pub async fn start() -> Self {
        Self::with(ServerOptions::default()).await
    }

    /// A development server with these settings.
    pub async fn with(options: ServerOptions) -> Self {
        Self::under(Vec::new(), options).await
    }

    /// The same, run by another command, which must become it: its process id is the server's.
    pub async fn under(wrapper: Vec<String>, options: ServerOptions) -> Self {
        let data = tempfile::tempdir().expect("a data directory");
        let process = spawn(&wrapper, data.path(), &options);
        let mut server = Self {
            process,
            data,
            wrapper,
            options,
            door: None,
            dev_modified: None,
        };
        server.wait_until_up().await;
        server
    }

    async fn wait_until_up(&mut self) {
        let deadline = Instant::now() + super::PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().expect("a process") {
                panic!("the server ended at start with {status}: {}", self.log());
            }
            let dev = self.data.path().join("dev.json");
            // The file of an earlier run names ports that another test's server may have by now.
            let is_new = modified(&dev).is_some_and(|at| Some(at) != self.dev_modified);
            let dev = is_new.then(|| read_json(&dev)).flatten();
            self.door = dev.map(|dev| match self.options.tls_chain() {
                Some(_) => Door::over_tls(dev, self.options.certificates()),
                None => Door::new(dev),
            });
            if let Some(door) = &self.door
                && door.is_ready().await
            {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "the server does not start: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kills the process with SIGKILL and starts another on the same data.
    pub async fn kill_and_restart(&mut self) {
        self.kill();
        self.start_again().await;
    }

    /// Kills the process with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("reaped");
    }

    /// Starts another process on the same data.
    pub async fn start_again(&mut self) {
        self.dev_modified = modified(&self.data.path().join("dev.json"));
        self.process = spawn(&self.wrapper, self.data.path(), &self.options);
        self.wait_until_up().await;
    }

    /// Starts another process on the same data with other settings.
    pub async fn start_again_with(&mut self, options: ServerOptions) {
        self.options = options;
        self.start_again().await;
    }

    /// Starts another process on the same data and kills it a moment later, wherever it is by then.
    pub async fn start_and_kill(&mut self, after: Duration) {
        self.dev_modified = modified(&self.data.path().join("dev.json"));
        self.process = spawn(&self.wrapper, self.data.path(), &self.options);
        tokio::time::sleep(after).await;
        self.kill();
    }

    /// Starts a second process on the data of this one, which has to give up; how it ended.
    pub async fn rival(&self) -> ExitStatus {
        let mut rival = spawn(&self.wrapper, self.data.path(), &self.options);
        let deadline = Instant::now() + super::PATIENCE;
        loop {
            if let Some(status) = rival.try_wait().expect("a process") {
                return status;
            }
            if Instant::now() > deadline {
                // It must not outlive the test.
                let _ = rival.kill();
                let _ = rival.wait();
                panic!("two servers on one directory");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends SIGTERM and returns at once.
    pub fn terminate(&self) {
        kill(self.pid(), Signal::SIGTERM).expect("signalled");
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().expect("a process").is_some()
    }

    /// Waits for the process to end.
    pub async fn exit_status(&mut self) -> ExitStatus {
        let deadline = Instant::now() + super::PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().expect("a process") {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).expect("a pid"))
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// Everything the process has written to standard error, over all its runs.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join("stderr.log")).unwrap_or_default()
    }
}

impl Deref for Server {
    type Target = Door;

    fn deref(&self) -> &Door {
        self.door.as_ref().expect("a server that is up")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- the server's log ---\n{}", self.log());
        }
    }
}

fn spawn(wrapper: &[String], data: &Path, options: &ServerOptions) -> Child {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(data.join("stderr.log"));
    let mut words = wrapper.iter().map(OsString::from).chain([binary().into()]);
    Command::new(words.next().expect("a binary"))
        .args(words)
        .args([
            "serve",
            "--dev",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
        ])
        .arg("--data")
        .arg(data)
        .envs(options.settings.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.expect("a log file"))
        .spawn()
        .expect("the server starts")
}

/// The binary under test.
pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_herald"))
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}
