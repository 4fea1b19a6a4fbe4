//! Progress as a sum over tasks, so that no report can count twice.

use serde_json::json;
use uuid::Uuid;

use crate::{StoreError, Tx, sql};

impl Tx {
    /// Sets the units done of running jobs to those of their done tasks plus `live`, the units done inside running
    /// ones. Progress never goes back, and never beyond what is planned.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn refresh_progress(&self, live: &[(Uuid, f64)]) -> Result<(), StoreError> {
        let least = match self.backend {
            sea_orm::DbBackend::Sqlite => "MIN",
            _ => "LEAST",
        };
        let most = match self.backend {
            sea_orm::DbBackend::Sqlite => "MAX",
            _ => "GREATEST",
        };
        let text = format!(
            "UPDATE job SET progress_done = {most}(job.progress_done, {least}(job.progress_planned, v.live + COALESCE(
                 (SELECT SUM(task.units) FROM task WHERE task.job_id = job.id AND task.state = 'done'), 0)))
             FROM {} WHERE job.id = v.id AND job.state = 'running'",
            sql::table(self.backend, 1, &[sql::Column::Id("id"), sql::Column::Real("live")])
        );
        let list = sql::list(live.iter().map(|(job, live)| json!({ "id": sql::id(job), "live": sql::finite(*live) })));
        self.execute(text, [list]).await?;
        Ok(())
    }
}
