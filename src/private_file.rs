//! Files with secrets in them: for their owner only, and whole or not there.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// What the owner may do: read and write. Nobody else may anything.
const OWNER_ONLY: u32 = 0o600;

/// Replaces a file, so that a reader sees the old text or the new one and a crash leaves one of
/// them.
///
/// # Errors
/// The file system's.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(OWNER_ONLY)
        .open(beside)?;
    // A leftover of an earlier crash keeps the mode it had.
    file.set_permissions(Permissions::from_mode(OWNER_ONLY))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(beside, path)?;
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => File::open(directory)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Reads a file; `None` if there is none. One that others may read is closed to them first.
///
/// # Errors
/// The file system's.
pub fn read(path: &Path) -> io::Result<Option<String>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mode = std::fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "a file with secrets was open to others");
        std::fs::set_permissions(path, Permissions::from_mode(OWNER_ONLY))?;
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        let metadata = std::fs::metadata(path).expect("a file");
        metadata.permissions().mode() & 0o777
    }

    #[test]
    fn what_is_written_is_for_its_owner_only() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("secret");
        assert_eq!(read(&path).expect("no error"), None);
        for text in ["one", "two"] {
            write(&path, text).expect("written");
            assert_eq!(mode(&path), OWNER_ONLY);
            assert_eq!(read(&path).expect("read").as_deref(), Some(text));
        }
    }

    #[test]
    fn a_file_that_was_open_to_others_is_closed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("secret");
        write(&path, "one").expect("written");
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("opened");
        read(&path).expect("read");
        assert_eq!(mode(&path), OWNER_ONLY);
    }

    #[test]
    fn a_leftover_with_a_looser_mode_does_not_leak_into_the_new_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("secret");
        let beside = directory.path().join("secret.new");
        std::fs::write(&beside, "old").expect("a leftover");
        std::fs::set_permissions(&beside, Permissions::from_mode(0o666)).expect("opened");
        write(&path, "new").expect("written");
        assert_eq!(mode(&path), OWNER_ONLY);
        assert_eq!(read(&path).expect("read").as_deref(), Some("new"));
    }
}
