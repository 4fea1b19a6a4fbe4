//! Why there are no recordings.

use std::{
    io,
    path::{Path, PathBuf},
};

use warren_audio::AudioError;

/// Recordings cannot be had or used.
#[derive(Debug, thiserror::Error)]
pub enum RecordingsError {
    /// No recording has this name.
    #[error("no recording `{name}`; there are {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names there are, with commas.
        known: String,
    },
    /// A program that fetches packages is not here.
    #[error("{program} cannot be run ({source}); install {install}, then try again")]
    Program {
        /// Which.
        program: String,
        /// What to install.
        install: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A registry gave nothing, or something else than asked for.
    #[error(
        "recordings of package {package}: {reason}; check the network and any proxy, then run the same command again"
    )]
    Source {
        /// The package and its version.
        package: String,
        /// What was tried and what came of it.
        reason: String,
    },
    /// A recording does not decode, or there is none to join.
    #[error("{path}: {reason}")]
    Sound {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A file or folder cannot be read or written.
    #[error("{path}: {source}; check that the folder can be written and has space, then try again")]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl RecordingsError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn sound(path: &Path) -> impl FnOnce(AudioError) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::Sound { path, reason: error.to_string() }
    }
}
