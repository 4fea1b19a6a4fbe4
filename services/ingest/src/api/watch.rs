//! Following one job until it ends.

use std::time::Duration;

use futures::{StreamExt as _, stream, stream::BoxStream};
use tokio::time::Instant;
use tonic::Status;
use uuid::Uuid;
use warren_clock::Reconnect;
use warren_fault::Code;
use warren_messages::{ids::JobId, wire::JobUpdate};
use warren_store::{Job, JobEvent, StoreError};

use crate::{
    hints::Waiting,
    parts::Parts,
    shown,
    status::{busy, not_found},
};

/// The store is read this often without a hint.
const POLL: Duration = Duration::from_secs(1);
/// Updates are at least this far apart, unless more events wait than fit into one, or the job has ended.
const APART: Duration = Duration::from_millis(250);
/// Events in one update.
const EVENTS: u64 = 500;

/// The job now, then every change; ends after its final state. Nothing is read while nobody takes updates.
pub(crate) fn updates(parts: Parts, job: Uuid, after: i64) -> BoxStream<'static, Result<JobUpdate, Status>> {
    let hint = parts.hints.wait_for(job);
    let watch = Watch { parts, job, after, hint, shown: None, ended: false };
    stream::unfold(watch, |mut watch| async move {
        let update = watch.next().await?;
        Some((update, watch))
    })
    .boxed()
}

struct Watch {
    parts: Parts,
    job: Uuid,
    /// Sequence of the last event sent.
    after: i64,
    hint: Waiting,
    /// The job as it was sent last, and when.
    shown: Option<(Job, Instant)>,
    ended: bool,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<JobUpdate, Status>> {
        if self.ended {
            return None;
        }
        let stopping = self.parts.stopping.clone();
        let update = tokio::select! {
            update = self.changed() => update,
            () = stopping.cancelled() => {
                Err(busy(Code::CoordinatorUnavailable, "this server stops; watch again with the last sequence"))
            }
        };
        self.ended |= update.is_err();
        Some(update)
    }

    /// Waits for something new. Trouble with the database is waited out.
    async fn changed(&mut self) -> Result<JobUpdate, Status> {
        let mut trouble = Reconnect::new();
        loop {
            self.pause().await;
            match self.read().await {
                Ok(None) => return Err(not_found("job", &JobId(self.job).to_string())),
                Ok(Some((job, events))) => {
                    trouble.reset();
                    let news = !events.is_empty() || self.shown.as_ref().is_none_or(|(shown, _)| *shown != job);
                    let update = if news { self.update(job, &events).await } else { None };
                    if let Some(update) = update {
                        return Ok(update);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, job.id = %JobId(self.job), "watching goes on when the database is back");
                    tokio::time::sleep(trouble.next_delay()).await;
                }
            }
        }
    }

    /// Until the next look is due: at a hint, and not too soon after the last update.
    async fn pause(&mut self) {
        let Some((job, at)) = &self.shown else { return };
        if job.sequence > self.after {
            return;
        }
        self.hint.end(*at + APART).await;
        self.hint.change(POLL).await;
    }

    async fn read(&self) -> Result<Option<(Job, Vec<JobEvent>)>, StoreError> {
        let Some(job) = self.parts.store.read().job(self.job).await? else { return Ok(None) };
        let new = job.sequence > self.after;
        let events =
            if new { self.parts.store.read().events_after(self.job, self.after, EVENTS).await? } else { Vec::new() };
        Ok(Some((job, events)))
    }

    /// `None`: the database went away in between; the same news are found again.
    async fn update(&mut self, job: Job, events: &[JobEvent]) -> Option<JobUpdate> {
        let shown = shown::job(&self.parts, &job).await.ok()?;
        self.after = events.last().map_or(self.after, |event| event.sequence);
        self.ended = job.state.is_ended() && self.after >= job.sequence;
        self.shown = Some((job, Instant::now()));
        Some(JobUpdate { job: Some(shown), events: events.iter().map(shown::event).collect() })
    }
}
