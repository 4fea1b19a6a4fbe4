//! Rows as callers see them.

use tonic::Status;
use warren_clock::UnixMillis;
use warren_jobs::{JobClass, JobKind, JobState, state::TaskCounts};
use warren_messages::{
    from_millis,
    ids::JobId,
    wire::{self, job::Spec},
};
use warren_store::{EventLevel, Job, JobEvent};

use crate::{parts::Parts, status::of_store};

/// Running times shorter than this tell nothing about speed.
const SHORT_MS: u128 = 1_000;

/// A job with the counts of its tasks.
///
/// # Errors
/// `UNAVAILABLE` when the database is away.
pub(crate) async fn job(parts: &Parts, job: &Job) -> Result<wire::Job, Status> {
    let counts = parts.store.read().counts(job.id).await.map_err(|error| of_store(&error))?;
    Ok(job_with(job, &counts, parts.clock.now()))
}

/// Jobs with the counts of their tasks.
///
/// # Errors
/// `UNAVAILABLE` when the database is away.
pub(crate) async fn jobs(parts: &Parts, jobs: &[Job]) -> Result<Vec<wire::Job>, Status> {
    let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
    let counts = parts.store.read().counts_many(&ids).await.map_err(|error| of_store(&error))?;
    let now = parts.clock.now();
    Ok(jobs.iter().map(|job| job_with(job, &counts.get(&job.id).copied().unwrap_or_default(), now)).collect())
}

/// A job whose task counts are known.
pub(crate) fn job_with(job: &Job, counts: &TaskCounts, now: UnixMillis) -> wire::Job {
    let time = |at: UnixMillis| from_millis(at.0);
    wire::Job {
        id: JobId(job.id).to_string(),
        kind: job.kind.as_str().to_owned(),
        state: state(job.state).into(),
        class: class(job.class).into(),
        spec: spec(job),
        name: job.name.clone(),
        progress_done: job.progress_done,
        progress_planned: job.progress_planned,
        planned_final: job.planned_final,
        progress_unit: if job.kind == JobKind::Transcribe { "audio_seconds" } else { "texts" }.to_owned(),
        expected_end: expected_end(job, now).map(time),
        error_code: job.error_code.clone().unwrap_or_default(),
        error_message: job.error_message.clone().unwrap_or_default(),
        created_at: Some(time(job.created)),
        started_at: job.started.map(time),
        finished_at: job.finished.map(time),
        heartbeat_at: job.heartbeat.map(time),
        last_step: job.last_step.clone().unwrap_or_default(),
        language: job.language.clone().unwrap_or_default(),
        duration_seconds: job.duration_s,
        sequence: job.sequence,
        redrive_count: number(job.redrive_count),
        speed: speed(job, now),
        resubmitted_from: job.resubmitted_from.map(|id| JobId(id).to_string()).unwrap_or_default(),
        peak_memory_bytes: u64::try_from(job.peak_memory_bytes).unwrap_or(0),
        limits: Some(wire::JobLimits {
            timeout_s: number(job.limits.timeout_s),
            soft_timeout_s: number(job.limits.soft_timeout_s),
            max_memory_mb: number(job.limits.max_memory_mb),
            max_disk_mb: number(job.limits.max_disk_mb),
        }),
        tasks: Some(wire::TaskCounts {
            unreleased: number(counts.unreleased),
            released: number(counts.released),
            done: number(counts.done),
            failed: number(counts.failed),
            dead: number(counts.dead),
            cancelled: number(counts.cancelled),
        }),
    }
}

/// An event.
pub(crate) fn event(event: &JobEvent) -> wire::JobEvent {
    let level = match event.event.level {
        EventLevel::Info => wire::EventLevel::Info,
        EventLevel::Warning => wire::EventLevel::Warning,
        EventLevel::Error => wire::EventLevel::Error,
    };
    wire::JobEvent {
        sequence: event.sequence,
        level: level.into(),
        event: event.event.event.clone(),
        message: event.event.message.clone(),
        // Fields are always an object; anything else would be a defect of the writer and is left out.
        fields: serde_json::from_value(event.event.fields.clone()).ok(),
        at: Some(from_millis(event.at.0)),
    }
}

/// A count as the wire has it.
pub(crate) fn number<N: TryInto<u32>>(count: N) -> u32 {
    count.try_into().unwrap_or(u32::MAX)
}

/// What was asked for, without the texts.
pub(crate) fn spec(job: &Job) -> Option<Spec> {
    let spec = asked(job);
    let mut spec =
        spec.inspect_err(|error| tracing::error!(job.id = %JobId(job.id), %error, "job.spec cannot be read")).ok()?;
    if let Spec::Embed(spec) = &mut spec {
        spec.texts.clear();
    }
    Some(spec)
}

/// What was asked for, with its texts if they lie in the row.
///
/// # Errors
/// What is wrong with the row.
pub(crate) fn asked(job: &Job) -> serde_json::Result<Spec> {
    match job.kind {
        JobKind::Transcribe => serde_json::from_str(&job.spec).map(Spec::Transcribe),
        JobKind::Embed | JobKind::Query => serde_json::from_str(&job.spec).map(Spec::Embed),
    }
}

/// Units a second; 0 while that says nothing.
fn speed(job: &Job, now: UnixMillis) -> f64 {
    let Some(started) = job.started else { return 0.0 };
    let took = job.finished.unwrap_or(now).since(started);
    if took.as_millis() < SHORT_MS && job.finished.is_none() {
        return 0.0;
    }
    job.progress_done / took.as_secs_f64().max(0.001)
}

/// By the speed so far. Before the length of a recording is known, what is planned says nothing about what is to come.
pub(crate) fn expected_end(job: &Job, now: UnixMillis) -> Option<UnixMillis> {
    let known = job.planned_final || job.duration_s > 0.0 || job.kind != JobKind::Transcribe;
    let elapsed = now.since(job.started?);
    let left = job.progress_planned - job.progress_done;
    if job.state != JobState::Running || !known || job.progress_done <= 0.0 || elapsed.as_millis() < SHORT_MS {
        return None;
    }
    let seconds = elapsed.as_secs_f64() * left.max(0.0) / job.progress_done;
    std::time::Duration::try_from_secs_f64(seconds).ok().map(|left| now.plus(left))
}

/// The state as the wire has it.
pub(crate) fn state(state: JobState) -> wire::JobState {
    match state {
        JobState::Queued => wire::JobState::Queued,
        JobState::Running => wire::JobState::Running,
        JobState::Succeeded => wire::JobState::Succeeded,
        JobState::Failed => wire::JobState::Failed,
        JobState::Cancelled => wire::JobState::Cancelled,
    }
}

fn class(class: JobClass) -> wire::JobClass {
    match class {
        JobClass::Interactive => wire::JobClass::Interactive,
        JobClass::Default => wire::JobClass::Default,
        JobClass::Batch => wire::JobClass::Batch,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;
    use uuid::Uuid;
    use warren_store::{JobLimits, NewEvent};

    use super::*;

    pub(crate) fn running() -> Job {
        Job {
            id: Uuid::nil(),
            caller: "local".to_owned(),
            kind: JobKind::Transcribe,
            class: JobClass::Default,
            state: JobState::Running,
            media_id: None,
            name: "talk.mp3".to_owned(),
            spec: r#"{"media":"media_1","model":"base"}"#.to_owned(),
            model: "base".to_owned(),
            language: None,
            duration_s: 100.0,
            progress_done: 25.0,
            progress_planned: 100.0,
            planned_final: true,
            error_code: None,
            error_message: None,
            created: UnixMillis(0),
            started: Some(UnixMillis(1_000)),
            finished: None,
            deadline: None,
            soft_deadline: None,
            limits: JobLimits::default(),
            heartbeat: None,
            last_step: None,
            sequence: 4,
            redrive_count: 0,
            resubmitted_from: None,
            peak_memory_bytes: 0,
        }
    }

    #[test]
    fn the_end_is_expected_by_the_speed_so_far() {
        let now = UnixMillis(11_000);
        assert_eq!(expected_end(&running(), now), Some(UnixMillis(41_000)));
        let unknown = Job { duration_s: 0.0, planned_final: false, ..running() };
        assert_eq!(expected_end(&unknown, now), None, "more may come");
        assert_eq!(expected_end(&Job { progress_done: 0.0, ..running() }, now), None);
        assert_eq!(expected_end(&Job { state: JobState::Failed, ..running() }, now), None);
    }

    #[test]
    fn the_speed_is_what_was_done_in_the_time_it_took() {
        assert_eq!(speed(&running(), UnixMillis(11_000)), 2.5);
        assert_eq!(speed(&running(), UnixMillis(1_500)), 0.0, "too early to tell");
        let ended = Job { progress_done: 100.0, finished: Some(UnixMillis(21_000)), ..running() };
        assert_eq!(speed(&ended, UnixMillis(999_000)), 5.0, "it does not change any more");
        assert_eq!(speed(&Job { started: None, ..running() }, UnixMillis(11_000)), 0.0);
    }

    #[test]
    fn what_was_asked_is_shown_again() {
        let shown = job_with(&running(), &TaskCounts { done: 3, ..Default::default() }, UnixMillis(11_000));
        assert!(matches!(shown.spec, Some(Spec::Transcribe(spec)) if spec.model == "base"));
        assert_eq!(shown.tasks.expect("counts").done, 3);
        assert_eq!(shown.progress_unit, "audio_seconds");
    }

    #[test]
    fn events_keep_their_fields() {
        let new = NewEvent::new(EventLevel::Warning, "task.retry_later", "in 5 s").with(json!({ "delay_s": 5 }));
        let shown = event(&JobEvent { job_id: Uuid::nil(), sequence: 2, event: new, at: UnixMillis(1) });
        assert_eq!(shown.level(), wire::EventLevel::Warning);
        let fields = serde_json::to_value(shown.fields.expect("fields")).expect("JSON");
        assert_eq!(fields, json!({ "delay_s": 5.0 }));
    }
}
