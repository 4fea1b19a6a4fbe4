//! Reading and counting tasks.

use std::collections::HashMap;

use sea_orm::{EntityTrait, Value};
use uuid::Uuid;
use warren_clock::UnixMillis;
use warren_jobs::{JobClass, TaskKind, TaskState, state::TaskCounts};

use super::{Task, in_order};
use crate::{Reads, StoreError, entity::task, sql};

/// Open tasks of one job and kind: what a new leader's scheduler starts from.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenTasks {
    /// Whose.
    pub job: Uuid,
    /// Whose job it is.
    pub caller: String,
    /// Who waits.
    pub class: JobClass,
    /// When the job was accepted.
    pub created: UnixMillis,
    /// What work.
    pub kind: TaskKind,
    /// Rows only.
    pub unreleased: u64,
    /// On their way.
    pub released: u64,
    /// Estimated device seconds of all of them.
    pub cost: f64,
}

/// Work of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueueStats {
    /// Which kind.
    pub kind: TaskKind,
    /// Rows only.
    pub unreleased: u64,
    /// On their way.
    pub released: u64,
    /// Of the released ones: waiting for a later retry.
    pub retry_later: u64,
    /// Dead letters.
    pub dead: u64,
    /// When the oldest open task was planned.
    pub oldest: Option<UnixMillis>,
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct JobStateCount {
    job_id: Uuid,
    state: String,
    n: i64,
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct OpenOfKind {
    tasks: i64,
    jobs: i64,
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct OpenRow {
    id: Uuid,
    caller: String,
    class: String,
    created_ms: i64,
    kind: String,
    unreleased: i64,
    released: i64,
    cost: f64,
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct StatsRow {
    kind: String,
    state: String,
    n: i64,
    later: i64,
    oldest: i64,
}

impl Reads<'_> {
    /// One task.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn task(&self, id: Uuid) -> Result<Option<Task>, StoreError> {
        task::Entity::find_by_id(id).one(&self.inner).await?.map(Task::try_from).transpose()
    }

    /// The tasks with these ids, by job and plan; unknown ids are left out.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn tasks_by_id(&self, ids: &[Uuid]) -> Result<Vec<Task>, StoreError> {
        let text = format!("SELECT * FROM task WHERE {}", sql::is_one_of(self.backend, "id", 1));
        in_order(self.all(text, [sql::ids(ids)]).await?)
    }

    /// All tasks of a job, by kind and plan.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn tasks_of(&self, job: Uuid) -> Result<Vec<Task>, StoreError> {
        in_order(self.all("SELECT * FROM task WHERE job_id = $1", [job.into()]).await?)
    }

    /// Places of a job's tasks of one kind, in order.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn planned_ordinals(&self, job: Uuid, kind: TaskKind) -> Result<Vec<i64>, StoreError> {
        let text = "SELECT ordinal AS n FROM task WHERE job_id = $1 AND kind = $2 ORDER BY ordinal";
        let found: Vec<sql::Number> = self.all(text, [job.into(), kind.as_str().into()]).await?;
        Ok(found.into_iter().map(|found| found.n).collect())
    }

    /// All released tasks, or those of one kind.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn released_tasks(&self, kind: Option<TaskKind>) -> Result<Vec<Task>, StoreError> {
        let mut text = "SELECT * FROM task WHERE state = 'released'".to_owned();
        let mut values: Vec<Value> = Vec::new();
        if let Some(kind) = kind {
            text.push_str(" AND kind = $1");
            values.push(kind.as_str().into());
        }
        in_order(self.all(text, values).await?)
    }

    /// Of these jobs, the open ones that may have come to a turn: no task of theirs is open, or they are recordings whose
    /// language is not known. It costs the same however many tasks they have.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn at_a_turn(&self, jobs: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        let text = format!(
            "SELECT id FROM job WHERE {} AND state IN ('queued', 'running') AND (
                 (kind = 'transcribe' AND language IS NULL)
                 OR (NOT EXISTS (SELECT 1 FROM task WHERE job_id = job.id AND state = 'released')
                     AND NOT EXISTS (SELECT 1 FROM task WHERE job_id = job.id AND state = 'unreleased'))
             ) ORDER BY id",
            sql::is_one_of(self.backend, "id", 1)
        );
        let rows: Vec<sql::OneId> = self.all(text, [sql::ids(jobs)]).await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// Counts a job's tasks by state.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn counts(&self, job: Uuid) -> Result<TaskCounts, StoreError> {
        Ok(self.counts_many(&[job]).await?.remove(&job).unwrap_or_default())
    }

    /// Counts the tasks of a group of jobs by state; every job given is in the answer.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn counts_many(&self, jobs: &[Uuid]) -> Result<HashMap<Uuid, TaskCounts>, StoreError> {
        let text = format!(
            "SELECT job_id, state, COUNT(*) AS n FROM task WHERE {} GROUP BY job_id, state",
            sql::is_one_of(self.backend, "job_id", 1)
        );
        let rows: Vec<JobStateCount> = self.all(text, [sql::ids(jobs)]).await?;
        let mut counts: HashMap<Uuid, TaskCounts> = jobs.iter().map(|job| (*job, TaskCounts::default())).collect();
        for row in rows {
            counts.entry(row.job_id).or_default().add(sql::word("task.state", &row.state)?, row.n as u64);
        }
        Ok(counts)
    }

    /// Open tasks by job and kind, jobs in order of arrival.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn open_counts_by_job_kind(&self) -> Result<Vec<OpenTasks>, StoreError> {
        let text = "SELECT job.id, job.caller, job.class, job.created_ms, task.kind, SUM(task.cost) AS cost,
                 COUNT(CASE WHEN task.state = 'unreleased' THEN 1 END) AS unreleased,
                 COUNT(CASE WHEN task.state = 'released' THEN 1 END) AS released
             FROM task JOIN job ON job.id = task.job_id
             WHERE task.state IN ('unreleased', 'released')
             GROUP BY job.id, job.caller, job.class, job.created_ms, task.kind
             ORDER BY job.created_ms, job.id, task.kind";
        let rows: Vec<OpenRow> = self.all(text, []).await?;
        rows.into_iter()
            .map(|row| {
                Ok(OpenTasks {
                    job: row.id,
                    caller: row.caller,
                    class: sql::word("job.class", &row.class)?,
                    created: UnixMillis(row.created_ms),
                    kind: sql::word("task.kind", &row.kind)?,
                    unreleased: row.unreleased as u64,
                    released: row.released as u64,
                    cost: row.cost,
                })
            })
            .collect()
    }

    /// Open tasks of a kind that belong to jobs accepted until `until`, and how many jobs those are.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn open_of_kind(&self, kind: TaskKind, until: UnixMillis) -> Result<(u64, u64), StoreError> {
        let text = "SELECT COUNT(*) AS tasks, COUNT(DISTINCT job_id) AS jobs FROM task
             WHERE kind = $1 AND state IN ('unreleased', 'released')
                 AND job_id IN (SELECT id FROM job WHERE created_ms <= $2)";
        let found: Option<OpenOfKind> = self.one(text, [kind.as_str().into(), until.0.into()]).await?;
        Ok(found.map_or((0, 0), |found| (found.tasks as u64, found.jobs as u64)))
    }

    /// Work by kind; every kind is in the answer.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn queue_stats(&self, now: UnixMillis) -> Result<Vec<QueueStats>, StoreError> {
        let text = "SELECT kind, state, COUNT(*) AS n, MIN(created_ms) AS oldest,
                 COUNT(CASE WHEN retry_until_ms > $1 THEN 1 END) AS later
             FROM task WHERE state IN ('unreleased', 'released', 'dead') GROUP BY kind, state";
        let rows: Vec<StatsRow> = self.all(text, [now.0.into()]).await?;
        let empty = |kind| QueueStats { kind, unreleased: 0, released: 0, retry_later: 0, dead: 0, oldest: None };
        let mut stats: Vec<QueueStats> = TaskKind::ALL.iter().copied().map(empty).collect();
        for row in rows {
            let kind: TaskKind = sql::word("task.kind", &row.kind)?;
            let state: TaskState = sql::word("task.state", &row.state)?;
            for entry in stats.iter_mut().filter(|entry| entry.kind == kind) {
                match state {
                    TaskState::Unreleased => entry.unreleased = row.n as u64,
                    TaskState::Released => {
                        entry.released = row.n as u64;
                        entry.retry_later = row.later as u64;
                    }
                    _ => entry.dead = row.n as u64,
                }
                if state.is_open() {
                    let oldest = UnixMillis(row.oldest);
                    entry.oldest = Some(entry.oldest.map_or(oldest, |known| known.min(oldest)));
                }
            }
        }
        Ok(stats)
    }
}
