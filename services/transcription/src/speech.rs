//! Whisper models on the worker's shelf.

use warren_audio::SAMPLE_RATE;
use warren_drills::StandIn;
use warren_inference::{
    Device, Gate, InferenceError, SpeechOptions, SpeechOutput, SpokenSegment, Whisper, WhisperOptions, pass,
};
use warren_models::{Family, Model, ModelDir};
use warren_worker::Loadable;

/// A loaded speech model.
pub(crate) enum Speech {
    /// A real one.
    Whisper(Box<Whisper>),
    /// One of the tests.
    StandIn(StandIn),
}

impl Speech {
    /// Writes down what is said in `windows`.
    ///
    /// # Errors
    /// As [`Whisper::transcribe`].
    pub(crate) fn transcribe(
        &self,
        windows: &[&[f32]],
        options: &SpeechOptions,
        gate: &dyn Gate,
        done: &dyn Fn(f64),
    ) -> Result<SpeechOutput, InferenceError> {
        match self {
            Self::Whisper(whisper) => whisper.transcribe(windows, options, gate, done),
            Self::StandIn(model) => stand_in(*model, windows, gate, done),
        }
    }
}

/// Spends the model's time behind the gate for every window, and hears one word in each.
fn stand_in(
    model: StandIn,
    windows: &[&[f32]],
    gate: &dyn Gate,
    done: &dyn Fn(f64),
) -> Result<SpeechOutput, InferenceError> {
    let (mut spoken, mut seconds) = (Vec::new(), 0.0);
    for window in windows {
        for slice in model.slices() {
            pass(gate, "decode", || {
                model.spend(slice);
                Ok(())
            })?;
        }
        let end = window.len() as f64 / f64::from(SAMPLE_RATE);
        seconds += end;
        done(seconds);
        spoken.push(vec![SpokenSegment {
            start: 0.0,
            end,
            text: model.heard(window),
            avg_logprob: 0.0,
            no_speech_prob: 0.0,
            compression_ratio: 1.0,
            temperature: 0.0,
        }]);
    }
    Ok(SpeechOutput { language: "en".to_owned(), language_probability: 1.0, windows: spoken })
}

impl Loadable for Speech {
    const FAMILY: Family = Family::Whisper;

    /// Windows; a task has four at most.
    fn rows(_device: Device) -> usize {
        8
    }

    fn load(model: &Model, files: &ModelDir, device: Device) -> Result<Self, InferenceError> {
        if let Some(stand_in) = StandIn::named(&model.name) {
            return Ok(Self::StandIn(stand_in));
        }
        Whisper::open(files, device, WhisperOptions::default()).map(|whisper| Self::Whisper(Box::new(whisper)))
    }
}
