//! Reading jobs.

use sea_orm::{EntityTrait, Value};
use uuid::Uuid;
use warren_clock::UnixMillis;
use warren_jobs::{JobKind, JobState, TaskKind};

use super::{Job, change::NOT_BEGUN};
use crate::{Reads, StoreError, entity::job, sql};

/// Which jobs to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only in this state.
    pub state: Option<JobState>,
    /// Only of this kind.
    pub kind: Option<JobKind>,
    /// Only of this caller.
    pub caller: Option<String>,
}

/// The last row of a page; the next one starts after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageKey<Id = Uuid> {
    /// Its time.
    pub at: UnixMillis,
    /// Its id.
    pub id: Id,
}

/// Jobs that failed for the same reason, to the letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    /// Kind of the jobs.
    pub kind: JobKind,
    /// Their code; may be empty.
    pub code: String,
    /// Their message.
    pub message: String,
    /// How many.
    pub jobs: u64,
    /// When the latest of them failed.
    pub latest: UnixMillis,
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct FailureRow {
    kind: String,
    code: String,
    message: String,
    n: i64,
    latest_ms: i64,
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct Count {
    kind: String,
    state: String,
    n: i64,
}

impl Job {
    /// Where the page after this job starts.
    pub fn page_key(&self) -> PageKey {
        PageKey { at: self.created, id: self.id }
    }
}

impl Reads<'_> {
    /// One job.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn job(&self, id: Uuid) -> Result<Option<Job>, StoreError> {
        job::Entity::find_by_id(id).one(&self.inner).await?.map(Job::try_from).transpose()
    }

    /// The jobs with these ids, in no order; unknown ids are left out.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn jobs_by_id(&self, ids: &[Uuid]) -> Result<Vec<Job>, StoreError> {
        let text = format!("SELECT * FROM job WHERE {}", sql::is_one_of(self.backend, "id", 1));
        read(self.all(text, [sql::ids(ids)]).await?)
    }

    /// A page of jobs, newest first; jobs submitted meanwhile do not shift it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn jobs(&self, filter: &JobFilter, after: Option<&PageKey>, limit: u64) -> Result<Vec<Job>, StoreError> {
        let mut values: Vec<Value> = vec![(limit as i64).into()];
        let mut rules = vec!["1 = 1".to_owned()];
        let given = [
            ("state", filter.state.map(JobState::as_str)),
            ("kind", filter.kind.map(JobKind::as_str)),
            ("caller", filter.caller.as_deref()),
        ];
        for (column, value) in given {
            if let Some(value) = value {
                values.push(sql::text(value).into());
                rules.push(format!("{column} = ${}", values.len()));
            }
        }
        if let Some(after) = after {
            values.extend([after.at.0.into(), after.id.into()]);
            rules.push(format!("(created_ms, id) < (${}, ${})", values.len() - 1, values.len()));
        }
        let rules = rules.join(" AND ");
        read(
            self.all(format!("SELECT * FROM job WHERE {rules} ORDER BY created_ms DESC, id DESC LIMIT $1"), values)
                .await?,
        )
    }

    /// Jobs that should have ended by now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn overdue_jobs(&self, now: UnixMillis, limit: u64) -> Result<Vec<Job>, StoreError> {
        let text = "SELECT * FROM job WHERE state IN ('queued', 'running') AND deadline_ms <= $1
             ORDER BY deadline_ms LIMIT $2";
        read(self.all(text, [now.0.into(), (limit as i64).into()]).await?)
    }

    /// Running jobs whose soft limit is over and that have tasks which have not begun.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn softly_overdue_jobs(&self, now: UnixMillis, limit: u64) -> Result<Vec<Job>, StoreError> {
        let text = format!(
            "SELECT * FROM job WHERE state = 'running' AND soft_deadline_ms <= $2
               AND EXISTS (SELECT 1 FROM task WHERE task.job_id = job.id AND {NOT_BEGUN})
             ORDER BY soft_deadline_ms LIMIT $1"
        );
        read(self.all(text, [(limit as i64).into(), now.0.into()]).await?)
    }

    /// How many jobs have not ended, by kind and state.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn open_job_counts(&self) -> Result<Vec<(JobKind, JobState, u64)>, StoreError> {
        let text = "SELECT kind, state, COUNT(*) AS n FROM job WHERE state IN ('queued', 'running')
             GROUP BY kind, state ORDER BY kind, state";
        let rows: Vec<Count> = self.all(text, []).await?;
        rows.into_iter()
            .map(|row| Ok((sql::word("job.kind", &row.kind)?, sql::word("job.state", &row.state)?, row.n as u64)))
            .collect()
    }
}

impl Reads<'_> {
    /// How many jobs of callers there are, by kind and state; those that only look words up are left out.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn job_counts(&self) -> Result<Vec<(JobKind, JobState, u64)>, StoreError> {
        let text = "SELECT kind, state, COUNT(*) AS n FROM job WHERE kind <> 'query'
             GROUP BY kind, state ORDER BY kind, state";
        let rows: Vec<Count> = self.all(text, []).await?;
        rows.into_iter()
            .map(|row| Ok((sql::word("job.kind", &row.kind)?, sql::word("job.state", &row.state)?, row.n as u64)))
            .collect()
    }

    /// Running jobs that gave no sign of life since `before`, the longest silent first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn silent_jobs(&self, before: UnixMillis, limit: u64) -> Result<Vec<Job>, StoreError> {
        let text = "SELECT * FROM job WHERE state = 'running'
                 AND COALESCE(heartbeat_ms, started_ms, created_ms) <= $1
             ORDER BY COALESCE(heartbeat_ms, started_ms, created_ms), id LIMIT $2";
        read(self.all(text, [before.0.into(), (limit as i64).into()]).await?)
    }

    /// Running jobs of callers, the one that was heard of last first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn running_jobs(&self, limit: u64) -> Result<Vec<Job>, StoreError> {
        let text = "SELECT * FROM job WHERE state = 'running' AND kind <> 'query'
             ORDER BY COALESCE(heartbeat_ms, started_ms, created_ms) DESC, id LIMIT $1";
        read(self.all(text, [(limit as i64).into()]).await?)
    }

    /// Open jobs accepted until `until` that have no task: nobody has planned them.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn unplanned_jobs(&self, until: UnixMillis, limit: u64) -> Result<Vec<Job>, StoreError> {
        let text = "SELECT * FROM job WHERE state IN ('queued', 'running') AND NOT planned_final AND created_ms <= $1
                 AND NOT EXISTS (SELECT 1 FROM task WHERE task.job_id = job.id)
             ORDER BY created_ms, id LIMIT $2";
        read(self.all(text, [until.0.into(), (limit as i64).into()]).await?)
    }

    /// Jobs accepted until `until` that have open tasks of this kind, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn jobs_with_open_tasks(
        &self,
        kind: TaskKind,
        until: UnixMillis,
        limit: u64,
    ) -> Result<Vec<Job>, StoreError> {
        let text = "SELECT * FROM job WHERE created_ms <= $2 AND id IN (
                 SELECT job_id FROM task WHERE kind = $1 AND state IN ('unreleased', 'released')
             ) ORDER BY created_ms, id LIMIT $3";
        read(self.all(text, [kind.as_str().into(), until.0.into(), (limit as i64).into()]).await?)
    }

    /// Jobs of callers that failed since `since`, counted by kind, code and message.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn failures_since(&self, since: UnixMillis) -> Result<Vec<Failures>, StoreError> {
        let text = "SELECT kind, COALESCE(error_code, '') AS code, COALESCE(error_message, '') AS message,
                 COUNT(*) AS n, MAX(finished_ms) AS latest_ms
             FROM job WHERE state = 'failed' AND finished_ms >= $1 AND kind <> 'query'
             GROUP BY kind, error_code, error_message";
        let rows: Vec<FailureRow> = self.all(text, [since.0.into()]).await?;
        rows.into_iter()
            .map(|row| {
                Ok(Failures {
                    kind: sql::word("job.kind", &row.kind)?,
                    code: row.code,
                    message: row.message,
                    jobs: row.n as u64,
                    latest: UnixMillis(row.latest_ms),
                })
            })
            .collect()
    }
}

fn read(rows: Vec<job::Model>) -> Result<Vec<Job>, StoreError> {
    rows.into_iter().map(Job::try_from).collect()
}
