//! What a job may put on disk while its recording is prepared.

use warren_fault::{Cause, Code};
use warren_worker::Stopped;

/// Bytes of PCM for a second of sound, at 16 kHz and 16 bits.
const PCM_PER_SECOND: f64 = 32_000.0;

/// The job's own limit. The default is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskLimit {
    /// Bytes; 0: no limit.
    allowed: u64,
    /// Bytes of the recording, which ffmpeg needs a copy of.
    recording: u64,
}

impl DiskLimit {
    /// `megabytes` for a recording of `size` bytes.
    pub(crate) fn new(megabytes: u32, size: i64) -> Self {
        Self { allowed: u64::from(megabytes) * 1_000_000, recording: u64::try_from(size).unwrap_or(0) }
    }

    /// Asked with the length that the recording claims before any of it is stored, and with what was found on the way.
    ///
    /// # Errors
    /// `InsufficientDisk` with the arithmetic.
    pub(crate) fn allows(&self, copied: bool, seconds: f64) -> Result<(), Stopped> {
        let copy = if copied { self.recording } else { 0 };
        let pcm = (seconds.max(0.0) * PCM_PER_SECOND) as u64;
        if self.allowed == 0 || copy.saturating_add(pcm) <= self.allowed {
            return Ok(());
        }
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let message = format!(
            "{seconds:.0} s of sound take {:.1} MB and the copy for ffmpeg {:.1}; the job's max_disk_mb is {:.0}",
            megabytes(pcm),
            megabytes(copy),
            megabytes(self.allowed)
        );
        Err(Stopped::OverLimit(Cause::new(Code::InsufficientDisk, message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_and_copy_count_together() {
        let limit = DiskLimit::new(2, 500_000);
        assert_eq!(limit.allows(false, 62.0), Ok(()));
        let Err(Stopped::OverLimit(cause)) = limit.allows(true, 62.0) else { panic!("too much") };
        assert_eq!(cause.code, Code::InsufficientDisk);
        assert!(cause.message.starts_with("62 s of sound take 2.0 MB and the copy for ffmpeg 0.5;"), "{cause}");
        assert_eq!(DiskLimit::default().allows(true, 1e9), Ok(()), "no limit");
    }
}
