//! What the tests of every program's settings have in common.

use serde::{Serialize, de::DeserializeOwned};

use crate::Validate;

/// The defaults pass their own check, and are the same after a file has held them.
///
/// # Panics
/// When they do not, or are not.
pub fn assert_defaults<T>()
where
    T: Default + Serialize + DeserializeOwned + Validate,
{
    let defaults = T::default();
    assert_eq!(defaults.validate(), Ok(()));
    let text = toml::to_string(&defaults).expect("settings have a form in TOML");
    let read: T = toml::from_str(&text).expect("what was written can be read");
    assert_eq!(toml::to_string(&read).as_deref(), Ok(text.as_str()));
}

/// The defaults with this mistake are refused, and the message names `key`.
///
/// # Panics
/// When they pass, or the message names another key.
pub fn assert_refused<T>(key: &str, mistake: impl FnOnce(&mut T))
where
    T: Default + Validate,
{
    let mut settings = T::default();
    mistake(&mut settings);
    let refused = settings.validate();
    assert!(refused.as_ref().is_err_and(|message| message.contains(key)), "{key}: {refused:?}");
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(default)]
    struct Sample {
        depth: u32,
    }

    impl Default for Sample {
        fn default() -> Self {
            Self { depth: 7 }
        }
    }

    impl Validate for Sample {
        fn validate(&self) -> Result<(), String> {
            (self.depth > 0).then_some(()).ok_or_else(|| "queue.depth: must be at least 1".to_owned())
        }
    }

    #[test]
    fn good_defaults_pass() {
        assert_defaults::<Sample>();
        assert_refused("queue.depth", |sample: &mut Sample| sample.depth = 0);
    }

    #[test]
    #[should_panic(expected = "queue.width")]
    fn a_message_that_names_another_key_fails() {
        assert_refused("queue.width", |sample: &mut Sample| sample.depth = 0);
    }

    #[test]
    #[should_panic(expected = "queue.depth: Ok(())")]
    fn a_mistake_that_passes_fails() {
        assert_refused("queue.depth", |sample: &mut Sample| sample.depth = 8);
    }
}
