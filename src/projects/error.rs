//! What can keep a project from being what was asked for.

use thiserror::Error;

use super::SERVICE_TOKENS_MAX;
use crate::store::StoreError;

/// Why a project is not what was asked for.
#[derive(Debug, Clone, Error)]
pub enum ProjectError {
    /// A field breaks a rule.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field's name in requests.
        field: &'static str,
        /// What it must be.
        reason: String,
    },
    /// The id is taken, perhaps by a project that was deleted.
    #[error("the project id {0} is taken, or was once given to a deleted project")]
    AlreadyExists(String),
    /// No such project.
    #[error("there is no project {0}")]
    NotFound(String),
    /// No such service token.
    #[error("the project has no service token {0}")]
    ServiceTokenNotFound(String),
    /// The project has [`SERVICE_TOKENS_MAX`] of them.
    #[error("the project has {SERVICE_TOKENS_MAX} service tokens, delete one first")]
    TooManyServiceTokens,
    /// Others changed the project at every attempt.
    #[error("the project is being changed by others, try again")]
    Contended,
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}
