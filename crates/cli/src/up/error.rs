//! Why the local stack could not do what was asked.

use std::{io, path::PathBuf};

use warren_local::LocalError;

/// Something to tell the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpError {
    /// A program or file that must be there is not; exit code 2.
    #[error("{0}")]
    Prerequisite(String),
    /// The options contradict what is there; exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Nothing was ever started in this folder; exit code 2.
    #[error("there is no stack in {0}; start one with: warren up --data {0:?}")]
    NoStack(PathBuf),
    /// Parts did not become ready.
    #[error("{0}")]
    NotReady(String),
    /// A service refuses its settings; exit code 2.
    #[error("{0}")]
    Settings(String),
    /// A signal came while something was waited for; exit code 130.
    #[error("interrupted")]
    Interrupted,
    /// A file, port or process could not be used.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with its path.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl UpError {
    /// The exit code of the command line's contract.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Prerequisite(_) | Self::Usage(_) | Self::NoStack(_) | Self::Settings(_) => 2,
            Self::Interrupted => 130,
            Self::NotReady(_) | Self::Io { .. } => 1,
        }
    }

    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

impl From<LocalError> for UpError {
    fn from(error: LocalError) -> Self {
        match error {
            LocalError::Missing { .. } => Self::Prerequisite(error.to_string()),
            LocalError::Io { what, source } => Self::Io { what, source },
            LocalError::NotReady { .. } => Self::NotReady(error.to_string()),
        }
    }
}
