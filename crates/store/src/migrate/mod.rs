//! The schema's revisions. A service refuses to run on another one than its own; `warren migrate` moves it.
//!
//! Old and new code run side by side during an upgrade, so a migration first adds what the new code needs; a later one
//! removes what no running code needs any more.

mod m0001_initial;
mod m0002_resubmitted_from;
mod m0003_memory;

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use sea_orm_migration::{MigrationStatus, MigrationTrait, MigratorTrait};

use crate::{
    StoreError,
    connect::{Purpose, connect},
};

struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_initial::Initial),
            Box::new(m0002_resubmitted_from::ResubmittedFrom),
            Box::new(m0003_memory::Memory),
        ]
    }
}

/// One revision of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// E.g. `m0001_initial`.
    pub name: String,
    /// True when this database has it.
    pub applied: bool,
}

/// The newest revision that this build knows.
pub fn newest() -> String {
    Migrator::migrations().last().map(|migration| migration.name().to_owned()).unwrap_or_default()
}

/// Brings the database at `url` to this build's revision; creates the SQLite file. Does nothing when it is there.
/// Returns the names of the revisions applied.
///
/// # Errors
/// [`StoreError::Unavailable`] when the database cannot be reached. A revision that fails changes nothing.
pub async fn up(url: &str) -> Result<Vec<String>, StoreError> {
    moved(url, Direction::Up).await
}

/// Takes back the newest `steps` revisions with everything that they hold. Returns their names.
///
/// # Errors
/// As [`up`].
pub async fn down(url: &str, steps: u32) -> Result<Vec<String>, StoreError> {
    moved(url, Direction::Down(steps)).await
}

/// All revisions that this build knows, oldest first. Changes nothing.
///
/// # Errors
/// [`StoreError::Unavailable`] when the database cannot be reached.
pub async fn status(url: &str) -> Result<Vec<Revision>, StoreError> {
    let connection = match connect(url, Purpose::Shared { connections: 1 }).await {
        Err(StoreError::Revision { .. }) => {
            let names = Migrator::migrations();
            return Ok(names.iter().map(|each| Revision { name: each.name().to_owned(), applied: false }).collect());
        }
        other => other?,
    };
    let revisions = revisions(&connection).await;
    connection.close().await?;
    revisions
}

/// Refuses a schema that is not this build's.
pub(crate) async fn check(connection: &DatabaseConnection) -> Result<(), StoreError> {
    let revisions = revisions(connection).await?;
    if revisions.iter().all(|revision| revision.applied) {
        return Ok(());
    }
    let found = revisions.iter().rev().find(|revision| revision.applied);
    Err(StoreError::Revision {
        found: found.map_or_else(|| "none".to_owned(), |each| each.name.clone()),
        wanted: newest(),
    })
}

enum Direction {
    Up,
    Down(u32),
}

async fn moved(url: &str, direction: Direction) -> Result<Vec<String>, StoreError> {
    let connection = connect(url, Purpose::Migration).await?;
    let outcome = in_one_transaction(&connection, direction).await;
    connection.close().await?;
    outcome
}

/// One transaction for all of it, begun with a lock, so that a second migration waits and a failed one leaves nothing.
async fn in_one_transaction(connection: &DatabaseConnection, direction: Direction) -> Result<Vec<String>, StoreError> {
    let is_sqlite = connection.get_database_backend() == DbBackend::Sqlite;
    let options = TransactionOptions {
        sqlite_transaction_mode: is_sqlite.then_some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    let tx = connection.begin_with_options(options).await?;
    if !is_sqlite {
        tx.execute_unprepared("SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock(7289311)").await?;
    }
    let before = applied(&tx).await?;
    match direction {
        Direction::Up => Migrator::up(&tx, None).await?,
        Direction::Down(steps) => Migrator::down(&tx, Some(steps)).await?,
    }
    let after = applied(&tx).await?;
    tx.commit().await?;
    let (more, fewer) = if after.len() > before.len() { (after, before) } else { (before, after) };
    Ok(more.into_iter().filter(|name| !fewer.contains(name)).collect())
}

async fn applied(connection: &impl ConnectionTrait) -> Result<Vec<String>, StoreError> {
    Ok(Migrator::get_applied_migrations(connection)
        .await
        .map_err(explain)?
        .iter()
        .map(|each| each.name().to_owned())
        .collect())
}

async fn revisions(connection: &DatabaseConnection) -> Result<Vec<Revision>, StoreError> {
    let known = Migrator::get_migration_with_status_read_only(connection).await.map_err(explain)?;
    Ok(known
        .iter()
        .map(|each| Revision { name: each.name().to_owned(), applied: each.status() == MigrationStatus::Applied })
        .collect())
}

/// sea-orm reports an applied migration that this build lacks as a text only.
fn explain(error: sea_orm::DbErr) -> StoreError {
    match &error {
        sea_orm::DbErr::Custom(text) | sea_orm::DbErr::Migration(text) if text.contains("missing") => {
            StoreError::Revision { found: "newer than this build".to_owned(), wanted: newest() }
        }
        _ => error.into(),
    }
}
