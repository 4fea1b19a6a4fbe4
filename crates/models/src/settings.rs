//! The `models` section.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use warren_settings::Validate;

/// Where model weights are kept and where they come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelsSettings {
    /// Folder that holds the converted weights. Default `$XDG_CACHE_HOME/warren/models`, else `~/.cache/warren/models`.
    pub cache: PathBuf,
    /// A folder written by `warren models pull --all --to DIR`, tried before any download. Default none.
    pub local: Option<PathBuf>,
    /// Address of the model hub, for models that no package carries. Default `https://huggingface.co`; set it to a
    /// mirror that serves the same paths.
    pub hub: String,
}

impl Default for ModelsSettings {
    fn default() -> Self {
        Self { cache: default_cache(), local: None, hub: "https://huggingface.co".to_owned() }
    }
}

impl Validate for ModelsSettings {
    fn validate(&self) -> Result<(), String> {
        if self.cache.as_os_str().is_empty() {
            return Err("models.cache: must not be empty".to_owned());
        }
        if !self.hub.starts_with("http://") && !self.hub.starts_with("https://") {
            return Err(format!("models.hub: `{}` is not an http:// or https:// address", self.hub));
        }
        Ok(())
    }
}

fn default_cache() -> PathBuf {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("warren/models")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_name_an_absolute_folder() {
        let settings = ModelsSettings::default();
        assert_eq!(settings.validate(), Ok(()));
        assert!(settings.cache.is_absolute() && settings.cache.ends_with("warren/models"));
    }

    #[test]
    fn a_hub_without_scheme_is_refused() {
        let settings = ModelsSettings { hub: "hub.example".to_owned(), ..ModelsSettings::default() };
        assert!(settings.validate().expect_err("no scheme").contains("models.hub"));
    }
}
