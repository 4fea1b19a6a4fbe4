use std::collections::BTreeSet;

use warren_jobs::{JobState, TaskKind, TaskState};
use warren_store::{EventLevel, Finish, Ledger, NewEvent};

use crate::{letters::letter, world::World};

async fn checks(world: &World) -> BTreeSet<&'static str> {
    world.store.read().discrepancies().await.unwrap().into_iter().map(|found| found.check).collect()
}

/// Changes rows behind the store's back, as a defect would.
async fn damage(world: &World, text: &str) {
    use sea_orm::{ConnectionTrait as _, Database};
    let database = Database::connect(&world.url).await.unwrap();
    database.execute_unprepared(text).await.unwrap();
    database.close().await.unwrap();
}

pub(crate) async fn what_was_accepted_balances(world: World) {
    let empty = world.store.read().ledger().await.unwrap();
    assert_eq!((empty.jobs.len(), empty.tasks.total(), empty.outbox), (JobState::ALL.len(), 0, 0));
    assert!(checks(&world).await.is_empty());

    let job = world.job_with_tasks(3, 2).await;
    let unplanned = world.job().await;
    assert_ne!(job, unplanned);
    let dying = world.store.read().tasks_of(job).await.unwrap()[1].id;
    world
        .store
        .write(async |tx| {
            assert!(tx.mark_dead(dying, Some(1), "OutOfMemory", "too large").await?.is_some());
            let dead =
                warren_store::NewLetter { job_id: Some(job), task_id: Some(dying), ..letter("a", "OutOfMemory") };
            tx.insert_letter(&dead).await
        })
        .await
        .unwrap();
    let ledger = world.store.read().ledger().await.unwrap();
    let Ledger { jobs, unplanned, tasks, released, letters, letters_in_queue, .. } = ledger;
    assert_eq!(jobs.iter().find(|(state, _)| *state == JobState::Queued), Some(&(JobState::Queued, 2)));
    assert_eq!((unplanned, tasks.unreleased, tasks.released, tasks.dead), (1, 1, 1, 1));
    assert_eq!(released, [(TaskKind::Embed, 1)]);
    assert_eq!((letters, letters_in_queue), (vec![("dead".to_owned(), 1)], 1));
    assert_eq!(checks(&world).await, BTreeSet::new());
    assert_eq!(world.store.read().needed_payloads().await.unwrap().len(), 3);
}

pub(crate) async fn every_discrepancy_is_found(world: World) {
    let job = world.job_with_tasks(2, 2).await;
    let tasks = world.store.read().tasks_of(job).await.unwrap();
    let ended = NewEvent::new(EventLevel::Info, "job.ended", "over");
    world
        .store
        .write(async |tx| tx.set_job_state(job, JobState::Queued, JobState::Failed, &ended).await)
        .await
        .unwrap();
    let found = checks(&world).await;
    assert_eq!(found, BTreeSet::from(["ended jobs have no open task", "failed jobs say why"]));

    damage(&world, "UPDATE job SET state = 'running'").await;
    world
        .store
        .write(async |tx| {
            for task in &tasks {
                let finish =
                    Finish { task: task.id, dispatch: 1, to: TaskState::Done, worker: "w".into(), error: None };
                assert!(tx.finish(&finish).await?.is_some());
            }
            Ok(())
        })
        .await
        .unwrap();
    let found = checks(&world).await;
    assert_eq!(found, BTreeSet::from(["each text has one vector", "open jobs have open work"]));

    damage(&world, "UPDATE task SET state = 'dead' WHERE ordinal = 0").await;
    damage(&world, "UPDATE job SET state = 'succeeded', progress_done = 1, sequence = 9").await;
    damage(&world, "DELETE FROM audit").await;
    let found = checks(&world).await;
    let expected = [
        "accepted jobs are there",
        "dead tasks have a letter",
        "each text has one vector",
        "events have no gaps",
        "progress is the sum of its tasks",
        "succeeded jobs are complete",
    ];
    assert_eq!(found, BTreeSet::from(expected));

    damage(&world, "UPDATE job SET state = 'running', deadline_ms = created_ms - 1000000").await;
    damage(
        &world,
        "INSERT INTO outbox (exchange, routing_key, kind, message_id, body, headers, relay, created_ms)
         VALUES ('e', 'k', 'k', 'm', '', '{}', 'ingest', 0)",
    )
    .await;
    damage(
        &world,
        "INSERT INTO worker (id, boot, service, kinds, slots, version, state, heartbeat_ms, running)
         VALUES ('w', 'b', 's', '[]', 1, '1', 'live', 0, '[]')",
    )
    .await;
    damage(&world, "INSERT INTO device (name, last_fence, memory_bytes, max_concurrent) VALUES ('cpu', 1, 0, 0)").await;
    let lease = job;
    let now = world.clock.now();
    world
        .store
        .write(async |tx| {
            let lease = warren_store::Lease {
                id: lease,
                device: "cpu".into(),
                model: "m".into(),
                worker: "w".into(),
                boot: "b".into(),
                slot: 0,
                fence: 2,
                wait: 1,
                state: "granted".into(),
                memory_bytes: 0,
                granted: now,
                expires: now,
            };
            tx.grant_lease(&lease).await
        })
        .await
        .unwrap();
    damage(&world, "UPDATE device SET last_fence = 1").await;
    damage(&world, "UPDATE task SET job_id = id WHERE ordinal = 0").await;
    let found = checks(&world).await;
    for name in [
        "devices are not overbooked",
        "fences grow",
        "no job is past its deadline",
        "nothing outlives its job",
        "silent workers count as lost",
        "the outbox is sent",
    ] {
        assert!(found.contains(name), "{name} in {found:?}");
    }
}
