//! Ending tasks: the first report with the current dispatch wins, every other one is stale.

use serde_json::json;
use uuid::Uuid;
use warren_jobs::{TaskKind, TaskState};

use crate::{StoreError, Tx, sql};

/// A report that ends a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    /// Which task.
    pub task: Uuid,
    /// The dispatch that was worked on.
    pub dispatch: i64,
    /// `Done` or `Failed`.
    pub to: TaskState,
    /// Who did it.
    pub worker: String,
    /// Code and message, when it failed.
    pub error: Option<(String, String)>,
}

/// A task whose end was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Which task.
    pub id: Uuid,
    /// Whose.
    pub job_id: Uuid,
    /// What work.
    pub kind: TaskKind,
    /// Its place among the job's tasks of this kind.
    pub ordinal: i64,
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct Row {
    id: Uuid,
    job_id: Uuid,
    kind: String,
    ordinal: i64,
}

impl Tx {
    /// Ends one task, if it is released and its dispatch is the current one. `None`: stale.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn finish(&self, finish: &Finish) -> Result<Option<Finished>, StoreError> {
        Ok(self.finish_many(std::slice::from_ref(finish)).await?.pop())
    }

    /// Ends a group of tasks: those that are released, and whose dispatch is the current one. The others are stale, and
    /// left out of the answer.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn finish_many(&self, group: &[Finish]) -> Result<Vec<Finished>, StoreError> {
        use sql::Column::{Id, Int, Text};
        if group.is_empty() {
            return Ok(Vec::new());
        }
        let columns = [
            Id("id"),
            Int("dispatch"),
            Text("from_state"),
            Text("to_state"),
            Text("worker"),
            Text("error_code"),
            Text("error_message"),
        ];
        // `task.state = 'released'` would have PostgreSQL read all released tasks for each group.
        let text = format!(
            "UPDATE task SET state = v.to_state, worker = v.worker, error_code = v.error_code,
                 error_message = v.error_message, finished_ms = $2, retry_until_ms = NULL
             FROM {} WHERE task.id = v.id AND task.state = v.from_state AND task.dispatch = v.dispatch
             RETURNING task.id, task.job_id, task.kind, task.ordinal",
            sql::table(self.backend, 1, &columns)
        );
        let list = sql::list(group.iter().map(|finish| {
            debug_assert!(matches!(finish.to, TaskState::Done | TaskState::Failed));
            let (code, message) = finish.error.as_ref().map(|(code, message)| (code, sql::text(message))).unzip();
            json!({
                "id": sql::id(&finish.task), "dispatch": finish.dispatch, "from_state": TaskState::Released.as_str(),
                "to_state": finish.to.as_str(), "worker": sql::text(&finish.worker), "error_code": code, "error_message": message,
            })
        }));
        let rows: Vec<Row> = self.read().all(text, [list, self.now().0.into()]).await?;
        rows.into_iter().map(Finished::try_from).collect()
    }

    /// A dead letter exists: ends a released task, if `dispatch` is the current one or not known. `None`: stale.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn mark_dead(
        &self,
        task: Uuid,
        dispatch: Option<i64>,
        code: &str,
        message: &str,
    ) -> Result<Option<Finished>, StoreError> {
        let text = "UPDATE task SET state = 'dead', error_code = $2, error_message = $3, finished_ms = $4,
                 retry_until_ms = NULL
             WHERE id = $1 AND state = 'released' AND dispatch = COALESCE($5, dispatch)
             RETURNING id, job_id, kind, ordinal";
        let values = [task.into(), code.into(), sql::text(message).into(), self.now().0.into(), dispatch.into()];
        self.read().one::<Row>(text, values).await?.map(Finished::try_from).transpose()
    }

    /// Cancels the open tasks of a job and returns their ids. Results that still come are stale.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn cancel_open(&self, job: Uuid) -> Result<Vec<Uuid>, StoreError> {
        let text = "UPDATE task SET state = 'cancelled', finished_ms = $2, retry_until_ms = NULL
             WHERE job_id = $1 AND state IN ('unreleased', 'released') RETURNING id";
        let rows: Vec<sql::OneId> = self.read().all(text, [job.into(), self.now().0.into()]).await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }
}

impl TryFrom<Row> for Finished {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self { id: row.id, job_id: row.job_id, kind: sql::word("task.kind", &row.kind)?, ordinal: row.ordinal })
    }
}
