//! What a new dead letter means.

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use warren_blob::Key;
use warren_broker::{GroupHandler as _, Letter, Outgoing, dead};
use warren_jobs::{JobState, TaskKind, TaskState};
use warren_messages::{
    envelope::{Envelope, headers},
    ids::JobId,
    routes::{COMMANDS, DEAD_EXCHANGE, DEAD_QUEUE, REPORTS, tasks},
    wire::{CancelJob, Command, JobSubmitted, ReplayLetters, command::Command as What},
};
use warren_store::{DeadLetter, LetterFilter, LetterState};

use super::world::{World, embedded, eventually, letter, message, received};
use crate::{
    commands::Commands,
    leaving::{self, Suspects},
    letters::Index,
    reports::Reports,
};

async fn buried(world: &World, letter: &Letter) -> DeadLetter {
    Index(world.lead.clone()).handle(std::slice::from_ref(letter)).await.expect("indexed");
    row(world, letter).await
}

async fn row(world: &World, letter: &Letter) -> DeadLetter {
    world.store().read().letter(&letter.id.to_string()).await.expect("read").expect("indexed")
}

fn command(what: What) -> Command {
    Command { actor: "ada".to_owned(), command: Some(what) }
}

fn submitted(job: Uuid) -> Command {
    command(What::Submitted(JobSubmitted { job: JobId(job).to_string() }))
}

async fn commanded(world: &World, command: Command) {
    Commands(world.lead.clone()).handle(&[received(world, COMMANDS, command)]).await.expect("done");
}

async fn events(world: &World, job: Uuid) -> Vec<String> {
    let events = world.store().read().events_after(job, 0, 100).await.expect("read");
    events.into_iter().map(|event| event.event.event).collect()
}

#[tokio::test]
async fn a_letter_that_did_not_end_its_task_is_void() {
    let world = World::new().await;
    let (done, cancelled, dead) =
        (world.running(&["a"]).await, world.running(&["b"]).await, world.running(&["c"]).await);
    let report = received(&world, REPORTS, embedded(&done, &[[1.0, 0.0]]));
    Reports(world.lead.clone()).handle(&[report]).await.expect("recorded");
    let cancel = CancelJob { job: JobId(cancelled.job_id).to_string(), reason: String::new() };
    commanded(&world, command(What::Cancel(cancel))).await;

    let of = |task| letter(&world, tasks(TaskKind::Embed), &message(task));
    let first = of(&dead);
    assert_eq!(buried(&world, &first).await.state, LetterState::Dead);
    let mut leaving = Vec::new();
    for (task, why) in [
        (&done, "its task is done"),
        (&cancelled, "its task is cancelled"),
        (&dead, "its task has another dead letter"),
    ] {
        let late = of(task);
        let row = buried(&world, &late).await;
        assert_eq!((row.state, row.reason.as_deref()), (LetterState::Void, Some(why)));
        leaving.push(late.id.to_string());
    }
    leaving.sort();
    let mut found = world.store().read().leaving_letters().await.expect("read");
    found.sort();
    assert_eq!(found, leaving);
    assert_eq!(world.task(dead.id).await.state, TaskState::Dead);

    // Found again, e.g. after the one that can be replayed was, it is still void.
    let again = of(&dead);
    buried(&world, &again).await;
    let replayed = ReplayLetters { letters: vec![first.id.to_string()], ..ReplayLetters::default() };
    world.replayed(&replayed).await;
    assert_eq!(world.task(dead.id).await.state, TaskState::Released);
    assert_eq!(buried(&world, &again).await.state, LetterState::Void);
    let row = buried(&world, &of(&dead)).await;
    assert_eq!(row.reason.as_deref(), Some("its task has gone out again since"));
    // Of a task that nobody knows, a person decides.
    let unknown = warren_store::Task { id: world.clock().new_id(), ..dead.clone() };
    assert_eq!(buried(&world, &of(&unknown)).await.state, LetterState::Dead);
}

/// Publishes a letter of a task as its consumer would, or somebody who moves it by hand.
async fn published(world: &World, exchange: &str, key: &str, letter: &Letter, task: &warren_store::Task) {
    let mut envelope = Envelope::new(world.clock().new_id(), &message(task));
    envelope.headers.extend([
        (headers::LETTER.to_owned(), letter.id.to_string()),
        (headers::SOURCE.to_owned(), letter.queue.clone()),
        (headers::ERR_CLASS.to_owned(), letter.class.clone()),
    ]);
    let published = Outgoing { exchange: exchange.to_owned(), key: key.to_owned(), envelope };
    for outcome in world.lead.parts.broker.publish_many(&[published]).await {
        outcome.expect("published");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_its_index_never_heard_of_is_noted() {
    let world = World::with_rabbitmq().await;
    let task = world.running(&["a"]).await;
    let letter = letter(&world, tasks(TaskKind::Embed), &message(&task));
    // Past the exchange that copies letters for the index.
    published(&world, "", DEAD_QUEUE, &letter, &task).await;
    let suspects = tokio::sync::Mutex::new(Suspects::default());
    let look = async || {
        // The broker gives back what the last look held a little after it.
        let there = async || world.lead.parts.broker.ready_messages(DEAD_QUEUE).await == Some(1);
        eventually("the letter lies there", there).await;
        leaving::reconcile(&world.lead, &mut *suspects.lock().await).await.expect("looked through");
    };
    let state = async || {
        look().await;
        let known = world.store().read().letters(&LetterFilter::default(), None, 1).await.expect("read");
        known.letters.first().map(|letter| (letter.letter.id.clone(), letter.state))
    };
    assert_eq!(state().await, None, "it may be on its way");
    eventually("it is noted", async || state().await.is_some_and(|(_, state)| state == LetterState::Dead)).await;
    assert_eq!(world.task(task.id).await.state, TaskState::Dead);

    // What was said to be gone, and is not.
    let (id, _) = state().await.expect("noted");
    let tx = world.lead.begin().await.expect("begun");
    assert_eq!(tx.letters_purged(std::slice::from_ref(&id)).await.expect("written"), [id]);
    tx.commit().await.expect("committed");
    eventually("it is dead again", async || state().await.is_some_and(|(_, state)| state == LetterState::Dead)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn void_letters_leave_the_broker() {
    let world = World::with_rabbitmq().await;
    let broker = &world.lead.parts.broker;
    let task = world.running(&["a"]).await;
    let report = received(&world, REPORTS, embedded(&task, &[[1.0, 0.0]]));
    Reports(world.lead.clone()).handle(&[report]).await.expect("recorded");

    let late = letter(&world, tasks(TaskKind::Embed), &message(&task));
    published(&world, DEAD_EXCHANGE, "embed", &late, &task).await;
    let over = CancellationToken::new();
    let duty = tokio::spawn({
        let (lead, over) = (world.lead.clone(), over.clone());
        async move { leaving::run(&lead, &over).await.expect("the term lasts") }
    });
    buried(&world, &late).await;
    eventually("it leaves", async || world.store().read().leaving_letters().await.expect("read").is_empty()).await;
    over.cancel();
    duty.await.expect("no panic");
    let there = dead::remove(broker, &BTreeSet::from([late.id])).await.expect("looked");
    assert!(there.is_empty(), "it is not in warren.dead");
    assert_eq!(row(&world, &late).await.state, LetterState::Void);
}

#[tokio::test]
async fn a_job_whose_planning_died_fails_until_that_is_replayed() {
    let world = World::new().await;
    let job = world.submitted().await;
    world.lead.parts.blobs.put_bytes(&Key::texts(job), b"\"a\"\n".to_vec().into()).await.expect("stored");
    let died = letter(&world, COMMANDS, &submitted(job));
    let row = buried(&world, &died).await;
    assert_eq!((row.state, row.letter.job_id), (LetterState::Dead, Some(job)));
    let failed = world.job(job).await;
    assert_eq!((failed.state, failed.error_code.as_deref()), (JobState::Failed, Some("Internal")));
    assert_eq!(failed.error_message.as_deref(), Some("why"));
    assert_eq!(events(&world, job).await[1..], ["child.failed", "job.failed"]);
    let told = world.store().read().events_after(job, 1, 1).await.expect("read").remove(0);
    assert_eq!(told.event.fields["dead_letter"], died.id.to_string());
    let needed = world.store().read().need_objects(&[job]).await.expect("read");
    assert!(needed.contains(&job), "its texts stay");

    let replayed = ReplayLetters { letters: vec![died.id.to_string()], ..ReplayLetters::default() };
    world.replayed(&replayed).await;
    let running = world.job(job).await;
    assert_eq!((running.state, running.error_code), (JobState::Running, None));
    assert!(running.deadline.is_some_and(|deadline| deadline > world.clock().now()), "it ends at last");
    let sent = world.outbox().await.remove(0);
    let command = warren_messages::envelope::decode(Some(&sent.kind), &sent.body).expect("a command");
    assert_eq!(command, submitted(job));
    commanded(&world, command).await;
    assert_eq!(world.store().read().counts(job).await.expect("read").unreleased, 1);

    // A second copy of the command is nobody's.
    let late = buried(&world, &letter(&world, COMMANDS, &submitted(job))).await;
    assert_eq!((late.state, world.job(job).await.state), (LetterState::Void, JobState::Running));
}

#[tokio::test]
async fn a_command_that_cannot_be_read_fails_the_job_that_waits_for_its_plan() {
    let world = World::new().await;
    let (waits, goes_on) = (world.submitted().await, world.running(&["a"]).await.job_id);
    let damaged = |job| Letter { body: b"not json".to_vec(), ..letter(&world, COMMANDS, &submitted(job)) };
    assert_eq!(buried(&world, &damaged(waits)).await.letter.job_id, Some(waits));
    assert_eq!(world.job(waits).await.state, JobState::Failed);
    assert_eq!(buried(&world, &damaged(goes_on)).await.state, LetterState::Dead);
    assert_eq!(world.job(goes_on).await.state, JobState::Running);
    // Another command of a job says nothing about its plan.
    let other = world.submitted().await;
    let cancel = CancelJob { job: JobId(other).to_string(), reason: String::new() };
    buried(&world, &letter(&world, COMMANDS, &command(What::Cancel(cancel)))).await;
    assert_eq!(world.job(other).await.state, JobState::Queued);
}
