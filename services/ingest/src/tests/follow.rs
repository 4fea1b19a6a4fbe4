//! Watching and cancelling jobs.

use tonic::{Code as Grpc, Streaming};
use warren_jobs::JobState as State;
use warren_messages::wire::{
    CancelJobRequest, Job, JobEventsRequest, JobState, JobUpdate, WatchJobRequest, command::Command as What,
};

use super::world::{World, within};

async fn watch(world: &World, job: &Job, after_sequence: i64) -> Streaming<JobUpdate> {
    let request = WatchJobRequest { id: job.id.clone(), after_sequence };
    world.jobs().watch(request).await.expect("watched").into_inner()
}

async fn next(updates: &mut Streaming<JobUpdate>) -> Option<JobUpdate> {
    within("an update comes", updates.message()).await.expect("no error")
}

fn state(update: &JobUpdate) -> JobState {
    update.job.as_ref().expect("a job").state()
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_shows_every_event_once_and_ends_with_the_job() {
    let world = World::new().await;
    let job = world.submit_texts(&["a"]).await;
    let mut updates = watch(&world, &job, 0).await;
    let first = next(&mut updates).await.expect("the job now");
    assert_eq!((state(&first), first.events.len()), (JobState::Queued, 1));
    world.move_job(&job, State::Queued, State::Running).await;
    let second = next(&mut updates).await.expect("a change");
    assert_eq!((state(&second), second.events[0].sequence), (JobState::Running, 2));
    world.move_job(&job, State::Running, State::Succeeded).await;
    let last = next(&mut updates).await.expect("the end");
    assert_eq!((state(&last), last.events[0].event.as_str()), (JobState::Succeeded, "job.succeeded"));
    assert!(next(&mut updates).await.is_none());

    // From a resume token on; and a job that has ended is shown once.
    let mut updates = watch(&world, &job, 2).await;
    let only = next(&mut updates).await.expect("the job now");
    assert_eq!(only.events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [3]);
    assert!(next(&mut updates).await.is_none());

    let events = world.jobs().events(JobEventsRequest { id: job.id.clone(), limit: 2 }).await.expect("events");
    let sequences: Vec<_> = events.into_inner().events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, [3, 2], "newest first");
    let status = world.jobs().events(JobEventsRequest { id: job.id, limit: 2_001 }).await.expect_err("many");
    assert!(status.message().starts_with("limit"), "{status}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_ends_watches_so_that_they_can_go_on_elsewhere() {
    let world = World::new().await;
    let job = world.submit_texts(&["a"]).await;
    let mut updates = watch(&world, &job, 0).await;
    next(&mut updates).await.expect("the job now");
    world.parts.stopping.cancel();
    let status = within("it ends", updates.message()).await.expect_err("stopped");
    assert_eq!(status.code(), Grpc::Unavailable);
    drop(updates);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_is_a_command_and_waits_for_its_effect() {
    let world = World::new().await;
    let mut commands = world.coordinator(true);
    let job = world.submit_texts(&["a"]).await;
    // The coordinator listens by now: the call waits for its effect, not for RabbitMQ.
    within("it was submitted", commands.recv()).await.expect("a command");
    let request = CancelJobRequest { id: job.id.clone(), reason: "changed my mind".to_owned() };
    let cancelled = world.jobs().cancel(request.clone()).await.expect("recorded").into_inner();
    assert!(cancelled.effective);
    assert_eq!(cancelled.job.expect("a job").state(), JobState::Cancelled);
    let command = within("it was cancelled", commands.recv()).await.expect("a command");
    let Some(What::Cancel(cancel)) = command.command else { panic!("{command:?}") };
    assert_eq!((cancel.job, cancel.reason.as_str()), (job.id, "changed my mind"));

    let again = world.jobs().cancel(request).await.expect("nothing to do").into_inner();
    assert!(again.effective);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_is_recorded_when_nobody_leads() {
    let world = World::new().await;
    let job = world.submit_texts(&["a"]).await;
    let request = CancelJobRequest { id: job.id.clone(), reason: String::new() };
    let recorded = world.jobs().cancel(request).await.expect("recorded").into_inner();
    assert!(!recorded.effective);
    assert_eq!(recorded.job.expect("a job").state(), JobState::Queued);
    let mut commands = world.coordinator(false);
    let command = within("the job waits in the broker", commands.recv()).await.expect("submitted");
    assert!(matches!(command.command, Some(What::Submitted(submitted)) if submitted.job == job.id));
    loop {
        match within("its cancel, too", commands.recv()).await.expect("cancelled").command {
            // A message whose confirm took long comes twice.
            Some(What::Submitted(_)) => {}
            Some(What::Cancel(cancel)) => break assert_eq!(cancel.job, job.id),
            other => panic!("{other:?}"),
        }
    }
    world.stop().await;
}
