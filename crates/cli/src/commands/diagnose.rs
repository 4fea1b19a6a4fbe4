//! `warren diagnose`: what runs, what waits, and whether anything is stuck.

use pbjson_types::Timestamp;
use serde_json::json;
use warren_messages::{
    to_millis,
    wire::{DiagnoseRequest, DiagnoseResponse, operations_client::OperationsClient},
};

use crate::{
    client::Server,
    commands::{jobs, queues, workers},
    error::CliError,
    output,
};

/// Looks at everything.
///
/// # Errors
/// [`CliError::Failed`] when something is stuck; otherwise when the server refuses or stays away.
pub(crate) async fn run(server: &Server, json: bool) -> Result<(), CliError> {
    let seen = server
        .call(async |transport| {
            OperationsClient::new(transport).diagnose(DiagnoseRequest {}).await.map(tonic::Response::into_inner)
        })
        .await?;
    if json {
        output::json_line(&as_json(&seen))?
    } else {
        show(&seen)?
    }
    if seen.stuck { Err(CliError::Failed) } else { Ok(()) }
}

fn as_json(seen: &DiagnoseResponse) -> serde_json::Value {
    let jobs: Vec<_> = seen
        .jobs
        .iter()
        .map(|count| json!({ "kind": count.kind, "state": output::state(count.state()), "jobs": count.jobs }))
        .collect();
    let running: Vec<_> = seen
        .running
        .iter()
        .map(|job| {
            let mut value = jobs::as_json(job);
            value["percent"] = percent(job.progress_done, job.progress_planned).into();
            value["heartbeat_age_s"] = json!(age(seen, job.heartbeat_at.as_ref()));
            value["last_step"] = job.last_step.clone().into();
            value
        })
        .collect();
    let broker: Vec<_> = seen
        .broker
        .iter()
        .map(|queue| {
            json!({
                "queue": queue.name, "messages": queue.messages, "unacknowledged": queue.unacknowledged,
                "consumers": queue.consumers,
            })
        })
        .collect();
    let ticks: Vec<_> = seen
        .ticks
        .iter()
        .map(|tick| {
            let age_s = age(seen, tick.at.as_ref());
            json!({ "name": tick.name, "at": tick.at, "age_s": age_s, "every_s": tick.every_s })
        })
        .collect();
    json!({
        "verdict": seen.verdict, "stuck": seen.stuck, "findings": seen.findings, "jobs": jobs, "running": running,
        "workers": seen.workers.iter().map(workers::as_json).collect::<Vec<_>>(),
        "queues": seen.queues.iter().map(queues::as_json).collect::<Vec<_>>(),
        "broker": broker, "broker_trouble": seen.broker_trouble, "ticks": ticks, "leader": seen.leader,
        "term": seen.term, "dead_letters": seen.dead_letters, "outbox": seen.outbox,
    })
}

fn show(seen: &DiagnoseResponse) -> Result<(), CliError> {
    output::line(&seen.verdict)?;
    for finding in &seen.findings {
        output::line(format_args!("  ! {finding}"))?;
    }

    let mut table = output::table(&["jobs", "queued", "running", "succeeded", "failed", "cancelled"]);
    for kind in ["transcribe", "embed"] {
        let of = |state: &str| {
            let counts = seen.jobs.iter().filter(|count| count.kind == kind && output::state(count.state()) == state);
            counts.map(|count| count.jobs).sum::<u64>().to_string()
        };
        let [queued, running, succeeded, failed, cancelled] =
            ["queued", "running", "succeeded", "failed", "cancelled"].map(of);
        table.add_row([kind.to_owned(), queued, running, succeeded, failed, cancelled]);
    }
    output::line(format_args!("\n{table}"))?;

    if !seen.running.is_empty() {
        let mut table = output::listing(&["running", "done", "heard of", "doing"]);
        for job in &seen.running {
            let done = format!("{:.0} %", percent(job.progress_done, job.progress_planned));
            table.add_row([job.id.clone(), done, ago(seen, job.heartbeat_at.as_ref()), job.last_step.clone()]);
        }
        output::line(format_args!("\n{table}"))?;
    }

    let mut table = output::table(&["worker", "state", "heard of", "runs", "last error"]);
    for worker in &seen.workers {
        let error = match worker.last_error.as_str() {
            "" => String::new(),
            error => format!("{}: {error}", ago(seen, worker.last_error_at.as_ref())),
        };
        table.add_row([
            worker.id.clone(),
            worker.state.clone(),
            ago(seen, worker.heartbeat_at.as_ref()),
            format!("{} of {}", worker.running.len(), worker.slots),
            output::beginning(&error, 120),
        ]);
    }
    output::line(format_args!("\n{table}"))?;

    let mut table = output::table(&queues::HEADER);
    table.add_rows(seen.queues.iter().map(queues::row));
    output::line(format_args!("\n{table}"))?;

    // Of the queues that RabbitMQ has, those where something lies.
    let mut table = output::table(&["in RabbitMQ", "messages", "in hand", "consumers"]);
    for queue in seen.broker.iter().filter(|queue| queue.messages > 0) {
        table.add_row([
            queue.name.clone(),
            queue.messages.to_string(),
            queue.unacknowledged.to_string(),
            queue.consumers.to_string(),
        ]);
    }
    if table.row_count() > 0 {
        output::line(format_args!("\n{table}"))?;
    } else if seen.broker_trouble.is_empty() {
        output::line("\nno messages in RabbitMQ")?;
    }

    let ticks = seen.ticks.iter();
    let ticks: Vec<_> = ticks
        .map(|tick| format!("{} ran {} (every {} s)", tick.name, ago(seen, tick.at.as_ref()), tick.every_s))
        .collect();
    let leader =
        if seen.leader.is_empty() { "nobody".to_owned() } else { format!("{} (term {})", seen.leader, seen.term) };
    output::line(format_args!("\n{leader} leads; {}", ticks.join(", ")))?;
    output::line(format_args!("{} dead letters; {} messages to be published", seen.dead_letters, seen.outbox))
}

fn percent(done: f64, planned: f64) -> f64 {
    if planned > 0.0 { (done / planned * 100.0).min(100.0) } else { 0.0 }
}

/// Seconds before the server looked; absent when it never was.
fn age(seen: &DiagnoseResponse, at: Option<&Timestamp>) -> Option<i64> {
    let looked = seen.at.as_ref().map_or(0, to_millis);
    at.map(|at| (looked - to_millis(at)).max(0) / 1_000)
}

fn ago(seen: &DiagnoseResponse, at: Option<&Timestamp>) -> String {
    age(seen, at).map_or_else(|| "never".to_owned(), |seconds| format!("{seconds} s ago"))
}
