//! Cutting jobs into tasks. What comes out is rows; nothing here talks to the broker.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use warren_blob::Key;
use warren_fault::{Cause, Code};
use warren_jobs::{
    JobKind, TaskKind,
    plan::{self, MAX_INLINE_BYTES, Passage, TaskLimits, Window},
};
use warren_messages::{
    envelope::MAX_WINDOWS,
    wire::{self, task::Work},
};
use warren_store::{Job, Media, NewTask, Reads, StoreError};

use crate::{lead::Parts, settings::ReleaseSettings};

/// Ordinals of one prepared part: ten minutes cannot hold more windows than this.
const TASKS_PER_PART: i64 = 4_096;
/// Rough device seconds for a second of audio, and for a kilobyte of text. Only their proportion matters.
const SECONDS_PER_AUDIO_SECOND: f64 = 0.15;
const SECONDS_PER_KILOBYTE: f64 = 0.05;

/// A task's payload: its work, as it will travel.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Payload(wire::Task);

impl Payload {
    /// The JSON of this work.
    pub(crate) fn write(work: Work) -> String {
        let task = wire::Task { work: Some(work), ..wire::Task::default() };
        serde_json::to_string(&Self(task)).expect("generated messages always serialise")
    }

    /// The work of a row.
    ///
    /// # Errors
    /// What is wrong with the JSON.
    pub(crate) fn read(payload: &str) -> Result<Work, String> {
        let task: Self = serde_json::from_str(payload).map_err(|error| error.to_string())?;
        task.0.work.ok_or_else(|| "no work in the payload".to_owned())
    }
}

/// What a transcribe job asked for.
///
/// # Errors
/// What is wrong with the row.
pub(crate) fn transcribe_spec(job: &Job) -> Result<wire::TranscribeSpec, String> {
    serde_json::from_str(&job.spec).map_err(|error| format!("job.spec: {error}"))
}

/// What an embed job asked for; its texts are in there if they are few, else in their object.
///
/// # Errors
/// What is wrong with the row.
pub(crate) fn embed_spec(job: &Job) -> Result<wire::EmbedSpec, String> {
    serde_json::from_str(&job.spec).map_err(|error| format!("job.spec: {error}"))
}

/// True when the job has tasks, or needs none.
///
/// # Errors
/// When the store is away.
pub(crate) async fn is_planned(read: &Reads<'_>, job: &Job) -> Result<bool, StoreError> {
    Ok(job.planned_final || read.counts(job.id).await?.total() > 0)
}

/// The first task of a transcribe job.
pub(crate) fn prepare(parts: &Parts, job: &Job, media: &Media) -> NewTask {
    let work = Work::Prepare(wire::PrepareTask {
        media_key: media.blob_key.clone(),
        media_name: media.name.clone(),
        size_bytes: media.size_bytes,
        max_memory_mb: u32::try_from(job.limits.max_memory_mb).unwrap_or(0),
        max_disk_mb: u32::try_from(job.limits.max_disk_mb).unwrap_or(0),
    });
    NewTask {
        id: parts.clock.new_id(),
        job_id: job.id,
        kind: TaskKind::Prepare,
        ordinal: 0,
        payload: Payload::write(work),
        // Decoding is cheap beside inference; about a megabyte a second.
        cost: media.size_bytes as f64 / 1e6,
        units: 0.0,
    }
}

/// The transcribe tasks of one prepared part.
pub(crate) fn transcribe(
    parts: &Parts,
    settings: &ReleaseSettings,
    job: &Job,
    spec: &wire::TranscribeSpec,
    part: &wire::PreparedPart,
) -> Vec<NewTask> {
    let windows: Vec<Window> = part
        .windows
        .iter()
        .filter_map(|window| {
            let first_sample = u64::try_from(window.first_sample).ok()?;
            Some(Window { first_sample, samples: u64::try_from(window.samples).ok()? })
        })
        .collect();
    let limits = TaskLimits {
        max_windows: MAX_WINDOWS,
        target_seconds: f64::from(settings.task_audio_s),
        ..TaskLimits::default()
    };
    let (quality, beam_size) = spec.decoding();
    plan::transcribe_tasks(&windows, &limits)
        .into_iter()
        .zip(0_i64..)
        .map(|(windows, index)| {
            let seconds: f64 = windows.iter().map(Window::seconds).sum();
            let work = Work::Transcribe(wire::TranscribeTask {
                pcm_key: part.pcm_key.clone(),
                part_first_sample: part.first_sample,
                windows: windows
                    .iter()
                    .map(|w| wire::Window { first_sample: w.first_sample as i64, samples: w.samples as i64 })
                    .collect(),
                model: job.model.clone(),
                language: spec.language.clone(),
                translate: spec.translate,
                beam_size,
                single_pass: quality.single_pass(),
            });
            NewTask {
                id: parts.clock.new_id(),
                job_id: job.id,
                kind: TaskKind::Transcribe,
                ordinal: i64::from(part.ordinal) * TASKS_PER_PART + index,
                payload: Payload::write(work),
                cost: seconds * SECONDS_PER_AUDIO_SECOND,
                units: seconds,
            }
        })
        .collect()
}

/// The part of the recording that a transcribe task at this place is of.
pub(crate) fn part(ordinal: i64) -> Option<u32> {
    u32::try_from(ordinal / TASKS_PER_PART).ok()
}

/// A text to embed, and where it is in the job's object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The text.
    pub text: String,
    /// Its line, as bytes of the object; empty when there is no object.
    pub bytes: Range<usize>,
}

impl Line {
    /// A text that lies in no object.
    pub(crate) const fn inline(text: String) -> Self {
        Self { text, bytes: 0..0 }
    }
}

/// The embed tasks of a job. Texts travel inside the task, unless one is too long for a message.
pub(crate) fn embed(parts: &Parts, settings: &ReleaseSettings, job: &Job, model: &str, lines: &[Line]) -> Vec<NewTask> {
    // The transcript's own tasks are what a transcribe job is measured in.
    let counts = job.kind != JobKind::Transcribe;
    let lengths = lines.iter().map(|line| line.text.len());
    plan::embed_batches(lengths, MAX_INLINE_BYTES, settings.task_texts as usize)
        .into_iter()
        .zip(0_i64..)
        .map(|(range, ordinal)| {
            let batch = &lines[range.clone()];
            let bytes: usize = batch.iter().map(|line| line.text.len()).sum();
            let work = Work::Embed(wire::EmbedTask {
                model: model.to_owned(),
                first: u32::try_from(range.start).unwrap_or(u32::MAX),
                input: Some(input(job, batch, bytes)),
            });
            NewTask {
                id: parts.clock.new_id(),
                job_id: job.id,
                kind: TaskKind::Embed,
                ordinal,
                payload: Payload::write(work),
                cost: bytes as f64 / 1_000.0 * SECONDS_PER_KILOBYTE,
                units: if counts { range.len() as f64 } else { 0.0 },
            }
        })
        .collect()
}

fn input(job: &Job, batch: &[Line], bytes: usize) -> wire::embed_task::Input {
    match batch {
        [long] if bytes > MAX_INLINE_BYTES && !long.bytes.is_empty() => {
            wire::embed_task::Input::Lines(wire::TextLines {
                key: Key::texts(job.id).to_string(),
                first_byte: long.bytes.start as i64,
                bytes: long.bytes.len() as i64,
                count: 1,
            })
        }
        batch => {
            let texts = batch.iter().map(|line| line.text.clone()).collect();
            wire::embed_task::Input::Texts(wire::Texts { texts })
        }
    }
}

/// The texts that lie in an embed job's object: one JSON string a line.
///
/// # Errors
/// [`Cause`] with the line that is no string.
pub(crate) fn lines(jsonl: &[u8]) -> Result<Vec<Line>, Cause> {
    let mut lines = Vec::new();
    let mut start = 0;
    for (index, line) in jsonl.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let bytes = start..start + line.len();
        start = bytes.end;
        let text = serde_json::from_slice(line).map_err(|error| {
            Cause::new(Code::InputInvalid, format!("texts, line {}: not a JSON string: {error}", index + 1))
        })?;
        lines.push(Line { text, bytes });
    }
    Ok(lines)
}

/// The passages of a finished transcript.
pub(crate) fn passages(segments: &[warren_store::Segment]) -> Vec<Passage> {
    let segments: Vec<_> = segments
        .iter()
        .map(|segment| warren_jobs::transcript::Segment {
            start: segment.start_s,
            end: segment.end_s,
            text: segment.text.clone(),
            avg_logprob: segment.avg_logprob as f32,
            no_speech_prob: segment.no_speech_prob as f32,
        })
        .collect();
    plan::passages(&segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_reads_back() {
        let work = Work::Prepare(wire::PrepareTask { media_key: "media/1".to_owned(), ..Default::default() });
        assert_eq!(Payload::read(&Payload::write(work.clone())), Ok(work));
        assert!(Payload::read("{}").is_err());
    }

    #[test]
    fn texts_are_lines_and_a_bad_one_is_named() {
        let found = lines(b"\"a\"\n\"b\\nc\"\n").expect("two");
        assert_eq!(found[0], Line { text: "a".to_owned(), bytes: 0..4 });
        assert_eq!(found[1], Line { text: "b\nc".to_owned(), bytes: 4..11 });
        let cause = lines(b"\"a\"\nb\n").expect_err("line 2");
        assert!(cause.message.contains("line 2"), "{cause}");
    }
}
