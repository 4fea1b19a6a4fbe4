//! `warren workers`.

use serde_json::json;
use warren_messages::wire::{Worker, WorkersRequest, operations_client::OperationsClient};

use crate::{client::Server, error::CliError, output};

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
        return found.workers.iter().try_for_each(|worker| output::json_line(&as_json(worker)));
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
    for worker in found.workers.iter().filter(|worker| !worker.trouble.is_empty()) {
        output::line(format_args!("{} takes no work: {}", worker.id, worker.trouble))?;
    }
    for worker in found.workers.iter().filter(|worker| worker.state != "live" && !worker.last_error.is_empty()) {
        let at = output::time(worker.last_error_at.as_ref());
        output::line(format_args!("{} at {at}: {}", worker.id, worker.last_error))?;
    }
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

/// A worker for programs.
pub(crate) fn as_json(worker: &Worker) -> serde_json::Value {
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
    json!({
        "id": worker.id, "boot": worker.boot, "service": worker.service, "version": worker.version,
        "kinds": worker.kinds, "slots": worker.slots, "state": worker.state, "trouble": worker.trouble,
        "last_error": worker.last_error, "last_error_at": worker.last_error_at, "heartbeat_at": worker.heartbeat_at,
        "running": running,
    })
}
