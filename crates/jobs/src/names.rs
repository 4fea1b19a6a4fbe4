//! The words that rows, messages, metrics and people use.

use std::{fmt, str::FromStr};

/// The word names no value of this type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is none of {known}")]
pub struct UnknownName {
    given: String,
    known: String,
}

macro_rules! names {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $vdoc:literal])+ $variant:ident = $word:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[doc = $vdoc])+ $variant,)+
        }

        impl $name {
            /// All values, in order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl FromStr for $name {
            type Err = UnknownName;

            fn from_str(word: &str) -> Result<Self, UnknownName> {
                Self::ALL.iter().copied().find(|value| value.as_str() == word).ok_or_else(|| UnknownName {
                    given: word.chars().take(80).collect(),
                    known: Self::ALL.iter().map(|value| value.as_str()).collect::<Vec<_>>().join(", "),
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

names!(
    /// What a caller asks for.
    JobKind {
        /// A recording to text.
        Transcribe = "transcribe",
        /// Texts to vectors.
        Embed = "embed",
        /// The words of a search to a vector; not shown among a caller's jobs.
        Query = "query",
    }
);
names!(
    /// Who waits for the job. Order is order of service; waiting jobs age upwards.
    JobClass {
        /// A person is looking at the screen.
        Interactive = "interactive",
        /// Ordinary work.
        Default = "default",
        /// Whenever there is room.
        Batch = "batch",
    }
);
names!(
    /// Where a job is.
    JobState {
        /// Accepted; no task has been released yet.
        Queued = "queued",
        /// At least one task was released.
        Running = "running",
        /// Every task is done. Final.
        Succeeded = "succeeded",
        /// A task failed or died, or time ran out. Only a replay of its dead letters moves it again.
        Failed = "failed",
        /// Stopped by its caller. Final.
        Cancelled = "cancelled",
    }
);
names!(
    /// A kind of work. Each has a queue of its own.
    TaskKind {
        /// Decode a recording and cut it into windows.
        Prepare = "prepare",
        /// Windows to segments.
        Transcribe = "transcribe",
        /// Texts to vectors.
        Embed = "embed",
    }
);
names!(
    /// Where a task is.
    TaskState {
        /// A row only; nothing is in the broker.
        Unreleased = "unreleased",
        /// In the outbox, in the broker, with a worker, or on the retry ladder.
        Released = "released",
        /// Its result is recorded. Final.
        Done = "done",
        /// The caller's input is at fault. Final.
        Failed = "failed",
        /// A dead letter exists. Only its replay moves the task again.
        Dead = "dead",
        /// Its job ended without it. Final.
        Cancelled = "cancelled",
    }
);

impl JobState {
    /// True when the job has ended (a failed one may still be redriven).
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

impl TaskState {
    /// True while work may still happen.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Unreleased | Self::Released)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back() {
        for kind in TaskKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(*kind));
        }
        let error = "paused".parse::<JobState>().expect_err("unknown").to_string();
        assert_eq!(error, "`paused` is none of queued, running, succeeded, failed, cancelled");
    }
}
