//! Task `transcribe`: windows of a PCM part in, segments on the recording's time line out.

use bytes::Bytes;
use warren_audio::pcm;
use warren_blob::{BadKey, Blobs, Key};
use warren_broker::{Delay, Delivery, Handler};
use warren_clock::UnixMillis;
use warren_fault::{Cause, Code, Fault};
use warren_inference::{MAX_BEAM_SIZE, SpeechOptions};
use warren_jobs::{TaskKind, retry::RetryPolicy};
use warren_messages::wire::{self, task::Work, task_report::Report};
use warren_telemetry::metrics;
use warren_worker::{Desk, Engine, Hand, Load, Stopped, deadline, wrong_kind};

use crate::{
    speech::Speech,
    timeline::{Stretch, on_the_recording},
};

// What callers may ask for, models have the memory for.
const _: () = assert!(warren_messages::MAX_BEAM_SIZE as usize <= MAX_BEAM_SIZE);

/// Handles queue `warren.task.transcribe`.
pub(crate) struct Transcribe {
    desk: Desk,
    blobs: Blobs,
    engine: Engine<Speech>,
}

impl Transcribe {
    /// A handler with these parts.
    pub(crate) fn new(desk: Desk, blobs: Blobs, engine: Engine<Speech>) -> Self {
        Self { desk, blobs, engine }
    }

    async fn transcribe(&self, work: &wire::TranscribeTask, hand: &Hand) -> Result<Report, Stopped> {
        let model = self.engine.model(&work.model)?;
        let key = Key::parse(&work.pcm_key)
            .map_err(|error: BadKey| Fault::permanent(Code::Malformed, format!("transcribe.pcmKey: {error}")))?;
        let stretch = Stretch::of(work)?;
        hand.task().now("fetch");
        let range = self.blobs.get_range(&key, stretch.first_byte, stretch.bytes);
        let samples = samples(&key, &stretch, &hand.unless_dropped(range).await?)?;

        let seconds = stretch.seconds();
        let options = options(work)?;
        let task = hand.task().clone();
        // Every window fills the model's thirty seconds, whatever its length.
        let load = Load { rows: stretch.windows.len(), length: 0 };
        let spoken = self.engine.run(&model, hand, load, move |speech: &Speech, gate| {
            let windows: Vec<&[f32]> = stretch.windows.iter().map(|window| &samples[window.clone()]).collect();
            speech.transcribe(&windows, &options, gate, &|done| task.done(done))
        });
        let spoken = spoken.await?;
        let labels = [("model", model.name.as_str())];
        metrics::AUDIO_SECONDS.add(seconds, &labels);
        if seconds > 0.0 {
            metrics::REAL_TIME_FACTOR.record(hand.inference_seconds() / seconds, &labels);
        }
        Ok(Report::Transcribed(wire::Transcribed {
            language: spoken.language,
            segments: on_the_recording(&work.windows, spoken.windows),
        }))
    }
}

/// How the work is to be done.
fn options(work: &wire::TranscribeTask) -> Result<SpeechOptions, Fault> {
    let beam_size = work.beam_size.max(1) as usize;
    if beam_size > MAX_BEAM_SIZE {
        let problem = format!("transcribe.beamSize: {beam_size} hypotheses are more than the {MAX_BEAM_SIZE} that fit");
        return Err(Fault::permanent(Code::Malformed, problem));
    }
    let language = (!work.language.is_empty()).then(|| work.language.clone());
    Ok(SpeechOptions { language, translate: work.translate, beam_size, single_pass: work.single_pass })
}

/// The samples of the stretch; exactly as many as were asked for.
fn samples(key: &Key, stretch: &Stretch, bytes: &Bytes) -> Result<Vec<f32>, Fault> {
    if bytes.len() as u64 != stretch.bytes {
        let message = format!("object {key} has {} of {} bytes at {}", bytes.len(), stretch.bytes, stretch.first_byte);
        return Err(Fault::retryable(Code::BlobDamaged, message));
    }
    pcm::from_s16le(bytes).map_err(|error| Fault::retryable(Code::BlobDamaged, format!("object {key}: {error}")))
}

impl Handler<wire::Task> for Transcribe {
    async fn handle(&self, task: wire::Task, delivery: Delivery) -> Result<(), Fault> {
        let Some(Work::Transcribe(work)) = &task.work else {
            return Err(wrong_kind(&task, TaskKind::Transcribe));
        };
        let hand = self.desk.take(&task, &delivery)?;
        self.desk.attend(&hand, self.transcribe(work, &hand)).await
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
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_task_that_names_no_care_is_greedy_and_one_that_asks_too_much_is_refused() {
        assert_eq!(options(&wire::TranscribeTask::default()).expect("greedy"), SpeechOptions::default());
        let greedy = wire::TranscribeTask { beam_size: 5, single_pass: true, ..Default::default() };
        let wanted = SpeechOptions { beam_size: 5, single_pass: true, ..SpeechOptions::default() };
        assert_eq!(options(&greedy).expect("five"), wanted);
        let fault = options(&wire::TranscribeTask { beam_size: u32::MAX, ..Default::default() }).expect_err("too many");
        assert!(matches!(&fault, Fault::Permanent(cause) if cause.message.contains("beamSize")), "{fault}");
    }

    #[test]
    fn a_short_object_is_damage_and_not_silence() {
        let key = Key::pcm(Uuid::from_u128(1), 0);
        let stretch = Stretch { first_byte: 8, bytes: 4, windows: vec![0..1, 1..2] };
        let found = samples(&key, &stretch, &Bytes::from_static(&[0, 0x40, 0, 0xc0])).expect("two samples");
        assert_eq!(found, [0.5, -0.5]);
        let fault = samples(&key, &stretch, &Bytes::from_static(&[0, 0])).expect_err("one sample");
        assert!(matches!(&fault, Fault::Retryable(cause) if cause.code == Code::BlobDamaged), "{fault}");
    }
}
