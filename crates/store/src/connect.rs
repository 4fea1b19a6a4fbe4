//! Opening the database so that it keeps what it confirmed and never waits without end.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use sea_orm::{
    ConnectOptions, Database, DatabaseConnection, DbBackend,
    sqlx::{
        ConnectOptions as _,
        postgres::PgConnectOptions,
        sqlite::{SqliteJournalMode, SqliteSynchronous},
    },
};

use crate::StoreError;

/// SQLite: how long a writer waits for other processes' transactions, and behind it for this process's.
const BUSY: Duration = Duration::from_secs(30);
/// PostgreSQL: how long a statement waits for a connection of the pool, and a new connection for the server.
const ACQUIRE: Duration = Duration::from_secs(10);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Reads and, on PostgreSQL, writes.
    Shared { connections: u32 },
    /// SQLite's single writer of this process.
    Writer,
    /// A single connection that may create the SQLite file.
    Migration,
}

pub(crate) fn backend(url: &str) -> Result<DbBackend, StoreError> {
    if url.starts_with("sqlite:") {
        Ok(DbBackend::Sqlite)
    } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        Ok(DbBackend::Postgres)
    } else {
        Err(StoreError::unavailable("store.url must start with sqlite: or postgres:"))
    }
}

pub(crate) async fn connect(url: &str, purpose: Purpose) -> Result<DatabaseConnection, StoreError> {
    let mut options = match backend(url)? {
        DbBackend::Sqlite => sqlite(url, purpose)?,
        _ => postgres(url)?,
    };
    options
        .max_connections(match purpose {
            Purpose::Shared { connections } => connections,
            Purpose::Writer | Purpose::Migration => 1,
        })
        // Spans name the statement; its values may hold what people said.
        .record_stmt_in_spans(false);
    Ok(Database::connect(options).await?)
}

fn sqlite(url: &str, purpose: Purpose) -> Result<ConnectOptions, StoreError> {
    check_folder(url, purpose)?;
    let mut options = ConnectOptions::new(url);
    // A file-backed connection costs nothing to keep, and a fresh one has lost its page cache.
    options.acquire_timeout(BUSY).idle_timeout(None).max_lifetime(None).test_before_acquire(false);
    options.sqlx_logging(false).map_sqlx_sqlite_opts(move |options| {
        let options = options
            .create_if_missing(purpose == Purpose::Migration)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY)
            .foreign_keys(true)
            .statement_cache_capacity(200);
        match purpose {
            // The one writer must not be chosen by mistake: a reader that writes would need a second writer lock.
            Purpose::Shared { .. } => options.pragma("query_only", "on"),
            Purpose::Writer | Purpose::Migration => options,
        }
    });
    Ok(options)
}

fn postgres(url: &str) -> Result<ConnectOptions, StoreError> {
    let real: PgConnectOptions = url.parse().map_err(|error| StoreError::unavailable(format!("store.url: {error}")))?;
    let real = real.disable_statement_logging().application_name("warren").statement_cache_capacity(200).options([
        // A process that was stopped inside a transaction must not hold its locks, least of all the leader's.
        ("idle_in_transaction_session_timeout", "5000"),
        ("lock_timeout", "10000"),
        ("statement_timeout", "60000"),
        ("synchronous_commit", "on"),
    ]);
    // sea-orm prints its options, with the address, when everything is traced; these are put in later, unseen.
    let mut options = ConnectOptions::new("postgres://store.url");
    options.acquire_timeout(ACQUIRE).test_before_acquire_if_idle_for(Duration::from_secs(15));
    options.map_sqlx_postgres_opts(move |_| real.clone());
    Ok(options)
}

/// The file that a `sqlite:` address names; `None` for a database in memory.
pub(crate) fn sqlite_file(url: &str) -> Option<PathBuf> {
    let rest = url.strip_prefix("sqlite:")?;
    let path = rest.strip_prefix("//").unwrap_or(rest).split('?').next().unwrap_or_default();
    (!path.is_empty() && path != ":memory:").then(|| PathBuf::from(path))
}

fn check_folder(url: &str, purpose: Purpose) -> Result<(), StoreError> {
    let Some(file) = sqlite_file(url) else {
        return Err(StoreError::unavailable(
            "store.url: name a file; a database in memory would not outlive its writer",
        ));
    };
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(StoreError::unavailable(format!(
            "store.url: the folder {} does not exist; create it first",
            folder.display()
        )));
    }
    if purpose != Purpose::Migration && !file.exists() {
        return Err(StoreError::Revision { found: "none".to_owned(), wanted: crate::migrate::newest() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_found_in_every_spelling() {
        let file = |url| sqlite_file(url).map(|path| path.display().to_string());
        assert_eq!(file("sqlite:a/b.sqlite"), Some("a/b.sqlite".into()));
        assert_eq!(file("sqlite:///tmp/b c.sqlite?mode=rwc"), Some("/tmp/b c.sqlite".into()));
        assert_eq!(file("sqlite::memory:"), None);
        assert_eq!(file("postgres://host/db"), None);
    }
}
