//! Ending tasks: the first report with the current dispatch wins, every other one is stale.

use serde_json::json;
use uuid::Uuid;
use warren_clock::UnixMillis;
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
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Which task.
    pub id: Uuid,
    /// Whose.
    pub job_id: Uuid,
    /// What work.
    pub kind: TaskKind,
    /// Its place among the job's tasks of this kind.
    pub ordinal: i64,
    /// Where it is now.
    pub state: TaskState,
    /// Estimated seconds on a device.
    pub cost: f64,
    /// Units of the job that it has done.
    pub units: f64,
    /// When it was released.
    pub released: Option<UnixMillis>,
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct Row {
    id: Uuid,
    job_id: Uuid,
    kind: String,
    ordinal: i64,
    state: String,
    cost: f64,
    units: f64,
    released_ms: Option<i64>,
}

/// Named, because `UPDATE … FROM` brings a second `id` into scope.
const COLUMNS: &str = "task.id AS id, task.job_id AS job_id, task.kind AS kind, task.ordinal AS ordinal,
    task.state AS state, task.cost AS cost, task.units AS units, task.released_ms AS released_ms";

impl Tx {
    /// Ends one task, if it is released and its dispatch is the current one. `None`: stale.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn finish(&self, finish: &Finish) -> Result<Option<Finished>, StoreError> {
        Ok(self.finish_many(std::slice::from_ref(finish)).await?.pop())
    }

    /// Ends a group of tasks in one statement and returns those accepted, in the order given; the others are stale. Of
    /// several reports on one task in the group only the first is looked at.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn finish_many(&self, group: &[Finish]) -> Result<Vec<Finished>, StoreError> {
        use sql::Column::{Id, Int, Text};
        debug_assert!(group.iter().all(|each| matches!(each.to, TaskState::Done | TaskState::Failed)));
        if group.is_empty() {
            return Ok(Vec::new());
        }
        let mut place = std::collections::HashMap::new();
        let mut rows = Vec::with_capacity(group.len());
        for (index, finish) in group.iter().enumerate() {
            if place.contains_key(&finish.task) {
                continue;
            }
            place.insert(finish.task, index);
            let (code, message) =
                finish.error.as_ref().map(|(code, message)| (code.as_str(), message.as_str())).unzip();
            rows.push(json!({
                "id": sql::id(&finish.task), "dispatch": finish.dispatch, "state": finish.to.as_str(),
                "worker": sql::text(&finish.worker), "code": code, "message": message.map(sql::text),
            }));
        }
        let columns = [Id("id"), Int("dispatch"), Text("state"), Text("worker"), Text("code"), Text("message")];
        let text = format!(
            "UPDATE task SET state = v.state, worker = v.worker, error_code = v.code, error_message = v.message,
                 finished_ms = $2, retry_until_ms = NULL
             FROM {} WHERE task.id = v.id AND task.state = 'released' AND task.dispatch = v.dispatch RETURNING {COLUMNS}",
            sql::table(self.backend, 1, &columns)
        );
        let mut accepted = read(self.read().all(text, [sql::list(rows), self.now().0.into()]).await?)?;
        accepted.sort_by_key(|task| place.get(&task.id).copied());
        Ok(accepted)
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
        let text = format!(
            "UPDATE task SET state = 'dead', error_code = $2, error_message = $3, finished_ms = $4, retry_until_ms = NULL
             WHERE id = $1 AND state = 'released' AND dispatch = COALESCE($5, dispatch) RETURNING {COLUMNS}"
        );
        let values = [task.into(), code.into(), sql::text(message).into(), self.now().0.into(), dispatch.into()];
        Ok(read(self.read().all(text, values).await?)?.pop())
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

fn read(rows: Vec<Row>) -> Result<Vec<Finished>, StoreError> {
    rows.into_iter()
        .map(|row| {
            Ok(Finished {
                id: row.id,
                job_id: row.job_id,
                kind: sql::word("task.kind", &row.kind)?,
                ordinal: row.ordinal,
                state: sql::word("task.state", &row.state)?,
                cost: row.cost,
                units: row.units,
                released: row.released_ms.map(UnixMillis),
            })
        })
        .collect()
}
