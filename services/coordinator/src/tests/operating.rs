//! What operators decide.

use std::time::Duration;

use warren_fault::Fault;
use warren_jobs::{JobState, TaskKind, TaskState};
use warren_messages::{
    envelope::Envelope,
    ids::JobId,
    routes::{COMMANDS, tasks},
    wire::{self, Operate, PauseKind, PurgeKind, RecoverStuck, operate::Deed},
};

use super::world::{World, eventually, message};
use crate::{missing, operate::operate};

async fn ask(world: &World, request: &str, deed: Deed) -> Result<(), Fault> {
    operate(&world.lead, "ada", &Operate { request: request.to_owned(), deed: Some(deed) }).await
}

async fn answer(world: &World, request: &str) -> (String, serde_json::Value) {
    let found = world.store().read().audit_answer(request).await.expect("read").expect("answered");
    (found.verb, serde_json::from_str(&found.detail).expect("JSON"))
}

#[tokio::test]
async fn a_request_is_carried_out_once() {
    let world = World::new().await;
    let pause = |paused| Deed::Pause(PauseKind { kind: "embed".to_owned(), paused, reason: String::new() });
    ask(&world, "1", pause(true)).await.expect("done");
    ask(&world, "2", pause(false)).await.expect("done");
    ask(&world, "1", pause(true)).await.expect("done before");
    assert_eq!(world.store().read().pauses().await.expect("read"), []);
    assert_eq!(answer(&world, "1").await.0, "pause");
    let unknown = Deed::Pause(PauseKind { kind: "speech".to_owned(), ..PauseKind::default() });
    assert!(matches!(ask(&world, "3", unknown).await, Err(Fault::Permanent(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_takes_what_it_was_confirmed_for_and_leaves_later_jobs_alone() {
    let world = World::with_rabbitmq().await;
    let broker = &world.lead.parts.broker;
    let (purged, foreign) = (world.running(&["a"]).await, world.running(&["gone"]).await);
    let tx = world.lead.begin().await.expect("begun");
    tx.cancel_open(foreign.job_id).await.expect("cancelled");
    tx.commit().await.expect("committed");
    let put = async |task: &warren_store::Task| {
        let envelope = Envelope::new(world.clock().new_id(), &message(task));
        broker.send(tasks(TaskKind::Embed), &envelope).await.expect("sent");
    };
    put(&purged).await;
    put(&foreign).await;
    let purge = |tasks| Deed::Purge(PurgeKind { kind: "embed".to_owned(), tasks, reason: String::new() });
    ask(&world, "1", purge(2)).await.expect("refused");
    assert_eq!(
        (answer(&world, "1").await.0.as_str(), world.task(purged.id).await.state),
        ("purge refused", TaskState::Released)
    );

    ask(&world, "2", purge(1)).await.expect("done");
    let job = world.job(purged.job_id).await;
    assert_eq!((job.state, world.task(purged.id).await.state), (JobState::Cancelled, TaskState::Cancelled));
    assert_eq!(broker.ready_messages(tasks(TaskKind::Embed).queue).await, Some(0));
    let keep = world.store().read().audit(1).await.expect("read").remove(0);
    let detail: serde_json::Value = serde_json::from_str(&keep.detail).expect("JSON");
    assert_eq!((keep.verb.as_str(), detail["letters"].as_array().map(Vec::len)), ("keep", Some(2)), "every body");

    // Done again, as after a crash: what has come since stays.
    world.clock().advance(Duration::from_secs(1));
    let later = world.running(&["b"]).await;
    put(&later).await;
    ask(&world, "2", purge(1)).await.expect("done");
    assert_eq!(world.task(later.id).await.state, TaskState::Released);
    eventually("its message to be back on the queue", async || {
        broker.ready_messages(tasks(TaskKind::Embed).queue).await == Some(1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_command_is_gone_is_planned() {
    let world = World::with_rabbitmq().await;
    let job = world.submitted().await;
    let unplanned = async || missing::unplanned(&world.lead, Duration::from_secs(5)).await.expect("read").len();
    assert_eq!(unplanned().await, 0, "it is on its way");
    world.clock().advance(Duration::from_secs(6));
    assert_eq!(unplanned().await, 1);

    let recover = |dry_run| Deed::Recover(RecoverStuck { job: String::new(), dry_run });
    ask(&world, "1", recover(true)).await.expect("looked");
    assert_eq!(answer(&world, "1").await.1["recovered"][0]["job"], JobId(job).to_string());
    assert_eq!(world.job(job).await.state, JobState::Queued);
    ask(&world, "2", recover(false)).await.expect("done");
    // Its texts were never put into storage: planning it is what finds that out.
    let job = world.job(job).await;
    assert_eq!((job.state, job.error_code.as_deref()), (JobState::Failed, Some("BlobMissing")));
    ask(&world, "3", recover(false)).await.expect("done");
    assert_eq!(answer(&world, "3").await.1["recovered"].as_array().map(Vec::len), Some(0));

    let waits = world.submitted().await;
    world.clock().advance(Duration::from_secs(6));
    assert_eq!(unplanned().await, 1);
    let submitted = wire::command::Command::Submitted(wire::JobSubmitted { job: JobId(waits).to_string() });
    let command = wire::Command { actor: "ada".to_owned(), command: Some(submitted) };
    world.lead.parts.broker.send(COMMANDS, &Envelope::new(world.clock().new_id(), &command)).await.expect("sent");
    assert_eq!(unplanned().await, 0, "its command waits");
}
