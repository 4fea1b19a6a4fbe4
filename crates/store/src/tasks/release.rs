//! Planning tasks and releasing them.

use serde_json::json;
use uuid::Uuid;
use warren_jobs::TaskKind;

use super::{Task, in_order};
use crate::{Reads, StoreError, Tx, sql};

/// A task to plan.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTask {
    /// Shown as `task_…`.
    pub id: Uuid,
    /// Whose.
    pub job_id: Uuid,
    /// What work.
    pub kind: TaskKind,
    /// Its place among the job's tasks of this kind; planned twice, it is the same task.
    pub ordinal: i64,
    /// The work, as JSON.
    pub payload: String,
    /// Estimated seconds on a device, for fairness.
    pub cost: f64,
    /// Units of the job that it will have done.
    pub units: f64,
}

/// Tasks wanted of one job and kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Whose.
    pub job: Uuid,
    /// What work.
    pub kind: TaskKind,
    /// How many at most.
    pub count: u64,
}

impl Tx {
    /// Plans tasks, unreleased. A task whose (job, kind, ordinal) exists is left as it is. Returns the ids inserted.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when an id is taken.
    pub async fn insert_tasks(&self, tasks: &[NewTask]) -> Result<Vec<Uuid>, StoreError> {
        use sql::Column::{Id, Int, Real, Text};
        let columns =
            [Id("id"), Id("job_id"), Text("kind"), Int("ordinal"), Text("payload"), Real("cost"), Real("units")];
        let text = format!(
            "INSERT INTO task (id, job_id, kind, ordinal, state, dispatch, losses, payload, cost, units, created_ms)
             SELECT v.id, v.job_id, v.kind, v.ordinal, 'unreleased', 0, 0, v.payload, v.cost, v.units, CAST($2 AS BIGINT)
             FROM {} WHERE true ON CONFLICT (job_id, kind, ordinal) DO NOTHING RETURNING id",
            sql::table(self.backend, 1, &columns)
        );
        let mut inserted = Vec::with_capacity(tasks.len());
        for group in tasks.chunks(1_000) {
            let list = sql::list(group.iter().map(|task| {
                json!({
                    "id": sql::id(&task.id), "job_id": sql::id(&task.job_id), "kind": task.kind.as_str(),
                    "ordinal": task.ordinal, "payload": sql::text(&task.payload),
                    "cost": sql::finite(task.cost), "units": sql::finite(task.units),
                })
            }));
            let rows: Vec<sql::OneId> = self.read().all(text.as_str(), [list, self.now().0.into()]).await?;
            inserted.extend(rows.into_iter().map(|row| row.id));
        }
        Ok(inserted)
    }

    /// Releases these tasks: the unreleased ones among them get a dispatch number one higher, and are returned.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn release(&self, ids: &[Uuid]) -> Result<Vec<Task>, StoreError> {
        let text = format!(
            "UPDATE task SET {RELEASED} WHERE state = 'unreleased' AND {} RETURNING *",
            sql::is_one_of(self.backend, "id", 1)
        );
        in_order(self.read().all(text, [sql::ids(ids), self.now().0.into()]).await?)
    }

    /// Releases the next unreleased tasks of each job and kind wanted, and returns them.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn release_next(&self, wants: &[Want]) -> Result<Vec<Task>, StoreError> {
        // The choice is made once: as a part of the join it could be made again for every task that waits. The state is that
        // of the choice, because `state = 'unreleased'` would have PostgreSQL start from the index of all that wait.
        let text = format!(
            "WITH next AS MATERIALIZED (
                 SELECT id AS next_id, state AS next_state FROM task
                 WHERE state = 'unreleased' AND job_id = $1 AND kind = $3 ORDER BY ordinal LIMIT $4
             )
             UPDATE task SET {RELEASED} FROM next WHERE id = next_id AND state = next_state RETURNING *"
        );
        let mut released = Vec::new();
        for want in wants {
            let values = [want.job.into(), self.now().0.into(), want.kind.as_str().into(), (want.count as i64).into()];
            released.extend(in_order(self.read().all(text.as_str(), values).await?)?);
        }
        Ok(released)
    }
}

/// `$2` is now.
const RELEASED: &str = "state = 'released', dispatch = dispatch + 1, released_ms = $2, retry_until_ms = NULL";

impl Reads<'_> {
    /// The next unreleased tasks of a job, in the order of its plan.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn next_unreleased(&self, job: Uuid, kind: TaskKind, count: u64) -> Result<Vec<Task>, StoreError> {
        let text =
            "SELECT * FROM task WHERE state = 'unreleased' AND job_id = $1 AND kind = $2 ORDER BY ordinal LIMIT $3";
        in_order(self.all(text, [job.into(), kind.as_str().into(), (count as i64).into()]).await?)
    }
}
