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
    /// The request that this row is the answer to, if somebody waits for one.
    pub request: Option<String>,
}

impl Tx {
    /// Records a deed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn audit(&self, actor: &str, verb: &str, subject: &str, detail: &str) -> Result<(), StoreError> {
        self.deed(None, actor, verb, subject, detail).await
    }

    /// Records a deed as the answer to a request.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the request was answered before.
    pub async fn audit_answer(
        &self,
        request: &str,
        actor: &str,
        verb: &str,
        subject: &str,
        detail: &str,
    ) -> Result<(), StoreError> {
        self.deed(Some(request), actor, verb, subject, detail).await
    }

    async fn deed(
        &self,
        request: Option<&str>,
        actor: &str,
        verb: &str,
        subject: &str,
        detail: &str,
    ) -> Result<(), StoreError> {
        let words = [actor, verb, subject, detail].map(|word| sql::text(word).into());
        let values = words.into_iter().chain([self.now().0.into(), request.map(sql::text).into()]);
        self.execute(
            "INSERT INTO audit (actor, verb, subject, detail, at_ms, request) VALUES ($1, $2, $3, $4, $5, $6)",
            values,
        )
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
        Ok(rows.into_iter().map(AuditEntry::from).collect())
    }

    /// All deeds to these subjects, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn audit_of(&self, subjects: &[String]) -> Result<Vec<AuditEntry>, StoreError> {
        let text = format!(
            "SELECT * FROM audit WHERE subject IN (SELECT id FROM {}) ORDER BY id",
            sql::table(self.backend, 1, &[sql::Column::Text("id")])
        );
        let list = sql::list(subjects.iter().map(|id| serde_json::json!({ "id": id })));
        let rows: Vec<audit::Model> = self.all(text, [list]).await?;
        Ok(rows.into_iter().map(AuditEntry::from).collect())
    }

    /// The answer to a request; `None`: nobody has dealt with it yet.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn audit_answer(&self, request: &str) -> Result<Option<AuditEntry>, StoreError> {
        let row: Option<audit::Model> =
            self.one("SELECT * FROM audit WHERE request = $1", [sql::text(request).into()]).await?;
        Ok(row.map(AuditEntry::from))
    }
}

impl From<audit::Model> for AuditEntry {
    fn from(row: audit::Model) -> Self {
        Self {
            actor: row.actor,
            verb: row.verb,
            subject: row.subject,
            detail: row.detail,
            at: UnixMillis(row.at_ms),
            request: row.request,
        }
    }
}
