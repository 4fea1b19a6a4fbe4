//! Following a job to its end, across lost connections.

use warren_messages::wire::{Job, JobState, JobUpdate, WatchJobRequest, jobs_client::JobsClient};

use crate::{client::Server, error::CliError};

/// Follows a job. `seen` gets every update; after a lost connection none comes twice.
///
/// # Errors
/// What the server refused, that it stayed away for a minute, or what `seen` says.
pub(crate) async fn watch(
    server: &Server,
    id: &str,
    seen: &mut (dyn FnMut(&JobUpdate) -> Result<(), CliError> + Send),
) -> Result<Job, CliError> {
    let mut trouble = server.trouble();
    let mut after_sequence = 0;
    loop {
        let request = WatchJobRequest { id: id.to_owned(), after_sequence };
        let mut updates = match JobsClient::new(server.transport()).watch(request).await {
            Ok(updates) => updates.into_inner(),
            Err(status) => {
                trouble.wait(status).await?;
                continue;
            }
        };
        loop {
            match updates.message().await {
                Ok(Some(update)) => {
                    trouble.over();
                    if let Some(job) = &update.job {
                        server.followed().note(job);
                    }
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
