//! Which file each transcript goes to. Nothing is overwritten that the same command line needs.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{error::CliError, input::is_standard_input};

/// One path in `folder` for each of the recordings, in their order.
///
/// # Errors
/// [`CliError::Usage`] when two recordings would share one, or a recording would be overwritten; it names all of them.
pub(super) fn targets(folder: &Path, recordings: &[PathBuf], extension: &str) -> Result<Vec<PathBuf>, CliError> {
    let targets: Vec<PathBuf> =
        recordings.iter().map(|recording| folder.join(file_name(recording, extension))).collect();
    let mut taken: HashMap<&Path, &Path> = HashMap::new();
    for (recording, target) in recordings.iter().zip(&targets) {
        if let Some(other) = taken.insert(target, recording) {
            let (one, other, target) = (other.display(), recording.display(), target.display());
            let why = format!("{one} and {other} would both be written to {target}; give each a folder of its own");
            return Err(CliError::Usage(why));
        }
    }
    // By identity, not by path: a link or another spelling may lead to the same file.
    let inputs: HashMap<_, &Path> =
        recordings.iter().filter_map(|path| Some((identity(path)?, path.as_path()))).collect();
    for (recording, target) in recordings.iter().zip(&targets) {
        if let Some(input) = identity(target).and_then(|target| inputs.get(&target)) {
            let (recording, target, input) = (recording.display(), target.display(), input.display());
            let why = format!(
                "the transcript of {recording} would go to {target}, over the recording {input}; choose another folder"
            );
            return Err(CliError::Usage(why));
        }
    }
    Ok(targets)
}

/// Only the last extension is that of the recording: `talk.1.mp3` and `talk.2.mp3` stay apart.
fn file_name(recording: &Path, extension: &str) -> std::ffi::OsString {
    let mut name = match recording.file_stem() {
        _ if is_standard_input(recording) => "stdin".into(),
        None => "recording".into(),
        Some(stem) => stem.to_os_string(),
    };
    name.push(".");
    name.push(extension);
    name
}

/// Device and number of the file; `None` when there is none.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(folder: &Path, recordings: &[&str], extension: &str) -> Result<Vec<PathBuf>, CliError> {
        targets(folder, &recordings.iter().map(PathBuf::from).collect::<Vec<_>>(), extension)
    }

    fn refused(folder: &Path, recordings: &[&str], extension: &str) -> String {
        let error = of(folder, recordings, extension).expect_err("refused");
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    }

    #[test]
    fn only_the_last_extension_is_replaced() {
        let found = of(Path::new("out"), &["a/talk.1.mp3", "a/talk.2.mp3", "b/talk", "b/.wav", "-"], "srt");
        let expected = ["out/talk.1.srt", "out/talk.2.srt", "out/talk.srt", "out/.wav.srt", "out/stdin.srt"];
        assert_eq!(found.expect("apart"), expected.map(PathBuf::from));
    }

    #[test]
    fn recordings_that_would_share_a_file_are_named_with_it() {
        for pair in [["a/talk.wav", "b/talk.wav"], ["talk.mp3", "talk.wav"], ["talk.wav", "talk.wav"]] {
            let why = refused(Path::new("out"), &["other.wav", pair[0], pair[1]], "txt");
            for part in [pair[0], pair[1], "out/talk.txt"] {
                assert!(why.contains(part), "{part}: {why}");
            }
        }
    }

    #[test]
    fn no_recording_is_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::write(path("notes.txt"), "RIFF").expect("written");
        fs::write(path("talk.wav"), "RIFF").expect("written");
        std::os::unix::fs::symlink(path("talk.wav"), path("talk.srt")).expect("a link");
        let why = refused(folder.path(), &[&path("notes.txt")], "txt");
        assert!(why.contains("notes.txt"), "{why}");
        let why = refused(folder.path(), &[&path("notes.txt"), "elsewhere/talk.mp3", &path("talk.wav")], "srt");
        assert!(why.contains("elsewhere/talk.mp3") && why.contains("talk.wav") && why.contains("talk.srt"), "{why}");
        assert!(of(folder.path(), &[&path("notes.txt"), &path("talk.wav")], "vtt").is_ok());
    }
}
