//! A disk whose syncs stall and fail when a test wants it: a preloaded library of thirty lines.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::ServerOptions;

/// The disk of one server. Good until it is told otherwise.
pub struct FaultyDisk {
    orders: TempDir,
}

impl FaultyDisk {
    /// A disk that still works.
    pub fn new() -> Self {
        Self {
            orders: tempfile::tempdir().expect("a directory for orders"),
        }
    }

    /// Options of a server that writes to this disk.
    pub fn options(&self, mut settings: Vec<(&'static str, String)>) -> ServerOptions {
        let text = |path: &Path| path.to_str().expect("a path of UTF-8").to_owned();
        settings.push(("LD_PRELOAD", text(library())));
        settings.push(("FAULTY_DISK", text(self.orders.path())));
        ServerOptions { settings }
    }

    /// From now on a sync does not come back.
    pub fn stall(&self) {
        std::fs::write(self.orders.path().join("stall"), "").expect("ordered");
    }

    /// From now on a sync fails.
    pub fn fail(&self) {
        std::fs::write(self.orders.path().join("fail"), "").expect("ordered");
    }

    /// Stalled syncs go on.
    pub fn resume(&self) {
        std::fs::remove_file(self.orders.path().join("stall")).expect("it was stalled");
    }

    /// Syncs work again.
    pub fn mend(&self) {
        std::fs::remove_file(self.orders.path().join("fail")).expect("it was failing");
    }
}

/// The library, compiled once for a test process with the compiler that links Rust.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        std::fs::create_dir_all(directory).expect("a directory for the library");
        // A name of its own: another test process may have the last one's mapped.
        let library = directory.join(format!("faulty_disk_{}.so", std::process::id()));
        let source = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/scenarios/harness/faulty_disk.c"
        );
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .arg(source)
            .status();
        assert!(compiled.expect("a C compiler").success());
        library
    })
}
