//! Jobs: submit, read, list, follow, cancel, do again, delete, explain.

use std::time::Duration;

use futures::stream::BoxStream;
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use warren_blob::Key;
use warren_jobs::{JobKind, JobState, plan::MAX_TEXTS_OBJECT_BYTES};
use warren_messages::{
    ids::{JobId, MediaId},
    wire::{
        self, CancelJobRequest, CancelJobResponse, DeleteJobRequest, DeleteJobResponse, ExplainJobRequest,
        GetJobRequest, Job, JobEventsRequest, JobEventsResponse, JobExplanation, JobUpdate, ListJobsRequest,
        ListJobsResponse, ResubmitJobRequest, SubmitJobRequest, WatchJobRequest, command::Command as What, job,
        jobs_server, submit_job_request::Spec,
    },
};
use warren_store::{JobFilter, PageKey};

use super::{attached, explain, watch};
use crate::{
    accept::{self, Asked, accept},
    auth::{Caller, caller},
    check::{self, Rules},
    page::{self, PAGE, Range},
    parts::Parts,
    room::Room,
    shown,
    status::{invalid, not_found, not_now, of_blob, of_store},
};

/// What List shows: searches are jobs too, but not what their caller looks for here.
const LISTED: [JobKind; 2] = [JobKind::Transcribe, JobKind::Embed];
/// `limit` of Events.
const EVENTS: Range = Range { default: 200, most: 2_000 };
/// Longest wait for the effect of Cancel.
const EFFECT: Duration = Duration::from_secs(2);
/// How often it is looked for without a hint.
const LOOK: Duration = Duration::from_millis(100);
/// Most characters of a reason.
const MAX_REASON: usize = 500;

/// Service `warren.v1.Jobs`.
pub(crate) struct Jobs(pub(crate) Parts);

#[tonic::async_trait]
impl jobs_server::Jobs for Jobs {
    async fn submit(&self, request: Request<SubmitJobRequest>) -> Result<Response<Job>, Status> {
        let caller = caller(&request)?;
        self.0.admit().await?;
        let asked = self.asked(&caller, request.into_inner()).await?;
        let job = accept(&self.0, &caller, asked).await?;
        Ok(Response::new(shown::job(&self.0, &job).await?))
    }

    type RunStream = BoxStream<'static, Result<JobUpdate, Status>>;

    async fn run(&self, request: Request<SubmitJobRequest>) -> Result<Response<Self::RunStream>, Status> {
        let caller = caller(&request)?;
        self.0.admit().await?;
        let asked = self.asked(&caller, request.into_inner()).await?;
        let job = accept(&self.0, &caller, asked).await?;
        Ok(Response::new(attached::updates(self.0.clone(), caller, job.id)))
    }

    async fn get(&self, request: Request<GetJobRequest>) -> Result<Response<Job>, Status> {
        let job = self.0.job(&caller(&request)?, "id", &request.get_ref().id).await?;
        Ok(Response::new(shown::job(&self.0, &job).await?))
    }

    async fn list(&self, request: Request<ListJobsRequest>) -> Result<Response<ListJobsResponse>, Status> {
        let caller = caller(&request)?;
        let ListJobsRequest { state, kind, page_size, page_token } = request.into_inner();
        let state = job_state(state)?;
        let kind = match kind.as_str() {
            "" => None,
            kind => Some(listed(kind)?),
        };
        let size = PAGE.of("page_size", page_size)? as usize;
        let filter = format!("{:?} {kind:?} {}", state, caller.name);
        let after: Option<PageKey> = page::after(&filter, &page_token)?;
        let kinds = kind.map_or_else(|| LISTED.to_vec(), |kind| vec![kind]);
        let mut jobs = Vec::new();
        for kind in kinds {
            let filter = JobFilter { state, kind: Some(kind), caller: Some(caller.name.clone()) };
            let page = self.0.store.read().jobs(&filter, after.as_ref(), size as u64 + 1).await;
            jobs.extend(page.map_err(|error| of_store(&error))?);
        }
        jobs.sort_by_key(|job| std::cmp::Reverse((job.created, job.id)));
        let more = jobs.len() > size;
        jobs.truncate(size);
        let next = jobs.last().filter(|_| more).map(|last| page::token(&filter, &last.page_key()));
        let jobs = shown::jobs(&self.0, &jobs).await?;
        Ok(Response::new(ListJobsResponse { jobs, next_page_token: next.unwrap_or_default() }))
    }

    async fn events(&self, request: Request<JobEventsRequest>) -> Result<Response<JobEventsResponse>, Status> {
        let limit = EVENTS.of("limit", request.get_ref().limit)?;
        let job = self.0.job(&caller(&request)?, "id", &request.get_ref().id).await?;
        let events = self.0.store.read().newest_events(job.id, u64::from(limit)).await;
        let events = events.map_err(|error| of_store(&error))?;
        Ok(Response::new(JobEventsResponse { events: events.iter().map(shown::event).collect() }))
    }

    type WatchStream = BoxStream<'static, Result<JobUpdate, Status>>;

    async fn watch(&self, request: Request<WatchJobRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let after = request.get_ref().after_sequence;
        if after < 0 {
            return Err(invalid("after_sequence", "must not be negative"));
        }
        let job = self.0.job(&caller(&request)?, "id", &request.get_ref().id).await?;
        Ok(Response::new(watch::updates(self.0.clone(), job.id, after)))
    }

    async fn cancel(&self, request: Request<CancelJobRequest>) -> Result<Response<CancelJobResponse>, Status> {
        let caller = caller(&request)?;
        let CancelJobRequest { id, reason } = request.into_inner();
        if reason.chars().count() > MAX_REASON {
            return Err(invalid("reason", format!("must have at most {MAX_REASON} characters")));
        }
        let job = self.0.job(&caller, "id", &id).await?;
        Ok(Response::new(self.cancelled(&caller, job, reason).await?))
    }

    async fn resubmit(&self, request: Request<ResubmitJobRequest>) -> Result<Response<Job>, Status> {
        let caller = caller(&request)?;
        self.0.admit().await?;
        let ResubmitJobRequest { id, request_id } = request.into_inner();
        let named = check::request_id(&request_id)?;
        let job = self.0.job(&caller, "id", &id).await?;
        if !job.state.is_ended() {
            return Err(not_now(format!("{id} is {}; what has ended can be done again", job.state)));
        }
        let asked = Asked {
            kind: job.kind,
            class: job.class,
            media: job.media_id,
            spec: self.asked_before(&job).await?,
            name: job.name,
            limits: job.limits,
            resubmitted_from: Some(job.id),
            request: named.map(|named| (named, format!("again {id}"))),
        };
        let job = accept(&self.0, &caller, asked).await?;
        Ok(Response::new(shown::job(&self.0, &job).await?))
    }

    async fn delete(&self, request: Request<DeleteJobRequest>) -> Result<Response<DeleteJobResponse>, Status> {
        let caller = caller(&request)?;
        let parts = &self.0;
        let id = &request.get_ref().id;
        let job = parts.job(&caller, "id", id).await?;
        if !job.state.is_ended() {
            return Err(not_now(format!("{id} is {}; cancel it first", job.state)));
        }
        let letters = parts.store.read().letters_of_job(job.id).await.map_err(|error| of_store(&error))?;
        if letters > 0 {
            return Err(not_now(format!(
                "{letters} dead letters of {id} are in warren.dead; replay or discard them first"
            )));
        }
        let media = job.media_id.map(|media| MediaId(media).to_string()).unwrap_or_default();
        accept::command(parts, &caller, What::Delete(wire::DeleteJob { job: id.clone(), media })).await?;
        let begun = Instant::now();
        let mut hint = parts.hints.wait_for(job.id);
        while begun.elapsed() < EFFECT {
            if parts.store.read().job(job.id).await.map_err(|error| of_store(&error))?.is_none() {
                return Ok(Response::new(DeleteJobResponse { effective: true }));
            }
            hint.change(LOOK).await;
        }
        Ok(Response::new(DeleteJobResponse { effective: false }))
    }

    async fn explain(&self, request: Request<ExplainJobRequest>) -> Result<Response<JobExplanation>, Status> {
        let job = self.0.job(&caller(&request)?, "id", &request.get_ref().id).await?;
        Ok(Response::new(explain::explain(&self.0, &job).await?))
    }
}

impl Jobs {
    async fn asked(&self, caller: &Caller, request: SubmitJobRequest) -> Result<Asked, Status> {
        let parts = &self.0;
        let most = &parts.settings.limits;
        let limits = check::limits(&request.limits.unwrap_or_default(), most)?;
        let devices = parts.store.read().devices().await.map_err(|error| of_store(&error))?;
        let room = Room::new(&devices, &limits);
        let (catalogue, defaults) = (&parts.catalogue, &parts.settings.defaults);
        let rules = Rules { catalogue, defaults, limits: most, room: &room };
        let class = check::class(request.class)?;
        let named = check::request_id(&request.request_id)?;
        let named = named.map(|id| (id, accept::hash(&request)));
        match request.spec {
            None => Err(invalid("spec", "is required: one of `transcribe`, `embed`")),
            Some(Spec::Transcribe(spec)) => {
                let (media, spec) = rules.transcribe(&spec)?;
                let found = parts.store.read().media(media.0).await.map_err(|error| of_store(&error))?;
                let found = found.filter(|found| found.caller == caller.name);
                let found = found.ok_or_else(|| not_found("media", &MediaId(media.0).to_string()))?;
                Rules::size(&found, &limits)?;
                Ok(Asked {
                    kind: JobKind::Transcribe,
                    class,
                    media: Some(found.id),
                    name: found.name,
                    spec: job::Spec::Transcribe(spec),
                    limits,
                    resubmitted_from: None,
                    request: named,
                })
            }
            Some(Spec::Embed(spec)) => {
                let spec = rules.embed(spec)?;
                let texts = spec.texts.len();
                Ok(Asked {
                    kind: JobKind::Embed,
                    class,
                    media: None,
                    name: if texts == 1 { "1 text".to_owned() } else { format!("{texts} texts") },
                    spec: job::Spec::Embed(spec),
                    limits,
                    resubmitted_from: None,
                    request: named,
                })
            }
        }
    }

    /// What a job was asked for, with all its texts.
    async fn asked_before(&self, job: &warren_store::Job) -> Result<job::Spec, Status> {
        let unreadable = |error: serde_json::Error| {
            tracing::error!(job.id = %JobId(job.id), %error, "what was asked cannot be read");
            Status::internal(format!("what was asked of {} cannot be read", JobId(job.id)))
        };
        let mut spec = shown::asked(job).map_err(unreadable)?;
        if let job::Spec::Embed(spec) = &mut spec
            && spec.texts.is_empty()
        {
            let lines = self.0.blobs.get_bytes(&Key::texts(job.id), MAX_TEXTS_OBJECT_BYTES).await;
            let lines = lines.map_err(|error| of_blob(&error))?;
            let texts = lines.split_inclusive(|byte| *byte == b'\n').map(serde_json::from_slice);
            spec.texts = texts.collect::<Result<_, _>>().map_err(unreadable)?;
        }
        Ok(spec)
    }

    async fn cancelled(
        &self,
        caller: &Caller,
        mut job: warren_store::Job,
        reason: String,
    ) -> Result<CancelJobResponse, Status> {
        let parts = &self.0;
        let counts = parts.store.read().counts(job.id).await.map_err(|error| of_store(&error))?;
        let before = counts.cancelled;
        if !job.state.is_ended() {
            let mut hint = parts.hints.wait_for(job.id);
            let cancel = wire::CancelJob { job: JobId(job.id).to_string(), reason };
            accept::command(parts, caller, What::Cancel(cancel)).await?;
            let begun = Instant::now();
            while !job.state.is_ended() && begun.elapsed() < EFFECT {
                hint.change(LOOK).await;
                job = parts.job_of(caller, job.id).await?;
            }
        }
        let effective = job.state.is_ended();
        let job = shown::job(parts, &job).await?;
        let after = job.tasks.map_or(0, |tasks| tasks.cancelled);
        Ok(CancelJobResponse {
            job: Some(job),
            tasks_cancelled: after.saturating_sub(shown::number(before)),
            effective,
        })
    }
}

fn listed(kind: &str) -> Result<JobKind, Status> {
    let found = LISTED.into_iter().find(|listed| listed.as_str() == kind);
    found.ok_or_else(|| {
        let given: String = kind.chars().take(80).collect();
        invalid("kind", format!("`{given}` is none of {}", LISTED.map(JobKind::as_str).join(", ")))
    })
}

fn job_state(state: i32) -> Result<Option<JobState>, Status> {
    match wire::JobState::try_from(state) {
        Ok(wire::JobState::Unspecified) => Ok(None),
        Ok(wire::JobState::Queued) => Ok(Some(JobState::Queued)),
        Ok(wire::JobState::Running) => Ok(Some(JobState::Running)),
        Ok(wire::JobState::Succeeded) => Ok(Some(JobState::Succeeded)),
        Ok(wire::JobState::Failed) => Ok(Some(JobState::Failed)),
        Ok(wire::JobState::Cancelled) => Ok(Some(JobState::Cancelled)),
        Err(_) => Err(invalid("state", format!("{state} is no job state"))),
    }
}
