//! What one recording may cost, and where its decoding may put things.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

/// What decoding one recording may cost. The defaults fit two days of ordinary audio.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Longest recording, in seconds of audio. Default 172 800 (48 hours): more than the 4 GB that a
    /// wav header can name hold at 16 kHz.
    pub max_seconds: f64,
    /// Most samples, all channels counted, that may come out of the codec. It stops small files that unpack without
    /// end at absurd sample rates. Default: 48 hours of 48 kHz in 8 channels.
    pub max_samples: u64,
    /// Address space of an ffmpeg child, in bytes. Default 2 GiB.
    pub ffmpeg_memory: u64,
    /// Processor time of an ffmpeg child. Default 2 hours.
    pub ffmpeg_cpu: Duration,
    /// How long an ffmpeg child may go without producing a sample. Default 120 s.
    pub ffmpeg_stall: Duration,
    /// Free bytes that the copy for ffmpeg has to leave on its disk. Default 64 MB.
    pub keep_free: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_seconds: 172_800.0,
            max_samples: 172_800 * 48_000 * 8,
            ffmpeg_memory: 2 << 30,
            ffmpeg_cpu: Duration::from_secs(2 * 3600),
            ffmpeg_stall: Duration::from_secs(120),
            keep_free: 64_000_000,
        }
    }
}

/// How to decode one recording.
#[derive(Clone, Debug)]
pub struct DecodeOptions {
    /// What errors call the recording, e.g. its file name. Default `the recording`.
    pub name: String,
    /// What it may cost.
    pub limits: Limits,
    /// Folder for the copy that ffmpeg reads; the copy has no name and vanishes with the process. Default: the
    /// system's folder for temporary files. It needs room for the whole recording.
    pub scratch: PathBuf,
    /// The ffmpeg program. Default `ffmpeg`, found through `PATH`.
    pub ffmpeg: PathBuf,
    /// Once true, an ffmpeg child is ended within a quarter of a second, also one that says nothing. Default false.
    pub stopped: Arc<AtomicBool>,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self {
            name: "the recording".to_owned(),
            limits: Limits::default(),
            scratch: std::env::temp_dir(),
            ffmpeg: PathBuf::from("ffmpeg"),
            stopped: Arc::default(),
        }
    }
}
