//! The library with the real packages.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{cell::RefCell, fs, path::PathBuf};

use warren_audio::SAMPLE_RATE;
use warren_recordings::{Library, Recording, RecordingsError};

/// The cache that `warren` uses, so that nothing is fetched twice.
fn cache() -> PathBuf {
    let named = std::env::var_os("WARREN_MODELS__CACHE").or_else(|| std::env::var_os("XDG_CACHE_HOME"));
    match (std::env::var_os("WARREN_MODELS__CACHE"), named) {
        (Some(cache), _) => cache.into(),
        (None, Some(caches)) => PathBuf::from(caches).join("warren/models"),
        (None, None) => PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/warren/models"),
    }
}

fn library() -> Library {
    let library = Library::new(cache());
    library.fetch(&|_| ()).unwrap_or_else(|error| panic!("{error}"));
    library
}

fn seconds(recording: &Recording) -> f64 {
    recording.samples().unwrap().len() as f64 / f64::from(SAMPLE_RATE)
}

#[test]
fn every_recording_decodes_to_its_length() {
    let library = library();
    let mut all = library.synthetic().unwrap();
    assert!(all.iter().all(|clip| clip.synthetic));
    all.push(library.human().unwrap());
    assert_eq!(all.len(), 28);
    for clip in &all {
        assert!((seconds(clip) - clip.seconds).abs() < 0.1, "{}: {} s", clip.name, seconds(clip));
    }
}

#[test]
fn an_unknown_name_is_answered_with_the_known_ones() {
    let error = library().clip("xx/nothing").unwrap_err();
    assert!(matches!(&error, RecordingsError::Unknown { .. }) && error.to_string().contains("en/inaugural"), "{error}");
}

#[test]
fn a_damaged_file_is_fetched_again() {
    let (library, folder) = (library(), tempfile::tempdir().unwrap());
    let whole = library.clip("fr/pangrama").unwrap();
    let other = Library::new(folder.path());
    let told = RefCell::new(0);
    other.fetch(&|progress| *told.borrow_mut() = progress.bytes_total).unwrap();
    assert!(told.into_inner() > 0, "the bytes are told");
    let clip = other.clip("fr/pangrama").unwrap();
    fs::write(&clip.path, b"damaged").unwrap();
    let mended = other.clip("fr/pangrama").unwrap();
    assert_eq!(fs::read(mended.path).unwrap(), fs::read(whole.path).unwrap());
    let left: Vec<_> = fs::read_dir(folder.path().join("test-recordings")).unwrap().flatten().collect();
    assert_eq!(left.len(), 3, "two packages and the lock: {left:?}");
}

#[test]
fn clips_are_joined_with_pauses_into_a_file_of_the_wanted_length() {
    let (library, folder) = (library(), tempfile::tempdir().unwrap());
    let clips = [library.clip("en/counting").unwrap(), library.clip("en/quick_brown_fox").unwrap()];
    let path = folder.path().join("long.wav");
    let long = library.joined(&path, &clips, 12.0).unwrap();
    assert_eq!((long.language.as_str(), long.name.as_str(), long.synthetic), ("en", "long", true));
    assert!(long.seconds >= 12.0 && long.seconds < 16.0, "{}", long.seconds);
    assert!((seconds(&long) - long.seconds).abs() < 0.01);
    assert!(long.text.starts_with("One two three four five six seven eight nine ten. The quick brown fox"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left aside");

    assert!(library.joined(&path, &[], 1.0).is_err());
    assert!(library.joined(&path, &clips, 1e6).is_err());
}
