//! What can go wrong with the database, and what each means for the work at hand.

use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, SqlxError};
use warren_fault::{Code, Fault};

/// The database could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Out of reach, full, or not allowed to write. Nothing was changed, unless a commit was under way, whose outcome
    /// is then unknown.
    #[error("the database is not available: {reason}")]
    Unavailable {
        /// What the database or the network said.
        reason: String,
    },
    /// Other writers held their locks for too long; nothing was changed.
    #[error("the database is busy: {reason}")]
    Busy {
        /// What was waited for.
        reason: String,
    },
    /// The change contradicts a row that is already there.
    #[error("the change contradicts what is stored: {reason}")]
    Conflict {
        /// The rule it breaks.
        reason: String,
    },
    /// This process no longer leads; nothing was changed.
    #[error("this coordinator's term is over; nothing was changed")]
    TermLost,
    /// A stored value cannot be what it should be.
    #[error("the database holds a value that cannot be: {what}")]
    Corrupt {
        /// Column and value.
        what: String,
    },
    /// The schema is not the one that this build was made for.
    #[error("the database's schema is {found}, this build needs {wanted}; {}", next_step(found, wanted))]
    Revision {
        /// Newest migration applied, or `none`.
        found: String,
        /// Newest migration of this build.
        wanted: String,
    },
    /// A vector is not of the model or dimension that the archive holds.
    #[error("the archive holds {stored}, not {given}; search with that model, or index again")]
    Mismatch {
        /// Model and dimensions in the archive.
        stored: String,
        /// Model and dimensions given.
        given: String,
    },
    /// A defect: a statement that this database does not accept.
    #[error("the database refused a statement: {reason}")]
    Internal {
        /// What it said.
        reason: String,
    },
}

fn next_step(found: &str, wanted: &str) -> &'static str {
    if found == "none" || found < wanted {
        "run `warren migrate`"
    } else {
        "it was migrated by a newer build: run that one, or `warren migrate down` with it"
    }
}

impl StoreError {
    /// What it means for a piece of work that met it.
    pub fn fault(&self) -> Fault {
        let message = self.to_string();
        match self {
            Self::Unavailable { .. } | Self::Busy { .. } | Self::Revision { .. } => {
                Fault::retry_later(Code::StoreUnavailable, message)
            }
            Self::TermLost => Fault::retry_later(Code::CoordinatorUnavailable, message),
            Self::Conflict { .. } | Self::Corrupt { .. } | Self::Mismatch { .. } | Self::Internal { .. } => {
                Fault::permanent(Code::Internal, message)
            }
        }
    }

    pub(crate) fn kept_transaction() -> Self {
        Self::Internal { reason: "a clone of the transaction was kept beyond its end".to_owned() }
    }

    /// A row that makes no sense: `what` names the column and what is wrong with it.
    pub fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }

    pub(crate) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into() }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        error.fault()
    }
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        match &error {
            DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) => Self::unavailable(NO_CONNECTION),
            DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed) => Self::unavailable(error.to_string()),
            DbErr::Conn(RuntimeErr::SqlxError(cause))
            | DbErr::Exec(RuntimeErr::SqlxError(cause))
            | DbErr::Query(RuntimeErr::SqlxError(cause)) => from_driver(cause),
            DbErr::Conn(_) => Self::unavailable(error.to_string()),
            DbErr::Type(_) | DbErr::TryIntoErr { .. } | DbErr::Json(_) => Self::corrupt(error.to_string()),
            _ => Self::Internal { reason: error.to_string() },
        }
    }
}

/// The pool cannot tell which: it goes on trying to connect for as long as it waits.
const NO_CONNECTION: &str = "no connection in time; it is out of reach, or all its connections are in use";

fn from_driver(error: &SqlxError) -> StoreError {
    let reason = error.to_string();
    match error {
        SqlxError::Database(cause) => {
            from_code(cause.code().as_deref().unwrap_or_default(), cause.message().to_owned())
        }
        SqlxError::PoolTimedOut => StoreError::unavailable(NO_CONNECTION),
        SqlxError::Io(_)
        | SqlxError::Tls(_)
        | SqlxError::Protocol(_)
        | SqlxError::PoolClosed
        | SqlxError::WorkerCrashed
        | SqlxError::Configuration(_) => StoreError::Unavailable { reason },
        SqlxError::ColumnDecode { .. } | SqlxError::Decode(_) => StoreError::Corrupt { what: reason },
        _ => StoreError::Internal { reason },
    }
}

/// PostgreSQL's codes have five characters, SQLite's are result codes as decimal numbers.
fn from_code(code: &str, message: String) -> StoreError {
    if code.len() == 5 {
        let unavailable = ["08", "28", "3D", "53", "57", "58"].iter().any(|class| code.starts_with(class));
        return match code {
            "40001" | "40P01" | "55P03" | "57014" => StoreError::Busy { reason: message },
            "25006" | "25P03" | "25P04" => StoreError::Unavailable { reason: message },
            _ if unavailable => StoreError::Unavailable { reason: message },
            _ if code.starts_with("23") => StoreError::Conflict { reason: message },
            "XX001" | "XX002" => StoreError::Corrupt { what: message },
            _ => StoreError::Internal { reason: message },
        };
    }
    // The low byte is the primary code, https://www.sqlite.org/rescode.html.
    match code.parse::<u32>().map(|code| code & 0xff) {
        Ok(5 | 6) => StoreError::Busy { reason: message },
        Ok(8 | 10 | 14 | 23) => StoreError::Unavailable { reason: message },
        Ok(13) => StoreError::Unavailable { reason: format!("{message}; free some space where the file is") },
        Ok(11 | 26) => StoreError::Corrupt { what: message },
        Ok(19) => StoreError::Conflict { reason: message },
        _ => StoreError::Internal { reason: message },
    }
}

/// True when the same transaction, run again at once, is likely to succeed.
pub(crate) fn is_transient(error: &StoreError, is_sqlite: bool) -> bool {
    // SQLite has already waited for its busy timeout.
    matches!(error, StoreError::Busy { .. }) && !is_sqlite
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_both_databases_are_told_apart() {
        let kind = |code: &str| from_code(code, String::new());
        for code in ["13", "14", "1032", "266", "53100", "57P01", "08006", "25P03", "3D000"] {
            assert!(matches!(kind(code), StoreError::Unavailable { .. }), "{code}");
        }
        for code in ["5", "517", "6", "40001", "40P01"] {
            assert!(matches!(kind(code), StoreError::Busy { .. }), "{code}");
        }
        for code in ["2067", "1555", "787", "23505", "23503"] {
            assert!(matches!(kind(code), StoreError::Conflict { .. }), "{code}");
        }
        assert!(matches!(kind("11"), StoreError::Corrupt { .. }));
        assert!(matches!(kind("42601"), StoreError::Internal { .. }));
    }

    #[test]
    fn infrastructure_spends_no_attempt() {
        assert!(matches!(StoreError::unavailable("gone").fault(), Fault::RetryLater { .. }));
        assert!(matches!(StoreError::TermLost.fault(), Fault::RetryLater { .. }));
        assert!(matches!(StoreError::corrupt("job.state").fault(), Fault::Permanent(_)));
    }

    #[test]
    fn another_revision_says_what_to_do() {
        let message = |found: &str| StoreError::Revision { found: found.into(), wanted: "m0002".into() }.to_string();
        assert!(message("none").ends_with("run `warren migrate`"));
        assert!(message("m0001").ends_with("run `warren migrate`"));
        assert!(message("m0003").contains("newer build"));
    }
}
