//! Which recordings there are, and the packages that carry them: `recordings.toml`.

use std::sync::LazyLock;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Catalogue {
    #[serde(rename = "package")]
    pub packages: Vec<Package>,
}

/// A package and what is taken out of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Package {
    pub name: String,
    pub version: String,
    pub registry: Registry,
    /// The file that the registry gives.
    pub archive: String,
    /// Of the archive, in bytes.
    pub size: u64,
    /// Of the archive.
    pub sha256: String,
    #[allow(dead_code, reason = "for readers of the file")]
    pub licence: String,
    /// True when a machine speaks.
    pub synthetic: bool,
    #[serde(rename = "recording")]
    pub recordings: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Registry {
    Npm,
    Pypi,
}

/// One recording.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// Language and title, e.g. `fr/pangrama`.
    pub name: String,
    /// Path in the package.
    pub file: String,
    pub sha256: String,
    pub seconds: f64,
    pub text: String,
}

impl Package {
    /// What a person would call it.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.name, self.version)
    }
}

impl Entry {
    /// ISO 639-1.
    pub(crate) fn language(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// Name of the file on this machine.
    pub(crate) fn file_name(&self) -> String {
        format!("{}.wav", self.name.replace(['/', '_'], "-"))
    }
}

pub(crate) fn catalogue() -> &'static Catalogue {
    static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
        toml::from_str(include_str!("../recordings.toml")).expect("recordings.toml is part of this crate and tested")
    });
    &CATALOGUE
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_recording_has_its_own_name_a_language_and_words() {
        let entries: Vec<_> = catalogue().packages.iter().flat_map(|package| &package.recordings).collect();
        let names: BTreeSet<_> = entries.iter().map(|entry| entry.file_name()).collect();
        assert_eq!(names.len(), entries.len());
        for entry in entries {
            assert_eq!(entry.language().len(), 2, "{}", entry.name);
            assert!(!entry.text.is_empty() && entry.sha256.len() == 64 && entry.seconds > 0.5, "{}", entry.name);
        }
    }

    #[test]
    fn people_and_machines_are_told_apart() {
        let human: Vec<_> = catalogue().packages.iter().filter(|package| !package.synthetic).collect();
        assert_eq!(human.len(), 1);
        assert_eq!(human[0].recordings[0].name, "en/inaugural");
    }
}
