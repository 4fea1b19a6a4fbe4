//! Ending tasks: the first report with the current dispatch wins, every other one is stale.

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
        debug_assert!(matches!(finish.to, TaskState::Done | TaskState::Failed));
        let text = "UPDATE task SET state = $3, worker = $4, error_code = $5, error_message = $6, finished_ms = $7,
                 retry_until_ms = NULL
             WHERE id = $1 AND state = 'released' AND dispatch = $2 RETURNING id, job_id, kind, ordinal";
        let (code, message) = finish.error.as_ref().map(|(code, message)| (code.clone(), sql::text(message))).unzip();
        let values = [
            finish.task.into(),
            finish.dispatch.into(),
            finish.to.as_str().into(),
            sql::text(&finish.worker).into(),
            code.into(),
            message.into(),
            self.now().0.into(),
        ];
        self.read().one::<Row>(text, values).await?.map(Finished::try_from).transpose()
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
