use std::time::Duration;

use warren_jobs::state::TaskCounts;
use warren_jobs::{JobClass, TaskKind, TaskState};
use warren_store::{Finish, Task, Want};

use crate::world::World;

fn finish(task: &Task, dispatch: i64) -> Finish {
    Finish { task: task.id, dispatch, to: TaskState::Done, worker: "w1".into(), error: None }
}

pub(crate) async fn planning_twice_plans_once(world: World) {
    let job = world.job().await;
    let first: Vec<_> = (0..3).map(|ordinal| world.task(job, ordinal)).collect();
    let again: Vec<_> = (1..5).map(|ordinal| world.task(job, ordinal)).collect();
    let inserted = world.store.write(async |tx| tx.insert_tasks(&first).await).await.unwrap();
    assert_eq!(inserted.len(), 3);
    let mut inserted = world.store.write(async |tx| tx.insert_tasks(&again).await).await.unwrap();
    inserted.sort_unstable();
    assert_eq!(inserted, [again[2].id, again[3].id]);
    let tasks = world.store.read().tasks_of(job).await.unwrap();
    assert_eq!(tasks.iter().map(|task| task.ordinal).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!((tasks[1].id, tasks[1].payload.as_str()), (first[1].id, "{\"n\":1}"));
    assert_eq!((tasks[1].cost, tasks[1].units, tasks[1].dispatch), (1.5, 2.0, 0));
}

pub(crate) async fn release_goes_by_plan(world: World) {
    let (one, two) = (world.job_with_tasks(4, 0).await, world.job_with_tasks(2, 0).await);
    let next = world.store.read().next_unreleased(one, TaskKind::Embed, 2).await.unwrap();
    assert_eq!(next.iter().map(|task| task.ordinal).collect::<Vec<_>>(), [0, 1]);
    let wants = [one, two].map(|job| Want { job, kind: TaskKind::Embed, count: 3 });
    let released = world.store.write(async |tx| tx.release_next(&wants).await).await.unwrap();
    let got: Vec<_> = released.iter().map(|task| (task.job_id, task.ordinal, task.dispatch)).collect();
    assert_eq!(got, [(one, 0, 1), (one, 1, 1), (one, 2, 1), (two, 0, 1), (two, 1, 1)]);
    assert!(released.iter().all(|task| task.state == TaskState::Released && task.released == Some(world.clock.now())));

    let all: Vec<_> = world.store.read().tasks_of(one).await.unwrap().iter().map(|task| task.id).collect();
    let rest = world.store.write(async |tx| tx.release(&all).await).await.unwrap();
    assert_eq!(rest.iter().map(|task| task.ordinal).collect::<Vec<_>>(), [3]);
    assert_eq!(world.store.read().released_tasks(Some(TaskKind::Embed)).await.unwrap().len(), 6);
    assert_eq!(world.store.read().released_tasks(Some(TaskKind::Prepare)).await.unwrap().len(), 0);
    assert_eq!(world.store.read().released_tasks(None).await.unwrap().len(), 6);
}

pub(crate) async fn finishing_with_an_old_dispatch_is_stale(world: World) {
    let job = world.job_with_tasks(2, 1).await;
    let tasks = world.store.read().tasks_of(job).await.unwrap();
    let (task, unreleased) = (&tasks[0], &tasks[1]);
    world
        .store
        .write(async |tx| {
            assert!(tx.finish(&finish(unreleased, 0)).await?.is_none(), "never released");
            assert!(tx.retry_announced(task.id, 1, world.clock.now()).await?);
            assert_eq!(tx.add_loss(task.id, 1).await?, Some(1));
            let again = tx.redispatch(task.id, 1).await?.expect("current");
            assert_eq!((again.dispatch, again.losses, again.retry_until), (2, 1, None));
            assert!(tx.redispatch(task.id, 1).await?.is_none());
            assert!(tx.finish(&finish(task, 1)).await?.is_none(), "old dispatch");
            assert!(!tx.retry_announced(task.id, 1, world.clock.now()).await?);
            assert_eq!(tx.add_loss(task.id, 1).await?, None);
            assert!(tx.mark_dead(task.id, Some(1), "WorkerLost", "old").await?.is_none());
            let done = tx.finish(&finish(task, 2)).await?.expect("current");
            assert_eq!((done.id, done.job_id, done.kind, done.ordinal), (task.id, job, TaskKind::Embed, 0));
            assert!(tx.finish(&finish(task, 2)).await?.is_none(), "the first wins");
            Ok(())
        })
        .await
        .unwrap();
    let task = world.store.read().task(task.id).await.unwrap().unwrap();
    assert_eq!((task.worker.as_deref(), task.finished), (Some("w1"), Some(world.clock.now())));
}

pub(crate) async fn a_task_that_failed_keeps_its_cause(world: World) {
    let job = world.job_with_tasks(3, 2).await;
    let tasks = world.store.read().released_tasks(None).await.unwrap();
    let failed = Finish {
        to: TaskState::Failed,
        error: Some(("InputInvalid".into(), "not a text".into())),
        ..finish(&tasks[0], 1)
    };
    assert!(world.store.write(async |tx| tx.finish(&failed).await).await.unwrap().is_some());
    let counts = world.store.read().counts(job).await.unwrap();
    assert_eq!(counts, TaskCounts { unreleased: 1, released: 1, failed: 1, ..TaskCounts::default() });
    let task = world.store.read().task(tasks[0].id).await.unwrap().unwrap();
    assert_eq!((task.worker.as_deref(), task.error_code.as_deref()), (Some("w1"), Some("InputInvalid")));
    assert_eq!(task.error_message.as_deref(), Some("not a text"));
}

pub(crate) async fn cancelled_tasks_are_never_finished(world: World) {
    let (job, other) = (world.job_with_tasks(3, 2).await, world.job_with_tasks(1, 1).await);
    let task = world.store.read().tasks_of(job).await.unwrap().remove(0);
    let cancelled = world
        .store
        .write(async |tx| {
            tx.finish(&finish(&task, 1)).await?;
            tx.cancel_open(job).await
        })
        .await
        .unwrap();
    assert_eq!(cancelled.len(), 2);
    let tasks = world.store.read().tasks_by_id(&cancelled).await.unwrap();
    for task in &tasks {
        let late = world.store.write(async |tx| tx.finish(&finish(task, task.dispatch)).await).await.unwrap();
        assert!(late.is_none());
    }
    assert_eq!(world.store.read().counts(other).await.unwrap().released, 1);
}

pub(crate) async fn dead_tasks_come_back_by_redrive(world: World) {
    let job = world.job_with_tasks(2, 2).await;
    let tasks = world.store.read().tasks_of(job).await.unwrap();
    let ids: Vec<_> = tasks.iter().map(|task| task.id).collect();
    world
        .store
        .write(async |tx| {
            assert!(tx.mark_dead(ids[0], Some(1), "OutOfMemory", "too large").await?.is_some());
            assert!(tx.mark_dead(ids[0], None, "OutOfMemory", "again").await?.is_none());
            tx.set_payload(ids[0], "{\"smaller\":true}").await?;
            Ok(())
        })
        .await
        .unwrap();
    let dead = world.store.read().task(ids[0]).await.unwrap().unwrap();
    assert_eq!((dead.state, dead.error_message.as_deref()), (TaskState::Dead, Some("too large")));
    let back = world.store.write(async |tx| tx.redrive(&ids).await).await.unwrap();
    assert_eq!(back.len(), 1);
    assert_eq!((back[0].id, back[0].state, back[0].dispatch), (ids[0], TaskState::Released, 2));
    assert_eq!((back[0].error_code.as_ref(), back[0].finished), (None, None));
    assert_eq!(back[0].payload, "{\"smaller\":true}");
}

pub(crate) async fn a_dead_task_is_revived_under_the_dispatch_it_died_with(world: World) {
    let job = world.job_with_tasks(2, 2).await;
    let tasks = world.store.read().tasks_of(job).await.unwrap();
    let (task, other) = (tasks[0].id, tasks[1].id);
    world
        .store
        .write(async |tx| {
            assert!(tx.mark_dead(task, Some(1), "Malformed", "a report of it").await?.is_some());
            assert!(!tx.revive(task, 2).await?, "another dispatch");
            assert!(!tx.revive(other, 1).await?, "not dead");
            assert!(tx.revive(task, 1).await?);
            assert!(!tx.revive(task, 1).await?);
            Ok(())
        })
        .await
        .unwrap();
    let back = world.store.read().task(task).await.unwrap().unwrap();
    assert_eq!((back.state, back.dispatch, back.finished, back.error_code), (TaskState::Released, 1, None, None));
    let done = world.store.write(async |tx| tx.finish(&finish(&tasks[0], 1)).await).await.unwrap();
    assert!(done.is_some(), "its report counts");
}

pub(crate) async fn counts_and_stats_agree(world: World) {
    let store = &world.store;
    let first = world.job_with_tasks(5, 2).await;
    let planned = world.clock.now();
    world.clock.advance(Duration::from_secs(1));
    let mut urgent = world.new_job();
    urgent.class = JobClass::Interactive;
    let second = world.submit(urgent).await;
    let task = world.task(second, 0);
    store.write(async |tx| tx.insert_tasks(std::slice::from_ref(&task)).await).await.unwrap();
    let tasks = store.read().tasks_of(first).await.unwrap();
    let later = world.clock.now().plus(Duration::from_secs(5));
    store
        .write(async |tx| {
            tx.retry_announced(tasks[0].id, 1, later).await?;
            tx.mark_dead(tasks[1].id, Some(1), "WorkerLost", "lost").await
        })
        .await
        .unwrap();

    let open = store.read().open_counts_by_job_kind().await.unwrap();
    let got: Vec<_> = open.iter().map(|row| (row.job, row.class, row.unreleased, row.released, row.cost)).collect();
    assert_eq!(got, [(first, JobClass::Default, 3, 1, 6.0), (second, JobClass::Interactive, 1, 0, 1.5)]);

    let stats = store.read().queue_stats(world.clock.now()).await.unwrap();
    assert_eq!(stats.len(), TaskKind::ALL.len());
    let embed = stats.iter().find(|row| row.kind == TaskKind::Embed).unwrap();
    assert_eq!((embed.unreleased, embed.released, embed.retry_later, embed.dead), (4, 1, 1, 1));
    assert_eq!(embed.oldest, Some(planned));
    let counts = store.read().counts_many(&[first, second]).await.unwrap();
    assert_eq!((counts[&first].total(), counts[&first].open(), counts[&second].total()), (5, 4, 1));
}
