//! Names of objects. Only Warren makes them, from ids and numbers.

use std::{fmt, str::FromStr};

use uuid::Uuid;

/// The name of one object. It has one of these shapes and no other:
///
/// | shape | holds |
/// | --- | --- |
/// | `media/<media>` | an upload |
/// | `texts/<job>/0` | the input of an embed job, one JSON text a line |
/// | `pcm/<job>/<part>` | 16 kHz mono s16le samples |
/// | `results/<task>/<dispatch>/<id>` | a result too large for a message |
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

/// All objects whose names begin alike, such as all PCM.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix(&'static str);

/// The text is not the name of a Warren object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an object key of Warren")]
pub struct BadKey(String);

impl Key {
    /// An upload.
    pub fn media(media: Uuid) -> Self {
        Self(format!("media/{media}"))
    }

    /// The input texts of an embed job.
    pub fn texts(job: Uuid) -> Self {
        Self(format!("texts/{job}/0"))
    }

    /// One part of a job's decoded samples, counted from 0.
    pub fn pcm(job: Uuid, part: u32) -> Self {
        Self(format!("pcm/{job}/{part}"))
    }

    /// A result of one dispatch of a task. `id` is new for every attempt, so that racing workers never overwrite each
    /// other.
    pub fn result(task: Uuid, dispatch: u32, id: Uuid) -> Self {
        Self(format!("results/{task}/{dispatch}/{id}"))
    }

    /// Reads a key from a message or a row.
    ///
    /// # Errors
    /// [`BadKey`] for anything that the constructors would not have made, letter for letter.
    pub fn parse(text: &str) -> Result<Self, BadKey> {
        let mut steps = text.split('/');
        let key = match (steps.next(), steps.next(), steps.next(), steps.next(), steps.next()) {
            (Some("media"), Some(media), None, ..) => id(media).map(Self::media),
            (Some("texts"), Some(job), Some("0"), None, _) => id(job).map(Self::texts),
            (Some("pcm"), Some(job), Some(part), None, _) => {
                id(job).zip(part.parse().ok()).map(|(job, part)| Self::pcm(job, part))
            }
            (Some("results"), Some(task), Some(dispatch), Some(own), None) => id(task)
                .zip(dispatch.parse().ok())
                .zip(id(own))
                .map(|((task, dispatch), own)| Self::result(task, dispatch, own)),
            _ => None,
        };
        // Rendering again refuses every other spelling: upper case, braces, leading zeros, a plus sign.
        key.filter(|key| key.0 == text).ok_or_else(|| BadKey(text.chars().take(120).collect()))
    }

    /// The upload, job or task that the object belongs to.
    pub fn owner(&self) -> Uuid {
        self.0.split('/').nth(1).and_then(id).expect("every constructor writes it there")
    }

    /// The name, as in messages and rows.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Prefix {
    /// All recordings.
    pub const MEDIA: Self = Self("media/");
    /// The input texts of all jobs.
    pub const TEXTS: Self = Self("texts/");
    /// The decoded samples of all jobs.
    pub const PCM: Self = Self("pcm/");
    /// The result objects of all tasks.
    pub const RESULTS: Self = Self("results/");
    /// Everything in the bucket.
    pub const EVERYTHING: Self = Self("");

    pub(crate) fn as_str(self) -> &'static str {
        self.0
    }
}

fn id(text: &str) -> Option<Uuid> {
    Uuid::parse_str(text).ok()
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}*", self.0)
    }
}

impl FromStr for Key {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: Uuid = Uuid::from_u128(0x0192_f0c1_7e9b_7c3a_8f00_1122_3344_5566);

    #[test]
    fn every_key_that_is_made_reads_back() {
        for key in [Key::media(ID), Key::texts(ID), Key::pcm(ID, 0), Key::pcm(ID, u32::MAX), Key::result(ID, 3, ID)] {
            assert_eq!(key.owner(), ID);
            assert_eq!(Key::parse(key.as_str()), Ok(key));
        }
    }

    #[test]
    fn other_shapes_and_spellings_are_refused() {
        let id = ID.to_string();
        for text in [
            String::new(),
            "media".to_owned(),
            "media/".to_owned(),
            format!("media/{id}/"),
            format!("media/{id}/x"),
            format!("/media/{id}"),
            format!("media/{}", id.to_uppercase()),
            format!("media/{}", ID.simple()),
            format!("media/{{{id}}}"),
            format!("media/../{id}"),
            format!("texts/{id}/1"),
            format!("pcm/{id}/01"),
            format!("pcm/{id}/+1"),
            format!("pcm/{id}/-1"),
            format!("pcm/{id}/4294967296"),
            format!("results/{id}/1"),
            format!("results/{id}/1/{id}/0"),
            format!("other/{id}"),
        ] {
            assert!(Key::parse(&text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_is_what_was_written(text in "(media|texts|pcm|results|\\.\\.)(/[0-9a-f./-]{0,40}){0,4}") {
            if let Ok(key) = Key::parse(&text) {
                prop_assert_eq!(key.as_str(), text);
            }
        }
    }
}
