//! What is wrong with a configuration, in the words of whoever wrote it.

use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The setting's full name, or the file.
    pub key: String,
    /// Which layer said it; empty when no single one did.
    pub origin: String,
    /// What is wrong with it. Never repeats a secret.
    pub message: String,
}

impl Mistake {
    /// A mistake of no particular layer.
    pub(super) fn of(key: &str, message: impl Into<String>) -> Self {
        Self::at(key, "", message)
    }

    /// A mistake of one layer.
    pub(super) fn at(key: &str, origin: &str, message: impl Into<String>) -> Self {
        Self {
            key: key.to_owned(),
            origin: origin.to_owned(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin.is_empty() {
            write!(formatter, "{}: {}", self.key, self.message)
        } else {
            write!(
                formatter,
                "{} ({}): {}",
                self.key, self.origin, self.message
            )
        }
    }
}

/// Everything that is wrong, at least one thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    pub(super) fn none_or(mistakes: Vec<Mistake>) -> Result<(), Self> {
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(Self(mistakes))
        }
    }

    /// The mistakes, in the order in which they were found.
    #[must_use]
    pub fn list(&self) -> &[Mistake] {
        &self.0
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(formatter, "the configuration has a mistake:\n  {one}"),
            many => {
                write!(formatter, "the configuration has {} mistakes:", many.len())?;
                many.iter()
                    .try_for_each(|mistake| write!(formatter, "\n  {mistake}"))
            }
        }
    }
}
