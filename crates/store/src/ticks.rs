//! When the leader last did what it does again and again.

use std::time::Duration;

use warren_clock::UnixMillis;

use crate::{Reads, StoreError, Tx, sql};

/// A round of one duty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Of the duty.
    pub name: String,
    /// The last round.
    pub at: UnixMillis,
    /// Between two rounds; whole seconds.
    pub every: Duration,
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct Row {
    name: String,
    every_s: i64,
    at_ms: i64,
}

impl Tx {
    /// Notes that a duty of the leader has done a round, and how often it does.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn tick(&self, name: &str, every: Duration) -> Result<(), StoreError> {
        let text = "INSERT INTO tick (name, every_s, at_ms) VALUES ($1, $2, $3)
             ON CONFLICT (name) DO UPDATE SET every_s = excluded.every_s, at_ms = excluded.at_ms";
        let every = i64::try_from(every.as_secs()).unwrap_or(i64::MAX);
        self.execute(text, [sql::text(name).into(), every.into(), self.now().0.into()]).await?;
        Ok(())
    }
}

impl Reads<'_> {
    /// The last round of each duty, by name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn ticks(&self) -> Result<Vec<Tick>, StoreError> {
        let rows: Vec<Row> = self.all("SELECT * FROM tick ORDER BY name", []).await?;
        Ok(rows
            .into_iter()
            .map(|row| Tick {
                name: row.name,
                at: UnixMillis(row.at_ms),
                every: Duration::from_secs(u64::try_from(row.every_s).unwrap_or(0)),
            })
            .collect())
    }
}
