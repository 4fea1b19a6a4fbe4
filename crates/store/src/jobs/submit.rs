//! Accepting a job once, however often it is sent.

use sea_orm::{EntityTrait, IntoActiveModel};
use uuid::Uuid;
use warren_jobs::{JobClass, JobKind, JobState};

use super::{EventLevel, Job, JobLimits, NewEvent};
use crate::{NewOutbox, StoreError, Tx, entity::job, sql};

/// A job to accept.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    /// Shown as `job_…`.
    pub id: Uuid,
    /// Who asks.
    pub caller: String,
    /// What for.
    pub kind: JobKind,
    /// Who waits.
    pub class: JobClass,
    /// The recording; `None` for texts.
    pub media_id: Option<Uuid>,
    /// For people.
    pub name: String,
    /// What was asked, as JSON, without the texts.
    pub spec: String,
    /// Model that does the main work.
    pub model: String,
    /// ISO 639-1, when given.
    pub language: Option<String>,
    /// What it may take.
    pub limits: JobLimits,
    /// Units known to be needed, e.g. the number of texts; 0 when it has to be found out.
    pub progress_planned: f64,
    /// The job that it does again.
    pub resubmitted_from: Option<Uuid>,
}

/// How a job was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubmitRequest {
    /// The caller's own name for the request; `None`: every sending is a new job.
    pub request_id: Option<String>,
    /// Hash of what was asked; the same name with another hash is a conflict.
    pub body_hash: String,
    /// Messages to publish if the job is new.
    pub outbox: Vec<NewOutbox>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Submitted {
    /// Accepted now.
    New(Job),
    /// The same request was accepted before, as this job.
    Existing(Job),
    /// The caller used this request id for something else.
    Conflict,
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct Earlier {
    body_hash: String,
    job_id: Uuid,
}

impl Tx {
    /// Accepts a job: its row, its first event `job.submitted`, its audit entry, the request's id and its messages, or
    /// finds the job that the same request made before.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the job id is taken or the media is unknown.
    pub async fn submit(&self, new: &NewJob, request: &SubmitRequest) -> Result<Submitted, StoreError> {
        if let Some(request_id) = &request.request_id {
            let text = "INSERT INTO idempotency (caller, request_id, body_hash, job_id, created_ms)
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT (caller, request_id) DO NOTHING";
            let (caller, request_id) = (sql::text(&new.caller), sql::text(request_id));
            let values = [
                caller.clone().into(),
                request_id.clone().into(),
                request.body_hash.clone().into(),
                new.id.into(),
                self.now().0.into(),
            ];
            if self.execute(text, values).await? == 0 {
                return self.earlier(caller, request_id, &request.body_hash).await;
            }
        }
        let row = self.row(new);
        job::Entity::insert(row.clone().into_active_model()).exec_without_returning(&*self.inner).await?;
        let message = format!("{} `{}` accepted", new.kind, new.name);
        let event = NewEvent::new(EventLevel::Info, "job.submitted", message);
        self.record(&[(new.id, row.sequence, &event)]).await?;
        // A search is forgotten once it is answered; only what lasts is worth a record.
        if new.kind != JobKind::Query {
            self.audit(&new.caller, "submit", &format!("job_{}", new.id.hyphenated()), &new.name).await?;
        }
        self.outbox_many(request.outbox.clone()).await?;
        Job::try_from(row).map(Submitted::New)
    }

    async fn earlier(&self, caller: String, request_id: String, body_hash: &str) -> Result<Submitted, StoreError> {
        let text = "SELECT body_hash, job_id FROM idempotency WHERE caller = $1 AND request_id = $2";
        let earlier: Option<Earlier> = self.read().one(text, [caller.into(), request_id.into()]).await?;
        let earlier = earlier.ok_or_else(|| StoreError::corrupt("idempotency: the row that was met is gone"))?;
        if earlier.body_hash != body_hash {
            return Ok(Submitted::Conflict);
        }
        let job = self.read().job(earlier.job_id).await?;
        job.map(Submitted::Existing).ok_or_else(|| StoreError::corrupt("idempotency.job_id: there is no such job"))
    }

    /// Forgets the request ids of jobs accepted longer than `age` ago. Returns how many.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn purge_requests(&self, age: std::time::Duration) -> Result<u64, StoreError> {
        let before = self.now().0.saturating_sub(age.as_millis() as i64);
        self.execute("DELETE FROM idempotency WHERE created_ms < $1", [before.into()]).await
    }

    fn row(&self, new: &NewJob) -> job::Model {
        job::Model {
            id: new.id,
            caller: sql::text(&new.caller),
            kind: new.kind.as_str().to_owned(),
            class: new.class.as_str().to_owned(),
            state: JobState::Queued.as_str().to_owned(),
            media_id: new.media_id,
            name: sql::text(&new.name),
            spec: sql::text(&new.spec),
            model: sql::text(&new.model),
            language: new.language.clone(),
            duration_s: 0.0,
            progress_done: 0.0,
            progress_planned: sql::finite(new.progress_planned),
            planned_final: false,
            error_code: None,
            error_message: None,
            created_ms: self.now().0,
            started_ms: None,
            finished_ms: None,
            deadline_ms: None,
            soft_deadline_ms: None,
            timeout_s: new.limits.timeout_s,
            soft_timeout_s: new.limits.soft_timeout_s,
            max_memory_mb: new.limits.max_memory_mb,
            max_disk_mb: new.limits.max_disk_mb,
            heartbeat_ms: None,
            last_step: None,
            // That of its first event.
            sequence: 1,
            redrive_count: 0,
            resubmitted_from: new.resubmitted_from,
            peak_memory_bytes: 0,
        }
    }
}
