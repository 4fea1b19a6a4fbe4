//! What the reaper ends.

use std::time::Duration;

use tokio::time::Instant;
use warren_clock::UnixMillis;
use warren_jobs::{JobClass, JobState, TaskKind, TaskState, release::JobKey};
use warren_messages::{ids::TaskId, wire::Turn};
use warren_store::{JobLimits, Task, Worker};

use super::world::World;
use crate::{
    board::{Changes, Out},
    reaper,
    sessions::{InHand, Lost},
};

#[tokio::test]
async fn workers_that_nobody_has_heard_of_since_the_change_of_leader_are_lost_and_forgotten() {
    let world = World::new().await;
    let now = world.clock().now();
    let worker = |id: &str, ago: u64| Worker {
        id: id.to_owned(),
        boot: "b".to_owned(),
        service: "transcription".to_owned(),
        takes: vec![(TaskKind::Transcribe, 2)],
        version: "0.1.0".to_owned(),
        live: true,
        heartbeat: UnixMillis(now.0 - i64::try_from(ago * 1_000).expect("small")),
        running: "[]".to_owned(),
        trouble: String::new(),
        last_error: None,
    };
    let tx = world.lead.begin().await.expect("begun");
    tx.upsert_workers(&[worker("live", 0), worker("lost", 60), worker("long gone", 3 * 24 * 3_600)])
        .await
        .expect("written");
    tx.commit().await.expect("committed");
    let known = async || {
        let workers = world.store().read().workers().await.expect("read");
        workers.into_iter().map(|worker| (worker.id, worker.live)).collect::<Vec<_>>()
    };

    reaper::workers(&world.lead, Instant::now()).await.expect("done");
    assert_eq!(known().await.len(), 3, "they get time to come back");
    let allowed = Duration::from_secs(world.lead.parts.settings.reaper.worker_lost_s);
    let long_ago = Instant::now().checked_sub(allowed).expect("the machine has run for longer");
    reaper::workers(&world.lead, long_ago).await.expect("done");
    assert_eq!(known().await, [("live".to_owned(), true), ("lost".to_owned(), false)]);
}

#[tokio::test]
async fn what_ran_alone_is_what_its_worker_died_of() {
    let world = World::new().await;
    let (one, other, third) = (world.running(&["a"]).await, world.running(&["b"]).await, world.running(&["c"]).await);
    let out = [&one, &other, &third].map(|task| {
        let job = JobKey { id: task.job_id, caller: "ada".to_owned(), class: JobClass::Default };
        (task.id, job, Out { job: task.job_id, kind: TaskKind::Embed, dispatch: 1 })
    });
    let changes = Changes { released: out.to_vec(), ..Changes::default() };
    world.lead.board().apply(&changes, world.clock().now());
    let in_hand =
        |task: &Task, turn| (TaskId(task.id), InHand { dispatch: 1, step: "embed".to_owned(), done_units: 0.0, turn });
    for (turn, losses) in [(Turn::Unspecified, [1, 1, 0]), (Turn::Alone, [2, 1, 0]), (Turn::Waiting, [2, 2, 0])] {
        let running = vec![in_hand(&one, turn), in_hand(&other, Turn::Unspecified), in_hand(&third, Turn::Waiting)];
        let lost = Lost { worker: "w".to_owned(), boot: "b".to_owned(), running };
        reaper::lost(&world.lead, &lost).await.expect("done");
        let mut counted = Vec::new();
        for task in [&one, &other, &third] {
            counted.push(world.task(task.id).await.losses);
        }
        assert_eq!(counted, losses, "{turn:?}");
    }
}

#[tokio::test]
async fn a_job_past_its_deadline_fails_and_its_tasks_are_not_run_any_more() {
    let world = World::new().await;
    let late = world.running(&["a"]).await;
    world.clock().advance(Duration::from_secs(3_600));
    let other = world.running(&["b"]).await;
    world.clock().advance(Duration::from_secs(21_600 - 3_600));

    reaper::overdue(&world.lead).await.expect("done");
    let job = world.job(late.job_id).await;
    assert_eq!((job.state, job.error_code.as_deref()), (JobState::Failed, Some("JobTimeout")));
    let message = job.error_message.expect("why");
    assert!(message.starts_with("ran longer than its limit of 21600 s; last step: "), "{message}");
    assert_eq!(world.task(late.id).await.state, TaskState::Cancelled);
    assert_eq!(world.job(other.job_id).await.state, JobState::Running);
}

#[tokio::test]
async fn after_its_soft_limit_no_more_of_a_job_is_begun_and_what_runs_is_kept() {
    let world = World::new().await;
    let limits = JobLimits { soft_timeout_s: 60, ..JobLimits::default() };
    let first = world.running_within(limits, 4).await;
    let other = world.running(&["x"]).await;
    let counts = async || world.store().read().counts(first.job_id).await.expect("read");
    let before = counts().await;
    assert_eq!((before.released, before.unreleased), (1, 4));

    world.clock().advance(Duration::from_secs(59));
    reaper::softly_overdue(&world.lead).await.expect("done");
    assert_eq!(counts().await, before, "not yet");
    world.clock().advance(Duration::from_secs(1));
    reaper::softly_overdue(&world.lead).await.expect("done");
    let after = counts().await;
    assert_eq!((after.unreleased, after.released, after.cancelled), (0, 1, 4));
    let events = world.store().read().newest_events(first.job_id, 9).await.expect("read");
    let soft = &events[0].event;
    assert_eq!((soft.event.as_str(), &soft.fields["timeout_seconds"]), ("job.timeout_soft", &60.into()));
    assert_eq!((&soft.fields["tasks_cancelled"], &soft.fields["tasks_running"]), (&4.into(), &1.into()));
    assert_eq!(world.job(first.job_id).await.state, JobState::Running, "it ends with its last task");

    reaper::softly_overdue(&world.lead).await.expect("done");
    let again = world.store().read().newest_events(first.job_id, 9).await.expect("read");
    assert_eq!(again.len(), events.len(), "told once");
    assert_eq!(world.job(other.job_id).await.state, JobState::Running);
}
