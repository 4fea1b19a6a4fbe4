//! Messages that wait for what they need, be it an object or another message, without holding up the others.

use std::pin::pin;

use futures::poll;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use warren_blob::Key;
use warren_broker::{GroupHandler, Received};
use warren_fault::{Code, Fault};
use warren_jobs::{JobState, TaskState};
use warren_messages::{
    envelope::{Envelope, Message, decode},
    ids::JobId,
    routes::{COMMANDS, REPORTS, Route},
    wire::{
        self, CancelJob, Command, JobSubmitted, ReplayLetters, ResultObject, TaskReport, command::Command as What,
        embedded::Vectors, task_report,
    },
};
use warren_store::{NewOutbox, Task};

use super::world::{World, embedded, letter, message, received, report};
use crate::{commands::Commands, letters::Index, reports::Reports, wiring::ask_storage};

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
    let mut world = World::with_rabbitmq().await;
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
    let mut world = World::with_rabbitmq().await;
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

fn prepared(task: &Task, what: task_report::Report) -> TaskReport {
    let wire::Task { id, job, dispatch, .. } = message(task);
    TaskReport { task: id, job, dispatch, worker: "w".to_owned(), report: Some(what), ..TaskReport::default() }
}

/// A part with one window of a second.
fn part(task: &Task, ordinal: u32) -> TaskReport {
    let first_sample = i64::from(ordinal) * 9_600_000;
    let windows = vec![wire::Window { first_sample, samples: 16_000 }];
    let part = wire::PreparedPart { ordinal, first_sample, windows, ..wire::PreparedPart::default() };
    prepared(task, task_report::Report::PreparedPart(part))
}

fn whole(task: &Task, parts: u32) -> TaskReport {
    let all = wire::PreparedAll { parts, samples: 16_000, ..wire::PreparedAll::default() };
    prepared(task, task_report::Report::PreparedAll(all))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_complete_with_all_its_parts() {
    let world = World::with_rabbitmq().await;
    let task = world.preparing().await;
    let all = received(&world, REPORTS, whole(&task, 2));
    let first = received(&world, REPORTS, part(&task, 0));
    Reports(world.lead.clone()).handle(&[first, all.clone()]).await.expect("settled");
    assert_eq!(world.task(task.id).await.state, TaskState::Released, "its end waits");
    let queued = only(&world, REPORTS, all.message.clone()).await;
    assert_eq!(queued.delivery.message_id, all.delivery.message_id);
    handled(&world, part(&task, 1)).await.expect("recorded");
    Reports(world.lead.clone()).handle(&[queued]).await.expect("recorded");
    assert_eq!(world.task(task.id).await.state, TaskState::Done);
    let counts = world.store().read().counts(task.job_id).await.expect("read");
    assert_eq!((counts.total(), counts.unreleased), (3, 2));

    // In one group, all of it counts.
    let task = world.preparing().await;
    let group = [part(&task, 0), part(&task, 1), whole(&task, 2)].map(|report| received(&world, REPORTS, report));
    Reports(world.lead.clone()).handle(&group).await.expect("recorded");
    assert_eq!(world.task(task.id).await.state, TaskState::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_with_a_dead_part_is_prepared_again() {
    let world = World::with_rabbitmq().await;
    let task = world.preparing().await;
    let dead = letter(&world, REPORTS, &part(&task, 1));
    let all = received(&world, REPORTS, whole(&task, 2));
    handled(&world, part(&task, 0)).await.expect("recorded");
    Index(world.lead.clone()).handle(std::slice::from_ref(&dead)).await.expect("indexed");
    Reports(world.lead.clone()).handle(&[all]).await.expect("it is stale");
    assert_eq!(world.task(task.id).await.state, TaskState::Dead);

    let again = ReplayLetters { letters: vec![dead.id.to_string()], ..ReplayLetters::default() };
    world.replayed(&again).await;
    let back = world.task(task.id).await;
    assert_eq!((back.state, back.dispatch), (TaskState::Released, 2));
    let NewOutbox { routing_key, kind, body, .. } = world.outbox().await.remove(0);
    let sent: wire::Task = decode(Some(&kind), &body).expect("a task");
    assert_eq!((routing_key.as_str(), sent.dispatch), ("prepare", 2), "its worker reports all parts again");
}
