//! What happens to a released task before it ends, and how a dead one comes back.

use uuid::Uuid;
use warren_clock::UnixMillis;

use super::{Task, in_order};
use crate::{StoreError, Tx, sql};

impl Tx {
    /// The worker put the task on the retry ladder until `until`. False: stale.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn retry_announced(&self, task: Uuid, dispatch: i64, until: UnixMillis) -> Result<bool, StoreError> {
        let text = "UPDATE task SET retry_until_ms = $3 WHERE id = $1 AND state = 'released' AND dispatch = $2";
        let values = [task.into(), dispatch.into(), until.0.into()];
        Ok(self.execute(text, values).await? == 1)
    }

    /// The worker was lost while it ran this dispatch. Returns how often that has happened; `None`: stale.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn add_loss(&self, task: Uuid, dispatch: i64) -> Result<Option<i64>, StoreError> {
        let text = "UPDATE task SET losses = losses + 1 WHERE id = $1 AND state = 'released' AND dispatch = $2
             RETURNING losses AS n";
        let found: Option<sql::Number> = self.read().one(text, [task.into(), dispatch.into()]).await?;
        Ok(found.map(|found| found.n))
    }

    /// Releases a released task again, under the next dispatch. `None`: `dispatch` is not the current one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn redispatch(&self, task: Uuid, dispatch: i64) -> Result<Option<Task>, StoreError> {
        let text = "UPDATE task SET dispatch = dispatch + 1, released_ms = $3, retry_until_ms = NULL
             WHERE id = $1 AND state = 'released' AND dispatch = $2 RETURNING *";
        let values = [task.into(), dispatch.into(), self.now().0.into()];
        Ok(in_order(self.read().all(text, values).await?)?.pop())
    }

    /// Brings the dead ones among these tasks back: released, under the next dispatch, with no losses.
    /// Returns them.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn redrive(&self, tasks: &[Uuid]) -> Result<Vec<Task>, StoreError> {
        let text = format!(
            "UPDATE task SET state = 'released', dispatch = dispatch + 1, released_ms = $2, finished_ms = NULL,
                 retry_until_ms = NULL, losses = 0, worker = NULL, error_code = NULL, error_message = NULL
             WHERE state = 'dead' AND {} RETURNING *",
            sql::is_one_of(self.backend, "id", 1)
        );
        in_order(self.read().all(text, [sql::ids(tasks), self.now().0.into()]).await?)
    }

    /// Brings a dead task back under the dispatch that it died with, because its report is to be recorded after all.
    /// False: it is not dead, or went out again since.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn revive(&self, task: Uuid, dispatch: i64) -> Result<bool, StoreError> {
        let text = "UPDATE task SET state = 'released', finished_ms = NULL, error_code = NULL, error_message = NULL
             WHERE id = $1 AND state = 'dead' AND dispatch = $2";
        Ok(self.execute(text, [task.into(), dispatch.into()]).await? == 1)
    }

    /// Replaces the work of a task, e.g. by an operator's edit before a replay.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn set_payload(&self, task: Uuid, payload: &str) -> Result<(), StoreError> {
        let values = [task.into(), sql::text(payload).into()];
        self.execute("UPDATE task SET payload = $2 WHERE id = $1", values).await?;
        Ok(())
    }
}
