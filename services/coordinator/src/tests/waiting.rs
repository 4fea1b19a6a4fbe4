//! Vectors that are not there, and messages that wait for object storage without holding up the others.

use std::pin::pin;

use futures::poll;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use warren_blob::Key;
use warren_broker::{GroupHandler, Received};
use warren_fault::{Code, Fault};
use warren_jobs::{JobState, TaskState};
use warren_local::rabbitmq;
use warren_messages::{
    envelope::{Envelope, Message},
    ids::JobId,
    routes::{COMMANDS, REPORTS, Route},
    wire::{CancelJob, Command, JobSubmitted, ResultObject, TaskReport, command::Command as What, embedded::Vectors},
};
use warren_store::Task;

use super::world::{World, embedded, received, report};
use crate::{commands::Commands, reports::Reports, wiring::ask_storage};

/// A report whose vectors are an object; `stored`: it is there.
async fn by_object(world: &World, task: &Task, stored: bool) -> TaskReport {
    let key = Key::result(task.id, 1, world.clock().new_id());
    let object = ResultObject { key: key.to_string(), size_bytes: 8, ..ResultObject::default() };
    let sha256 = if stored {
        world.lead.parts.blobs.put_bytes(&key, vec![0; 8].into()).await.expect("stored").sha256
    } else {
        "0".repeat(64)
    };
    report(task, 1, Vectors::Object(ResultObject { sha256, ..object }))
}

async fn handled(world: &World, report: TaskReport) -> Result<(), Fault> {
    Reports(world.lead.clone()).handle(&[received(world, REPORTS, report)]).await
}

#[tokio::test]
async fn lost_vectors_are_no_result() {
    let world = World::new().await;
    let task = world.running(&["a"]).await;
    let lost = by_object(&world, &task, false).await;
    let outcome = handled(&world, lost.clone()).await;
    assert!(matches!(&outcome, Err(Fault::Permanent(cause)) if cause.code == Code::BlobMissing), "{outcome:?}");
    assert_eq!(world.task(task.id).await.state, TaskState::Released);
    let there = by_object(&world, &task, true).await;
    handled(&world, there).await.expect("recorded");
    assert_eq!(world.job(task.job_id).await.state, JobState::Succeeded);
    handled(&world, lost).await.expect("a repeat, whose object nobody needs");
}

#[tokio::test]
async fn there_is_a_vector_for_each_text() {
    let world = World::new().await;
    let task = world.running(&["a", "b"]).await;
    for vectors in [vec![[1.0, 0.0]], vec![[1.0, 0.0]; 3]] {
        let outcome = handled(&world, embedded(&task, &vectors)).await;
        let Err(Fault::Permanent(cause)) = outcome else { panic!("{outcome:?}") };
        assert!(cause.code == Code::Malformed && cause.message.contains("2 texts"), "{cause}");
    }
    assert_eq!(world.task(task.id).await.state, TaskState::Released);
    handled(&world, embedded(&task, &[[1.0, 0.0]; 2])).await.expect("recorded");
    assert_eq!(world.job(task.job_id).await.state, JobState::Succeeded);
}

async fn with_rabbitmq() -> World {
    let rabbit = tokio::task::spawn_blocking(rabbitmq::for_tests).await.expect("RabbitMQ");
    let world = World::with(&rabbit.amqp_url).await;
    assert!(world.lead.parts.broker.ready().await);
    world
}

struct Collect<M>(mpsc::UnboundedSender<Received<M>>);

impl<M: Message + Clone> GroupHandler<Received<M>> for Collect<M> {
    async fn handle(&self, group: &[Received<M>]) -> Result<(), Fault> {
        for received in group {
            let _ = self.0.send(received.clone());
        }
        Ok(())
    }
}

/// The first message of a queue. A second one would come before `last`, which is sent after it.
async fn only<M: Message + Clone>(world: &World, route: Route<M>, last: M) -> Received<M> {
    let end = world.clock().new_id();
    world.lead.parts.broker.send(route, &Envelope::new(end, &last)).await.expect("sent");
    let (sender, mut found) = mpsc::unbounded_channel();
    let (broker, stopping) = (world.lead.parts.broker.clone(), CancellationToken::new());
    let consuming = tokio::spawn({
        let stopping = stopping.clone();
        async move { broker.consume_group(route, 8, Collect(sender), stopping).await }
    });
    let first = found.recv().await.expect("a message");
    assert_eq!(found.recv().await.expect("the last").delivery.message_id, end, "nothing in between");
    stopping.cancel();
    consuming.await.expect("no panic");
    first
}

#[tokio::test]
async fn an_answer_of_storage_is_a_reason_to_look_again() {
    let mut world = World::new().await;
    let parts = world.lead.parts.clone();
    let mut retry = pin!(parts.retry.notified());
    ask_storage(&parts.blobs, &parts.retry).await.expect("it is there");
    assert!(poll!(retry.as_mut()).is_ready());
    world.stop_storage().await;
    let mut retry = pin!(parts.retry.notified());
    ask_storage(&parts.blobs, &parts.retry).await.expect_err("it is away");
    assert!(poll!(retry.as_mut()).is_pending());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_whose_object_is_out_of_reach_waits_alone() {
    let mut world = with_rabbitmq().await;
    let (far, near, over) = (world.running(&["a"]).await, world.running(&["b"]).await, world.running(&["c"]).await);
    let waits = received(&world, REPORTS, by_object(&world, &far, true).await);
    let repeated = received(&world, REPORTS, by_object(&world, &over, true).await);
    handled(&world, embedded(&over, &[[1.0, 0.0]])).await.expect("recorded");
    let there = received(&world, REPORTS, embedded(&near, &[[1.0, 0.0]]));
    world.stop_storage().await;
    Reports(world.lead.clone()).handle(&[waits.clone(), repeated, there]).await.expect("settled");
    assert_eq!(world.job(near.job_id).await.state, JobState::Succeeded);
    assert_eq!(world.task(far.id).await.state, TaskState::Released);
    let queued = only(&world, REPORTS, waits.message.clone()).await;
    assert_eq!((queued.delivery.message_id, queued.message), (waits.delivery.message_id, waits.message));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_texts_are_out_of_reach_waits_alone() {
    let mut world = with_rabbitmq().await;
    let (waits, unwanted) = (world.submitted().await, world.submitted().await);
    let command = |what| received(&world, COMMANDS, Command { actor: "ada".to_owned(), command: Some(what) });
    let submitted = command(What::Submitted(JobSubmitted { job: JobId(waits).to_string() }));
    let cancel = command(What::Cancel(CancelJob { job: JobId(unwanted).to_string(), reason: String::new() }));
    world.stop_storage().await;
    Commands(world.lead.clone()).handle(&[submitted.clone(), cancel]).await.expect("settled");
    assert_eq!(world.job(unwanted).await.state, JobState::Cancelled);
    assert_eq!(world.job(waits).await.state, JobState::Queued);
    let queued = only(&world, COMMANDS, submitted.message.clone()).await;
    assert_eq!((queued.delivery.message_id, queued.message), (submitted.delivery.message_id, submitted.message));
}
