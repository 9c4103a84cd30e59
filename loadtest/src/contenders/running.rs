//! A server's process: started in a directory of its own, weighed from outside, killed when it is
//! dropped.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::Service;
use crate::target::Operator;

/// A server that is not ready after this long does not start.
const START_MAX: Duration = Duration::from_secs(60);

/// How often it is asked whether it is ready.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A process that is killed ends at once, unless the machine is very busy.
const END_MAX: Duration = Duration::from_secs(10);
const END_LOOK_EVERY: Duration = Duration::from_millis(1);

/// What a server writes to its standard error is kept here.
const LOG: &str = "stderr.log";

/// How much of its end is shown.
const LOG_BYTES_SHOWN: usize = 2_000;

/// A server that was started, with all that it leaves on disk.
pub struct Running {
    // Dropped before the directory.
    process: Option<Child>,
    address: Ipv4Addr,
    service: Option<Service>,
    operator: Option<Operator>,
    directory: TempDir,
}

/// What the kernel says of a process and its children.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time so far, in nanoseconds.
    pub cpu_ns: u64,
    /// Resident memory in bytes; what several of them share is counted once.
    pub rss_bytes: u64,
}

impl Running {
    /// A directory below `scratch` and an address for a server that is not started yet.
    ///
    /// # Errors
    /// When there is no room for a directory.
    pub fn prepare(scratch: &Path) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("swarm-bench-")
            .tempdir_in(scratch)
            .with_context(|| format!("no directory in {}", scratch.display()))?;
        // Away from the addresses that devices come from, 127.0.0.0/16; another one for each
        // server, so that what one left behind does not meet the next.
        let [second, third, fourth] = rand::random::<[u8; 3]>();
        Ok(Self {
            process: None,
            address: Ipv4Addr::new(127, second.max(1), third, fourth.clamp(1, 254)),
            service: None,
            operator: None,
            directory,
        })
    }

    /// Where all its files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A port that nobody listens to, for servers that must be told one.
    ///
    /// # Errors
    /// When the kernel has none.
    pub fn free_address(&self) -> anyhow::Result<SocketAddr> {
        let probe = TcpListener::bind((self.address, 0)).context("no free port")?;
        Ok(probe.local_addr()?)
    }

    /// Writes a configuration file.
    ///
    /// # Errors
    /// The file system's.
    pub fn write_file(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.directory().join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Starts the process; `arguments` adds to its command line.
    ///
    /// # Errors
    /// When the program is not there.
    pub fn spawn(
        &mut self,
        program: impl AsRef<OsStr>,
        arguments: impl FnOnce(&mut Command),
    ) -> anyhow::Result<()> {
        let log = std::fs::File::create(self.directory().join(LOG))?;
        let mut command = Command::new(with_path(program.as_ref()));
        arguments(&mut command);
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start it")?;
        self.process = Some(process);
        Ok(())
    }

    /// Asks until there is an answer.
    ///
    /// # Errors
    /// When the process ends, or is not ready in time; with the end of its log.
    pub async fn until_ready<T>(
        &mut self,
        ask: impl AsyncFn() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + START_MAX;
        loop {
            let error = match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let process = self.process.as_mut().context("it was not started")?;
            if let Some(status) = process.try_wait()? {
                bail!("it ended with {status}: {}", self.log());
            }
            if Instant::now() > deadline {
                bail!("it is not ready: {error:#}: {}", self.log());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn log(&self) -> String {
        let text = std::fs::read(self.directory().join(LOG)).unwrap_or_default();
        let shown = text.len().saturating_sub(LOG_BYTES_SHOWN);
        String::from_utf8_lossy(text.get(shown..).unwrap_or_default()).into_owned()
    }

    /// It is ready, and this is how to find it.
    pub fn open(&mut self, service: Service, operator: Option<Operator>) {
        self.service = Some(service);
        self.operator = operator;
    }

    /// How its clients find it.
    ///
    /// # Errors
    /// When it is not ready.
    pub fn service(&self) -> anyhow::Result<&Service> {
        self.service.as_ref().context("it is not ready")
    }

    /// Its operator's side, if it has one that the swarm knows.
    pub fn operator(&self) -> Option<&Operator> {
        self.operator.as_ref()
    }

    /// What the kernel says of it now.
    ///
    /// # Errors
    /// When it is gone, or the kernel does not say.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        let process = self.process.as_ref().and_then(Child::id);
        let process = process.context("the server has ended")?;
        let mut usage = Usage::default();
        for process in family(process)? {
            let place = PathBuf::from(format!("/proc/{process}"));
            usage.cpu_ns += cpu_ns(&place).context("the server's processor time")?;
            let text = std::fs::read_to_string(place.join("smaps_rollup"));
            let text = text.context("the server's memory")?;
            usage.rss_bytes += kib(&text, "Pss:").context("the server's memory")? * 1024;
        }
        Ok(usage)
    }

    /// Children of a server that is killed would live on.
    fn kill(&self) {
        let Some(process) = self.process.as_ref().and_then(Child::id) else {
            return;
        };
        for process in family(process).unwrap_or_default() {
            let id = i32::try_from(process).ok().and_then(Pid::from_raw);
            // One that is gone already is what is wanted.
            let _ = id.map(|id| kill_process(id, Signal::KILL));
        }
    }
}

impl Drop for Running {
    /// Waits for the end: who lives on writes into the directory that is taken away next.
    fn drop(&mut self) {
        self.kill();
        let deadline = Instant::now() + END_MAX;
        let lives = |process: &mut Child| matches!(process.try_wait(), Ok(None));
        while self.process.as_mut().is_some_and(lives) && Instant::now() < deadline {
            std::thread::sleep(END_LOOK_EVERY);
        }
    }
}

/// Whether a program of this name can be started.
pub fn is_installed(program: &str) -> bool {
    with_path(OsStr::new(program)).is_file()
}

/// Servers are often where only an administrator's shell looks for them.
fn with_path(program: &OsStr) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let administrators = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let is_name = Path::new(program).components().count() == 1;
    std::env::split_paths(&path)
        .chain(administrators)
        .map(|directory| directory.join(program))
        .find(|file| is_name && file.is_file())
        .unwrap_or_else(|| program.into())
}

/// A process with its children and theirs.
fn family(first: u32) -> anyhow::Result<Vec<u32>> {
    let mut parents = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").context("no /proc")? {
        let name = entry?.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // Others come and go while this is read.
        if let Ok(stat) = std::fs::read_to_string(format!("/proc/{process}/stat")) {
            parents.extend(parent(&stat).map(|parent| (process, parent)));
        }
    }
    let mut family = vec![first];
    let mut seen = 0;
    while let Some(&member) = family.get(seen) {
        let children = parents.iter().filter(|(_, parent)| **parent == member);
        family.extend(children.map(|(child, _)| *child));
        seen += 1;
    }
    Ok(family)
}

/// The second number after the name, which stands in brackets and may have any letters.
fn parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// What all threads of a process have run, by the scheduler's own count: `stat` counts hundredths
/// of a second.
fn cpu_ns(place: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for thread in std::fs::read_dir(place.join("task"))? {
        // A thread may end meanwhile.
        if let Ok(text) = std::fs::read_to_string(thread?.path().join("schedstat")) {
            let ran = text.split_whitespace().next().unwrap_or_default();
            sum += ran.parse::<u64>().context("no number")?;
        }
    }
    Ok(sum)
}

/// A line such as `Pss:  1234 kB`.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        assert_eq!(parent("12 (a (b) c) S 7 12 12 0"), Some(7));
        assert_eq!(parent("nonsense"), None);
        assert_eq!(kib("Rss: 9 kB\nPss:   12 kB\n", "Pss:"), Some(12));
        assert_eq!(kib("Rss: 9 kB\n", "Pss:"), None);
    }

    #[tokio::test]
    async fn a_server_and_its_children_are_weighed_and_end_together() {
        let mut running = Running::prepare(&std::env::temp_dir()).expect("a directory");
        let directory = running.directory().to_owned();
        let file = directory.join("child");
        running
            .spawn("sh", |command| {
                let script = "sleep 60 & echo $! >\"$0\"; wait";
                command.args(["-c", script]).arg(&file);
            })
            .expect("starts");
        let child: u32 = running
            .until_ready(async || Ok(std::fs::read_to_string(&file)?.trim().parse()?))
            .await
            .expect("a child");
        let both = running.usage().expect("is weighed");
        assert!(both.cpu_ns > 0 && both.rss_bytes > 0, "{both:?}");
        let shell = running.process.as_ref().and_then(Child::id);
        assert_eq!(
            family(shell.expect("runs")).expect("reads"),
            [shell.expect("runs"), child]
        );
        drop(running);
        assert!(!directory.exists());
        let deadline = Instant::now() + START_MAX;
        // Whoever inherits it may not have buried it yet.
        while std::fs::read_to_string(format!("/proc/{child}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z "))
        {
            assert!(Instant::now() < deadline, "the child lives on");
            sleep(LOOK_EVERY).await;
        }
    }

    #[tokio::test]
    async fn a_server_that_ends_at_once_is_quoted() {
        let mut running = Running::prepare(&std::env::temp_dir()).expect("a directory");
        running
            .spawn("sh", |command| {
                command.args(["-c", "echo why >&2"]);
            })
            .expect("starts");
        let never = async || -> anyhow::Result<()> { bail!("not yet") };
        let error = running.until_ready(never).await.expect_err("ended");
        assert!(error.to_string().contains("why"), "{error}");
        assert!(is_installed("sh") && !is_installed("no-such-program"));
    }
}
