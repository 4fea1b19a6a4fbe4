//! `warren queues` and `warren workers`.

use serde_json::json;
use warren_messages::wire::{QueuesRequest, WorkersRequest, operations_client::OperationsClient};

use crate::{client::Server, error::CliError, output};

/// What waits, by kind of work.
///
/// # Errors
/// When the server refuses or stays away.
pub(crate) async fn queues(server: &Server, json: bool) -> Result<(), CliError> {
    let found = server
        .call(async |transport| {
            OperationsClient::new(transport).queues(QueuesRequest {}).await.map(tonic::Response::into_inner)
        })
        .await?;
    let header = ["work", "waiting", "released", "running", "retry later", "dead", "oldest", "slots"];
    let mut table = output::table(&header);
    for queue in &found.queues {
        if json {
            output::json_line(&json!({
                "kind": queue.kind, "queue": queue.queue, "unreleased": queue.unreleased, "released": queue.released,
                "running": queue.running, "retry_later": queue.retry_later, "dead": queue.dead,
                "oldest_wait_seconds": queue.oldest_wait_seconds, "slots": queue.slots,
            }))?;
            continue;
        }
        table.add_row([
            queue.kind.clone(),
            queue.unreleased.to_string(),
            queue.released.to_string(),
            queue.running.to_string(),
            queue.retry_later.to_string(),
            queue.dead.to_string(),
            output::clock(queue.oldest_wait_seconds),
            queue.slots.to_string(),
        ]);
    }
    if !json {
        output::line(table)?;
        if found.dead_letters > 0 {
            output::line(format_args!("{} dead letters: {}", found.dead_letters, server.command("dlq list")))?;
        }
    }
    Ok(())
}

/// Who works, on what, and who holds which device.
///
/// # Errors
/// When the server refuses or stays away.
pub(crate) async fn workers(server: &Server, json: bool) -> Result<(), CliError> {
    let found = server
        .call(async |transport| {
            OperationsClient::new(transport).workers(WorkersRequest {}).await.map(tonic::Response::into_inner)
        })
        .await?;
    if json {
        for worker in &found.workers {
            let running: Vec<_> = worker
                .running
                .iter()
                .map(|task| {
                    json!({
                        "task": task.task, "job": task.job, "dispatch": task.dispatch, "step": task.step,
                        "done_units": task.done_units,
                    })
                })
                .collect();
            output::json_line(&json!({
                "id": worker.id, "boot": worker.boot, "service": worker.service, "version": worker.version,
                "kinds": worker.kinds, "slots": worker.slots, "state": worker.state,
                "heartbeat_at": worker.heartbeat_at, "running": running,
            }))?;
        }
        return Ok(());
    }
    let mut table = output::table(&["worker", "version", "state", "takes", "slots", "heard of", "doing"]);
    for worker in &found.workers {
        let doing: Vec<_> = worker.running.iter().map(|task| format!("{} of {}", task.step, task.job)).collect();
        table.add_row([
            worker.id.clone(),
            worker.version.clone(),
            worker.state.clone(),
            worker.kinds.join(", "),
            worker.slots.to_string(),
            output::time(worker.heartbeat_at.as_ref()),
            doing.join("\n"),
        ]);
    }
    output::line(table)?;
    for lease in &found.leases {
        let since = output::time(lease.granted_at.as_ref());
        output::line(format_args!(
            "{} is leased to {} for {} since {since} ({}, fence {})",
            lease.device, lease.worker, lease.model, lease.state, lease.fence
        ))?;
    }
    if found.leader.is_empty() {
        output::line("no coordinator leads")
    } else {
        output::line(format_args!("{} leads (term {})", found.leader, found.term))
    }
}
