//! `warren queues`: what waits, by kind of work; pausing, resuming and purging a kind.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use clap::{Args, Subcommand};
use serde_json::json;
use warren_jobs::TaskKind;
use warren_messages::wire::{
    PauseRequest, PurgeRequest, PurgeResponse, QueuesRequest, ResumeRequest, TaskQueue,
    operations_client::OperationsClient,
};

use crate::{client::Server, error::CliError, output};

/// What waits, by kind of work; pause, resume and purge a kind.
#[derive(Args, Debug)]
pub(crate) struct Queues {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Let no more of a kind begin, until it is resumed; what is out is finished. It lasts over restarts.
    Pause(Pause),
    /// Let it go on.
    Resume(Resume),
    /// Cancel every job with open tasks of a kind, and empty its queue.
    Purge(Purge),
}

#[derive(Args, Debug)]
struct Pause {
    /// prepare, transcribe or embed.
    kind: TaskKind,
    /// For the record.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Say what would happen and change nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args, Debug)]
struct Resume {
    /// prepare, transcribe or embed.
    kind: TaskKind,
    /// Say what would happen and change nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args, Debug)]
struct Purge {
    /// prepare, transcribe or embed.
    kind: TaskKind,
    /// How many open tasks of this kind there are, as --dry-run says: with any other number nothing happens. Without
    /// it, you are asked.
    #[arg(long, value_name = "N")]
    yes: Option<u64>,
    /// For the record.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Say what would happen and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command.
///
/// # Errors
/// When the server refuses or stays away.
pub(crate) async fn run(server: &Server, arguments: &Queues, json: bool) -> Result<(), CliError> {
    match &arguments.verb {
        None => list(server, json).await,
        Some(Verb::Pause(arguments)) => pause(server, arguments, json).await,
        Some(Verb::Resume(arguments)) => resume(server, arguments, json).await,
        Some(Verb::Purge(arguments)) => purge(server, arguments, json).await,
    }
}

async fn list(server: &Server, json: bool) -> Result<(), CliError> {
    let found = server
        .call(async |transport| {
            OperationsClient::new(transport).queues(QueuesRequest {}).await.map(tonic::Response::into_inner)
        })
        .await?;
    let mut table = output::table(&HEADER);
    for queue in &found.queues {
        if json {
            output::json_line(&as_json(queue))?;
            continue;
        }
        table.add_row(row(queue));
    }
    if !json {
        output::line(table)?;
        for queue in &found.queues {
            if let Some(paused) = &queue.paused {
                let (since, why) = (output::time(paused.since.as_ref()), because(&paused.reason));
                let resume = server.command(&format!("queues resume {}", queue.kind));
                output::line(format_args!(
                    "{} is paused by {} since {since}{why}; to go on: {resume}",
                    queue.kind, paused.actor
                ))?;
            }
        }
        if found.dead_letters > 0 {
            output::line(format_args!("{} dead letters: {}", found.dead_letters, server.command("dlq list")))?;
        }
    }
    Ok(())
}

/// The columns of a list of queues.
pub(crate) const HEADER: [&str; 8] =
    ["work", "waiting", "released", "running", "retry later", "dead", "oldest", "slots"];

/// A line of a list of queues.
pub(crate) fn row(queue: &TaskQueue) -> [String; 8] {
    let paused = if queue.paused.is_some() { " (paused)" } else { "" };
    [
        format!("{}{paused}", queue.kind),
        queue.unreleased.to_string(),
        queue.released.to_string(),
        queue.running.to_string(),
        queue.retry_later.to_string(),
        queue.dead.to_string(),
        output::clock(queue.oldest_wait_seconds),
        queue.slots.to_string(),
    ]
}

/// A queue for programs.
pub(crate) fn as_json(queue: &TaskQueue) -> serde_json::Value {
    let paused = queue.paused.as_ref();
    let paused = paused.map(|by| json!({ "actor": by.actor, "reason": by.reason, "since": by.since }));
    json!({
        "kind": queue.kind, "queue": queue.queue, "unreleased": queue.unreleased, "released": queue.released,
        "running": queue.running, "retry_later": queue.retry_later, "dead": queue.dead,
        "oldest_wait_seconds": queue.oldest_wait_seconds, "slots": queue.slots, "paused": paused,
    })
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

async fn pause(server: &Server, arguments: &Pause, json: bool) -> Result<(), CliError> {
    let kind = arguments.kind;
    let request = PauseRequest {
        kind: kind.to_string(),
        reason: arguments.reason.clone(),
        dry_run: arguments.dry_run,
        request_id: request_id("pause"),
    };
    let answer = server
        .call(async |transport| {
            OperationsClient::new(transport).pause(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await?;
    if json {
        return output::json_line(&json!({
            "kind": kind.to_string(), "paused": !answer.dry_run && answer.effective, "changed": answer.changed,
            "waiting": answer.waiting, "released": answer.released, "dry_run": answer.dry_run,
            "effective": answer.effective,
        }));
    }
    let (waiting, released) = (answer.waiting, answer.released);
    let tasks = format!("{waiting} tasks wait until it is resumed, {released} are out and will be finished");
    match (answer.dry_run, answer.effective, answer.changed) {
        (true, _, false) | (_, true, false) => output::line(format_args!("{kind} is paused already; {tasks}")),
        (true, _, true) => output::line(format_args!("{kind} would be paused; {tasks}")),
        (false, true, true) => {
            output::line(format_args!("{kind} is paused; {tasks}"))?;
            output::line(format_args!("to go on: {}", server.command(&format!("queues resume {kind}"))))
        }
        (false, false, _) => output::line(LATER),
    }
}

async fn resume(server: &Server, arguments: &Resume, json: bool) -> Result<(), CliError> {
    let kind = arguments.kind;
    let request =
        ResumeRequest { kind: kind.to_string(), dry_run: arguments.dry_run, request_id: request_id("resume") };
    let answer = server
        .call(async |transport| {
            OperationsClient::new(transport).resume(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await?;
    if json {
        return output::json_line(&json!({
            "kind": kind.to_string(), "changed": answer.changed, "waiting": answer.waiting,
            "dry_run": answer.dry_run, "effective": answer.effective,
        }));
    }
    let waiting = answer.waiting;
    match (answer.dry_run, answer.effective, answer.changed) {
        (true, _, false) | (_, true, false) => output::line(format_args!("{kind} was not paused")),
        (true, _, true) => output::line(format_args!("{kind} would go on; {waiting} tasks wait")),
        (false, true, true) => output::line(format_args!("{kind} goes on; {waiting} tasks waited")),
        (false, false, _) => output::line(LATER),
    }
}

const LATER: &str = "recorded; it takes effect as soon as a coordinator leads";

async fn purge(server: &Server, arguments: &Purge, json: bool) -> Result<(), CliError> {
    let kind = arguments.kind;
    let asked = |tasks: u64, dry_run: bool| PurgeRequest {
        kind: kind.to_string(),
        tasks,
        reason: arguments.reason.clone(),
        dry_run,
        request_id: if dry_run { String::new() } else { request_id("purge") },
    };
    let call = async |request: PurgeRequest| {
        server
            .call(async |transport| {
                OperationsClient::new(transport).purge(request.clone()).await.map(tonic::Response::into_inner)
            })
            .await
    };
    let answer = if arguments.dry_run {
        call(asked(0, true)).await?
    } else {
        let confirmed = match arguments.yes {
            Some(tasks) => tasks,
            None => confirm(server, kind, &call(asked(0, true)).await?)?,
        };
        call(asked(confirmed, false)).await?
    };
    let (tasks, jobs) = (answer.tasks, answer.jobs);
    if json {
        return output::json_line(&json!({
            "kind": kind.to_string(), "tasks": tasks, "jobs": jobs, "dry_run": answer.dry_run,
            "effective": answer.effective,
        }));
    }
    match (answer.dry_run, answer.effective) {
        (true, _) => {
            output::line(format_args!("{jobs} jobs with {tasks} open {kind} tasks would be cancelled"))?;
            output::line(format_args!("to do it: {}", server.command(&format!("queues purge {kind} --yes {tasks}"))))
        }
        (false, true) => output::line(format_args!("{jobs} jobs with {tasks} open {kind} tasks are cancelled")),
        (false, false) => output::line(format_args!("{jobs} jobs with {tasks} open {kind} tasks: {LATER}")),
    }
}

/// Asks whoever is at the terminal for the number of tasks.
fn confirm(server: &Server, kind: TaskKind, found: &PurgeResponse) -> Result<u64, CliError> {
    let (tasks, jobs) = (found.tasks, found.jobs);
    let what = format!("this cancels {jobs} jobs with {tasks} open {kind} tasks");
    if !std::io::stdin().is_terminal() {
        let command = server.command(&format!("queues purge {kind} --yes {tasks}"));
        return Err(CliError::Usage(format!("{what}; to confirm: {command}")));
    }
    let mut typed = String::new();
    let asked = write!(std::io::stderr(), "{what}; type {tasks} to go on: ")
        .and_then(|()| std::io::stdin().lock().read_line(&mut typed));
    asked.map_err(CliError::unreadable("standard input"))?;
    let typed = typed.trim();
    if typed == tasks.to_string() {
        return Ok(tasks);
    }
    Err(CliError::Usage(format!("`{typed}` is not {tasks}; nothing was changed")))
}

/// The server does what it is asked once, however often this client has to ask.
pub(crate) fn request_id(verb: &str) -> String {
    format!("{verb}-{:016x}", rand::random::<u64>())
}
