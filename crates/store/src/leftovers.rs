//! What ended jobs leave behind.

use std::collections::HashSet;

use sea_orm::Value;
use uuid::Uuid;
use warren_clock::UnixMillis;

use crate::{Reads, StoreError, Tx, sql};

impl Reads<'_> {
    /// Of these ids of jobs, those that are still there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn known_jobs(&self, ids: &[Uuid]) -> Result<HashSet<Uuid>, StoreError> {
        let text = format!("SELECT id FROM job WHERE {}", sql::is_one_of(self.backend, "id", 1));
        let rows: Vec<sql::OneId> = self.all(text, [sql::ids(ids)]).await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// Of these ids of recordings, those that are still there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn known_media(&self, ids: &[Uuid]) -> Result<HashSet<Uuid>, StoreError> {
        let text = format!("SELECT id FROM media WHERE {}", sql::is_one_of(self.backend, "id", 1));
        let rows: Vec<sql::OneId> = self.all(text, [sql::ids(ids)]).await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// Of these ids of jobs and tasks, those whose objects are still needed: their job is open, has a dead task, which
    /// may be replayed, or failed because the command to plan it died, which may be replayed as well.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn need_objects(&self, ids: &[Uuid]) -> Result<HashSet<Uuid>, StoreError> {
        let needed = "(job.state IN ('queued', 'running')
             OR EXISTS (SELECT 1 FROM task AS other WHERE other.job_id = job.id AND other.state = 'dead')
             OR (job.state = 'failed' AND EXISTS (SELECT 1 FROM dead_letter AS letter
                 WHERE letter.job_id = job.id AND letter.task_id IS NULL
                 AND letter.state IN ('dead', 'parked', 'purged'))))";
        let text = format!(
            "SELECT job.id AS id FROM job WHERE {} AND {needed}
             UNION ALL
             SELECT task.id AS id FROM task JOIN job ON job.id = task.job_id WHERE {} AND {needed}",
            sql::is_one_of(self.backend, "job.id", 1),
            sql::is_one_of(self.backend, "task.id", 1)
        );
        let rows: Vec<sql::OneId> = self.all(text, [sql::ids(ids)]).await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }
}

impl Tx {
    /// Deletes the searches that have ended, with everything that belongs to them, if they were submitted in this span
    /// of time. Returns how many.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn forget_searches(&self, from: UnixMillis, before: UnixMillis) -> Result<u64, StoreError> {
        let these = "created_ms >= $1 AND created_ms < $2 AND kind = 'query'
             AND state IN ('succeeded', 'failed', 'cancelled')";
        let span: [Value; 2] = [from.0.into(), before.0.into()];
        for table in ["task", "embedding"] {
            let text = format!("DELETE FROM {table} WHERE job_id IN (SELECT id FROM job WHERE {these})");
            self.execute(text, span.clone()).await?;
        }
        self.execute(format!("DELETE FROM job WHERE {these}"), span).await
    }
}
