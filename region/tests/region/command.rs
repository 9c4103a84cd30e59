//! The `region` command: what it prints, how it ends, and that nothing of it is left.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{eventually, processes_with};

struct Running {
    process: Child,
    /// The first three numbers of all its addresses.
    network: String,
    directory: PathBuf,
}

fn region(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_region"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// A small region that has said where it is.
fn start() -> Running {
    let small = ["--without-herald", "--redis-replicas=1", "--cql-nodes=1"];
    let mut process = region(&small)
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let output = process.stdout.take().expect("its output");
    let mut network = String::new();
    let mut urls = 0;
    for line in BufReader::new(output).lines() {
        let line = line.expect("a line");
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("redis"), Some(url)) => {
                urls += 1;
                let address = url.strip_prefix("redis://").expect("a URL");
                let (before, _) = address.rsplit_once('.').expect("an address");
                network = format!("{before}.");
            }
            (Some("data"), Some(directory)) => {
                assert_eq!(urls, 6);
                return Running {
                    process,
                    network,
                    directory: directory.into(),
                };
            }
            _ => {}
        }
    }
    panic!("the region said nothing of where it is");
}

impl Running {
    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.process.id()).expect("a process id");
        kill(Pid::from_raw(id), signal).expect("signalled");
    }

    fn assert_complete(&self) {
        let redis = processes_with(&self.network);
        assert_eq!(redis.len(), 6, "{redis:?}");
        let name = self.directory.to_str().expect("a path");
        assert!(!processes_with(name).is_empty());
        assert!(self.directory.join("cql-0").exists());
    }

    fn assert_gone(&self) {
        eventually("Redis is gone", || processes_with(&self.network).is_empty());
        // Java, and the shell that removes the directory.
        let name = self.directory.to_str().expect("a path");
        eventually("all is gone", || processes_with(name).is_empty());
        assert!(!self.directory.exists());
    }
}

#[test]
fn a_region_that_is_killed_leaves_nothing() {
    let mut region = start();
    region.assert_complete();
    region.signal(Signal::SIGKILL);
    region.process.wait().expect("ended");
    region.assert_gone();
}

#[test]
fn a_region_that_is_told_to_end_ends_well_and_leaves_nothing() {
    let mut region = start();
    region.assert_complete();
    region.signal(Signal::SIGTERM);
    let status = region.process.wait().expect("ended");
    assert_eq!(status.code(), Some(0));
    region.assert_gone();
}

#[test]
fn what_is_wrong_is_said_with_an_exit_code() {
    let run = |arguments: &[&str]| -> (Option<i32>, String) {
        let Output { status, stderr, .. } = region(arguments).output().expect("run");
        (status.code(), String::from_utf8_lossy(&stderr).into_owned())
    };
    let (code, said) = run(&["--nodes", "none"]);
    assert_eq!(code, Some(64), "{said}");
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("file"), "x").expect("written");
    let path = directory.path().to_str().expect("a path");
    let (code, said) = run(&["--without-herald", "--data", path]);
    assert_eq!(code, Some(70), "{said}");
    assert!(said.contains("not empty"), "{said}");
}
