//! What can go wrong with models, and what that means for the work in hand.

use std::{io, path::PathBuf};

use warren_fault::{Code, Fault};

/// A model cannot be used, or could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// No model of this name or alias is in the catalogue.
    #[error("no model `{name}`; there are {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names there are, with commas.
        known: String,
    },
    /// The weights are not in the cache.
    #[error("model `{model}` is not in {cache}; fetch it with `warren models pull {model}`")]
    Missing {
        /// The model.
        model: String,
        /// The cache's folder.
        cache: PathBuf,
    },
    /// A file differs from what was written, or is not what it claims to be.
    #[error("model `{model}`: {file}: {reason}; mend it with `warren models pull --force {model}`")]
    Corrupt {
        /// The model.
        model: String,
        /// The file, by name.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The disk is too full.
    #[error("not enough disk space: {needed} bytes are needed in {folder}, {free} are free")]
    Disk {
        /// Bytes that the work needs.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// Where.
        folder: PathBuf,
    },
    /// No source gave the model.
    #[error("model `{model}` could not be fetched: {}", tried.join("; "))]
    Sources {
        /// The model.
        model: String,
        /// What each source said, in order.
        tried: Vec<String>,
    },
    /// The catalogue contradicts itself.
    #[error("catalogue: {0}")]
    Catalogue(String),
    /// A file or folder cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ModelError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// The documented code.
    pub fn code(&self) -> Code {
        match self {
            Self::Unknown { .. } => Code::ModelUnknown,
            Self::Missing { .. } | Self::Sources { .. } => Code::ModelMissing,
            Self::Corrupt { .. } => Code::ModelCorrupt,
            Self::Disk { .. } => Code::InsufficientDisk,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => Code::InsufficientDisk,
            Self::Catalogue(_) | Self::Io { .. } => Code::Internal,
        }
    }

    /// What the failure means for the work in hand: weights that are missing or damaged are the platform's fault, and
    /// an operator mends them while the work waits.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unknown { .. } | Self::Catalogue(_) => Fault::permanent(self.code(), self.to_string()),
            Self::Io { .. } => Fault::retryable(self.code(), self.to_string()),
            Self::Missing { .. } | Self::Sources { .. } | Self::Corrupt { .. } | Self::Disk { .. } => {
                Fault::retry_later(self.code(), self.to_string())
            }
        }
    }
}
