//! Settings: documented defaults, then a file, then the environment. Unknown keys are errors that name the key.
//!
//! Every crate declares its own section as a struct with `#[serde(deny_unknown_fields, default)]` and documented
//! fields; a service nests the sections it needs. An environment variable names a key with two underscores between
//! section and field: `WARREN_BROKER__URL`.

mod secret;

use std::path::{Path, PathBuf};

use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
pub use secret::Secret;
use serde::{Serialize, de::DeserializeOwned};

/// The settings cannot be used; the message names the key and where it was set.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file named on the command line is not there.
    #[error("settings file {0} does not exist")]
    NoFile(PathBuf),
    /// A key is unknown, has the wrong type, or contradicts another.
    #[error("{0}")]
    Invalid(String),
}

/// A section that can check itself after it was read.
pub trait Validate {
    /// Says which keys contradict each other and what to do.
    ///
    /// # Errors
    /// A sentence that names the key, e.g. `http.bind: 0.0.0.0 needs auth.keys`.
    fn validate(&self) -> Result<(), String>;
}

/// Reads `T` from its defaults, then `file`, then `WARREN_…` variables of this process.
///
/// # Errors
/// [`SettingsError`], before anything was opened.
pub fn load<T>(file: Option<&Path>) -> Result<T, SettingsError>
where
    T: Default + Serialize + DeserializeOwned + Validate,
{
    let mut figment = Figment::from(Serialized::defaults(T::default()));
    if let Some(path) = file {
        if !path.exists() {
            return Err(SettingsError::NoFile(path.to_owned()));
        }
        figment = figment.merge(Toml::file_exact(path));
    }
    // A key of a section always has `__` in it; other WARREN_ variables belong to the command line.
    let figment = figment.merge(Env::prefixed("WARREN_").filter(|key| key.as_str().contains("__")).split("__"));
    let settings: T = figment.extract().map_err(|error| SettingsError::Invalid(describe(&error)))?;
    settings.validate().map_err(SettingsError::Invalid)?;
    Ok(settings)
}

fn describe(error: &figment::Error) -> String {
    let mut lines = Vec::new();
    for error in error.clone() {
        let key = error.path.join(".");
        let source = error.metadata.as_ref().map_or_else(String::new, |metadata| {
            let place = metadata.source.as_ref().map_or_else(|| metadata.name.to_string(), ToString::to_string);
            format!(" (in {place})")
        });
        let kind = &error.kind;
        lines.push(if key.is_empty() { format!("{kind}{source}") } else { format!("{key}: {kind}{source}") });
    }
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Sample {
        queue: Queue,
    }

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Queue {
        depth: u32,
    }

    impl Default for Queue {
        fn default() -> Self {
            Self { depth: 7 }
        }
    }

    impl Validate for Sample {
        fn validate(&self) -> Result<(), String> {
            (self.queue.depth > 0).then_some(()).ok_or_else(|| "queue.depth: must be at least 1".to_owned())
        }
    }

    fn load_text(text: &str) -> Result<Sample, SettingsError> {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(text.as_bytes()).expect("written");
        load(Some(file.path()))
    }

    #[test]
    fn defaults_hold_without_a_file() {
        assert_eq!(load::<Sample>(None).expect("defaults").queue.depth, 7);
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = load_text("[queue]\ndepht = 3\n").expect_err("unknown key").to_string();
        assert!(error.contains("depht"), "{error}");
    }

    #[test]
    fn a_wrong_type_names_the_key_and_the_file() {
        let error = load_text("[queue]\ndepth = 'deep'\n").expect_err("wrong type").to_string();
        assert!(error.contains("queue.depth") && error.contains(".tmp"), "{error}");
    }

    #[test]
    fn a_contradiction_is_refused() {
        assert_eq!(load_text("[queue]\ndepth = 0\n").expect_err("zero").to_string(), "queue.depth: must be at least 1");
    }
}
