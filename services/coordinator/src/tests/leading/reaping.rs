use std::time::Duration;

use tokio::time::Instant;
use warren_clock::UnixMillis;
use warren_jobs::{JobState, TaskKind, TaskState};
use warren_store::{EventLevel, NewEvent, Worker};

use super::World;
use crate::reaper;

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_nobody_has_heard_of_since_the_change_of_leader_are_lost_and_forgotten() {
    let world = World::new().await;
    let lead = world.lead(|_| true).await;
    let now = world.parts.clock.now();
    let worker = |id: &str, ago: u64| Worker {
        id: id.to_owned(),
        boot: "b".to_owned(),
        service: "transcription".to_owned(),
        takes: vec![(TaskKind::Transcribe, 2)],
        version: "0.1.0".to_owned(),
        live: true,
        heartbeat: UnixMillis(now.0 - i64::try_from(ago * 1_000).expect("small")),
        running: "[]".to_owned(),
    };
    let tx = world.parts.store.begin().await.expect("begun");
    tx.upsert_workers(&[worker("live", 0), worker("lost", 60), worker("long gone", 3 * 24 * 3_600)])
        .await
        .expect("written");
    tx.commit().await.expect("committed");
    let known = async || {
        let workers = world.parts.store.read().workers().await.expect("read");
        workers.into_iter().map(|worker| (worker.id, worker.live)).collect::<Vec<_>>()
    };

    reaper::workers(&lead, Instant::now()).await.expect("done");
    assert_eq!(known().await.len(), 3, "they get time to come back");
    let allowed = Duration::from_secs(world.parts.settings.reaper.worker_lost_s);
    let long_ago = Instant::now().checked_sub(allowed).expect("the machine has run for longer");
    reaper::workers(&lead, long_ago).await.expect("done");
    assert_eq!(known().await, [("live".to_owned(), true), ("lost".to_owned(), false)]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_past_its_deadline_fails_and_its_tasks_are_not_run_any_more() {
    let world = World::new().await;
    let lead = world.lead(|_| true).await;
    let (late, task) = world.released_task().await;
    let (other, _) = world.released_task().await;
    let now = world.parts.clock.now();
    let tx = world.parts.store.begin().await.expect("begun");
    for (job, deadline) in [(late, now), (other, now.plus(Duration::from_secs(3_600)))] {
        let event = NewEvent::new(EventLevel::Info, "job.started", "");
        tx.set_job_state(job, JobState::Queued, JobState::Running, &event).await.expect("moved");
        tx.set_deadline(job, deadline).await.expect("set");
    }
    tx.commit().await.expect("committed");

    reaper::overdue(&lead).await.expect("done");
    let read = world.parts.store.read();
    let job = read.job(late).await.expect("read").expect("there");
    assert_eq!((job.state, job.error_code.as_deref()), (JobState::Failed, Some("JobTimeout")));
    assert_eq!(read.task(task).await.expect("read").expect("there").state, TaskState::Cancelled);
    assert_eq!(read.job(other).await.expect("read").expect("there").state, JobState::Running);
    world.stop().await;
}
