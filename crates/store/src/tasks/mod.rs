//! Tasks: one message's worth of work each. Nobody claims them; a report counts if it carries the current dispatch.

mod change;
mod end;
mod read;
mod release;

pub use end::{Finish, Finished};
pub use read::{OpenTasks, QueueStats};
pub use release::{NewTask, Want};
use uuid::Uuid;
use warren_clock::UnixMillis;
use warren_jobs::{TaskKind, TaskState, state::Standing};

use crate::{Job, StoreError, entity::task, sql::word};

/// A task as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Shown as `task_…`.
    pub id: Uuid,
    /// Whose.
    pub job_id: Uuid,
    /// What work.
    pub kind: TaskKind,
    /// Its place among the job's tasks of this kind.
    pub ordinal: i64,
    /// Where it is.
    pub state: TaskState,
    /// How often it was released; only reports with this number count.
    pub dispatch: i64,
    /// Times that the worker was lost while it ran.
    pub losses: i64,
    /// The work, as JSON.
    pub payload: String,
    /// Estimated seconds on a device, for fairness.
    pub cost: f64,
    /// Units of the job (audio seconds, texts) that it will have done.
    pub units: f64,
    /// When it was planned.
    pub created: UnixMillis,
    /// When it was last released.
    pub released: Option<UnixMillis>,
    /// When it ended.
    pub finished: Option<UnixMillis>,
    /// It waits for a later retry until then.
    pub retry_until: Option<UnixMillis>,
    /// Who ended it.
    pub worker: Option<String>,
    /// A documented code, when it failed or died.
    pub error_code: Option<String>,
    /// The cause, for people.
    pub error_message: Option<String>,
}

impl Task {
    /// Its current dispatch, as messages carry it.
    pub fn wire_dispatch(&self) -> u32 {
        u32::try_from(self.dispatch).unwrap_or(0)
    }

    /// Where it stands, for whoever decides about a dead letter of it.
    pub fn standing(&self, job: &Job) -> Standing {
        Standing { task: self.state, dispatch: self.wire_dispatch(), job: job.state }
    }
}

impl TryFrom<task::Model> for Task {
    type Error = StoreError;

    fn try_from(row: task::Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            job_id: row.job_id,
            kind: word("task.kind", &row.kind)?,
            ordinal: row.ordinal,
            state: word("task.state", &row.state)?,
            dispatch: row.dispatch,
            losses: row.losses,
            payload: row.payload,
            cost: row.cost,
            units: row.units,
            created: UnixMillis(row.created_ms),
            released: row.released_ms.map(UnixMillis),
            finished: row.finished_ms.map(UnixMillis),
            retry_until: row.retry_until_ms.map(UnixMillis),
            worker: row.worker,
            error_code: row.error_code,
            error_message: row.error_message,
        })
    }
}

/// Rows in the order of the job's plan, which `RETURNING` does not promise.
fn in_order(rows: Vec<task::Model>) -> Result<Vec<Task>, StoreError> {
    let mut tasks = rows.into_iter().map(Task::try_from).collect::<Result<Vec<_>, _>>()?;
    tasks.sort_by_key(|task| (task.job_id, task.kind, task.ordinal));
    Ok(tasks)
}
