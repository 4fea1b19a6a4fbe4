//! What operators ask about and do.

use std::time::Duration;

use warren_jobs::{JobKind, JobState, TaskKind};
use warren_store::{EventLevel, NewEvent, StoreError, Tick};

use crate::world::World;

pub(crate) async fn a_pause_lasts_until_it_is_ended(world: World) {
    let store = &world.store;
    let pause = async |who: &str| store.write(async |tx| tx.pause(TaskKind::Embed, who, "why").await).await.unwrap();
    assert!(pause("ada").await && !pause("grace").await);
    let pauses = world.another().await.read().pauses().await.unwrap();
    assert_eq!((pauses.len(), pauses[0].kind, pauses[0].actor.as_str()), (1, TaskKind::Embed, "ada"));
    assert_eq!((pauses[0].reason.as_str(), pauses[0].since), ("why", world.clock.now()));
    let resume = async || store.write(async |tx| tx.resume(TaskKind::Embed).await).await.unwrap();
    assert!(resume().await && !resume().await);
    assert_eq!(store.read().pauses().await.unwrap(), []);
}

pub(crate) async fn a_request_is_answered_once(world: World) {
    let store = &world.store;
    let answer = async |request: &'static str| {
        store.write(async move |tx| tx.audit_answer(request, "ada", "purge", "embed", "{}").await).await
    };
    assert_eq!(store.read().audit_answer("r1").await.unwrap(), None);
    answer("r1").await.unwrap();
    answer("r2").await.unwrap();
    assert!(matches!(answer("r1").await, Err(StoreError::Conflict { .. })));
    let found = store.read().audit_answer("r1").await.unwrap().unwrap();
    assert_eq!((found.verb.as_str(), found.subject.as_str(), found.request.as_deref()), ("purge", "embed", Some("r1")));
    store.write(async |tx| tx.audit("ada", "a", "b", "c").await).await.unwrap();
    store.write(async |tx| tx.audit("ada", "a", "b", "c").await).await.unwrap();
    assert_eq!(store.read().audit(9).await.unwrap().len(), 4, "deeds that answer nobody are many");
}

pub(crate) async fn failures_are_counted_by_cause(world: World) {
    let store = &world.store;
    let fail = async |message: &str| {
        let job = world.job().await;
        let event = NewEvent::new(EventLevel::Error, "job.failed", message);
        store
            .write(async |tx| {
                tx.set_job_error(job, "WorkerLost", message).await?;
                tx.set_job_state(job, JobState::Queued, JobState::Failed, &event).await
            })
            .await
            .unwrap();
    };
    fail("long ago").await;
    world.clock.advance(Duration::from_secs(7_200));
    fail("twice").await;
    world.clock.advance(Duration::from_secs(5));
    fail("twice").await;
    fail("once").await;
    world.job().await;
    let mut found = store.read().failures_since(world.clock.now().minus(Duration::from_secs(3_600))).await.unwrap();
    found.sort_by_key(|failures| failures.jobs);
    let causes: Vec<_> = found.iter().map(|failures| (failures.message.as_str(), failures.jobs)).collect();
    assert_eq!(causes, [("once", 1), ("twice", 2)]);
    assert_eq!((found[1].latest, found[1].code.as_str()), (world.clock.now(), "WorkerLost"));
    let counts = store.read().job_counts().await.unwrap();
    assert_eq!(counts, [(JobKind::Embed, JobState::Failed, 4), (JobKind::Embed, JobState::Queued, 1)]);
}

pub(crate) async fn open_work_of_a_kind_is_found_with_its_jobs(world: World) {
    let store = &world.store;
    let first = world.job_with_tasks(3, 1).await;
    world.clock.advance(Duration::from_secs(1));
    let second = world.job_with_tasks(2, 0).await;
    let now = world.clock.now();
    world.clock.advance(Duration::from_secs(1));
    world.job_with_tasks(1, 1).await;
    assert_eq!(store.read().open_of_kind(TaskKind::Embed, now).await.unwrap(), (5, 2));
    assert_eq!(store.read().open_of_kind(TaskKind::Prepare, now).await.unwrap(), (0, 0));
    let jobs = store.read().jobs_with_open_tasks(TaskKind::Embed, now, 9).await.unwrap();
    assert_eq!(jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [first, second]);
    store.write(async |tx| tx.cancel_open(first).await).await.unwrap();
    assert_eq!(store.read().jobs_with_open_tasks(TaskKind::Embed, now, 9).await.unwrap().len(), 1);
}

pub(crate) async fn silent_and_unplanned_jobs_are_found(world: World) {
    let store = &world.store;
    let (silent, lively) = (world.job_with_tasks(1, 1).await, world.job_with_tasks(1, 1).await);
    let unplanned = world.job().await;
    let event = NewEvent::new(EventLevel::Info, "job.started", "now");
    for job in [silent, lively] {
        store.write(async |tx| tx.set_job_state(job, JobState::Queued, JobState::Running, &event).await).await.unwrap();
    }
    world.clock.advance(Duration::from_secs(60));
    let now = world.clock.now();
    store.write(async |tx| tx.heartbeat(lively, "decode", now).await).await.unwrap();
    let ids = |jobs: Vec<warren_store::Job>| jobs.into_iter().map(|job| job.id).collect::<Vec<_>>();
    let before = now.minus(Duration::from_secs(30));
    assert_eq!(ids(store.read().silent_jobs(before, 9).await.unwrap()), [silent]);
    assert_eq!(ids(store.read().silent_jobs(now, 9).await.unwrap()), [silent, lively]);
    assert_eq!(ids(store.read().running_jobs(9).await.unwrap()), [lively, silent]);
    assert_eq!(ids(store.read().unplanned_jobs(before, 9).await.unwrap()), [unplanned]);
    world.job().await;
    assert_eq!(store.read().unplanned_jobs(before, 9).await.unwrap().len(), 1, "one that has just come is on its way");
}

pub(crate) async fn ticks_keep_the_last_round(world: World) {
    let store = &world.store;
    let tick = async |name: &str| store.write(async |tx| tx.tick(name, Duration::from_secs(60)).await).await.unwrap();
    tick("reaper").await;
    world.clock.advance(Duration::from_secs(60));
    tick("reaper").await;
    let tick = Tick { name: "reaper".to_owned(), at: world.clock.now(), every: Duration::from_secs(60) };
    assert_eq!(store.read().ticks().await.unwrap(), [tick]);
}

pub(crate) async fn a_table_that_grew_is_planned_for(world: World) {
    let ids: Vec<String> = (0..2_000).map(|id| id.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    world.store.write(async |tx| tx.first_time_many(&ids, "results").await).await.unwrap();
    let refreshed = async || world.store.refresh_statistics().await.unwrap();
    if world.url.starts_with("sqlite:") {
        assert!(refreshed().await.is_empty());
        return;
    }
    // PostgreSQL counts rows a moment late.
    while refreshed().await != ["inbox"] {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(refreshed().await.is_empty(), "it has not grown since");
}
