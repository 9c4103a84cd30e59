//! What a device must remember between runs, and a file to keep it in.

use std::fmt;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::SdkError;

/// Who the device is. Whoever has it reads the device's pushes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Public.
    pub device_id: String,
    /// Secret.
    pub device_secret: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Credential({})", self.device_id)
    }
}

/// One token of the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenState {
    /// The project that may send to it.
    pub project_id: String,
    /// The push token.
    pub token: String,
    /// Every syn up to here is done with.
    #[serde(default)]
    pub acked: u64,
}

/// Everything that must outlive the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceState {
    /// Who the device is.
    pub credential: Credential,
    /// Its tokens.
    #[serde(default)]
    pub tokens: Vec<TokenState>,
}

impl DeviceState {
    /// The state of a device that has just registered.
    #[must_use]
    pub fn new(credential: Credential) -> Self {
        Self {
            credential,
            tokens: Vec::new(),
        }
    }

    /// Reads a state file; `None` when there is none yet.
    ///
    /// # Errors
    /// When the file cannot be read or does not hold a state: it is left alone then, so that no
    /// identity is lost to a slip.
    pub fn load(path: &Path) -> Result<Option<Self>, SdkError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fault(path, error)),
        };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| fault(path, format!("does not hold a device's state: {error}")))
    }

    /// Writes the state so that a crash leaves the old file or the new one, readable by its owner
    /// only (it holds a secret).
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), SdkError> {
        let text = serde_json::to_vec_pretty(self).map_err(|error| fault(path, error))?;
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let fresh = Path::new(&name);
        let write = || {
            let mut file = create_private(fresh)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(fresh, path)
        };
        write().map_err(|error| fault(path, error))
    }
}

fn create_private(path: &Path) -> std::io::Result<fs::File> {
    // A left-over of a crash may have any mode: begin with no file at all.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn fault(path: &Path, reason: impl fmt::Display) -> SdkError {
    SdkError::StateFile {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> DeviceState {
        let mut state = DeviceState::new(Credential {
            device_id: "d".into(),
            device_secret: "very-secret".into(),
        });
        state.tokens.push(TokenState {
            project_id: "demo".into(),
            token: "t".into(),
            acked: 17,
        });
        state
    }

    #[test]
    fn a_saved_state_loads_again_and_is_private() {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let path = directory.path().join("device.json");
        assert_eq!(DeviceState::load(&path).expect("no file is fine"), None);
        for _ in 0..2 {
            state().save(&path).expect("saves");
        }
        assert_eq!(DeviceState::load(&path).expect("loads"), Some(state()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(&path).expect("is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_file_that_is_no_state_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let path = directory.path().join("device.json");
        fs::write(&path, "{\"credential\":").expect("writes");
        assert!(matches!(
            DeviceState::load(&path),
            Err(SdkError::StateFile { .. })
        ));
        assert_eq!(
            fs::read_to_string(&path).expect("is there"),
            "{\"credential\":"
        );
    }

    #[test]
    fn secrets_stay_out_of_debug_output() {
        assert!(!format!("{:?}", state()).contains("very-secret"));
    }
}
