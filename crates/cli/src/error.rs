//! What went wrong, for a person, with the exit code of the contract.

use tonic::Status;
use tonic_types::StatusExt as _;

use crate::up::UpError;

/// Ends a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// Wrong usage, or something that must be there is not.
    #[error("{0}")]
    Usage(String),
    /// The server did not answer for a minute.
    #[error("{0}")]
    OutOfReach(String),
    /// The server answered with a refusal.
    #[error("{message}")]
    Refused {
        /// A documented code.
        code: String,
        /// For people.
        message: String,
    },
    /// Some of the work failed; what and why was printed already.
    #[error("some of it failed")]
    Failed,
    /// Nobody reads the results any more.
    #[error("nobody reads the results any more")]
    Closed,
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// The local stack.
    #[error(transparent)]
    Up(#[from] UpError),
    /// A file of this machine.
    #[error("{what}: {source}")]
    File {
        /// Which, and what was tried.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl CliError {
    /// 0 all succeeded, 1 some job failed, 2 wrong usage or missing prerequisite, 3 out of reach, 130 interrupted, 141
    /// as if ended by SIGPIPE.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::OutOfReach(_) => 3,
            Self::Refused { .. } | Self::Failed | Self::File { .. } => 1,
            Self::Interrupted => 130,
            Self::Closed => 141,
            Self::Up(error) => error.exit_code(),
        }
    }

    /// The documented code and the sentence of it, for `--json`.
    pub(crate) fn code_and_message(&self) -> (String, String) {
        let code = match self {
            Self::Refused { code, .. } => code.clone(),
            Self::OutOfReach(_) => "OutOfReach".to_owned(),
            Self::Usage(_) | Self::File { .. } => "InputInvalid".to_owned(),
            Self::Interrupted | Self::Up(UpError::Interrupted) => "Interrupted".to_owned(),
            // There is no server to talk to.
            Self::Up(UpError::NoStack(_)) => "OutOfReach".to_owned(),
            Self::Up(UpError::Prerequisite(_) | UpError::Usage(_)) => "InputInvalid".to_owned(),
            Self::Failed | Self::Closed | Self::Up(_) => "Internal".to_owned(),
        };
        (code, self.to_string())
    }

    /// A file named on the command line that cannot be read.
    pub(crate) fn unreadable(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Usage(format!("{what}: {source}"))
    }

    /// A file of this machine that could not be used.
    pub(crate) fn file(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::File { what, source }
    }
}

impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        let reason = status.get_details_error_info().map(|info| info.reason);
        let code = reason.unwrap_or_else(|| format!("{:?}", status.code()));
        Self::Refused { code, message: status.message().to_owned() }
    }
}
