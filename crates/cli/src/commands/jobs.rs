//! `warren jobs` and its verbs, `watch` and `cancel`.

use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use warren_messages::wire::{
    CancelJobRequest, EventLevel, Job, JobEvent, JobState, ListJobsRequest, job, jobs_client::JobsClient,
};

use crate::{
    client::{Server, watch},
    commands::{
        one_job::{self, OneJob, Show},
        stuck::{self, Errors, FailStale, Recover},
        transcribe::{models, show_progress},
    },
    error::CliError,
    output,
};

/// List jobs, newest first; show, explain, resubmit or delete one; recover what is stuck, fail what is silent, count why
/// jobs fail.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Jobs {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Only those in this state.
    #[arg(long, value_enum)]
    state: Option<State>,
    /// Only of this kind.
    #[arg(long, value_parser = ["transcribe", "embed"])]
    kind: Option<String>,
    /// Most jobs.
    #[arg(short, long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Show(Show),
    /// Why a job does not run, or how it ended.
    Explain(OneJob),
    /// Do the same again as a job that has ended: a new job, which names the old one.
    Resubmit(OneJob),
    /// Delete a job that has ended, with all that it made, and its recording if no other job names that.
    Delete(OneJob),
    Recover(Recover),
    FailStale(FailStale),
    Errors(Errors),
}

/// States by name.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

/// Follow a job to its end.
#[derive(Args, Debug)]
pub(crate) struct Watch {
    /// E.g. job_0192f0c1-….
    job: String,
}

/// Stop a job.
#[derive(Args, Debug)]
pub(crate) struct Cancel {
    /// E.g. job_0192f0c1-….
    job: String,
    /// For the record.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

/// Runs the command.
///
/// # Errors
/// When the server refuses or stays away.
pub(crate) async fn run(server: &Server, arguments: &Jobs, json: bool) -> Result<(), CliError> {
    match &arguments.verb {
        None => list(server, arguments, json).await,
        Some(Verb::Show(arguments)) => one_job::show(server, arguments, json).await,
        Some(Verb::Explain(arguments)) => one_job::explain(server, &arguments.job, json).await,
        Some(Verb::Resubmit(arguments)) => one_job::resubmit(server, &arguments.job, json).await,
        Some(Verb::Delete(arguments)) => one_job::delete(server, &arguments.job, json).await,
        Some(Verb::Recover(arguments)) => stuck::recover(server, arguments, json).await,
        Some(Verb::FailStale(arguments)) => stuck::fail_stale(server, arguments, json).await,
        Some(Verb::Errors(arguments)) => stuck::errors(server, arguments, json).await,
    }
}

async fn list(server: &Server, arguments: &Jobs, json: bool) -> Result<(), CliError> {
    let state = match arguments.state {
        None => JobState::Unspecified,
        Some(State::Queued) => JobState::Queued,
        Some(State::Running) => JobState::Running,
        Some(State::Succeeded) => JobState::Succeeded,
        Some(State::Failed) => JobState::Failed,
        Some(State::Cancelled) => JobState::Cancelled,
    };
    let request = ListJobsRequest {
        state: state.into(),
        kind: arguments.kind.clone().unwrap_or_default(),
        page_size: arguments.limit,
        page_token: String::new(),
    };
    let found = server
        .call(async |transport| JobsClient::new(transport).list(request.clone()).await.map(tonic::Response::into_inner))
        .await?;
    if json {
        return found.jobs.iter().try_for_each(|job| output::json_line(&as_json(job)));
    }
    let mut table = output::listing(&["job", "state", "done", "kind", "created (UTC)", "name", "error"]);
    for job in &found.jobs {
        table.add_row([
            job.id.clone(),
            output::state(job.state()).to_owned(),
            done(job),
            job.kind.clone(),
            output::time(job.created_at.as_ref()),
            output::beginning(&job.name, 40),
            job.error_code.clone(),
        ]);
    }
    output::line(table)?;
    if !found.next_page_token.is_empty() {
        eprintln!("there are more; raise --limit");
    }
    Ok(())
}

/// A job for programs.
pub(crate) fn as_json(job: &Job) -> serde_json::Value {
    let decoding = match &job.spec {
        Some(job::Spec::Transcribe(spec)) => Some(spec.decoding()),
        _ => None,
    };
    json!({
        "id": job.id, "kind": job.kind, "state": output::state(job.state()), "progress_done": job.progress_done,
        "progress_planned": job.progress_planned, "error_code": job.error_code, "error_message": job.error_message,
        "name": job.name, "model": models(job).0, "downgraded_from": models(job).1, "heartbeat_at": job.heartbeat_at,
        "last_step": job.last_step, "created_at": job.created_at, "finished_at": job.finished_at,
        "expected_end": job.expected_end, "speed": job.speed, "resubmitted_from": job.resubmitted_from,
        "peak_memory_bytes": job.peak_memory_bytes, "quality": decoding.map(|(quality, _)| quality.word()),
        "beam_size": decoding.map(|(_, beam_size)| beam_size),
    })
}

/// An event for programs.
pub(crate) fn event_as_json(event: &JobEvent) -> serde_json::Value {
    json!({
        "sequence": event.sequence, "event": event.event, "message": event.message, "at": event.at,
        "fields": event.fields,
    })
}

/// How much of it is done, for people.
pub(crate) fn done(job: &Job) -> String {
    match job.progress_unit.as_str() {
        _ if job.progress_planned == 0.0 => String::new(),
        "audio_seconds" => format!("{} / {}", output::clock(job.progress_done), output::clock(job.progress_planned)),
        unit => format!("{} / {} {unit}", job.progress_done, job.progress_planned),
    }
}

/// Watches. For programs the last line is the job as it ended, as `warren jobs --json` shows it.
///
/// # Errors
/// [`CliError::Failed`] when the job does not succeed.
pub(crate) async fn follow(server: &Server, arguments: &Watch, json: bool) -> Result<(), CliError> {
    let style = ProgressStyle::with_template("{bar:32} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(1_000).with_style(style) };
    let job = watch(server, &arguments.job, &mut |update| {
        for event in &update.events {
            if json {
                output::json_line(&event_as_json(event))?;
            } else {
                bar.suspend(|| output::line(line(event)))?;
            }
        }
        if let Some(job) = &update.job {
            show_progress(&bar, job);
        }
        Ok(())
    })
    .await?;
    bar.finish_and_clear();
    let succeeded = job.state() == JobState::Succeeded;
    if json {
        output::json_line(&as_json(&job))?;
    } else if !succeeded {
        eprintln!("{}: {} ({})", output::state(job.state()), job.error_message, job.error_code);
    }
    if succeeded { Ok(()) } else { Err(CliError::Failed) }
}

/// An event, for people.
pub(crate) fn line(event: &JobEvent) -> String {
    let level = match event.level() {
        EventLevel::Error => "✗",
        EventLevel::Warning => "!",
        EventLevel::Info | EventLevel::Unspecified => " ",
    };
    format!("{} {level} {:<18} {}", output::time(event.at.as_ref()), event.event, event.message)
}

/// Cancels.
///
/// # Errors
/// When the server refuses or stays away.
pub(crate) async fn cancel(server: &Server, arguments: &Cancel, json: bool) -> Result<(), CliError> {
    let request = CancelJobRequest { id: arguments.job.clone(), reason: arguments.reason.clone() };
    let answer = server
        .call(async |transport| {
            JobsClient::new(transport).cancel(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await?;
    let state = answer.job.as_ref().map_or("unknown", |job| output::state(job.state()));
    if json {
        output::json_line(&json!({
            "job": arguments.job, "state": state, "tasks_cancelled": answer.tasks_cancelled,
            "effective": answer.effective,
        }))
    } else if answer.effective {
        output::line(format_args!("{}: {state}, {} tasks stopped", arguments.job, answer.tasks_cancelled))
    } else {
        output::line(format_args!("{}: recorded; it takes effect as soon as a coordinator leads", arguments.job))
    }
}
