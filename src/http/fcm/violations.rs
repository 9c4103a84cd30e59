//! What is wrong with a body, place by place: collected while it is read, answered all at once.

use std::fmt;

use super::schema::TypeLabel;
use crate::http::error::{ApiError, FieldViolation};

/// Faults that one answer names. A body of the largest size could hold thousands, and an answer
/// should not be many times its question.
const VIOLATIONS_MAX: usize = 1_000;

/// Bytes of a wrong value that an answer quotes.
const QUOTED_BYTES_MAX: usize = 256;

/// A place in the body. Costs nothing until it is printed.
#[derive(Debug, Clone, Copy)]
pub enum Path<'p> {
    /// The body itself.
    Root,
    /// A field of an object.
    Field(&'p Path<'p>, &'static str),
    /// An item of a list or an entry of a map.
    Item(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => formatter.write_str(name),
            Self::Field(parent, name) => write!(formatter, "{parent}.{name}"),
            Self::Item(parent, index) => write!(formatter, "{parent}[{index}]"),
        }
    }
}

/// The faults found so far.
#[derive(Debug, Default)]
pub struct Violations(Vec<FieldViolation>);

impl Violations {
    /// A name that cannot be read, in the object at `path`.
    pub fn unusable_name(&mut self, path: &Path<'_>, name: &str, reason: &str) {
        let place = match path {
            Path::Root => String::new(),
            _ => format!(" at '{path}'"),
        };
        self.push(path, || {
            format!("Invalid JSON payload received. Unknown name \"{name}\"{place}: {reason}")
        });
    }

    /// A value that is not of its field's type.
    pub fn wrong_value(&mut self, path: &Path<'_>, label: TypeLabel, value: &str) {
        self.push(path, || {
            format!("Invalid value at '{path}' ({label}), {}", quoted(value))
        });
    }

    /// A second field of a group of which only one may be set.
    pub fn second_of_oneof(&mut self, path: &Path<'_>, group: &str, name: &str) {
        self.push(path, || {
            format!(
                "Invalid value at '{path}' (oneof), oneof field '{group}' is already set. \
                 Cannot set '{name}'"
            )
        });
    }

    fn push(&mut self, path: &Path<'_>, description: impl FnOnce() -> String) {
        if self.0.len() >= VIOLATIONS_MAX {
            return;
        }
        self.0.push(match path {
            Path::Root => FieldViolation::of_request(description()),
            _ => FieldViolation::new(path.to_string(), description()),
        });
    }

    /// Whether there is no room for more.
    pub fn is_full(&self) -> bool {
        self.0.len() >= VIOLATIONS_MAX
    }

    /// The answer, if anything is wrong.
    ///
    /// # Errors
    /// All that was found.
    pub fn into_result(self) -> Result<(), ApiError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(ApiError::schema_mismatch(self.0))
        }
    }
}

fn quoted(value: &str) -> &str {
    if value.len() <= QUOTED_BYTES_MAX {
        return value;
    }
    let end = value.floor_char_boundary(QUOTED_BYTES_MAX);
    value.get(..end).unwrap_or_default()
}
