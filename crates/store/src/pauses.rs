//! Kinds of work that are not released for the time being.

use warren_clock::UnixMillis;
use warren_jobs::TaskKind;

use crate::{Reads, StoreError, Tx, sql};

/// A kind of work that somebody has paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Which kind.
    pub kind: TaskKind,
    /// Who did it.
    pub actor: String,
    /// Why, in that person's words; may be empty.
    pub reason: String,
    /// Since when.
    pub since: UnixMillis,
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct Row {
    kind: String,
    actor: String,
    reason: String,
    since_ms: i64,
}

impl Tx {
    /// Pauses a kind of work. False: it was paused already, and is left as it is.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn pause(&self, kind: TaskKind, actor: &str, reason: &str) -> Result<bool, StoreError> {
        let text = "INSERT INTO paused_kind (kind, actor, reason, since_ms) VALUES ($1, $2, $3, $4)
             ON CONFLICT (kind) DO NOTHING";
        let values = [kind.as_str().into(), sql::text(actor).into(), sql::text(reason).into(), self.now().0.into()];
        Ok(self.execute(text, values).await? == 1)
    }

    /// Ends a pause. False: there was none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn resume(&self, kind: TaskKind) -> Result<bool, StoreError> {
        Ok(self.execute("DELETE FROM paused_kind WHERE kind = $1", [kind.as_str().into()]).await? == 1)
    }
}

impl Reads<'_> {
    /// What is paused.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn pauses(&self) -> Result<Vec<Pause>, StoreError> {
        let rows: Vec<Row> = self.all("SELECT * FROM paused_kind ORDER BY kind", []).await?;
        rows.into_iter()
            .map(|row| {
                let kind = sql::word("paused_kind.kind", &row.kind)?;
                Ok(Pause { kind, actor: row.actor, reason: row.reason, since: UnixMillis(row.since_ms) })
            })
            .collect()
    }
}
