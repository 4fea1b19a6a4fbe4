//! Changes of a job.

use sea_orm::Value;
use serde_json::json;
use uuid::Uuid;
use warren_clock::UnixMillis;
use warren_jobs::{JobState, state};

use super::NewEvent;
use crate::{StoreError, Tx, sql};

/// A sign of life of a running job.
#[derive(Clone, Debug, PartialEq)]
pub struct Heartbeat {
    /// Whose.
    pub job: Uuid,
    /// What is being done.
    pub step: String,
    /// When it was seen.
    pub at: UnixMillis,
}

/// The tasks that a soft limit stops; `$2` is now.
pub(super) const NOT_BEGUN: &str = "(state = 'unreleased'
     OR state = 'released' AND (kind = 'prepare' OR retry_until_ms > $2))";

#[derive(Debug, sea_orm::FromQueryResult)]
struct Sequence {
    sequence: i64,
}

impl Tx {
    /// Moves a job from one state to another and records the event. `None`, and nothing changed, when the job is not in
    /// `from`; else the event's sequence number. Sets the start and the end; a success has done all that was planned;
    /// leaving `failed` clears the error and counts a redrive.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when no event leads a job from the one state to the other.
    pub async fn set_job_state(
        &self,
        job: Uuid,
        from: JobState,
        to: JobState,
        event: &NewEvent,
    ) -> Result<Option<i64>, StoreError> {
        if !state::job::leads_to(from, to) {
            return Err(StoreError::Conflict { reason: format!("no event leads a job from {from} to {to}") });
        }
        let mut sets = vec!["state = $3", "sequence = sequence + 1"];
        if to == JobState::Running {
            sets.push("started_ms = COALESCE(started_ms, $4)");
        }
        sets.push(if to.is_ended() { "finished_ms = $4" } else { "finished_ms = NULL" });
        if to == JobState::Succeeded {
            sets.push("progress_done = progress_planned");
        }
        if from == JobState::Failed {
            sets.extend(["error_code = NULL", "error_message = NULL", "redrive_count = redrive_count + 1"]);
        }
        let text = format!("UPDATE job SET {} WHERE id = $1 AND state = $2 RETURNING sequence", sets.join(", "));
        let values = [job.into(), from.as_str().into(), to.as_str().into(), self.now().0.into()];
        let Some(Sequence { sequence }) = self.read().one(text, values).await? else { return Ok(None) };
        self.record(&[(job, sequence, event)]).await?;
        Ok(Some(sequence))
    }

    /// Notes why the job failed, or is about to.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn set_job_error(&self, job: Uuid, code: &str, message: &str) -> Result<(), StoreError> {
        let values = [job.into(), code.into(), sql::text(message).into()];
        self.set_job("error_code = $2, error_message = $3", values).await
    }

    /// Adds to the units planned, and says whether the plan is complete now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn add_planned(&self, job: Uuid, units: f64, is_final: bool) -> Result<(), StoreError> {
        let values = [job.into(), sql::finite(units).into(), is_final.into()];
        self.set_job("progress_planned = progress_planned + $2, planned_final = planned_final OR $3", values).await
    }

    /// Notes the language that was found.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn set_language(&self, job: Uuid, language: &str) -> Result<(), StoreError> {
        self.set_job("language = $2", [job.into(), sql::text(language).into()]).await
    }

    /// Notes the length of the recording, in seconds.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn set_duration(&self, job: Uuid, seconds: f64) -> Result<(), StoreError> {
        self.set_job("duration_s = $2", [job.into(), sql::finite(seconds).into()]).await
    }

    /// Notes how much memory its work has needed, unless more is known.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn raise_peak_memory(&self, job: Uuid, bytes: i64) -> Result<(), StoreError> {
        let text = "UPDATE job SET peak_memory_bytes = $2 WHERE id = $1 AND peak_memory_bytes < $2";
        self.execute(text, [job.into(), bytes.into()]).await?;
        Ok(())
    }

    /// Sets the moment at which the job will be ended, and lets the time begin after which no more of it is begun.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn set_deadline(&self, job: Uuid, deadline: UnixMillis) -> Result<(), StoreError> {
        let sets = "deadline_ms = $2,
             soft_deadline_ms = CASE WHEN soft_timeout_s > 0 THEN $3 + soft_timeout_s * 1000 END";
        self.set_job(sets, [job.into(), deadline.0.into(), self.now().0.into()]).await
    }

    /// Takes what has not begun out of a running job whose soft limit is over, and closes its plan: tasks that were not
    /// released, those that wait for another try, and the decoding of its recording. What runs goes on. Returns the
    /// tasks that are cancelled now; none, and nothing changed, when all that is left runs already.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn begin_no_more(&self, job: Uuid) -> Result<Vec<Uuid>, StoreError> {
        let text = format!(
            "UPDATE task SET state = 'cancelled', finished_ms = $2, retry_until_ms = NULL
             WHERE job_id = $1 AND {NOT_BEGUN} RETURNING id"
        );
        let rows: Vec<sql::OneId> = self.read().all(text, [job.into(), self.now().0.into()]).await?;
        if !rows.is_empty() {
            self.set_job("planned_final = TRUE, soft_deadline_ms = NULL", [job.into()]).await?;
        }
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// Notes a sign of life.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn heartbeat(&self, job: Uuid, step: &str, at: UnixMillis) -> Result<(), StoreError> {
        self.heartbeats(&[Heartbeat { job, step: step.to_owned(), at }]).await
    }

    /// Notes signs of life of a group of jobs; of two for one job, the later counts.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn heartbeats(&self, beats: &[Heartbeat]) -> Result<(), StoreError> {
        let mut newest = std::collections::BTreeMap::<Uuid, &Heartbeat>::new();
        for beat in beats {
            let kept = newest.entry(beat.job).or_insert(beat);
            if beat.at >= kept.at {
                *kept = beat;
            }
        }
        let columns = [sql::Column::Id("id"), sql::Column::Text("step"), sql::Column::Int("at_ms")];
        let text = format!(
            "UPDATE job SET heartbeat_ms = v.at_ms, last_step = v.step FROM {} WHERE job.id = v.id",
            sql::table(self.backend, 1, &columns)
        );
        let list = sql::list(
            newest
                .values()
                .map(|beat| json!({ "id": sql::id(&beat.job), "step": sql::text(&beat.step), "at_ms": beat.at.0 })),
        );
        self.execute(text, [list]).await?;
        Ok(())
    }

    async fn set_job<const N: usize>(&self, sets: &str, values: [Value; N]) -> Result<(), StoreError> {
        self.execute(format!("UPDATE job SET {sets} WHERE id = $1"), values).await?;
        Ok(())
    }
}
