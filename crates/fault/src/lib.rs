//! The three ways work can fail, and the documented codes that say why.
//!
//! A fault is classified once, where its cause is known; everything downstream (ack, retry ladder, dead letter, job
//! error) follows from the value. See [`Fault`].

mod code;

use std::{fmt, time::Duration};

pub use code::Code;

/// Why work failed: a documented code and one sentence for a person, with the next step when there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Stable and documented; what callers switch on.
    pub code: Code,
    /// For people. Names the field, file or part at fault.
    pub message: String,
}

impl Cause {
    /// A cause with its code and message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// How a piece of work failed, which decides what happens to its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Short trouble inside the work itself. Spends an attempt.
    Retryable(Cause),
    /// Not our turn, or a part of the platform is away. Spends no attempt; bounded by the job's deadline.
    RetryLater {
        /// What is missing.
        cause: Cause,
        /// When to look again; `None` lets the retry policy choose.
        wait: Option<Duration>,
    },
    /// Will fail the same way every time. An input code fails the job; any other makes a dead letter.
    Permanent(Cause),
}

impl Fault {
    /// A [`Fault::Retryable`].
    pub fn retryable(code: Code, message: impl Into<String>) -> Self {
        Self::Retryable(Cause::new(code, message))
    }

    /// A [`Fault::RetryLater`] whose delay the policy chooses.
    pub fn retry_later(code: Code, message: impl Into<String>) -> Self {
        Self::RetryLater { cause: Cause::new(code, message), wait: None }
    }

    /// A [`Fault::Permanent`].
    pub fn permanent(code: Code, message: impl Into<String>) -> Self {
        Self::Permanent(Cause::new(code, message))
    }

    /// The cause, whatever the class.
    pub fn cause(&self) -> &Cause {
        match self {
            Self::Retryable(cause) | Self::RetryLater { cause, .. } | Self::Permanent(cause) => cause,
        }
    }

    /// True when the caller's input is to blame: the job fails, and no dead letter is made.
    pub fn is_input(&self) -> bool {
        matches!(self, Self::Permanent(cause) if cause.code.is_input())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause().fmt(f)
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_from_its_name() {
        for code in Code::ALL {
            assert_eq!(code.as_str().parse::<Code>(), Ok(*code));
        }
    }

    #[test]
    fn only_permanent_input_faults_blame_the_caller() {
        assert!(Fault::permanent(Code::InputInvalid, "empty file").is_input());
        assert!(!Fault::retryable(Code::InputInvalid, "empty file").is_input());
        assert!(!Fault::permanent(Code::Malformed, "not JSON").is_input());
    }
}
