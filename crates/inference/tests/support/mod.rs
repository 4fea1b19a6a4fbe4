//! Real weights and real speech for the tests, fetched once into the models' cache folder.

#![allow(dead_code, reason = "every test file uses a part")]

use std::sync::{Mutex, PoisonError};

use warren_models::{Cache, Catalogue, ModelDir, ModelsSettings, PullOptions};
use warren_recordings::{Library, Recording, error_rate};

/// Fetching is for one test at a time.
static FETCHING: Mutex<()> = Mutex::new(());

/// The model's files, pulled if they are not there.
pub(crate) fn model(name: &str) -> ModelDir {
    let _one = FETCHING.lock().unwrap_or_else(PoisonError::into_inner);
    let cache = Cache::with(&ModelsSettings::default());
    let catalogue = Catalogue::builtin();
    let model = catalogue.get(name).unwrap();
    cache.pull(model, PullOptions::default(), &|_| ()).unwrap_or_else(|error| {
        panic!("{name} cannot be fetched: {error}. Fetch it beforehand with `warren models pull {name}`")
    });
    cache.open(model).unwrap()
}

/// 11 s of English, as 16 kHz mono samples.
pub(crate) fn inaugural() -> Vec<f32> {
    clip("en/inaugural").0
}

/// The same under white noise whose samples reach up to `loudness`, the same every time.
pub(crate) fn in_noise(samples: &[f32], loudness: f32) -> Vec<f32> {
    let mut state = 1_u32;
    let noisy = |sample: &f32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        sample + ((state >> 8) as f32 / (1 << 24) as f32 * 2.0 - 1.0) * loudness
    };
    samples.iter().map(noisy).collect()
}

/// A clip and what is said in it, such as `fr/comptage`.
pub(crate) fn clip(name: &str) -> (Vec<f32>, String) {
    let library = Library::new(ModelsSettings::default().cache);
    let clip: Recording = library.clip(name).unwrap_or_else(|error| panic!("{error}"));
    (clip.samples().unwrap(), clip.text)
}

/// Words without punctuation and case.
pub(crate) fn words(text: &str) -> Vec<String> {
    error_rate::normalised_words(text)
}
