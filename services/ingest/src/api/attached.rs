//! Jobs whose caller waits for them, and that end when it hangs up or does not wait any longer.

use std::time::Duration;

use futures::{StreamExt as _, stream, stream::BoxStream};
use tonic::Status;
use uuid::Uuid;
use warren_clock::Reconnect;
use warren_messages::{
    ids::JobId,
    wire::{self, JobUpdate, command::Command as What},
};

use super::watch;
use crate::{accept, auth::Caller, parts::Parts};

/// How long a caller whose connection broke has to call again.
const GRACE: Duration = Duration::from_millis(500);
/// How often a cancellation that cannot be written is tried again.
const TRIES: u32 = 20;

/// As [`watch::updates`], and the job is cancelled when nobody takes the updates any more.
pub(crate) fn updates(parts: Parts, caller: Caller, job: Uuid) -> BoxStream<'static, Result<JobUpdate, Status>> {
    let attached = Attached::new(parts.clone(), caller, job);
    stream::unfold((watch::updates(parts, job, 0), attached), |(mut updates, mut attached)| async move {
        let update = updates.next().await;
        // An end that this server makes is no hanging up.
        attached.over |= !matches!(&update, Some(Ok(update)) if !has_ended(update));
        Some((update?, (updates, attached)))
    })
    .boxed()
}

fn has_ended(update: &JobUpdate) -> bool {
    use wire::JobState::{Cancelled, Failed, Succeeded};
    update.job.as_ref().is_some_and(|job| matches!(job.state(), Succeeded | Failed | Cancelled))
}

/// A call that waits for a job. Dropped before it is over, it takes the job with it.
pub(crate) struct Attached {
    parts: Parts,
    caller: Caller,
    job: Uuid,
    over: bool,
}

impl Attached {
    pub(crate) fn new(parts: Parts, caller: Caller, job: Uuid) -> Self {
        Self { parts, caller, job, over: false }
    }

    /// The call has what it waited for.
    pub(crate) fn over(mut self) {
        self.over = true;
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !self.over && !self.parts.stopping.is_cancelled() {
            runtime.spawn(hung_up(self.parts.clone(), self.caller.clone(), self.job));
        }
    }
}

async fn hung_up(parts: Parts, caller: Caller, job: Uuid) {
    tokio::time::sleep(GRACE).await;
    let mut trouble = Reconnect::new();
    for _ in 0..TRIES {
        if parts.hints.is_awaited(job) {
            return;
        }
        let reason = "its caller hung up".to_owned();
        let cancel = wire::CancelJob { job: JobId(job).to_string(), reason };
        match accept::command(&parts, &caller, What::Cancel(cancel)).await {
            Ok(()) => return tracing::info!(job.id = %JobId(job), "the caller hung up; the job is cancelled"),
            Err(error) => tracing::warn!(job.id = %JobId(job), %error, "the caller hung up; not cancelled yet"),
        }
        tokio::time::sleep(trouble.next_delay()).await;
    }
}
