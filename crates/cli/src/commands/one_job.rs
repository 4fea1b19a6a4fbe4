//! `warren jobs show`, `explain`, `resubmit` and `delete`.

use clap::Args;
use serde_json::json;
use warren_messages::wire::{
    DeleteJobRequest, ExplainJobRequest, GetJobRequest, JobEventsRequest, ResubmitJobRequest, jobs_client::JobsClient,
};

use crate::{
    client::Server,
    commands::{
        jobs::{as_json, done, event_as_json, line},
        queues::request_id,
    },
    error::CliError,
    output,
};

/// One job with its newest events.
#[derive(Args, Debug)]
pub(crate) struct Show {
    /// E.g. job_0192f0c1-….
    job: String,
    /// Most events, the newest first.
    #[arg(short, long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=2000))]
    events: u32,
}

/// One job.
#[derive(Args, Debug)]
pub(crate) struct OneJob {
    /// E.g. job_0192f0c1-….
    pub(crate) job: String,
}

/// Shows a job. For programs: one object.
///
/// # Errors
/// When the server refuses or stays away.
pub(crate) async fn show(server: &Server, arguments: &Show, json: bool) -> Result<(), CliError> {
    let get = GetJobRequest { id: arguments.job.clone() };
    let job = server
        .call(async |transport| JobsClient::new(transport).get(get.clone()).await.map(tonic::Response::into_inner))
        .await?;
    let list = JobEventsRequest { id: arguments.job.clone(), limit: arguments.events };
    let events = server
        .call(async |transport| JobsClient::new(transport).events(list.clone()).await.map(tonic::Response::into_inner))
        .await?
        .events;
    if json {
        let mut shown = as_json(&job);
        shown["events"] = events.iter().map(event_as_json).collect();
        return output::json_line(&shown);
    }
    output::line(format_args!("{} {} {}: {}", job.id, job.kind, output::state(job.state()), job.name))?;
    output::line(format_args!("done {}, {:.2} a second", done(&job), job.speed))?;
    for (what, at) in [
        ("created", &job.created_at),
        ("started", &job.started_at),
        ("ended", &job.finished_at),
        ("expected", &job.expected_end),
    ] {
        if at.is_some() {
            output::line(format_args!("{what:<8} {} UTC", output::time(at.as_ref())))?;
        }
    }
    if !job.resubmitted_from.is_empty() {
        output::line(format_args!("does {} again", job.resubmitted_from))?;
    }
    if !job.error_code.is_empty() {
        output::line(format_args!("{} ({})", job.error_message, job.error_code))?;
    }
    events.iter().try_for_each(|event| output::line(line(event)))
}

/// Explains a job. For programs: one object.
///
/// # Errors
/// When the server refuses or stays away.
pub(crate) async fn explain(server: &Server, job: &str, json: bool) -> Result<(), CliError> {
    let request = ExplainJobRequest { id: job.to_owned() };
    let why = server
        .call(async |transport| {
            JobsClient::new(transport).explain(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await?;
    let word = why.waiting_for().as_str_name().trim_start_matches("WAITING_FOR_").to_lowercase();
    if json {
        let holders = why.holders.iter().map(|holder| {
            json!({
                "device": holder.device, "model": holder.model, "worker": holder.worker,
                "expected_end": holder.expected_end,
            })
        });
        return output::json_line(&json!({
            "job": job, "state": output::state(why.state()), "waiting_for": word, "reason": why.reason,
            "jobs_ahead": why.jobs_ahead, "tasks_ahead": why.tasks_ahead, "next_retry_at": why.next_retry_at,
            "holders": holders.collect::<Vec<_>>(),
        }));
    }
    output::line(&why.reason)?;
    if why.jobs_ahead > 0 {
        output::line(format_args!("{} jobs with {} tasks came before it", why.jobs_ahead, why.tasks_ahead))?;
    }
    if why.next_retry_at.is_some() {
        output::line(format_args!("next try: {} UTC", output::time(why.next_retry_at.as_ref())))?;
    }
    for holder in &why.holders {
        let end = holder.expected_end.as_ref().map(|end| format!(", until about {} UTC", output::time(Some(end))));
        let end = end.unwrap_or_default();
        output::line(format_args!("{} is leased to {} for {}{end}", holder.device, holder.worker, holder.model))?;
    }
    Ok(())
}

/// Does a job again. For programs: the new job.
///
/// # Errors
/// When the server refuses or stays away.
pub(crate) async fn resubmit(server: &Server, job: &str, json: bool) -> Result<(), CliError> {
    let request = ResubmitJobRequest { id: job.to_owned(), request_id: request_id("resubmit") };
    let new = server
        .call(async |transport| {
            JobsClient::new(transport).resubmit(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await?;
    if json {
        return output::json_line(&as_json(&new));
    }
    output::line(format_args!(
        "{} does it again; to follow it: {}",
        new.id,
        server.command(&format!("watch {}", new.id))
    ))
}

/// Deletes a job.
///
/// # Errors
/// When the server refuses or stays away.
pub(crate) async fn delete(server: &Server, job: &str, json: bool) -> Result<(), CliError> {
    let request = DeleteJobRequest { id: job.to_owned() };
    let answer = server
        .call(async |transport| {
            JobsClient::new(transport).delete(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await?;
    if json {
        output::json_line(&json!({ "job": job, "effective": answer.effective }))
    } else if answer.effective {
        output::line(format_args!("{job}: deleted"))
    } else {
        output::line(format_args!("{job}: recorded; it takes effect as soon as a coordinator leads"))
    }
}
