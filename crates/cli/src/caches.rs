//! Where this machine keeps weights, as the workers see it: from their settings and the environment.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use warren_models::{Cache, Family, Model, ModelsSettings, USUAL};
use warren_settings::Validate;

use crate::{
    error::CliError,
    up::{self, WorkerKind},
};

/// The caches of both kinds of worker: one folder, unless a stack's settings part them.
#[derive(Clone, Debug)]
pub(crate) struct Caches {
    speech: Cache,
    texts: Cache,
}

/// Of a worker's settings, the section that says where weights are; other services' variables may be there too.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct OfWorker {
    models: ModelsSettings,
}

impl Validate for OfWorker {
    fn validate(&self) -> Result<(), String> {
        self.models.validate()
    }
}

/// Of ingest's settings, the models that are used when a caller names none.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct OfIngest {
    defaults: Defaults,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default)]
struct Defaults {
    speech_model: String,
    embedding_model: String,
}

impl Default for Defaults {
    fn default() -> Self {
        let usual = |family: Family| family.usual().to_owned();
        Self { speech_model: usual(Family::Whisper), embedding_model: usual(Family::Bert) }
    }
}

impl Validate for OfIngest {
    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}

impl Caches {
    /// As the environment says, and before it the settings of the stack in `data`, if there is one.
    ///
    /// # Errors
    /// [`CliError::Usage`] naming the key and where it was set.
    pub(crate) fn of_stack(data: &Path) -> Result<Self, CliError> {
        let of = |kind: WorkerKind| settings(up::settings_file(data, kind.service()), data);
        Ok(Self { speech: of(WorkerKind::Transcription)?, texts: of(WorkerKind::BatchEmbedding)? })
    }

    /// As the environment says.
    ///
    /// # Errors
    /// As [`Caches::of_stack`].
    pub(crate) fn of_environment() -> Result<Self, CliError> {
        let cache = settings(None, Path::new(""))?;
        Ok(Self { speech: cache.clone(), texts: cache })
    }

    /// The same with this folder for all.
    pub(crate) fn kept_in(self, folder: &Path) -> Self {
        Self { speech: self.speech.kept_in(folder), texts: self.texts.kept_in(folder) }
    }

    /// The one that holds this model.
    pub(crate) fn of(&self, model: &Model) -> &Cache {
        match model.family {
            Family::Whisper => &self.speech,
            Family::Bert => &self.texts,
        }
    }

    /// Their folders, each once.
    pub(crate) fn folders(&self) -> Vec<&Path> {
        let mut folders = vec![self.speech.dir(), self.texts.dir()];
        folders.dedup();
        folders
    }
}

fn settings(file: Option<PathBuf>, data: &Path) -> Result<Cache, CliError> {
    let OfWorker { mut models } = load(file.as_deref())?;
    if file.is_some() {
        // Services run in the stack's folder.
        models.cache = data.join(models.cache);
        models.local = models.local.map(|local| data.join(local));
    }
    Ok(Cache::with(&models))
}

/// The names of the models that the stack in `data` uses when a caller names none; without a stack, those that Warren
/// uses unless told otherwise.
///
/// # Errors
/// As [`Caches::of_stack`].
pub(crate) fn models_in_use(data: &Path) -> Result<Vec<String>, CliError> {
    let Some(file) = up::settings_file(data, "ingest") else { return Ok(USUAL.map(str::to_owned).to_vec()) };
    let OfIngest { defaults } = load(Some(&file))?;
    Ok(vec![defaults.speech_model, defaults.embedding_model])
}

fn load<T>(file: Option<&Path>) -> Result<T, CliError>
where
    T: Default + Serialize + DeserializeOwned + Validate,
{
    warren_settings::load(file).map_err(|error| CliError::Usage(format!("settings: {error}")))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use warren_models::Catalogue;

    use super::*;

    /// The folder of a stack whose services were started with these settings.
    fn stack(settings: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["run", "settings"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        for (service, text) in settings {
            fs::write(dir.path().join(format!("settings/{service}.toml")), text).unwrap();
        }
        dir
    }

    fn folder_of(caches: &Caches, name: &str) -> PathBuf {
        caches.of(Catalogue::builtin().get(name).unwrap()).dir().to_owned()
    }

    #[test]
    fn each_kind_of_model_is_where_its_worker_keeps_it() {
        let stack = stack(&[
            ("transcription", "[http]\nbind = '127.0.0.1:1'\n[models]\ncache = '/srv/speech'\n"),
            ("batch-embedding", "[models]\ncache = 'texts'\n"),
        ]);
        let caches = Caches::of_stack(stack.path()).unwrap();
        assert_eq!(folder_of(&caches, "tiny.en"), Path::new("/srv/speech"));
        assert_eq!(folder_of(&caches, "all-MiniLM-L6-v2"), stack.path().join("texts"));
        assert_eq!(caches.folders().len(), 2);
        let named = caches.kept_in(Path::new("/srv/all"));
        assert_eq!(named.folders(), [Path::new("/srv/all")]);
    }

    #[test]
    fn without_a_stack_the_defaults_hold() {
        let dir = tempfile::tempdir().unwrap();
        let caches = Caches::of_stack(dir.path()).unwrap();
        assert_eq!(caches.folders(), Caches::of_environment().unwrap().folders());
        assert_eq!(models_in_use(dir.path()).unwrap(), USUAL);
    }

    #[test]
    fn a_stack_says_which_models_it_uses() {
        let stack = stack(&[("ingest", "[defaults]\nspeech_model = 'small'\n")]);
        assert_eq!(models_in_use(stack.path()).unwrap(), ["small", "all-MiniLM-L6-v2"]);
    }

    #[test]
    fn settings_that_cannot_be_used_are_named() {
        let stack = stack(&[("transcription", "[models]\nhub = 'hub.example'\n")]);
        let error = Caches::of_stack(stack.path()).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("models.hub"), "{error}");
    }
}
