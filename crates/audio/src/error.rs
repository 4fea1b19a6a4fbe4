//! Everything that can go wrong between bytes and samples, and who is to blame.

use std::{io, path::PathBuf, time::Duration};

use warren_fault::{Code, Fault};

use crate::NotAudio;

/// Why a recording could not be decoded. [`AudioError::fault`] says what becomes of the work.
#[derive(Debug, thiserror::Error)]
pub enum AudioError {
    /// The content is no known audio or video format.
    #[error("{name} {reason}")]
    NotAudio {
        /// The recording.
        name: String,
        /// What it looks like instead.
        reason: NotAudio,
    },
    /// The format is known, and there is not one sample in it.
    #[error("{name} ({format}) holds no audio")]
    NoAudio {
        /// The recording.
        name: String,
        /// What it claims to be, e.g. `wav`.
        format: String,
    },
    /// Nothing of it can be decoded.
    #[error("{name} ({format}) cannot be decoded: {reason}")]
    Damaged {
        /// The recording.
        name: String,
        /// What it claims to be, e.g. `mp3`.
        format: String,
        /// What the decoder said.
        reason: String,
    },
    /// More seconds than [`Limits::max_seconds`](crate::Limits::max_seconds).
    #[error("{name} is longer than the limit of {limit_seconds} s")]
    TooLong {
        /// The recording.
        name: String,
        /// The limit.
        limit_seconds: f64,
    },
    /// More samples than [`Limits::max_samples`](crate::Limits::max_samples).
    #[error("{name} unpacks to more than the limit of {limit_samples} samples")]
    TooManySamples {
        /// The recording.
        name: String,
        /// The limit.
        limit_samples: u64,
    },
    /// Only ffmpeg can decode it, and there is none.
    #[error(
        "{name} ({format}) needs ffmpeg, and the program {program:?} is not there: install the package `ffmpeg` on \
         this machine"
    )]
    FfmpegMissing {
        /// The recording.
        name: String,
        /// What it is, e.g. `ogg/opus`.
        format: String,
        /// The program that was looked for.
        program: PathBuf,
    },
    /// ffmpeg was there but could not be run.
    #[error("ffmpeg could not be run: {0}")]
    FfmpegBroken(String),
    /// ffmpeg produced nothing for too long and was killed.
    #[error("ffmpeg produced no audio of {name} for {} s and was stopped", waited.as_secs())]
    FfmpegStalled {
        /// The recording.
        name: String,
        /// [`Limits::ffmpeg_stall`](crate::Limits::ffmpeg_stall).
        waited: Duration,
    },
    /// Nobody wants it any more.
    #[error("decoding {name} was stopped")]
    Stopped {
        /// The recording.
        name: String,
    },
    /// ffmpeg wanted more memory than it may have.
    #[error("ffmpeg needs more than the allowed {} MB of memory for {name}", limit_bytes / 1_000_000)]
    FfmpegMemory {
        /// The recording.
        name: String,
        /// [`Limits::ffmpeg_memory`](crate::Limits::ffmpeg_memory).
        limit_bytes: u64,
    },
    /// The disk has no room for the copy that ffmpeg reads. Nothing was written.
    #[error(
        "the copy for ffmpeg takes {} MB, and {} MB have to stay free; {folder:?} has {} MB: make room there, or name \
         another folder in `prepare.scratch`", needed_bytes / 1_000_000, keep_free_bytes / 1_000_000,
        free_bytes / 1_000_000
    )]
    NoRoom {
        /// The folder for such copies.
        folder: PathBuf,
        /// Size of the copy.
        needed_bytes: u64,
        /// [`Limits::keep_free`](crate::Limits::keep_free).
        keep_free_bytes: u64,
        /// What is free.
        free_bytes: u64,
    },
    /// The source could not be read. Says nothing about the recording itself.
    #[error("reading {name} failed: {error}")]
    Read {
        /// The recording.
        name: String,
        /// What the source said.
        error: io::Error,
    },
    /// The copy for ffmpeg could not be written.
    #[error("the scratch copy in {folder:?} could not be written: {error}")]
    Scratch {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl AudioError {
    /// The documented code.
    pub fn code(&self) -> Code {
        match self {
            Self::NotAudio { .. } | Self::NoAudio { .. } | Self::Damaged { .. } => Code::InputInvalid,
            Self::TooLong { .. } | Self::TooManySamples { .. } => Code::InputTooLong,
            Self::FfmpegMissing { .. } | Self::FfmpegBroken(_) | Self::FfmpegStalled { .. } => Code::Internal,
            Self::Stopped { .. } => Code::Cancelled,
            Self::FfmpegMemory { .. } => Code::OutOfMemory,
            Self::Read { .. } => Code::BlobUnavailable,
            Self::NoRoom { .. } => Code::InsufficientDisk,
            Self::Scratch { error, .. } if is_full(error) => Code::InsufficientDisk,
            Self::Scratch { .. } => Code::Internal,
        }
    }

    /// What becomes of the work: a bad recording fails the job; trouble with the source, the disk or ffmpeg is retried,
    /// as another worker may have none.
    pub fn fault(&self) -> Fault {
        let (code, message) = (self.code(), self.to_string());
        match self {
            Self::NoRoom { .. } => Fault::retry_later(code, message),
            Self::Scratch { error, .. } if is_full(error) => Fault::retry_later(code, message),
            Self::Read { .. }
            | Self::Stopped { .. }
            | Self::Scratch { .. }
            | Self::FfmpegMissing { .. }
            | Self::FfmpegBroken(_)
            | Self::FfmpegStalled { .. } => Fault::retryable(code, message),
            Self::NotAudio { .. }
            | Self::NoAudio { .. }
            | Self::Damaged { .. }
            | Self::TooLong { .. }
            | Self::TooManySamples { .. }
            | Self::FfmpegMemory { .. } => Fault::permanent(code, message),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
