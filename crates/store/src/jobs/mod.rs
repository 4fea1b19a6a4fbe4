//! Jobs: what callers asked for.

mod change;
mod delete;
mod event;
mod list;
mod progress;
mod submit;
mod waiting;

pub use change::Heartbeat;
pub use event::{EventLevel, JobEvent, NewEvent};
pub use list::{Failures, JobFilter, PageKey};
pub use submit::{NewJob, SubmitRequest, Submitted};
use uuid::Uuid;
pub use waiting::Waiting;
use warren_clock::UnixMillis;
use warren_jobs::{JobClass, JobKind, JobState};

use crate::{StoreError, entity::job, sql::word};

/// What a job may take; 0 for what its caller left open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobLimits {
    /// Seconds that it may run.
    pub timeout_s: i64,
    /// Seconds after which no more of it is begun.
    pub soft_timeout_s: i64,
    /// MB of memory for a model, and for ffmpeg.
    pub max_memory_mb: i64,
    /// MB of disk and object storage for preparing its recording.
    pub max_disk_mb: i64,
}

/// A job as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Shown as `job_…`.
    pub id: Uuid,
    /// Who asked.
    pub caller: String,
    /// What for.
    pub kind: JobKind,
    /// Who waits.
    pub class: JobClass,
    /// Where it is.
    pub state: JobState,
    /// The recording; `None` for texts.
    pub media_id: Option<Uuid>,
    /// For people.
    pub name: String,
    /// What was asked, as JSON, without the texts.
    pub spec: String,
    /// Model that does the main work.
    pub model: String,
    /// ISO 639-1, found or given.
    pub language: Option<String>,
    /// Seconds of audio; 0 until known.
    pub duration_s: f64,
    /// Units done.
    pub progress_done: f64,
    /// Units planned so far.
    pub progress_planned: f64,
    /// True when no more will be planned.
    pub planned_final: bool,
    /// A documented code, unless all went well.
    pub error_code: Option<String>,
    /// The last real cause.
    pub error_message: Option<String>,
    /// When it was accepted.
    pub created: UnixMillis,
    /// When its first task was released.
    pub started: Option<UnixMillis>,
    /// When it ended.
    pub finished: Option<UnixMillis>,
    /// When it will be ended.
    pub deadline: Option<UnixMillis>,
    /// When no more of it is begun, unless that has happened.
    pub soft_deadline: Option<UnixMillis>,
    /// What it may take.
    pub limits: JobLimits,
    /// Last sign of life.
    pub heartbeat: Option<UnixMillis>,
    /// What was being done then.
    pub last_step: Option<String>,
    /// Of its newest event.
    pub sequence: i64,
    /// How often its dead tasks were replayed after it had failed.
    pub redrive_count: i64,
    /// The job that it does again; that one may be deleted by now.
    pub resubmitted_from: Option<Uuid>,
    /// Most bytes that a worker of it has needed for a model; 0 until known.
    pub peak_memory_bytes: i64,
}

impl TryFrom<job::Model> for Job {
    type Error = StoreError;

    fn try_from(row: job::Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            caller: row.caller,
            kind: word("job.kind", &row.kind)?,
            class: word("job.class", &row.class)?,
            state: word("job.state", &row.state)?,
            media_id: row.media_id,
            name: row.name,
            spec: row.spec,
            model: row.model,
            language: row.language,
            duration_s: row.duration_s,
            progress_done: row.progress_done,
            progress_planned: row.progress_planned,
            planned_final: row.planned_final,
            error_code: row.error_code,
            error_message: row.error_message,
            created: UnixMillis(row.created_ms),
            started: row.started_ms.map(UnixMillis),
            finished: row.finished_ms.map(UnixMillis),
            deadline: row.deadline_ms.map(UnixMillis),
            soft_deadline: row.soft_deadline_ms.map(UnixMillis),
            limits: JobLimits {
                timeout_s: row.timeout_s,
                soft_timeout_s: row.soft_timeout_s,
                max_memory_mb: row.max_memory_mb,
                max_disk_mb: row.max_disk_mb,
            },
            heartbeat: row.heartbeat_ms.map(UnixMillis),
            last_step: row.last_step,
            sequence: row.sequence,
            redrive_count: row.redrive_count,
            resubmitted_from: row.resubmitted_from,
            peak_memory_bytes: row.peak_memory_bytes,
        })
    }
}
