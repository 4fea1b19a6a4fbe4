use std::{collections::HashSet, time::Duration};

use uuid::Uuid;
use warren_clock::UnixMillis;
use warren_jobs::{JobKind, JobState};
use warren_store::{EmbeddingRow, EventLevel, Finish, NewEvent, NewLetter};

use crate::{letters::letter, world::World};

async fn end(world: &World, job: Uuid, to: JobState) {
    let event = NewEvent::new(EventLevel::Info, "job.ended", "over");
    world.store.write(async |tx| tx.set_job_state(job, JobState::Queued, to, &event).await).await.unwrap().unwrap();
}

pub(crate) async fn objects_are_needed_while_a_task_may_run(world: World) {
    let mut jobs = Vec::new();
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let job = world.job_with_tasks(2, 2).await;
        tasks.push(world.store.read().tasks_of(job).await.unwrap()[0].id);
        jobs.push(job);
    }
    let [open, done, dead, cancelled] = jobs[..] else { panic!("four") };
    let done_task = tasks[1];
    world
        .store
        .write(async |tx| {
            let finish = Finish {
                task: done_task,
                dispatch: 1,
                to: warren_jobs::TaskState::Done,
                worker: "w".into(),
                error: None,
            };
            assert!(tx.finish(&finish).await?.is_some());
            assert!(tx.mark_dead(tasks[2], Some(1), "OutOfMemory", "too large").await?.is_some());
            tx.cancel_open(cancelled).await
        })
        .await
        .unwrap();
    end(&world, done, JobState::Succeeded).await;
    end(&world, dead, JobState::Failed).await;
    end(&world, cancelled, JobState::Cancelled).await;

    let unknown = world.clock.new_id();
    let ids: Vec<Uuid> = jobs.iter().chain(&tasks).copied().chain([unknown]).collect();
    let needed = world.store.read().need_objects(&ids).await.unwrap();
    assert_eq!(needed, HashSet::from([open, tasks[0], dead, tasks[2]]), "the dead one may be replayed");
    assert!(world.store.read().need_objects(&[]).await.unwrap().is_empty());

    let (unplanned, other) = (world.job().await, world.job().await);
    let dead = |job| NewLetter { job_id: Some(job), ..letter(&format!("of {job}"), "Internal") };
    let letters = [dead(unplanned), dead(other)];
    world
        .store
        .write(async |tx| {
            for letter in &letters {
                tx.insert_letter(letter).await?;
            }
            tx.void_letter(&letters[1].id, "its job is planned").await
        })
        .await
        .unwrap();
    end(&world, unplanned, JobState::Failed).await;
    end(&world, other, JobState::Failed).await;
    let needed = world.store.read().need_objects(&[unplanned, other]).await.unwrap();
    assert_eq!(needed, HashSet::from([unplanned]), "the command to plan it may be replayed");
}

pub(crate) async fn searches_are_forgotten_with_all_that_is_theirs(world: World) {
    let begun = world.clock.now();
    let mut query = world.new_job();
    query.kind = JobKind::Query;
    let answered = world.submit(query.clone()).await;
    query.id = world.clock.new_id();
    let waiting = world.submit(query.clone()).await;
    let kept = world.job().await;
    let row = EmbeddingRow { job: answered, ordinal: 0, model: "m".into(), vector: vec![1.0] };
    let task = world.task(answered, 0);
    world
        .store
        .write(async |tx| {
            tx.insert_tasks(std::slice::from_ref(&task)).await?;
            tx.upsert_embeddings(std::slice::from_ref(&row)).await
        })
        .await
        .unwrap();
    end(&world, answered, JobState::Succeeded).await;
    end(&world, kept, JobState::Succeeded).await;
    world.clock.advance(Duration::from_secs(60));
    let late = world
        .submit({
            query.id = world.clock.new_id();
            query
        })
        .await;
    end(&world, late, JobState::Succeeded).await;

    let before = begun.plus(Duration::from_secs(30));
    let forget =
        async |from, before| world.store.write(async |tx| tx.forget_searches(from, before).await).await.unwrap();
    assert_eq!(forget(before, before).await, 0);
    assert_eq!(forget(UnixMillis(0), before).await, 1);
    let read = world.store.read();
    assert!(read.job(answered).await.unwrap().is_none() && read.task(task.id).await.unwrap().is_none());
    assert!(read.embeddings(answered, 0, 9).await.unwrap().is_empty());
    assert!(read.newest_events(answered, 9).await.unwrap().is_empty());
    for id in [waiting, kept, late] {
        assert!(read.job(id).await.unwrap().is_some());
    }
    let audited: Vec<_> = read.audit(9).await.unwrap();
    assert_eq!(audited.len(), 1, "only the job that lasts: {audited:?}");
}
