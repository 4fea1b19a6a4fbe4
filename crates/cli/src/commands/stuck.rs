//! `warren jobs recover`, `fail-stale` and `errors`.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use warren_clock::Clock;
use warren_messages::{
    from_millis,
    wire::{ErrorsRequest, FailStaleRequest, RecoverRequest, operations_client::OperationsClient},
};

use crate::{client::Server, commands::queues::request_id, error::CliError, output, span};

/// Look at once for what is stuck, and mend it; it also happens by itself.
#[derive(Args, Debug)]
pub(crate) struct Recover {
    /// Only this job.
    #[arg(long, default_value = "", hide_default_value = true)]
    job: String,
    /// Say what would happen and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Fail running jobs that gave no sign of life for a while.
#[derive(Args, Debug)]
pub(crate) struct FailStale {
    /// How long, e.g. 20m. 0s fails all that run; below 1m, --yes-i-mean-it is needed.
    #[arg(long, value_name = "TIME", value_parser = span::parse)]
    older: Duration,
    /// Also jobs that are well: a worker is heard of every few seconds at best.
    #[arg(long)]
    yes_i_mean_it: bool,
    /// For the record.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Say what would happen and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Silence that a job which is well may show.
const WELL: Duration = Duration::from_secs(60);

/// Why jobs failed, the most frequent causes first.
#[derive(Args, Debug)]
pub(crate) struct Errors {
    /// Only those that failed so long ago at most, e.g. 1h. Default: all.
    #[arg(long, value_name = "TIME", value_parser = span::parse)]
    since: Option<Duration>,
    /// Most causes.
    #[arg(short, long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
}

/// Recovers. For programs: a line for each thing mended.
///
/// # Errors
/// When the server refuses or stays away.
pub(crate) async fn recover(server: &Server, arguments: &Recover, json: bool) -> Result<(), CliError> {
    let request =
        RecoverRequest { job: arguments.job.clone(), dry_run: arguments.dry_run, request_id: request_id("recover") };
    let answer = server
        .call(async |transport| {
            OperationsClient::new(transport).recover(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await?;
    if json {
        let recovered = answer.recovered.iter();
        let recovered: Vec<_> =
            recovered.map(|one| json!({ "job": one.job, "task": one.task, "what": one.what })).collect();
        return output::json_line(&json!({
            "recovered": recovered, "dry_run": answer.dry_run, "effective": answer.effective,
        }));
    }
    let mut table = output::listing(&["job", "what"]);
    for one in &answer.recovered {
        table.add_row([&one.job, &one.what]);
    }
    match (answer.effective, answer.recovered.is_empty()) {
        (false, _) => output::line("recorded; it takes effect as soon as a coordinator leads"),
        (true, true) => output::line(format_args!("nothing is stuck; see also: {}", server.command("diagnose"))),
        (true, false) => output::line(table),
    }
}

/// Fails what is silent. For programs: one object with the jobs.
///
/// # Errors
/// When the server refuses or stays away.
pub(crate) async fn fail_stale(server: &Server, arguments: &FailStale, json: bool) -> Result<(), CliError> {
    if arguments.older < WELL && !arguments.dry_run && !arguments.yes_i_mean_it {
        let why =
            "--older: below 1m this fails jobs that are well, too; --dry-run says which, and --yes-i-mean-it does it";
        return Err(CliError::Usage(why.to_owned()));
    }
    let request = FailStaleRequest {
        older_s: arguments.older.as_secs(),
        reason: arguments.reason.clone(),
        dry_run: arguments.dry_run,
        request_id: request_id("fail-stale"),
    };
    let answer = server
        .call(async |transport| {
            OperationsClient::new(transport).fail_stale(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await?;
    if json {
        let jobs = answer.jobs.iter();
        let jobs: Vec<_> = jobs
            .map(|job| json!({ "id": job.id, "name": job.name, "silent_s": job.silent_s, "last_step": job.last_step }))
            .collect();
        return output::json_line(&json!({
            "jobs": jobs, "dry_run": answer.dry_run, "effective": answer.effective,
        }));
    }
    if !answer.effective {
        return output::line("recorded; it takes effect as soon as a coordinator leads");
    }
    if answer.jobs.is_empty() {
        return output::line("no running job has been silent for that long");
    }
    let verb = if answer.dry_run { "would fail" } else { "failed" };
    let mut table = output::listing(&["job", "silent for", "last step", "name"]);
    for job in &answer.jobs {
        let silent = output::clock(Duration::from_secs(job.silent_s).as_secs_f64());
        table.add_row([job.id.clone(), silent, job.last_step.clone(), output::beginning(&job.name, 40)]);
    }
    output::line(table)?;
    output::line(format_args!("{} jobs {verb}", answer.jobs.len()))
}

/// Counts causes.
///
/// # Errors
/// When the server refuses or stays away.
pub(crate) async fn errors(server: &Server, arguments: &Errors, json: bool) -> Result<(), CliError> {
    let since = arguments.since.map(|since| from_millis(Clock::system().now().minus(since).0));
    let request = ErrorsRequest { since, limit: arguments.limit };
    let answer = server
        .call(async |transport| OperationsClient::new(transport).errors(request).await.map(tonic::Response::into_inner))
        .await?;
    if json {
        let causes = answer.causes.iter();
        let causes: Vec<_> = causes
            .map(|cause| {
                json!({
                    "error_code": cause.error_code, "kind": cause.kind, "message": cause.message, "jobs": cause.jobs,
                    "latest": cause.latest,
                })
            })
            .collect();
        return output::json_line(&json!({ "causes": causes, "others": answer.others, "failed": answer.failed }));
    }
    if answer.causes.is_empty() {
        return output::line("no job failed");
    }
    let mut table = output::table(&["jobs", "code", "kind", "latest (UTC)", "message"]);
    for cause in &answer.causes {
        table.add_row([
            cause.jobs.to_string(),
            cause.error_code.clone(),
            cause.kind.clone(),
            output::time(cause.latest.as_ref()),
            output::beginning(&cause.message, 200),
        ]);
    }
    if answer.others > 0 {
        table.add_row([&answer.others.to_string(), "others", "", "", "raise --limit to see them"]);
    }
    output::line(table)?;
    output::line(format_args!("{} jobs failed; one by one: {}", answer.failed, server.command("jobs --state failed")))
}
