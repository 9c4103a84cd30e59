//! What the fields of a project must be.

use serde::Deserialize;

use super::{Project, ProjectError};
use crate::clock::Millis;

/// Longest project id, as in DNS labels: ids end up in host names and file names of others.
const PROJECT_ID_CHARS_MAX: usize = 63;
/// Longest name of a project or a service token.
pub const NAME_CHARS_MAX: usize = 128;
/// Longest package name; app stores allow no longer ones.
pub const PACKAGE_NAME_CHARS_MAX: usize = 255;
/// Fingerprints of one project: debug, release and store keys, with room for rotation.
pub const CERTIFICATES_MAX: usize = 16;

const FINGERPRINT_BYTES: usize = 32;

/// What a project is made of, as an operator gives it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewProject {
    /// Its id in paths: 1 to 63 lower-case letters, digits and hyphens, a letter first and no
    /// hyphen last.
    pub project_id: String,
    /// For people; the id when left out.
    pub name: Option<String>,
    /// The app's package name.
    pub package_name: String,
    /// Fingerprints in any spelling, at least one.
    pub cert_sha256: Vec<String>,
}

/// What an operator changes; what is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectChange {
    /// A new name.
    pub name: Option<String>,
    /// A new package name.
    pub package_name: Option<String>,
    /// All fingerprints anew.
    pub cert_sha256: Option<Vec<String>>,
}

pub(super) fn project(new: NewProject, now: Millis) -> Result<Project, ProjectError> {
    check_project_id(&new.project_id)?;
    let given_name = new.name.as_deref().unwrap_or(&new.project_id);
    Ok(Project {
        name: name("name", given_name)?,
        package_name: package_name(new.package_name)?,
        cert_sha256: fingerprints(&new.cert_sha256)?,
        project_id: new.project_id,
        service_tokens: Vec::new(),
        created_at: now,
        version: 1,
        deleted: false,
    })
}

pub(super) fn change(change: ProjectChange) -> Result<ProjectChange, ProjectError> {
    Ok(ProjectChange {
        name: change.name.map(|it| name("name", &it)).transpose()?,
        package_name: change.package_name.map(package_name).transpose()?,
        cert_sha256: change.cert_sha256.map(|it| fingerprints(&it)).transpose()?,
    })
}

/// A name for people, without space around it.
pub(super) fn name(field: &'static str, text: &str) -> Result<String, ProjectError> {
    let text = text.trim();
    let chars = text.chars().count();
    if chars == 0 || chars > NAME_CHARS_MAX {
        let reason = format!("must have 1 to {NAME_CHARS_MAX} characters");
        return Err(ProjectError::Invalid { field, reason });
    }
    if text.chars().any(char::is_control) {
        let reason = "must not hold control characters".to_owned();
        return Err(ProjectError::Invalid { field, reason });
    }
    Ok(text.to_owned())
}

fn check_project_id(text: &str) -> Result<(), ProjectError> {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_good = text.len() <= PROJECT_ID_CHARS_MAX
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(is_inner)
        && !text.ends_with('-');
    if is_good {
        return Ok(());
    }
    Err(ProjectError::Invalid {
        field: "project_id",
        reason: format!(
            "must be 1 to {PROJECT_ID_CHARS_MAX} lower-case letters, digits and hyphens, \
             begin with a letter and not end with a hyphen"
        ),
    })
}

fn package_name(text: String) -> Result<String, ProjectError> {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let is_segment = |segment: &str| {
        segment.starts_with(|first: char| first.is_ascii_alphabetic())
            && segment.bytes().all(is_inner)
    };
    let is_good = text.len() <= PACKAGE_NAME_CHARS_MAX
        && text.contains('.')
        && text.split('.').all(is_segment);
    if is_good {
        return Ok(text);
    }
    Err(ProjectError::Invalid {
        field: "package_name",
        reason: format!(
            "must be two or more parts joined by dots, like com.example.app: each begins with a \
             letter and holds letters, digits, _ and -, at most {PACKAGE_NAME_CHARS_MAX} in all"
        ),
    })
}

fn fingerprints(texts: &[String]) -> Result<Vec<String>, ProjectError> {
    let invalid = |reason: String| ProjectError::Invalid {
        field: "cert_sha256",
        reason,
    };
    if texts.is_empty() || texts.len() > CERTIFICATES_MAX {
        return Err(invalid(format!(
            "must hold 1 to {CERTIFICATES_MAX} fingerprints"
        )));
    }
    let mut canonical = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let fingerprint = canonical_fingerprint(text).ok_or_else(|| {
            invalid(format!(
                "entry {index} must be a SHA-256 fingerprint: {FINGERPRINT_BYTES} pairs of hex \
                 digits, with colons between all of them or none"
            ))
        })?;
        if !canonical.contains(&fingerprint) {
            canonical.push(fingerprint);
        }
    }
    Ok(canonical)
}

/// A SHA-256 fingerprint as upper-case hex pairs joined by colons, from any case, with or without
/// colons; `None` if it is none.
#[must_use]
pub fn canonical_fingerprint(text: &str) -> Option<String> {
    let joined = match text.len() {
        len if len == FINGERPRINT_BYTES * 2 => text.to_owned(),
        len if len == FINGERPRINT_BYTES * 3 - 1 => {
            let pairs: Vec<&str> = text.split(':').collect();
            let all_pairs = pairs.iter().all(|pair| pair.len() == 2);
            all_pairs.then(|| pairs.concat())?
        }
        _ => return None,
    };
    if !joined.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut canonical = String::with_capacity(FINGERPRINT_BYTES * 3);
    for (index, digit) in joined.to_ascii_uppercase().char_indices() {
        if index > 0 && index % 2 == 0 {
            canonical.push(':');
        }
        canonical.push(digit);
    }
    Some(canonical)
}
