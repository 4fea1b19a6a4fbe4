//! Tasks that go out, and go out again when their message is gone.

use std::time::Duration;

use tokio::sync::mpsc;
use warren_jobs::{JobClass, JobState, TaskKind, TaskState, release::JobKey};
use warren_messages::{
    envelope::{Envelope, decode},
    routes::tasks,
    wire,
};
use warren_store::{NewTask, Task};

use super::world::{World, message};
use crate::{
    board::Changes,
    missing::{self, Suspects},
    releaser,
};

const WHILE: Duration = Duration::from_secs(31);

async fn look(world: &World, suspects: &mut Suspects) {
    missing::look(&world.lead, suspects).await.expect("looked");
}

async fn dispatch(world: &World, task: &Task) -> i64 {
    world.task(task.id).await.dispatch
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_message_is_gone_goes_out_again() {
    let world = World::with_rabbitmq().await;
    let (lost, in_hand) = (world.running(&["a"]).await, world.running(&["b"]).await);
    let report = wire::WorkerReport {
        worker: "w".to_owned(),
        running: vec![wire::TaskInHand { task: message(&in_hand).id, dispatch: 1, ..wire::TaskInHand::default() }],
        ..wire::WorkerReport::default()
    };
    world.lead.sessions().report(&report, &mpsc::channel(1).0).expect("the only process");
    let mut suspects = Suspects::default();
    for _ in 0..2 {
        look(&world, &mut suspects).await;
    }
    assert_eq!(dispatch(&world, &lost).await, 1, "it may be on its way");
    world.clock().advance(WHILE);
    look(&world, &mut suspects).await;
    assert_eq!(dispatch(&world, &lost).await, 1, "one look is not enough");
    look(&world, &mut suspects).await;
    assert_eq!((dispatch(&world, &lost).await, dispatch(&world, &in_hand).await), (2, 1));
    let sent = world.outbox().await;
    let again: wire::Task = decode(Some(&sent[0].kind), &sent[0].body).expect("a task");
    assert_eq!((sent.len(), again.dispatch), (1, 2));
    assert_eq!(world.lead.board().out(lost.id).map(|out| out.dispatch), Some(2), "its worker is let in");
    let events = world.store().read().newest_events(lost.job_id, 1).await.expect("read");
    assert_eq!(events[0].event.event, "task.redispatched");

    // Now its message is in the outbox.
    world.clock().advance(WHILE);
    for _ in 0..2 {
        look(&world, &mut suspects).await;
    }
    assert_eq!(dispatch(&world, &lost).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_waits_is_not_missing() {
    let world = World::with_rabbitmq().await;
    let (queued, later) = (world.running(&["a"]).await, world.running(&["b"]).await);
    let mut suspects = Suspects::default();
    world.clock().advance(WHILE);
    let tx = world.lead.begin().await.expect("begun");
    let until = world.clock().now().plus(Duration::from_secs(24 * 3_600));
    tx.retry_announced(later.id, 1, until).await.expect("announced");
    tx.commit().await.expect("committed");
    let envelope = Envelope::new(world.clock().new_id(), &message(&queued));
    world.lead.parts.broker.send(tasks(TaskKind::Embed), &envelope).await.expect("sent");
    for _ in 0..2 {
        look(&world, &mut suspects).await;
    }
    assert_eq!((dispatch(&world, &queued).await, dispatch(&world, &later).await), (1, 1));
    world.clock().advance(Duration::from_secs(15 * 60));
    for _ in 0..2 {
        look(&world, &mut suspects).await;
    }
    assert_eq!(dispatch(&world, &queued).await, 1, "it waits for a worker, however long");
    let lost = world.running(&["c"]).await;
    world.clock().advance(Duration::from_secs(15 * 60));
    for _ in 0..2 {
        look(&world, &mut suspects).await;
    }
    let dispatches = (dispatch(&world, &queued).await, dispatch(&world, &lost).await);
    assert_eq!(dispatches, (2, 2), "one of them is gone after all that time, whichever it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_younger_ones_have_overtaken_is_missing_though_its_queue_is_never_empty() {
    let world = World::with_rabbitmq().await;
    let lost = world.running(&["a"]).await;
    world.clock().advance(WHILE);
    let (queued, in_hand) = (world.running(&["b"]).await, world.running(&["c"]).await);
    let envelope = Envelope::new(world.clock().new_id(), &message(&queued));
    world.lead.parts.broker.send(tasks(TaskKind::Embed), &envelope).await.expect("sent");
    let report = wire::WorkerReport {
        worker: "w".to_owned(),
        running: vec![wire::TaskInHand { task: message(&in_hand).id, dispatch: 1, ..wire::TaskInHand::default() }],
        ..wire::WorkerReport::default()
    };
    world.lead.sessions().report(&report, &mpsc::channel(1).0).expect("the only process");
    world.clock().advance(WHILE);
    let mut suspects = Suspects::default();
    for _ in 0..2 {
        look(&world, &mut suspects).await;
    }
    assert_eq!(dispatch(&world, &lost).await, 2);
    assert_eq!((dispatch(&world, &queued).await, dispatch(&world, &in_hand).await), (1, 1));
}

#[tokio::test]
async fn a_task_that_cannot_be_read_fails_and_keeps_nobody_waiting() {
    let world = World::new().await;
    let mut jobs = Vec::new();
    for payload in ["damaged", world.running(&["a"]).await.payload.as_str()] {
        let job = world.submitted().await;
        let task = NewTask {
            id: world.clock().new_id(),
            job_id: job,
            kind: TaskKind::Embed,
            ordinal: 0,
            payload: payload.to_owned(),
            cost: 1.0,
            units: 1.0,
        };
        let tx = world.lead.begin().await.expect("begun");
        tx.insert_tasks(std::slice::from_ref(&task)).await.expect("planned");
        tx.add_planned(job, 0.0, true).await.expect("planned");
        let key = JobKey { id: job, caller: "ada".to_owned(), class: JobClass::Default };
        let changes = Changes { waiting: vec![(key, TaskKind::Embed, 1, 1.0)], ..Changes::default() };
        world.lead.commit(tx, &changes).await.expect("committed");
        jobs.push((job, task.id));
    }
    releaser::release(&world.lead, TaskKind::Embed).await.expect("released");
    let states = async |(job, task)| (world.task(task).await.state, world.job(job).await.state);
    assert_eq!(states(jobs[0]).await, (TaskState::Failed, JobState::Failed));
    assert_eq!(states(jobs[1]).await, (TaskState::Released, JobState::Running));
    assert_eq!((world.outbox().await.len(), world.lead.board().open(TaskKind::Embed)), (1, (0, 1)));
    let why = world.job(jobs[0].0).await.error_message.expect("said");
    assert!(why.contains("task.payload"), "{why}");
}
