//! The models that Warren knows.

use std::collections::BTreeSet;

use serde::Deserialize;
use warren_drills::StandIn;

use crate::{ModelError, Source};

/// The models that Warren uses unless told otherwise: a fast one for English, and what is used when a caller names none.
pub const USUAL: [&str; 3] = ["tiny.en", Family::Whisper.usual(), Family::Bert.usual()];

const BUILTIN: &str = include_str!("../catalogue.toml");

/// All models that can be asked for, in the order of their file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    #[serde(rename = "model")]
    models: Vec<Model>,
    /// Models without files, which exist in builds for tests alone. Found by their names and never listed.
    #[serde(skip)]
    stand_ins: Vec<Model>,
}

/// One model: what it can do and where it comes from. The fields are explained at the head of `catalogue.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// What callers and settings say; also the folder's name in the cache.
    pub name: String,
    /// Other names for the same model.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// What kind of network it is.
    pub family: Family,
    /// SPDX name of the weights' licence.
    pub licence: String,
    /// Bytes of the converted files.
    pub disk_bytes: u64,
    /// Estimate of the memory that running it takes, bytes.
    pub memory_bytes: u64,
    /// Languages it understands.
    pub languages: Languages,
    /// Whether it can translate into English.
    #[serde(default)]
    pub translate: bool,
    /// What its vectors are like, when it makes any.
    pub embedding: Option<Embedding>,
    /// Where to get it, in order.
    #[serde(rename = "source")]
    pub sources: Vec<Source>,
}

/// What kind of network a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Speech to text.
    Whisper,
    /// Text to vectors.
    Bert,
}

impl Family {
    /// The model that is used when a caller names none. The one for speech knows about a hundred languages.
    pub const fn usual(self) -> &'static str {
        match self {
            Self::Whisper => "base",
            Self::Bert => "all-MiniLM-L6-v2",
        }
    }
}

/// Languages that a model understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Languages {
    /// English alone.
    English,
    /// Many; a Whisper model finds out which it hears.
    Multilingual,
}

/// What a model's vectors are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedding {
    /// Numbers in a vector.
    pub dims: usize,
    /// Tokens of a text that count; the rest is cut off.
    pub max_tokens: usize,
    /// How the vectors of tokens become one.
    pub pooling: Pooling,
}

/// How the vectors of tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Their mean, padding left out.
    Mean,
    /// The first token's.
    Cls,
}

impl Catalogue {
    /// The catalogue that Warren ships with.
    pub fn builtin() -> Self {
        let catalogue = Self::parse(BUILTIN).expect("a test parses the catalogue that is compiled in");
        Self { stand_ins: StandIn::all().map(Model::stand_in).collect(), ..catalogue }
    }

    /// Reads a catalogue in the form of `catalogue.toml`.
    ///
    /// # Errors
    /// [`ModelError::Catalogue`] names the model and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let catalogue: Self = toml::from_str(text).map_err(|error| ModelError::Catalogue(error.to_string()))?;
        let mut names = BTreeSet::new();
        for model in &catalogue.models {
            model.check().map_err(|why| ModelError::Catalogue(format!("model `{}`: {why}", model.name)))?;
            for name in model.names() {
                if !names.insert(name.to_ascii_lowercase()) {
                    return Err(ModelError::Catalogue(format!("two models are called `{name}`")));
                }
            }
        }
        Ok(catalogue)
    }

    /// The model of this name or alias, whatever the case of its letters.
    ///
    /// # Errors
    /// [`ModelError::Unknown`] lists the names there are.
    pub fn get(&self, name: &str) -> Result<&Model, ModelError> {
        let mut all = self.models.iter().chain(&self.stand_ins);
        let found = all.find(|model| model.names().any(|own| own.eq_ignore_ascii_case(name)));
        found.ok_or_else(|| {
            let known: Vec<_> = self.models.iter().map(|model| model.name.as_str()).collect();
            ModelError::Unknown { name: name.chars().take(120).collect(), known: known.join(", ") }
        })
    }

    /// All models.
    pub fn models(&self) -> &[Model] {
        &self.models
    }
}

impl Model {
    fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.aliases.iter().map(String::as_str))
    }

    /// Needs no files and next to no memory.
    fn stand_in((name, model): (String, StandIn)) -> Self {
        let vectors = Embedding { dims: model.dimensions(), max_tokens: 256, pooling: Pooling::Mean };
        Self {
            name,
            aliases: Vec::new(),
            family: if model.hears() { Family::Whisper } else { Family::Bert },
            licence: String::new(),
            disk_bytes: 0,
            memory_bytes: 1 << 20,
            languages: Languages::Multilingual,
            translate: false,
            embedding: (!model.hears()).then_some(vectors),
            sources: Vec::new(),
        }
    }

    fn check(&self) -> Result<(), String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if self.name.is_empty() || self.name.starts_with('.') || !self.name.bytes().all(plain) {
            return Err("a name consists of letters, digits, dots and dashes, and does not start with a dot".to_owned());
        }
        if (self.family == Family::Bert) != self.embedding.is_some() {
            return Err("[model.embedding] belongs to the family bert, and only there".to_owned());
        }
        if self.sources.is_empty() {
            return Err("it has no source".to_owned());
        }
        self.sources.iter().try_for_each(Source::check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_catalogue_is_valid() {
        let names: Vec<_> = Catalogue::builtin().models().iter().map(|model| model.name.clone()).collect();
        assert_eq!(names, ["tiny.en", "base", "small", "medium", "large-v3", "large-v3-turbo", "all-MiniLM-L6-v2"]);
    }

    #[test]
    fn the_usual_models_are_of_the_builtin_catalogue() {
        let catalogue = Catalogue::builtin();
        assert!(USUAL.iter().all(|name| catalogue.get(name).is_ok()));
        for family in [Family::Whisper, Family::Bert] {
            assert_eq!(catalogue.get(family.usual()).expect("usual").family, family);
        }
    }

    #[test]
    fn stand_ins_are_found_in_builds_for_tests_and_never_listed() {
        let catalogue = Catalogue::builtin();
        assert_eq!(catalogue.get("drill-20").is_ok(), warren_drills::ARMED);
        assert!(catalogue.models().iter().all(|model| StandIn::named(&model.name).is_none()));
    }

    #[test]
    fn aliases_and_other_case_find_the_same_model() {
        let catalogue = Catalogue::builtin();
        assert_eq!(catalogue.get("whisper-1").expect("alias").name, "base");
        assert_eq!(catalogue.get("ALL-minilm-l6-V2").expect("case").name, "all-MiniLM-L6-v2");
    }

    #[test]
    fn an_unknown_model_is_the_callers_fault_and_lists_the_known_ones() {
        let error = Catalogue::builtin().get("huge").expect_err("unknown");
        assert!(error.fault().is_input());
        assert!(error.to_string().contains("tiny.en, base"), "{error}");
    }

    #[test]
    fn turbo_cannot_translate_and_large_can() {
        let catalogue = Catalogue::builtin();
        assert!(!catalogue.get("turbo").expect("turbo").translate);
        assert!(catalogue.get("large-v3").expect("large").translate);
    }

    #[test]
    fn weights_from_the_network_are_pinned_by_checksum() {
        for model in Catalogue::builtin().models() {
            for source in &model.sources {
                if let Source::Hub { files, revision, .. } = source {
                    assert_eq!(revision.len(), 40, "{}", model.name);
                    let weights = files.iter().find(|file| file.name() == "model.safetensors").expect("weights");
                    assert!(weights.sha256.is_some() && weights.size.is_some(), "{}", model.name);
                }
            }
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let sound = BUILTIN;
        for (from, to, says) in [
            ("name = \"tiny.en\"", "name = \"../tiny\"", "does not start with a dot"),
            ("name = \"tiny.en\"", "name = \"base\"", "two models"),
            ("file = \"model.bin\"", "file = \"model.bin2\"", "model.bin"),
            ("sha256 = \"589c", "sha256 = \"XX9c", "not a lower-case sha256"),
            ("licence = \"MIT\"", "license = \"MIT\"", "license"),
            ("[model.embedding]\ndims = 384\nmax_tokens = 256\npooling = \"mean\"", "", "belongs to the family bert"),
        ] {
            assert!(sound.contains(from), "{from}");
            let error = Catalogue::parse(&sound.replacen(from, to, 1)).expect_err(to).to_string();
            assert!(error.contains(says), "{to}: {error}");
        }
    }
}
