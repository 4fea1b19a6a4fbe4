//! Real speech with its text.

use std::path::Path;

use warren_models::ModelsSettings;
pub use warren_recordings::Recording;
use warren_recordings::{Library, RecordingsError};

use crate::wave;

/// One human voice: the inaugural address of 1961, 11 s.
pub fn inaugural() -> Recording {
    library(Library::human)
}

/// A synthetic voice, 1 to 4 s, such as `fr/pangrama`.
pub fn clip(name: &str) -> Recording {
    library(|library| library.clip(name))
}

/// English clips joined in `rounds`, each in another order, written to `path`. A round is 20 s and has 43 words.
pub fn long_english(path: &Path, rounds: usize) -> Recording {
    let clips = english();
    let samples: Vec<_> = clips.iter().map(|clip| wave::read(&clip.path)).collect();
    let parts: Vec<_> = places(rounds).map(|(_, clip)| (clips[clip].text.as_str(), samples[clip].as_slice())).collect();
    joined(path, &parts)
}

/// The same, each round spoken at another speed, from 0.75 to 1.25 times the clips' own, so that no stretch of sound
/// comes twice.
pub fn different_english(path: &Path, rounds: usize) -> Recording {
    let clips = english();
    let scratch = tempfile::NamedTempFile::with_suffix(".wav").expect("a temporary file");
    let spoken = |(round, clip): (usize, usize)| {
        let speed = 0.75 + 0.5 * round as f64 / rounds as f64;
        let sound = wave::convert(&clips[clip].path, scratch.path(), &["-filter:a", &format!("atempo={speed:.4}")]);
        (clips[clip].text.as_str(), wave::read(&sound))
    };
    let spoken: Vec<_> = places(rounds).map(spoken).collect();
    let parts: Vec<_> = spoken.iter().map(|(text, samples)| (*text, samples.as_slice())).collect();
    joined(path, &parts)
}

fn english() -> [Recording; 4] {
    [inaugural(), clip("en/counting"), clip("en/quick_brown_fox"), clip("en/hello_world")]
}

/// Which of the four clips comes when: (round, clip).
fn places(rounds: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rounds).flat_map(|round| (0..4).map(move |place| (round, (place + round) % 4)))
}

fn joined(path: &Path, parts: &[(&str, &[i16])]) -> Recording {
    let samples: Vec<_> = parts.iter().map(|(_, samples)| *samples).collect();
    let samples = wave::join(&samples, 0.6);
    wave::write(path, &samples);
    Recording {
        path: path.to_owned(),
        text: parts.iter().map(|(text, _)| *text).collect::<Vec<_>>().join(" "),
        language: "en".to_owned(),
        name: "long".to_owned(),
        seconds: wave::seconds(&samples),
        synthetic: true,
    }
}

/// What is asked of the recordings that every test of this machine shares.
fn library<T>(ask: impl FnOnce(&Library) -> Result<T, RecordingsError>) -> T {
    let library = Library::new(ModelsSettings::default().cache);
    let fetched = library.fetch(&|_| ()).and_then(|()| ask(&library));
    fetched.unwrap_or_else(|error| panic!("{error}; recordings are fetched once, where there is a network"))
}
