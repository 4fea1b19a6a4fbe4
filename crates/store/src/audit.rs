//! Who did what.

use warren_clock::UnixMillis;

use crate::{Reads, StoreError, Tx, entity::audit, sql};

/// One deed of a person or program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Who.
    pub actor: String,
    /// What, e.g. `cancel`.
    pub verb: String,
    /// To what, e.g. `job_…`.
    pub subject: String,
    /// Reason or difference, for people.
    pub detail: String,
    /// When.
    pub at: UnixMillis,
}

impl Tx {
    /// Records a deed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn audit(&self, actor: &str, verb: &str, subject: &str, detail: &str) -> Result<(), StoreError> {
        let words = [actor, verb, subject, detail].map(|word| sql::text(word).into());
        let values = words.into_iter().chain([self.now().0.into()]);
        self.execute("INSERT INTO audit (actor, verb, subject, detail, at_ms) VALUES ($1, $2, $3, $4, $5)", values)
            .await?;
        Ok(())
    }
}

impl Reads<'_> {
    /// The newest `limit` deeds, newest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn audit(&self, limit: u64) -> Result<Vec<AuditEntry>, StoreError> {
        let text = "SELECT * FROM audit ORDER BY id DESC LIMIT $1";
        let rows: Vec<audit::Model> = self.all(text, [(limit as i64).into()]).await?;
        Ok(rows
            .into_iter()
            .map(|row| AuditEntry {
                actor: row.actor,
                verb: row.verb,
                subject: row.subject,
                detail: row.detail,
                at: UnixMillis(row.at_ms),
            })
            .collect())
    }
}
