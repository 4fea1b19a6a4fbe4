//! The blocking half of `prepare`: bytes of a recording in, parts out.

use tokio::sync::mpsc;
use warren_audio::{AudioError, Cutter, DecodeOptions, Decoder, SAMPLE_RATE, Source};
use warren_blob::BlobError;
use warren_fault::Fault;
use warren_leases::{Dropped, TaskInHand};
use warren_worker::Stopped;

use crate::{
    disk::DiskLimit,
    parts::{Part, Parts},
};

/// What was decoded.
#[derive(Debug, PartialEq)]
pub(crate) struct Decoded {
    /// Length of the recording, at 16 kHz.
    pub samples: u64,
    /// What it was, e.g. `mp3, 44100 Hz, 2 channels`.
    pub format: String,
    /// Seconds into the recording of the first damage, where there is any.
    pub damaged_at: Option<f64>,
}

/// Decodes `source` to the end and sends its parts, in order. Memory does not grow with the recording: one part is
/// stored, one waits in the channel and one to get into it, before the next is begun. Stops within a second
/// of audio when the task is dropped, or nobody takes the parts any more.
///
/// # Errors
/// [`Stopped`]: dropped, or the recording or its storage is at fault.
pub(crate) fn decode(
    source: impl Source + 'static,
    options: &DecodeOptions,
    disk: &DiskLimit,
    task: &TaskInHand,
    parts: &mpsc::Sender<Part>,
) -> Result<Decoded, Stopped> {
    let mut decoder = Decoder::open(source, options).map_err(fault)?;
    let copied = decoder.format().ffmpeg;
    disk.allows(copied, decoder.declared_seconds().unwrap_or_default())?;
    let (mut cutter, mut joined) = (Cutter::new(), Parts::default());
    let send = |part: Part| parts.blocking_send(part).map_err(|_| Stopped::Dropped(Dropped::Cancelled));
    while let Some(block) = decoder.next_block().map_err(fault)? {
        if let Some(dropped) = task.dropped() {
            return Err(Stopped::Dropped(dropped));
        }
        for window in cutter.push(&block) {
            if let Some(part) = joined.push(&window) {
                send(part)?;
            }
        }
        let seconds = decoder.delivered_samples() as f64 / f64::from(SAMPLE_RATE);
        disk.allows(copied, seconds)?;
        task.done(seconds);
    }
    for window in cutter.finish() {
        if let Some(part) = joined.push(&window) {
            send(part)?;
        }
    }
    if let Some(part) = joined.finish() {
        send(part)?;
    }
    Ok(Decoded {
        samples: decoder.delivered_samples(),
        format: decoder.format().to_string(),
        damaged_at: decoder.damaged_at(),
    })
}

/// Trouble of the storage is the storage's, even when the decoder was the one to notice.
fn fault(error: AudioError) -> Stopped {
    let stored = match &error {
        AudioError::Read { error, .. } => BlobError::behind(error).map(BlobError::fault),
        _ => None,
    };
    Stopped::Fault(stored.unwrap_or_else(|| -> Fault { error.fault() }))
}

#[cfg(test)]
mod tests {
    use std::{io::Cursor, os::unix::fs::PermissionsExt as _};

    use tokio_util::sync::CancellationToken;
    use warren_clock::Clock;
    use warren_fault::Code;
    use warren_leases::{LeaseSettings, Leases};

    use super::*;
    use crate::{settings::Settings, tests::wav};

    fn task() -> (Leases, TaskInHand) {
        let settings = LeaseSettings { worker: "w".to_owned(), ..LeaseSettings::default() };
        let identity = Settings::default().identity(&warren_worker::Pace::new(1));
        let leases = Leases::start(&settings, identity, &Clock::system(), CancellationToken::new());
        let leases = leases.expect("started");
        let task = leases.in_hand("task_1", 1, "job_1");
        (leases, task)
    }

    async fn decoded(bytes: Vec<u8>) -> (Result<Decoded, Stopped>, Vec<Part>) {
        decoded_with(bytes, DecodeOptions::default()).await
    }

    async fn decoded_with(bytes: Vec<u8>, options: DecodeOptions) -> (Result<Decoded, Stopped>, Vec<Part>) {
        let (_leases, task) = task();
        let (sender, mut receiver) = mpsc::channel(1);
        let decoding = tokio::task::spawn_blocking(move || {
            decode(Cursor::new(bytes), &options, &DiskLimit::default(), &task, &sender)
        });
        let mut parts = Vec::new();
        while let Some(part) = receiver.recv().await {
            parts.push(part);
        }
        (decoding.await.expect("no panic"), parts)
    }

    #[tokio::test]
    async fn sound_becomes_windows_and_silence_does_not() {
        let (outcome, parts) = decoded(wav(60, |second| (10..15).contains(&second) || second >= 50)).await;
        let outcome = outcome.expect("decoded");
        assert_eq!(outcome.samples, 60 * 16_000);
        assert!(outcome.format.starts_with("wav"), "{}", outcome.format);
        let [part] = parts.as_slice() else { panic!("one part: {parts:?}") };
        let seconds: Vec<_> =
            part.windows.iter().map(|w| ((w.first_sample + 8_000) / 16_000, (w.samples + 8_000) / 16_000)).collect();
        assert_eq!(seconds, [(10, 5), (50, 10)]);
    }

    #[tokio::test]
    async fn a_silent_recording_has_no_parts() {
        let (outcome, parts) = decoded(wav(30, |_| false)).await;
        assert_eq!((outcome.expect("decoded").samples, parts), (30 * 16_000, vec![]));
    }

    #[tokio::test]
    async fn what_is_damaged_midway_is_kept_and_told_and_a_broken_ffmpeg_is_ours() {
        let opus = [&b"OggS"[..], &[0; 22], &[1, 30], b"OpusHead", &[0; 1000]].concat();
        let folder = warren_local::Scratch::new("decode").expect("a folder");
        let stand_in = |script: &str| {
            let ffmpeg = folder.path().join("ffmpeg");
            std::fs::write(&ffmpeg, format!("#!/bin/sh\nhead -c 96000 /dev/zero\n{script}\n")).expect("written");
            std::fs::set_permissions(&ffmpeg, std::fs::Permissions::from_mode(0o755)).expect("executable");
            DecodeOptions { ffmpeg, ..DecodeOptions::default() }
        };
        let (outcome, _) = decoded_with(opus.clone(), stand_in("exit 3")).await;
        let outcome = outcome.expect("what was heard is kept");
        assert_eq!((outcome.samples, outcome.damaged_at), (48_000, Some(3.0)));
        let (outcome, _) = decoded_with(opus.clone(), stand_in("exit 0")).await;
        assert_eq!(outcome.expect("sound").damaged_at, None);
        let (outcome, _) = decoded_with(opus, stand_in("kill -9 $$")).await;
        let Err(Stopped::Fault(fault)) = outcome else { panic!("a fault: {outcome:?}") };
        assert!(matches!(fault, Fault::Retryable(_)), "{fault}");
    }

    #[tokio::test]
    async fn what_is_no_audio_is_the_callers_fault() {
        let (outcome, parts) = decoded(b"To whom it may concern: this is a letter.".to_vec()).await;
        let Err(Stopped::Fault(fault)) = outcome else { panic!("a fault: {outcome:?}") };
        assert!(fault.is_input() && parts.is_empty(), "{fault}");
    }

    #[tokio::test]
    async fn a_source_that_breaks_is_not_the_callers_fault() {
        struct Broken;
        impl std::io::Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::other("gone"))
            }
        }
        impl std::io::Seek for Broken {
            fn seek(&mut self, _: std::io::SeekFrom) -> std::io::Result<u64> {
                Ok(1_000_000)
            }
        }
        let (_leases, task) = task();
        let (sender, _receiver) = mpsc::channel(1);
        let Err(Stopped::Fault(fault)) =
            decode(Broken, &DecodeOptions::default(), &DiskLimit::default(), &task, &sender)
        else {
            panic!("a fault")
        };
        assert_eq!((fault.is_input(), fault.cause().code), (false, Code::BlobUnavailable));
    }
}
