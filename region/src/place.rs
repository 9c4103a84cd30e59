//! Where a region is: loopback addresses and a directory that are its own.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};

/// All regions of a machine are in 127.77.0.0/16, each in a network of 256 addresses. Every server
/// has an address of its own, so ports are the same everywhere and nobody has to look for free ones.
const NETWORKS: [u8; 2] = [127, 77];

/// Who listens here on the first address of a network has the network. The kernel lets go of it
/// however the owner ends, and no lock file outlives him.
const GUARD_PORT: u16 = 17_000;

/// How a data directory made by us begins.
const DIRECTORY_PREFIX: &str = "herald-region-";

/// Removes the directory `$1` when its standard input ends, which is when its parent ends, however
/// it ends. Servers that die in the same moment may still write, so one attempt is not enough.
const JANITOR: &str = r#"cat >/dev/null
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    rm -rf -- "$1" 2>/dev/null && exit 0
    sleep 0.5
done"#;

/// Addresses and a directory for one Redis Cluster, one CQL ring and their Herald nodes.
///
/// Whoever starts a server here holds a copy; with the last one the directory goes, if it was made
/// by [`Place::temporary`], and the addresses are free again.
#[derive(Debug, Clone)]
pub struct Place {
    site: Arc<Site>,
}

#[derive(Debug)]
struct Site {
    network: u8,
    directory: PathBuf,
    janitor: Option<Child>,
    /// Listened on, never accepted from.
    _guard: TcpListener,
}

impl Place {
    /// A place whose directory is made now, and is removed when nobody needs it any more, even when
    /// this process is killed.
    ///
    /// # Errors
    /// All networks are taken, or the directory cannot be made.
    pub fn temporary() -> anyhow::Result<Self> {
        let (network, guard) = claim()?;
        let directory = tempfile::Builder::new()
            .prefix(DIRECTORY_PREFIX)
            .tempdir()
            .context("no temporary directory")?;
        let janitor = Command::new("sh")
            .args(["-c", JANITOR, "janitor"])
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Outlives a Ctrl-C, which is sent to the whole group.
            .process_group(0)
            .spawn()
            .context("no shell to clean up with")?;
        Ok(Self::new(network, guard, directory.keep(), Some(janitor)))
    }

    /// A place with this directory, which is made if it is missing and stays.
    ///
    /// # Errors
    /// All networks are taken, or something is in the directory already: servers keep their
    /// addresses there, and those will be others.
    pub fn at(directory: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(directory)
            .and_then(|()| fs::read_dir(directory))
            .and_then(|mut entries| entries.next().map_or(Ok(()), |_| Err(not_empty())))
            .with_context(|| format!("cannot use {}", directory.display()))?;
        let directory = directory.canonicalize()?;
        let (network, guard) = claim()?;
        Ok(Self::new(network, guard, directory, None))
    }

    fn new(network: u8, guard: TcpListener, directory: PathBuf, janitor: Option<Child>) -> Self {
        let site = Site {
            network,
            directory,
            janitor,
            _guard: guard,
        };
        Self {
            site: Arc::new(site),
        }
    }

    /// Where data and logs are, a directory for each server.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.site.directory
    }

    /// An address of this place's network.
    pub(crate) fn address(&self, host: u8) -> Ipv4Addr {
        address(self.site.network, host)
    }

    /// The directory of one server, made if it is missing.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn directory_of(&self, server: &str) -> anyhow::Result<PathBuf> {
        let directory = self.directory().join(server);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(directory)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(janitor) = &mut self.janitor {
            drop(janitor.stdin.take());
            // It does not wait longer than its attempts take, and nobody is left to tell.
            let _ = janitor.wait();
        }
    }
}

fn address(network: u8, host: u8) -> Ipv4Addr {
    let [first, second] = NETWORKS;
    Ipv4Addr::new(first, second, network, host)
}

fn not_empty() -> io::Error {
    io::Error::new(io::ErrorKind::DirectoryNotEmpty, "it is not empty")
}

/// A network that no other region has, and the listener that says so.
fn claim() -> anyhow::Result<(u8, TcpListener)> {
    let first: u8 = rand::random();
    for step in 0..=u8::MAX {
        let network = first.wrapping_add(step);
        match TcpListener::bind(SocketAddr::from((address(network, 1), GUARD_PORT))) {
            Ok(guard) => return Ok((network, guard)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error).context("cannot listen on a loopback address"),
        }
    }
    bail!("256 regions run on this machine, or something else has port {GUARD_PORT}")
}

/// Checks a number of servers against what a network has room for.
///
/// # Errors
/// There is no room.
pub(crate) fn check_room(what: &str, count: usize, most: usize) -> anyhow::Result<()> {
    ensure!(
        (1..=most).contains(&count),
        "{count} {what}: at least 1, at most {most}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_places_share_nothing_and_leave_nothing() {
        let (one, two) = (
            Place::temporary().expect("one"),
            Place::temporary().expect("two"),
        );
        assert_ne!(one.address(1), two.address(1));
        let directory = one.directory().to_owned();
        let server = one.directory_of("server").expect("a directory");
        fs::write(server.join("data"), "x").expect("written");
        let guard = SocketAddr::from((one.address(1), GUARD_PORT));
        let copy = one.clone();
        drop(one);
        assert!(directory.exists(), "a copy is left");
        assert!(TcpListener::bind(guard).is_err(), "a copy is left");
        drop(copy);
        assert!(!directory.exists());
        assert!(two.directory().exists());
    }

    #[test]
    fn a_directory_that_is_given_stays_and_must_be_empty() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = parent.path().join("region");
        let place = Place::at(&directory).expect("a place");
        place.directory_of("server").expect("a directory");
        drop(place);
        assert!(directory.join("server").exists());
        let error = format!("{:#}", Place::at(&directory).expect_err("an error"));
        assert!(error.contains("not empty"), "{error}");
    }
}
