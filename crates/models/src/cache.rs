//! The folder that holds the models, one folder each.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Model, ModelError, ModelsSettings, Progress, disk,
    manifest::{self, Manifest},
    progress::{Phase, Watch},
    pull::Lock,
    verified,
};

/// Converted models on disk: `DIR/<model>/{model.safetensors, config.json, tokenizer.json, manifest.json}`.
#[derive(Clone, Debug)]
pub struct Cache {
    pub(crate) settings: ModelsSettings,
}

/// Whether a model can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// All files are there, and right as far as was looked.
    Ready,
    /// The model is not in the cache.
    Missing,
    /// A file is damaged.
    Corrupt {
        /// Its name.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Where a model's files are. They were right when this was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelDir {
    /// The model's name in the catalogue.
    pub name: String,
    /// Weights with the tensor names of Hugging Face, safetensors.
    pub weights: PathBuf,
    /// Hyperparameters, as `config.json` of Hugging Face.
    pub config: PathBuf,
    /// The tokenizer, as `tokenizer.json` of Hugging Face.
    pub tokenizer: PathBuf,
}

/// How closely to look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Sizes,
    HashOnce,
    HashAgain,
}

impl Cache {
    /// A cache in `dir`, which is made when something is pulled, with the other settings at their defaults.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self::with(&ModelsSettings { cache: dir.into(), ..ModelsSettings::default() })
    }

    /// A cache as the settings say.
    pub fn with(settings: &ModelsSettings) -> Self {
        Self { settings: settings.clone() }
    }

    /// The same sources, another folder.
    pub fn kept_in(&self, dir: impl Into<PathBuf>) -> Self {
        Self::with(&ModelsSettings { cache: dir.into(), ..self.settings.clone() })
    }

    /// The cache's folder.
    pub fn dir(&self) -> &Path {
        &self.settings.cache
    }

    /// A quick look: are the files there, with the right sizes? Says nothing about their bytes.
    pub fn status(&self, model: &Model) -> Status {
        look(&self.place(model), &model.name, Look::Sizes, &|_| ())
    }

    /// Compares each file's sha256, unless this process did so already and the file was not touched since: cheap enough
    /// for a readiness check, except the first time.
    pub fn check(&self, model: &Model) -> Status {
        look(&self.place(model), &model.name, Look::HashOnce, &|_| ())
    }

    /// Reads every file and compares its sha256.
    pub fn verify(&self, model: &Model, progress: &dyn Fn(Progress<'_>)) -> Status {
        look(&self.place(model), &model.name, Look::HashAgain, progress)
    }

    /// The files of a model, after [`Self::check`].
    ///
    /// # Errors
    /// [`ModelError::Missing`], [`ModelError::Corrupt`]; both say how to mend it.
    pub fn open(&self, model: &Model) -> Result<ModelDir, ModelError> {
        if model.sources.is_empty() {
            // A stand-in of the tests: what comes from nowhere has no files.
            let [weights, config, tokenizer] = [const { PathBuf::new() }; 3];
            return Ok(ModelDir { name: model.name.clone(), weights, config, tokenizer });
        }
        match self.check(model) {
            Status::Ready => {}
            Status::Missing => {
                return Err(ModelError::Missing { model: model.name.clone(), cache: self.settings.cache.clone() });
            }
            Status::Corrupt { file, reason } => {
                return Err(ModelError::Corrupt { model: model.name.clone(), file, reason });
            }
        }
        let place = self.place(model);
        let [weights, config, tokenizer] = manifest::PRODUCTS.map(|file| place.join(file));
        Ok(ModelDir { name: model.name.clone(), weights, config, tokenizer })
    }

    /// Removes a model and what an interrupted pull of it left behind; says whether there was one.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn remove(&self, model: &Model) -> Result<bool, ModelError> {
        let place = self.place(model);
        if !self.settings.cache.exists() {
            return Ok(false);
        }
        let _lock = Lock::take(&self.settings.cache, &model.name, || ())?;
        let there = place.exists();
        let staging = self.staging(model);
        fs::create_dir_all(&staging).map_err(ModelError::io(&staging))?;
        if there {
            // Out of sight in one step: a reader finds the whole model or none.
            let aside = staging.join("removed");
            disk::remove(&aside).map_err(ModelError::io(&aside))?;
            fs::rename(&place, &aside).map_err(ModelError::io(&place))?;
        }
        disk::remove(&staging).map_err(ModelError::io(&staging))?;
        Ok(there)
    }

    pub(crate) fn place(&self, model: &Model) -> PathBuf {
        self.settings.cache.join(&model.name)
    }

    pub(crate) fn staging(&self, model: &Model) -> PathBuf {
        self.settings.cache.join(".staging").join(&model.name)
    }
}

/// Like [`Cache::verify`], of a folder that need not belong to this cache.
pub(crate) fn verify_folder(folder: &Path, model: &str, progress: &dyn Fn(Progress<'_>)) -> Status {
    look(folder, model, Look::HashAgain, progress)
}

fn look(folder: &Path, model: &str, look: Look, tell: &dyn Fn(Progress<'_>)) -> Status {
    let corrupt = |file: &str, reason: String| Status::Corrupt { file: file.to_owned(), reason };
    let manifest = match Manifest::read(folder, model) {
        Ok(Some(manifest)) => manifest,
        Ok(None) => return Status::Missing,
        Err(reason) => return corrupt(manifest::FILE, reason),
    };
    for entry in &manifest.files {
        match fs::metadata(folder.join(&entry.name)) {
            Err(error) => return corrupt(&entry.name, error.to_string()),
            Ok(found) if found.len() != entry.size => {
                return corrupt(&entry.name, format!("has {} bytes instead of {}", found.len(), entry.size));
            }
            Ok(_) => {}
        }
    }
    if look == Look::Sizes {
        return Status::Ready;
    }
    let watch = Watch { model, tell };
    for entry in &manifest.files {
        let seen = |done| watch.tell(Phase::Checking, &entry.name, done, entry.size);
        match verified::has_sha256(&folder.join(&entry.name), &entry.sha256, look == Look::HashAgain, seen) {
            Ok(true) => {}
            Ok(false) => return corrupt(&entry.name, "its sha256 is not the one that was written".to_owned()),
            Err(error) => return corrupt(&entry.name, error.to_string()),
        }
    }
    Status::Ready
}
