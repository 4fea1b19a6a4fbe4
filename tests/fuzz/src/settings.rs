//! Files that operators write: settings and catalogues.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use warren_leases::LeaseSettings;
use warren_models::{Catalogue, ModelError, ModelsSettings};
use warren_settings::{SettingsError, Validate};
use warren_worker::WorkSettings;

/// Longest complaint: what is wrong is quoted once.
const COMPLAINT: usize = 32 << 10;

/// The sections that ingest has none of.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Worker {
    models: ModelsSettings,
    leases: LeaseSettings,
    work: WorkSettings,
}

impl Validate for Worker {
    fn validate(&self) -> Result<(), String> {
        self.leases.validate()
    }
}

/// A settings file: of ingest, and with the sections of a worker.
pub fn settings_file(data: &[u8]) {
    thread_local! {
        static FILE: NamedTempFile = NamedTempFile::new().expect("a file");
    }
    FILE.with(|file| {
        fs::write(file.path(), data).expect("written");
        read(file.path(), warren_ingest::testing::settings);
        read(file.path(), |path| {
            let read: Worker = warren_settings::load(Some(path))?;
            Ok(toml::to_string(&read).expect("settings have a form in TOML"))
        });
    });
}

/// What is taken is printed, and taken again as the same.
fn read(file: &Path, settings: impl Fn(&Path) -> Result<String, SettingsError>) {
    match settings(file) {
        Ok(printed) => {
            fs::write(file, &printed).expect("written");
            assert_eq!(settings(file).expect("what is printed is taken"), printed);
        }
        Err(error) => {
            let error = error.to_string();
            assert!(!error.is_empty() && error.len() < COMPLAINT, "{} bytes: {error:.200}", error.len());
        }
    }
}

/// A file in the form of `catalogue.toml`.
pub fn catalogue_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Catalogue::parse(text) {
        Ok(catalogue) => {
            for model in catalogue.models() {
                assert_eq!(catalogue.get(&model.name).ok(), Some(model), "a name is of one model");
            }
        }
        Err(ModelError::Catalogue(why)) => {
            assert!(!why.is_empty() && why.len() < COMPLAINT, "{} bytes: {why:.200}", why.len());
        }
        Err(other) => panic!("{other}"),
    }
}

/// The defaults, and files with one section each.
pub fn settings() -> Vec<Vec<u8>> {
    let none = NamedTempFile::new().expect("a file");
    let all = warren_ingest::testing::settings(none.path()).expect("the defaults are valid");
    let worker = toml::to_string(&Worker::default()).expect("settings have a form in TOML");
    let keys = concat!(
        "[auth]\nkeys = [{ caller = 'anna', key = 'a-long-key-of-anna-1', operator = true }]\n",
        "[grpc]\nbind = '0.0.0.0:1'\n"
    );
    let mut seeds = vec![all.clone().into_bytes(), worker.clone().into_bytes(), keys.as_bytes().to_vec()];
    for text in [all, worker] {
        let sections = text.split("\n\n").map(|section| section.as_bytes().to_vec());
        seeds.extend(sections);
    }
    seeds
}

/// The catalogue that is built in, one model at a time.
pub fn catalogues() -> Vec<Vec<u8>> {
    include_str!("../../../crates/models/catalogue.toml")
        .split("\n[[model]]")
        .skip(1)
        .map(|model| format!("[[model]]{model}").into_bytes())
        .collect()
}
