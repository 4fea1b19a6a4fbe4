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
    let clips = [inaugural(), clip("en/counting"), clip("en/quick_brown_fox"), clip("en/hello_world")];
    let samples: Vec<_> = clips.iter().map(|clip| wave::read(&clip.path)).collect();
    let count = clips.len();
    let order: Vec<usize> =
        (0..rounds).flat_map(|round| (0..count).map(move |place| (place + round) % count)).collect();
    let parts: Vec<&[i16]> = order.iter().map(|&clip| samples[clip].as_slice()).collect();
    let joined = wave::join(&parts, 0.6);
    wave::write(path, &joined);
    let said: Vec<_> = order.iter().map(|&clip| clips[clip].text.as_str()).collect();
    Recording {
        path: path.to_owned(),
        text: said.join(" "),
        language: "en".to_owned(),
        name: "long".to_owned(),
        seconds: wave::seconds(&joined),
        synthetic: true,
    }
}

/// What is asked of the recordings that every test of this machine shares.
fn library<T>(ask: impl FnOnce(&Library) -> Result<T, RecordingsError>) -> T {
    let library = Library::new(ModelsSettings::default().cache);
    let fetched = library.fetch(&|_| ()).and_then(|()| ask(&library));
    fetched.unwrap_or_else(|error| panic!("{error}; recordings are fetched once, where there is a network"))
}
