//! Task `prepare`: a recording in, PCM parts in object storage and their windows out. Needs no device.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use tokio::{runtime::Handle, sync::mpsc, task::spawn_blocking};
use warren_audio::{DecodeOptions, Limits};
use warren_blob::{BadKey, Blobs, Key};
use warren_broker::{Delay, Delivery, Handler};
use warren_clock::UnixMillis;
use warren_fault::{Cause, Code, Fault};
use warren_jobs::{TaskKind, retry::RetryPolicy};
use warren_messages::wire::{self, task::Work, task_report::Report};
use warren_worker::{Desk, Hand, Stopped, deadline, wrong_kind};

use crate::{decode::decode, disk::DiskLimit, parts::Part, settings::PrepareSettings};

/// Handles queue `warren.task.prepare`.
#[derive(Debug)]
pub(crate) struct Prepare {
    desk: Desk,
    blobs: Blobs,
    settings: PrepareSettings,
}

impl Prepare {
    /// A handler with these parts.
    pub(crate) fn new(desk: Desk, blobs: Blobs, settings: &PrepareSettings) -> Self {
        Self { desk, blobs, settings: settings.clone() }
    }

    async fn prepare(&self, work: &wire::PrepareTask, hand: &Hand) -> Result<Report, Stopped> {
        let key = Key::parse(&work.media_key)
            .map_err(|error: BadKey| Fault::permanent(Code::Malformed, format!("prepare.mediaKey: {error}")))?;
        hand.task().now("open");
        let recording = hand.unless_dropped(self.blobs.open_reader(&key, Handle::current())).await?;

        // The decoder waits while one part is stored and one is in the channel: that bounds the memory.
        let (sender, mut parts) = mpsc::channel(1);
        let (mut options, disk) = (self.options(work), DiskLimit::new(work.max_disk_mb, work.size_bytes));
        let stop = StopOnDrop::default();
        options.stopped = stop.0.clone();
        let task = hand.task().clone();
        hand.task().now("decode");
        let decoding = spawn_blocking(move || decode(recording, &options, &disk, &task, &sender));
        let storing = async {
            let mut stored = 0;
            while let Some(part) = parts.recv().await {
                stored += 1;
                self.store(part, hand).await?;
            }
            let decoded = decoding
                .await
                .map_err(|panic| Fault::retryable(Code::Internal, format!("decoding {}: {panic}", work.media_name)))?
                .map_err(|stopped| own_limit(work, stopped))?;
            Ok::<_, Stopped>((stored, decoded))
        };
        let (stored, decoded) = hand.unless_dropped(storing).await?;
        Ok(Report::PreparedAll(wire::PreparedAll {
            parts: stored,
            samples: i64::try_from(decoded.samples).unwrap_or(i64::MAX),
            format: decoded.format,
            damaged_at: decoded.damaged_at,
        }))
    }

    /// Stores a part and reports it. Prepared again after a loss, it overwrites the same object.
    async fn store(&self, part: Part, hand: &Hand) -> Result<(), Stopped> {
        let key = Key::pcm(hand.job_id, part.ordinal);
        let (first_sample, samples) = (part.first_sample, part.samples());
        self.blobs.put_bytes(&key, Bytes::from(part.pcm)).await?;
        let report = Report::PreparedPart(wire::PreparedPart {
            ordinal: part.ordinal,
            pcm_key: key.to_string(),
            first_sample: i64::try_from(first_sample).unwrap_or(i64::MAX),
            samples: i64::try_from(samples).unwrap_or(i64::MAX),
            windows: part.windows,
        });
        Ok(self.desk.send(hand, report).await?)
    }

    fn options(&self, work: &wire::PrepareTask) -> DecodeOptions {
        let mut limits = Limits {
            max_seconds: self.settings.max_seconds,
            keep_free: self.settings.keep_free_mb * 1_000_000,
            ..Limits::default()
        };
        if work.max_memory_mb > 0 {
            limits.ffmpeg_memory = limits.ffmpeg_memory.min(u64::from(work.max_memory_mb) * 1_000_000);
        }
        DecodeOptions {
            name: told_name(&work.media_name),
            limits,
            scratch: self.settings.scratch.clone(),
            ffmpeg: self.settings.ffmpeg.clone(),
            ..DecodeOptions::default()
        }
    }
}

/// Ends a decoder whose task is over, whether or not it says anything.
#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Memory that the job's own limit denied is its caller's matter.
fn own_limit(work: &wire::PrepareTask, stopped: Stopped) -> Stopped {
    match stopped {
        Stopped::Fault(Fault::Permanent(cause)) if work.max_memory_mb > 0 && cause.code == Code::OutOfMemory => {
            Stopped::OverLimit(cause)
        }
        other => other,
    }
}

/// What errors call the recording: its file name, without folders.
fn told_name(name: &str) -> String {
    let file = Path::new(name).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if file.is_empty() { DecodeOptions::default().name } else { file.chars().take(200).collect() }
}

impl Handler<wire::Task> for Prepare {
    async fn handle(&self, task: wire::Task, delivery: Delivery) -> Result<(), Fault> {
        let Some(Work::Prepare(work)) = &task.work else {
            return Err(wrong_kind(&task, TaskKind::Prepare));
        };
        let hand = self.desk.take(&task, &delivery)?;
        self.desk.attend(&hand, self.prepare(work, &hand)).await
    }

    async fn delayed(&self, task: &wire::Task, delivery: &Delivery, delay: &Delay, cause: &Cause) -> Result<(), Fault> {
        self.desk.announce(task, delivery, delay, cause).await
    }

    fn deadline(&self, task: &wire::Task) -> Option<UnixMillis> {
        deadline(task)
    }

    fn policy(&self) -> RetryPolicy {
        self.desk.policy()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_called_by_its_file_name() {
        assert_eq!(told_name("talks/monday.mp3"), "monday.mp3");
        assert_eq!(told_name(""), "the recording");
    }
}
