//! The recordings on this machine.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use warren_audio::{DecodeOptions, Decoder};

use crate::{
    RecordingsError,
    catalogue::{Entry, Package, catalogue},
    files, package,
    progress::{Phase, Progress, Tell},
};

/// Recordings with known words, in a folder of this machine.
#[derive(Clone, Debug)]
pub struct Library {
    folder: PathBuf,
}

/// A recording and what is said in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// The file; its name tells language and title.
    pub path: PathBuf,
    /// The words, as the source writes them.
    pub text: String,
    /// ISO 639-1, e.g. `en`; empty when there are several.
    pub language: String,
    /// Language and title, e.g. `fr/pangrama`.
    pub name: String,
    /// Length.
    pub seconds: f64,
    /// True when a machine speaks.
    pub synthetic: bool,
}

impl Library {
    /// The library in the folder that holds the model weights. Fetches nothing yet.
    pub fn new(cache: impl AsRef<Path>) -> Self {
        Self { folder: cache.as_ref().join("test-recordings") }
    }

    /// Makes sure that all recordings are here with the right bytes; `tell` hears of the bytes while they come. One
    /// process fetches at a time, others wait for it.
    ///
    /// # Errors
    /// When a registry is out of reach, a program is missing, or the folder cannot be written.
    pub fn fetch(&self, tell: &dyn Fn(Progress<'_>)) -> Result<(), RecordingsError> {
        catalogue().packages.iter().try_for_each(|package| self.have(package, tell))
    }

    /// A person: 11 s of the inaugural address of 1961, in English.
    ///
    /// # Errors
    /// As [`Library::fetch`].
    pub fn human(&self) -> Result<Recording, RecordingsError> {
        self.clip("en/inaugural")
    }

    /// Synthetic voices, 1 to 4.5 s each, in en, es, fr, hi, it, ja, pl, pt and zh.
    ///
    /// # Errors
    /// As [`Library::fetch`].
    pub fn synthetic(&self) -> Result<Vec<Recording>, RecordingsError> {
        let mut all = Vec::new();
        for package in catalogue().packages.iter().filter(|package| package.synthetic) {
            self.have(package, &|_| ())?;
            all.extend(package.recordings.iter().map(|entry| self.recording(package, entry)));
        }
        Ok(all)
    }

    /// The recording of this name, e.g. `fr/comptage`.
    ///
    /// # Errors
    /// [`RecordingsError::Unknown`], else as [`Library::fetch`].
    pub fn clip(&self, name: &str) -> Result<Recording, RecordingsError> {
        let entries = || catalogue().packages.iter().flat_map(|p| p.recordings.iter().map(move |entry| (p, entry)));
        let Some((package, entry)) = entries().find(|(_, entry)| entry.name == name) else {
            let known = entries().map(|(_, entry)| entry.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(RecordingsError::Unknown { name: name.to_owned(), known });
        };
        self.have(package, &|_| ())?;
        Ok(self.recording(package, entry))
    }

    fn recording(&self, package: &Package, entry: &Entry) -> Recording {
        Recording {
            path: self.place(package).join(entry.file_name()),
            text: entry.text.clone(),
            language: entry.language().to_owned(),
            name: entry.name.clone(),
            seconds: entry.seconds,
            synthetic: package.synthetic,
        }
    }

    fn place(&self, package: &Package) -> PathBuf {
        self.folder.join(format!("{}-{}", package.name, package.version))
    }

    fn have(&self, package: &Package, tell: Tell<'_>) -> Result<(), RecordingsError> {
        if self.is_here(package)? {
            return Ok(());
        }
        fs::create_dir_all(&self.folder).map_err(RecordingsError::io(&self.folder))?;
        let _lock = self.lock(package, tell)?;
        // Another process may have fetched it meanwhile.
        if self.is_here(package)? {
            return Ok(());
        }
        let staging = self.folder.join(format!("{}-{}.fetching", package.name, package.version));
        package::fetch(package, &staging, &self.place(package), tell)
    }

    fn is_here(&self, package: &Package) -> Result<bool, RecordingsError> {
        let place = self.place(package);
        for entry in &package.recordings {
            let file = place.join(entry.file_name());
            if !files::is_right(&file, &entry.sha256).map_err(RecordingsError::io(&file))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn lock(&self, package: &Package, tell: Tell<'_>) -> Result<File, RecordingsError> {
        let path = self.folder.join("lock");
        let lock = File::create(&path).map_err(RecordingsError::io(&path))?;
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::Error(error)) => return Err(RecordingsError::io(&path)(error)),
            Err(TryLockError::WouldBlock) => {}
        }
        tell(Progress { package: &package.title(), phase: Phase::Waiting, bytes_done: 0, bytes_total: package.size });
        lock.lock().map_err(RecordingsError::io(&path))?;
        Ok(lock)
    }
}

impl Recording {
    /// The sound: 16 kHz, one channel, -1 to 1.
    ///
    /// # Errors
    /// [`RecordingsError::Io`] and [`RecordingsError::Sound`].
    pub fn samples(&self) -> Result<Vec<f32>, RecordingsError> {
        let file = File::open(&self.path).map_err(RecordingsError::io(&self.path))?;
        let mut decoder = Decoder::open(file, &DecodeOptions::default()).map_err(RecordingsError::sound(&self.path))?;
        let mut samples = Vec::new();
        while let Some(block) = decoder.next_block().map_err(RecordingsError::sound(&self.path))? {
            samples.extend(block);
        }
        Ok(samples)
    }
}
