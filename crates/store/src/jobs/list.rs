//! Reading jobs.

use sea_orm::{EntityTrait, Value};
use uuid::Uuid;
use warren_clock::UnixMillis;
use warren_jobs::{JobKind, JobState};

use super::Job;
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

fn read(rows: Vec<job::Model>) -> Result<Vec<Job>, StoreError> {
    rows.into_iter().map(Job::try_from).collect()
}
