//! The statements move rows exactly where the pure state machines say, for every pair.

use uuid::Uuid;
use warren_jobs::{
    JobState, TaskState,
    state::{TaskEvent, job, task},
};
use warren_store::{EventLevel, Finish, NewEvent, StoreError, Task, Tx};

use crate::world::World;

/// Does to a task what the event means.
async fn happen(tx: &Tx, task: &Task, event: TaskEvent) -> Result<(), StoreError> {
    let finish = |to| Finish { task: task.id, dispatch: task.dispatch, to, worker: "w1".into(), error: None };
    match event {
        TaskEvent::Released => {
            tx.release(&[task.id]).await?;
        }
        TaskEvent::Done => {
            tx.finish(&finish(TaskState::Done)).await?;
        }
        TaskEvent::InputFault => {
            tx.finish(&finish(TaskState::Failed)).await?;
        }
        TaskEvent::Dead => {
            tx.mark_dead(task.id, Some(task.dispatch), "WorkerLost", "lost").await?;
        }
        TaskEvent::Cancelled => {
            tx.cancel_open(task.job_id).await?;
        }
        TaskEvent::Redriven => {
            tx.redrive(&[task.id]).await?;
        }
        TaskEvent::Redispatched => {
            tx.redispatch(task.id, task.dispatch).await?;
        }
    }
    Ok(())
}

/// Events that lead a fresh task there.
fn path(to: TaskState) -> &'static [TaskEvent] {
    match to {
        TaskState::Unreleased => &[],
        TaskState::Released => &[TaskEvent::Released],
        TaskState::Done => &[TaskEvent::Released, TaskEvent::Done],
        TaskState::Failed => &[TaskEvent::Released, TaskEvent::InputFault],
        TaskState::Dead => &[TaskEvent::Released, TaskEvent::Dead],
        TaskState::Cancelled => &[TaskEvent::Cancelled],
    }
}

async fn walk(world: &World, task: Uuid, events: &[TaskEvent]) -> Task {
    let read = async || world.store.read().task(task).await.unwrap().unwrap();
    for event in events {
        let task = read().await;
        world.store.write(async |tx| happen(&tx, &task, *event).await).await.unwrap();
    }
    read().await
}

pub(crate) async fn every_event_moves_a_task_as_its_state_machine_says(world: World) {
    for state in TaskState::ALL {
        for event in TaskEvent::ALL {
            let task = world.task(world.job().await, 0);
            world.store.write(async |tx| tx.insert_tasks(std::slice::from_ref(&task)).await).await.unwrap();
            let before = walk(&world, task.id, path(*state)).await;
            assert_eq!(before.state, *state);
            let after = walk(&world, task.id, &[*event]).await;
            let next = task::step(*state, event);
            assert_eq!(after.state, next.unwrap_or(*state), "{state} + {event:?}");
            let goes_out = next == Ok(TaskState::Released);
            assert_eq!(after.dispatch, before.dispatch + i64::from(goes_out), "{state} + {event:?}");
        }
    }
}

pub(crate) async fn a_job_moves_only_where_an_event_leads(world: World) {
    let event = NewEvent::new(EventLevel::Info, "job.moved", "");
    for from in JobState::ALL {
        for to in JobState::ALL {
            let job = world.job().await;
            let go = async |from: JobState, to: JobState| {
                world.store.write(async |tx| tx.set_job_state(job, from, to, &event).await).await
            };
            if *from != JobState::Queued {
                assert!(go(JobState::Queued, *from).await.unwrap().is_some());
            }
            let moved = go(*from, *to).await;
            let now = world.store.read().job(job).await.unwrap().unwrap().state;
            if job::leads_to(*from, *to) {
                assert!(moved.unwrap().is_some() && now == *to, "{from} to {to}");
            } else {
                assert!(matches!(moved, Err(StoreError::Conflict { .. })) && now == *from, "{from} to {to}");
            }
        }
    }
}
