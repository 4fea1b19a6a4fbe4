//! Handing a job in.

use warren_messages::wire::{Job, JobLimits, SubmitJobRequest, jobs_client::JobsClient, submit_job_request::Spec};

use crate::{
    client::{
        Server,
        watch::{Seen, attached, watch},
    },
    error::CliError,
};

/// How long a job may go on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    /// What it may take.
    pub limits: JobLimits,
    /// It ends with this process.
    pub attached: bool,
}

/// Hands a job in and follows it to its end. Sent again after a lost connection, the same `request_id` finds the job that
/// the first one made.
///
/// # Errors
/// What the server refused, that it stayed away for a minute, or what `seen` says.
pub(crate) async fn carry_out(
    server: &Server,
    spec: Spec,
    terms: Terms,
    request_id: String,
    seen: Seen<'_>,
) -> Result<Job, CliError> {
    let limits = Some(terms.limits);
    let request = SubmitJobRequest { spec: Some(spec), limits, request_id, ..Default::default() };
    if terms.attached {
        return attached(server, &request, seen).await;
    }
    let job = server
        .call(async |transport| {
            JobsClient::new(transport).submit(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await?;
    server.followed().note(&job);
    watch(server, &job.id, seen).await
}
