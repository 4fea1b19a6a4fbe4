//! Ids as people see them: a word that says what it is, and a UUIDv7.

use std::{fmt, str::FromStr};

use uuid::Uuid;

/// The text is not an id of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a {kind} id; it looks like {kind}_0192f0c1-…")]
pub struct InvalidId {
    kind: &'static str,
    given: String,
}

macro_rules! id {
    ($(#[doc = $doc:literal])+ $name:ident $kind:literal) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($kind, "_{}"), self.0.hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.strip_prefix(concat!($kind, "_"))
                    .and_then(|uuid| Uuid::try_parse(uuid).ok())
                    .map(Self)
                    .ok_or_else(|| InvalidId { kind: $kind, given: text.chars().take(80).collect() })
            }
        }
    };
}

id!(
    /// A job: what a caller asked for.
    JobId "job"
);
id!(
    /// A task: one message's worth of work.
    TaskId "task"
);
id!(
    /// An uploaded recording.
    MediaId "media"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_and_refuse_each_other() {
        let id = JobId(Uuid::from_u128(7));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().parse::<TaskId>().is_err());
        assert!("job_../../etc".parse::<JobId>().is_err());
    }
}
