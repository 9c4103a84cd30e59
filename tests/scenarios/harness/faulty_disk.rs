//! A disk whose syncs stall and fail when a test wants it, and a clock that jumps: a small preloaded
//! library.

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
        let orders = tempfile::tempdir().expect("a directory for orders");
        std::fs::create_dir(orders.path().join("synced")).expect("a directory for notes");
        Self { orders }
    }

    /// The library that makes a disk faulty, and more: see its source.
    pub fn library() -> &'static Path {
        library()
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

    /// From now on each sync takes its time.
    pub fn slow_down(&self) {
        std::fs::write(self.orders.path().join("slow"), "").expect("ordered");
    }

    /// From now on a sync fails.
    pub fn fail(&self) {
        std::fs::write(self.orders.path().join("fail"), "").expect("ordered");
    }

    /// Stalled syncs go on.
    pub fn resume(&self) {
        std::fs::remove_file(self.orders.path().join("stall")).expect("it was stalled");
    }

    /// From now on nothing more can be written to a file.
    pub fn fill(&self) {
        std::fs::write(self.orders.path().join("full"), "").expect("ordered");
    }

    /// From now on the server's clock is so far from the true one.
    pub fn move_clock(&self, by_ms: i64) {
        // Renamed into place: whoever reads it reads all of it.
        let (new, clock) = (
            self.orders.path().join("new"),
            self.orders.path().join("clock"),
        );
        std::fs::write(&new, by_ms.to_string()).expect("ordered");
        std::fs::rename(new, clock).expect("ordered");
    }

    /// What a power failure leaves of a directory whose writer is gone: of every file what was synced,
    /// and `torn` bytes more of what was not. The rest reads as zeros.
    pub fn cut_power(&self, directory: &Path, torn: u64) {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                self.cut_power(&path, torn);
            } else {
                self.cut_file(&path, torn);
            }
        }
    }

    fn cut_file(&self, path: &Path, torn: u64) {
        use std::os::unix::fs::MetadataExt as _;
        let file = std::fs::File::options().write(true).open(path);
        let file = file.expect("a file of the server's");
        let what = file.metadata().expect("its length");
        let note = self
            .orders
            .path()
            .join("synced")
            .join(what.ino().to_string());
        let synced: u64 = std::fs::read_to_string(&note)
            .ok()
            .and_then(|note| note.parse().ok())
            .unwrap_or(0);
        let kept = (synced + torn).min(what.len());
        file.set_len(kept).expect("cut");
        file.set_len(what.len()).expect("as long as before");
        // What has outlived one failure is on the disk, and outlives the next.
        std::fs::write(note, format!("{kept:020}")).expect("noted");
    }

    /// A good disk again, whatever was wrong.
    pub fn mend_everything(&self) {
        for order in ["stall", "slow", "fail", "full"] {
            // It need not have been ordered.
            let _ = std::fs::remove_file(self.orders.path().join(order));
        }
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
