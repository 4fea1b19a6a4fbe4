//! Deleting jobs that have ended.

use uuid::Uuid;

use crate::{StoreError, Tx};

/// A letter of the job lies in `warren.dead`, or is on its way out of there.
const HAS_LETTERS: &str = "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM dead_letter
     WHERE job_id = $1 AND (in_queue OR state IN ('dead', 'parked', 'replaying'))";

impl crate::Reads<'_> {
    /// How many letters of a job lie in `warren.dead`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn letters_of_job(&self, job: Uuid) -> Result<u64, StoreError> {
        let found: Option<crate::sql::Number> = self.one(HAS_LETTERS, [job.into()]).await?;
        Ok(found.map_or(0, |found| found.n as u64))
    }
}

impl Tx {
    /// Deletes a job that has ended, with its tasks, events, results, passages and request ids, the letters of it that
    /// were done with, and its recording if no other job names that. False, and nothing changed, when there is no such
    /// job, or it is open, or letters of it lie in `warren.dead`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn delete_job(&self, job: Uuid) -> Result<bool, StoreError> {
        let Some(found) = self.read().job(job).await? else { return Ok(false) };
        if !found.state.is_ended() || self.read().letters_of_job(job).await? > 0 {
            return Ok(false);
        }
        for table in ["idempotency", "dead_letter", "task", "embedding"] {
            self.execute(format!("DELETE FROM {table} WHERE job_id = $1"), [job.into()]).await?;
        }
        self.execute("DELETE FROM job WHERE id = $1", [job.into()]).await?;
        if let Some(media) = found.media_id {
            let text = "DELETE FROM media WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM job WHERE media_id = $1)";
            self.execute(text, [media.into()]).await?;
        }
        Ok(true)
    }
}
