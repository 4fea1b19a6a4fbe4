//! Handing a job in.

use warren_messages::wire::{Job, SubmitJobRequest, jobs_client::JobsClient, submit_job_request::Spec};

use crate::{client::Server, error::CliError};

/// Hands a job in. Sent again after a lost connection, the same `request_id` finds the job that the first one made.
///
/// # Errors
/// What the server refused, or that it stayed away for a minute.
pub(crate) async fn submit(server: &Server, spec: Spec, request_id: String) -> Result<Job, CliError> {
    let request = SubmitJobRequest { spec: Some(spec), request_id, ..SubmitJobRequest::default() };
    let job = server
        .call(async |transport| {
            JobsClient::new(transport).submit(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await?;
    server.followed().note(&job);
    Ok(job)
}
