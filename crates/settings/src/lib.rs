//! Settings: documented defaults, then a file, then the environment. Unknown keys are errors that name the key.
//!
//! Every crate declares its own section as a struct with `#[serde(deny_unknown_fields, default)]` and documented
//! fields; a service nests the sections it needs. An environment variable names a key with two underscores between
//! section and field: `WARREN_BROKER__URL`.

mod environment;
mod secret;
pub mod testing;

use std::path::{Path, PathBuf};

use figment::{
    Figment,
    providers::{Format, Serialized, Toml},
    value::Value,
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
    // A variable that is no text is none of ours, or its value is wrong in a way that shows.
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    read(file, std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))))
}

fn read<T>(file: Option<&Path>, process: impl Iterator<Item = (String, String)>) -> Result<T, SettingsError>
where
    T: Default + Serialize + DeserializeOwned + Validate,
{
    let invalid = |error: figment::Error| SettingsError::Invalid(describe(&error));
    let defaults = Value::serialize(T::default()).map_err(invalid)?;
    let mut figment = Figment::from(Serialized::defaults(T::default()));
    if let Some(path) = file {
        if !path.exists() {
            return Err(SettingsError::NoFile(path.to_owned()));
        }
        check_syntax(path)?;
        figment = figment.merge(Toml::file_exact(path));
    }
    for variable in environment::variables(&defaults, process) {
        figment = figment.merge(variable);
    }
    let settings: T = figment.extract().map_err(invalid)?;
    settings.validate().map_err(SettingsError::Invalid)?;
    Ok(settings)
}

/// Refuses what is no TOML, without the line in question: it may hold a secret that was not quoted.
fn check_syntax(path: &Path) -> Result<(), SettingsError> {
    // What cannot be read is refused with its reason when it is merged.
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let Err(error) = text.parse::<toml::Table>() else { return Ok(()) };
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
    let reason = error.message().lines().next().unwrap_or_default().to_owned();
    Err(SettingsError::Invalid(format!("{}, line {line}: {reason}", path.display())))
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
        login: String,
        password: Secret<String>,
        keys: Vec<Secret<String>>,
    }

    impl Default for Queue {
        fn default() -> Self {
            Self { depth: 7, login: String::new(), password: Secret::default(), keys: Vec::new() }
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
    fn a_secret_of_the_wrong_type_is_named_and_not_shown() {
        for text in ["[queue]\npassword = 20010911\n", "[queue]\nkeys = ['a', 20010911]\n"] {
            let error = load_text(text).expect_err("a number").to_string();
            assert!(error.contains("queue.") && !error.contains("20010911"), "{error}");
        }
    }

    #[test]
    fn a_slip_in_the_file_is_placed_and_no_secret_shown() {
        let error = load_text("[queue]\ndepth = 3\npassword = hunter2\n").expect_err("no quotes").to_string();
        assert!(error.contains(".tmp") && error.contains("line 3") && !error.contains("hunter2"), "{error}");
    }

    fn load_variables(variables: &[(&str, &str)]) -> Result<Queue, SettingsError> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        read::<Sample>(None, variables).map(|sample| sample.queue)
    }

    #[test]
    fn text_in_the_environment_is_taken_letter_for_letter() {
        let queue = load_variables(&[
            ("WARREN_QUEUE__DEPTH", "12"),
            ("WARREN_QUEUE__LOGIN", "0042"),
            ("warren_queue__password", "20010911"),
            ("WARREN_QUEUE__KEYS", "[\"a\", \"1\"]"),
            ("WARREN_CONFIG", "of the command line"),
            ("PATH", "/bin"),
        ]);
        let Queue { depth, login, password, keys } = queue.expect("valid");
        assert_eq!((depth, login.as_str(), password.expose().as_str()), (12, "0042", "20010911"));
        assert_eq!(keys.iter().map(|key| key.expose().as_str()).collect::<Vec<_>>(), ["a", "1"]);
        for odd in ["true", "[half", "{}", "'quoted", "1e5", ""] {
            let queue = load_variables(&[("WARREN_QUEUE__PASSWORD", odd)]).expect("valid");
            assert_eq!(queue.password.expose(), odd);
        }
    }

    #[test]
    fn a_wrong_variable_is_named_and_no_secret_shown() {
        let error = load_variables(&[("WARREN_QUEUE__DEPTH", "deep")]).expect_err("no number").to_string();
        assert!(error.contains("queue.depth") && error.contains("WARREN_QUEUE__DEPTH"), "{error}");
        let error = load_variables(&[("WARREN_QUEUE__DEPHT", "1")]).expect_err("unknown").to_string();
        assert!(error.contains("depht"), "{error}");
        let error = load_variables(&[("WARREN_QUEUE__KEYS", "[20010911]")]).expect_err("a number").to_string();
        assert!(error.contains("queue.keys") && !error.contains("20010911"), "{error}");
    }

    #[test]
    fn a_contradiction_is_refused() {
        assert_eq!(load_text("[queue]\ndepth = 0\n").expect_err("zero").to_string(), "queue.depth: must be at least 1");
    }
}
