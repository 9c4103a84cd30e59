//! Cassandra's jars: fetched once by Maven, for all builds of this user.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use tokio::process::Command;

use crate::waiting::{until, within};

/// The line of Cassandra that runs on Java 17, and the release all this was tried with.
const VERSION: &str = "5.0.8";

/// The directory of the cache instead of `~/.cache/herald`.
const CACHE_VARIABLE: &str = "HERALD_CACHE";

/// 70 MB from Maven Central, over a line that is slow.
const FETCH_MAX: Duration = Duration::from_secs(15 * 60);

/// A jar of ours, by which we know that Maven did what it was told.
const MAIN_JAR: &str = "cassandra-all";

/// Measures objects for Cassandra, which has it loaded by the virtual machine itself.
const AGENT_JAR: &str = "jamm";

const POM: &str = include_str!("../../cassandra/pom.xml");

/// What a node is started with.
#[derive(Debug)]
pub(super) struct Jars {
    directory: PathBuf,
    /// For `-javaagent`.
    pub agent: PathBuf,
}

impl Jars {
    /// The jars of the cache, fetched if they are not there yet.
    ///
    /// # Errors
    /// Maven is missing or failed, or another process fetches and does not come to an end.
    pub async fn get() -> anyhow::Result<Self> {
        let cache = cache()?;
        let home = cache.join(format!("cassandra-{VERSION}"));
        let directory = home.join("lib");
        if !directory.exists() {
            fs::create_dir_all(&cache)
                .with_context(|| format!("cannot make {}", cache.display()))?;
            let lock = File::create(cache.join(format!("cassandra-{VERSION}.lock")))?;
            until(
                "another process fetches Cassandra",
                FETCH_MAX,
                async || match lock.try_lock() {
                    Ok(()) => Ok(()),
                    Err(TryLockError::WouldBlock) => bail!("it still does"),
                    Err(TryLockError::Error(error)) => Err(error.into()),
                },
            )
            .await?;
            // Whoever had the lock before has fetched.
            if !directory.exists() {
                fetch(&cache, &home).await?;
            }
        }
        let agent = find(&directory, AGENT_JAR)?;
        Ok(Self { directory, agent })
    }

    /// For `-cp`: the asterisk is Java's.
    pub fn class_path(&self) -> PathBuf {
        self.directory.join("*")
    }
}

fn cache() -> anyhow::Result<PathBuf> {
    if let Some(cache) = std::env::var_os(CACHE_VARIABLE) {
        return Ok(cache.into());
    }
    let home = std::env::var_os("HOME")
        .with_context(|| format!("neither HOME nor {CACHE_VARIABLE} is set"))?;
    Ok(PathBuf::from(home).join(".cache/herald"))
}

/// Fetches beside the final place and renames, so that what is there is whole.
async fn fetch(cache: &Path, home: &Path) -> anyhow::Result<()> {
    let partial = tempfile::Builder::new()
        .prefix("partial-")
        .tempdir_in(cache)?;
    let pom = POM.replace("@VERSION@", VERSION);
    fs::write(partial.path().join("pom.xml"), pom)?;
    let maven = Command::new("mvn")
        .args(["-B", "-q", "package"])
        .current_dir(partial.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within(FETCH_MAX, async {
        maven
            .await
            .context("cannot start mvn, which fetches Cassandra")
    });
    let output = output.await?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        bail!("mvn could not fetch Cassandra: {}\n{said}", output.status);
    }
    find(&partial.path().join("lib"), MAIN_JAR)?;
    fs::rename(partial.keep(), home).context("cannot put Cassandra into the cache")
}

fn find(directory: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("no jars in {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        let is_it = entry.file_name().to_str().is_some_and(|file| {
            let rest = file.strip_prefix(name).and_then(|it| it.strip_prefix('-'));
            rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        });
        if is_it {
            return Ok(entry.path());
        }
    }
    Err(anyhow!("no {name} in {}: remove it", directory.display()))
}

/// A Java that Cassandra 5.0 runs on: version 17, no other of those in use.
///
/// # Errors
/// There is none.
pub(super) async fn java() -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java"));
    let debian = ["amd64", "arm64"]
        .map(|machine| PathBuf::from(format!("/usr/lib/jvm/java-17-openjdk-{machine}/bin/java")));
    let candidates = home.into_iter().chain([PathBuf::from("java")]);
    for java in candidates.chain(debian) {
        if is_java_17(&java).await.is_ok() {
            return Ok(java);
        }
    }
    bail!("no Java 17, on which Cassandra runs: install openjdk-17-jre-headless")
}

async fn is_java_17(java: &Path) -> anyhow::Result<()> {
    let output = Command::new(java).arg("-version").output().await?;
    // It says `openjdk version "17.0.15" …`, on standard error.
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("version \"17"), "another version");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jar_is_found_by_its_name_and_not_by_the_start_of_another() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["jamm-tools-1.jar", "jammy-1.jar", "jamm-0.4.0.jar"] {
            fs::write(directory.path().join(name), "").expect("written");
        }
        let found = find(directory.path(), AGENT_JAR).expect("found");
        assert_eq!(found, directory.path().join("jamm-0.4.0.jar"));
        assert!(find(directory.path(), MAIN_JAR).is_err());
    }
}
