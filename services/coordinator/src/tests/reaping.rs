//! What the reaper ends.

use std::time::Duration;

use tokio::time::Instant;
use warren_clock::UnixMillis;
use warren_jobs::{JobState, TaskKind, TaskState};
use warren_store::Worker;

use super::world::World;
use crate::reaper;

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
