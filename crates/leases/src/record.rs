//! The worker's own evidence of when it used a device.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
};

use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// Nanoseconds on the machine's monotonic clock, which all processes of a machine share.
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has a monotonic clock");
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec()).unwrap_or(0)
}

/// One forward pass.
#[derive(Debug, Serialize)]
pub(crate) struct PassLine<'a> {
    pub(crate) worker: &'a str,
    pub(crate) device: &'a str,
    pub(crate) model: &'a str,
    pub(crate) fence: u64,
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
}

/// Appends one JSON line for each pass.
#[derive(Debug)]
pub(crate) struct Record(Mutex<File>);

impl Record {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Mutex::new(OpenOptions::new().create(true).append(true).open(path)?)))
    }

    pub(crate) fn write(&self, line: &PassLine<'_>) {
        let mut text = serde_json::to_string(line).expect("numbers and strings always serialise");
        text.push('\n');
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One write of a whole line, so that a kill leaves no half line behind.
        if let Err(error) = file.write_all(text.as_bytes()) {
            tracing::error!(%error, "leases.record: a line could not be written");
        }
    }
}
