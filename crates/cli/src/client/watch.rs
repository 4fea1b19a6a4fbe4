//! Following a job to its end, across lost connections.

use tonic::{Response, Status, Streaming};
use warren_messages::wire::{Job, JobState, JobUpdate, SubmitJobRequest, WatchJobRequest, jobs_client::JobsClient};

use crate::{client::Server, error::CliError};

/// Follows a job. `seen` gets every update; after a lost connection none comes twice.
///
/// # Errors
/// What the server refused, that it stayed away for a minute, or what `seen` says.
pub(crate) async fn watch(server: &Server, id: &str, seen: Seen<'_>) -> Result<Job, CliError> {
    let open = async |after_sequence| {
        let request = WatchJobRequest { id: id.to_owned(), after_sequence };
        JobsClient::new(server.transport()).watch(request).await.map(Response::into_inner)
    };
    follow(server, open, true, seen).await
}

/// Hands a job in and follows it, as long as this process lives: when it hangs up, the job is cancelled.
///
/// # Errors
/// As [`watch`].
pub(crate) async fn attached(server: &Server, request: &SubmitJobRequest, seen: Seen<'_>) -> Result<Job, CliError> {
    // Called again, it finds its job by the request's id, and tells everything from the start.
    let open = async |_| JobsClient::new(server.transport()).run(request.clone()).await.map(Response::into_inner);
    follow(server, open, false, seen).await
}

/// Gets every update.
pub(crate) type Seen<'a> = &'a mut (dyn FnMut(&JobUpdate) -> Result<(), CliError> + Send);

async fn follow(
    server: &Server,
    open: impl AsyncFn(i64) -> Result<Streaming<JobUpdate>, Status>,
    goes_on: bool,
    seen: Seen<'_>,
) -> Result<Job, CliError> {
    let mut trouble = server.trouble();
    let mut after_sequence = 0;
    loop {
        let mut updates = match open(after_sequence).await {
            Ok(updates) => updates,
            Err(status) => {
                trouble.wait(status).await?;
                continue;
            }
        };
        loop {
            match updates.message().await {
                Ok(Some(mut update)) => {
                    trouble.over();
                    if let Some(job) = update.job.as_ref().filter(|_| goes_on) {
                        server.followed().note(job);
                    }
                    update.events.retain(|event| event.sequence > after_sequence);
                    seen(&update)?;
                    after_sequence = update.events.last().map_or(after_sequence, |event| event.sequence);
                    if let Some(job) = update.job.filter(|job| has_ended(job.state())) {
                        return Ok(job);
                    }
                }
                Ok(None) => break,
                Err(status) => {
                    trouble.wait(status).await?;
                    break;
                }
            }
        }
    }
}

/// Nothing more happens to a job in this state by itself.
pub(crate) fn has_ended(state: JobState) -> bool {
    matches!(state, JobState::Succeeded | JobState::Failed | JobState::Cancelled)
}
