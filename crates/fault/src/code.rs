//! The error codes that callers, operators and dashboards see.

use std::{fmt, str::FromStr};

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident $input:literal,)+) => {
        /// A documented error code. Names are part of the contract and never change meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Code {
            /// All codes, in the order of this file.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The name on the wire, e.g. `InputInvalid`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// True when the caller's input is at fault: counted as user error, never a dead letter.
            pub const fn is_input(self) -> bool {
                match self { $(Self::$name => $input,)+ }
            }

            /// What the code means, for `--help`, the README and error pages.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+),)+ }
            }
        }

        impl FromStr for Code {
            type Err = UnknownCode;

            fn from_str(name: &str) -> Result<Self, UnknownCode> {
                match name { $(stringify!($name) => Ok(Self::$name),)+ _ => Err(UnknownCode) }
            }
        }
    };
}

codes! {
    /// The file or text cannot be read as what it claims to be: empty, damaged, or no known format.
    InputInvalid true,
    /// The recording or a text is longer than the limit.
    InputTooLong true,
    /// The upload is larger than the limit.
    InputTooLarge true,
    /// No model of this name is in the catalogue.
    ModelUnknown true,
    /// The model cannot do what was asked, e.g. translate, or this language.
    Unsupported true,
    /// A message could not be decoded, or lacks a required field.
    Malformed false,
    /// A weight file does not match its checksum; `warren models pull --force` mends it.
    ModelCorrupt false,
    /// The model is in the catalogue but its weights are not in the cache; `warren models pull` fetches them.
    ModelMissing false,
    /// The worker was lost repeatedly while it ran this task.
    WorkerLost false,
    /// The job ran longer than its limit.
    JobTimeout false,
    /// The model or the task does not fit the device's memory, or the memory that the job itself allows.
    OutOfMemory false,
    /// There is not enough disk space, or the job itself allows too little.
    InsufficientDisk false,
    /// The device is leased to somebody else.
    LeaseNotGranted false,
    /// Object storage is out of reach or refuses.
    BlobUnavailable false,
    /// An object that should exist does not.
    BlobMissing false,
    /// An object's bytes do not match their checksum.
    BlobDamaged false,
    /// RabbitMQ is out of reach.
    BrokerUnavailable false,
    /// The database is out of reach.
    StoreUnavailable false,
    /// No coordinator leads at the moment.
    CoordinatorUnavailable false,
    /// The work was cancelled.
    Cancelled false,
    /// A defect in Warren itself; the message and the log say where.
    Internal false,
}

/// The name is not a documented code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownCode;

impl fmt::Display for UnknownCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a documented error code")
    }
}

impl std::error::Error for UnknownCode {}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
