//! Dead letters that are sent again.

use std::{pin::pin, time::Duration};

use futures::poll;
use warren_broker::{GroupHandler as _, Letter};
use warren_fault::Fault;
use warren_jobs::{JobState, TaskKind, TaskState};
use warren_messages::{
    envelope::{decode, headers},
    ids::JobId,
    routes::{COMMANDS, REPORTS, tasks},
    to_millis,
    wire::{self, CancelJob, Command, ReplayLetters, TaskReport, Texts, command::Command as What, embed_task::Input},
};
use warren_store::{LetterState, NewOutbox, Task};
use warren_telemetry::metrics::render;

use super::world::{World, embedded, given, letter, message, received};
use crate::{commands::Commands, letters::Index, reaper, replay::accept, reports::Reports};

async fn buried(world: &World, letter: Letter) -> Letter {
    Index(world.lead.clone()).handle(std::slice::from_ref(&letter)).await.expect("indexed");
    letter
}

async fn task_died(world: &World, task: &Task) -> Letter {
    buried(world, letter(world, tasks(TaskKind::Embed), &message(task))).await
}

fn of(letter: &Letter) -> ReplayLetters {
    ReplayLetters { letters: vec![letter.id.to_string()], ..ReplayLetters::default() }
}

async fn replayed(world: &World, command: &ReplayLetters) {
    world.replayed(command).await;
}

async fn state(world: &World, letter: &Letter) -> LetterState {
    world.store().read().letter(&letter.id.to_string()).await.expect("read").expect("indexed").state
}

fn texts(message: &wire::Task) -> &Texts {
    match &message.work {
        Some(wire::task::Work::Embed(wire::EmbedTask { input: Some(Input::Texts(texts)), .. })) => texts,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_letter_is_counted_once_however_often_it_is_found() {
    let world = World::new().await;
    let task = world.running(&["a"]).await;
    let letter = letter(&world, tasks(TaskKind::Embed), &message(&task));
    let letter = buried(&world, Letter { class: "CountedOnce".to_owned(), ..letter }).await;
    buried(&world, letter).await;
    let metrics = render();
    let line = metrics.lines().find(|line| line.contains("CountedOnce")).expect("it is counted");
    assert!(line.starts_with("warren_dead_letters_made_total") && line.ends_with(" 1"), "{line}");
}

#[tokio::test]
async fn a_replay_after_the_deadline_has_all_the_time_again() {
    let world = World::new().await;
    let task = world.running(&["a"]).await;
    let letter = task_died(&world, &task).await;
    assert_eq!(
        (world.task(task.id).await.state, world.job(task.job_id).await.state),
        (TaskState::Dead, JobState::Failed)
    );
    world.clock().advance(Duration::from_secs(7 * 3_600));
    let now = world.clock().now();
    assert!(world.job(task.job_id).await.deadline.expect("one") < now);

    replayed(&world, &of(&letter)).await;
    let (back, job) = (world.task(task.id).await, world.job(task.job_id).await);
    assert_eq!((back.state, back.dispatch, job.state), (TaskState::Released, 2, JobState::Running));
    let deadline = job.deadline.expect("one");
    assert_eq!(deadline.since(now), Duration::from_secs(21_600));
    let sent = world.outbox().await.remove(0);
    assert_eq!((sent.exchange.as_str(), sent.routing_key.as_str()), ("warren.task", "embed"));
    assert_eq!(sent.headers[headers::REPLAY_OF], letter.id.to_string());
    let message: wire::Task = decode(Some(&sent.kind), &sent.body).expect("a task");
    assert_eq!((message.dispatch, message.deadline.map(|at| to_millis(&at))), (2, Some(deadline.0)));
    assert_eq!(world.lead.board().out(task.id).map(|out| out.dispatch), Some(2), "its worker is let in");
    assert_eq!(state(&world, &letter).await, LetterState::Replaying);
    let events = world.store().read().newest_events(task.job_id, 1).await.expect("read");
    assert!(events[0].event.event == "job.redriven" && events[0].event.message.contains("ada"), "{events:?}");

    world.clock().advance(Duration::from_secs(21_600));
    reaper::overdue(&world.lead).await.expect("done");
    let message = world.job(task.job_id).await.error_message.expect("it is overdue again");
    assert!(message.starts_with("ran longer than its limit of 21600 s since a dead letter"), "{message}");
}

#[tokio::test]
async fn a_dead_report_is_recorded_after_its_replay() {
    let world = World::new().await;
    let task = world.running(&["a"]).await;
    let letter = buried(&world, letter(&world, REPORTS, &embedded(&task, &[[1.0, 0.0]]))).await;
    assert_eq!(world.job(task.job_id).await.state, JobState::Failed);
    replayed(&world, &of(&letter)).await;
    let NewOutbox { kind, body, .. } = world.outbox().await.remove(0);
    let report: TaskReport = decode(Some(&kind), &body).expect("a report");
    Reports(world.lead.clone()).handle(&[received(&world, REPORTS, report)]).await.expect("recorded");
    assert_eq!(
        (world.task(task.id).await.state, world.job(task.job_id).await.state),
        (TaskState::Done, JobState::Succeeded)
    );
}

#[tokio::test]
async fn an_edited_body_is_what_is_sent_and_the_original_is_in_the_audit() {
    let world = World::new().await;
    let task = world.running(&["a"]).await;
    let letter = task_died(&world, &task).await;
    let mut edited = message(&task);
    if let Some(wire::task::Work::Embed(work)) = &mut edited.work {
        work.input = Some(Input::Texts(given(&["b"])));
    }
    let edited_body = serde_json::to_vec(&edited).expect("JSON");
    replayed(&world, &ReplayLetters { edited_body, ..of(&letter) }).await;
    let NewOutbox { kind, body, .. } = world.outbox().await.remove(0);
    assert_eq!(texts(&decode(Some(&kind), &body).expect("a task")), &given(&["b"]));
    assert_eq!(texts(&message(&world.task(task.id).await)), &given(&["b"]), "a release after this one has it, too");
    let audit = world.store().read().audit(1).await.expect("read").remove(0);
    assert_eq!((audit.actor.as_str(), audit.verb.as_str(), audit.subject), ("ada", "replay", letter.id.to_string()));
    let detail: serde_json::Value = serde_json::from_str(&audit.detail).expect("JSON");
    let change = &detail["changes"]["embed.texts.texts[0]"];
    assert_eq!((&change["from"], &change["to"]), (&"a".into(), &"b".into()), "{detail}");
}

#[tokio::test]
async fn an_edited_body_that_does_anothers_work_is_refused() {
    let world = World::new().await;
    let (task, other) = (world.running(&["a"]).await, world.running(&["b"]).await);
    let letter = task_died(&world, &task).await;
    let edited_body = serde_json::to_vec(&message(&other)).expect("JSON");
    let asked = ReplayLetters { edited_body, ..of(&letter) };
    world.replayed(&asked).await;
    assert_eq!(world.task(task.id).await.state, TaskState::Dead);
    let audit = world.store().read().audit(1).await.expect("read").remove(0);
    assert_eq!(audit.verb, "replay refused");
    assert!(audit.detail.contains("another's work"), "{}", audit.detail);
}

#[tokio::test]
async fn a_cancelled_jobs_dead_task_stays_dead() {
    let world = World::new().await;
    let (task, other) = (world.running(&["a"]).await, world.running(&["b"]).await);
    // Its job has other work, so that it can still be cancelled.
    let tx = world.lead.begin().await.expect("begun");
    let more = warren_store::NewTask {
        id: world.clock().new_id(),
        job_id: task.job_id,
        kind: TaskKind::Embed,
        ordinal: 1,
        payload: task.payload.clone(),
        cost: 1.0,
        units: 1.0,
    };
    tx.insert_tasks(&[more]).await.expect("planned");
    tx.commit().await.expect("committed");
    let letter = task_died(&world, &task).await;
    let cancel = CancelJob { job: JobId(task.job_id).to_string(), reason: String::new() };
    let command = Command { actor: "ada".to_owned(), command: Some(What::Cancel(cancel)) };
    Commands(world.lead.clone()).handle(&[received(&world, COMMANDS, command)]).await.expect("cancelled");
    replayed(&world, &of(&letter)).await;
    assert_eq!((world.task(task.id).await.state, state(&world, &letter).await), (TaskState::Dead, LetterState::Dead));
    assert!(world.outbox().await.is_empty());
    let audit = world.store().read().audit(1).await.expect("read").remove(0);
    assert!(audit.verb == "replay refused" && audit.detail.contains("its job is cancelled"), "{audit:?}");
    // Of several letters, the others go.
    let fine = task_died(&world, &other).await;
    let both = vec![letter.id.to_string(), fine.id.to_string()];
    replayed(&world, &ReplayLetters { letters: both, ..ReplayLetters::default() }).await;
    assert_eq!(world.outbox().await.len(), 1);
}

#[tokio::test]
async fn a_request_has_its_effect_once() {
    let world = World::new().await;
    let (one, two) = (world.running(&["a"]).await, world.running(&["b"]).await);
    let (first, second) = (task_died(&world, &one).await, task_died(&world, &two).await);
    let request = |letter| ReplayLetters { request_id: "r".to_owned(), ..of(letter) };
    replayed(&world, &request(&first)).await;
    replayed(&world, &request(&first)).await;
    replayed(&world, &request(&second)).await;
    assert_eq!(world.outbox().await.len(), 1);
    assert_eq!(state(&world, &second).await, LetterState::Dead, "the id was used before");
    replayed(&world, &of(&second)).await;
    assert_eq!(world.outbox().await.len(), 2);
}

#[tokio::test]
async fn a_letter_that_is_not_indexed_yet_is_waited_for() {
    let world = World::new().await;
    let task = world.running(&["a"]).await;
    let letter = letter(&world, tasks(TaskKind::Embed), &message(&task));
    let delivery = world.delivery(COMMANDS.queue);
    let early = accept(&world.lead, "by hand", &of(&letter), &delivery).await;
    assert!(matches!(early, Err(Fault::RetryLater { .. })), "{early:?}");
    let mut retry = pin!(world.lead.parts.retry.notified());
    let letter = buried(&world, letter).await;
    assert!(poll!(retry.as_mut()).is_ready(), "whoever waits for it looks again");
    accept(&world.lead, "by hand", &of(&letter), &delivery).await.expect("accepted");
    world.replaying().await;
    let events = world.store().read().newest_events(task.job_id, 1).await.expect("read");
    assert!(events[0].event.message.contains("by hand"), "{events:?}");
    // One that never comes holds nobody up for ever.
    let never = ReplayLetters { letters: vec![world.clock().new_id().to_string()], ..ReplayLetters::default() };
    let delivery = world.delivery(COMMANDS.queue);
    world.clock().advance(Duration::from_secs(60));
    accept(&world.lead, "by hand", &never, &delivery).await.expect("accepted");
    world.replaying().await;
    let audit = world.store().read().audit(1).await.expect("read").remove(0);
    assert!(audit.verb == "replay refused" && audit.detail.contains("no such letter"), "{audit:?}");
}

/// The letter of a message that came back from the replay of another letter.
async fn died_again(world: &World, task: &Task, before: &Letter) -> Letter {
    let mut again = letter(world, tasks(TaskKind::Embed), &message(task));
    again.headers.insert(headers::REPLAY_OF.to_owned(), before.id.to_string());
    buried(world, again).await
}

#[tokio::test]
async fn a_letter_that_comes_back_twice_is_parked() {
    let world = World::new().await;
    let task = world.running(&["a"]).await;
    let first = task_died(&world, &task).await;
    replayed(&world, &of(&first)).await;
    let second = died_again(&world, &world.task(task.id).await, &first).await;
    assert_eq!(state(&world, &second).await, LetterState::Dead);
    replayed(&world, &of(&second)).await;
    // Also without the header, e.g. when its message was lost in between and went out anew.
    let third = task_died(&world, &world.task(task.id).await).await;
    let row = world.store().read().letter(&third.id.to_string()).await.expect("read").expect("indexed");
    assert_eq!((row.state, row.replays, row.letter.replay_of), (LetterState::Parked, 2, Some(second.id.to_string())));
    replayed(&world, &of(&third)).await;
    assert_eq!(state(&world, &third).await, LetterState::Replaying, "who names it may");
}

#[tokio::test]
async fn the_rest_follows_a_canary_that_did_its_work() {
    let world = World::new().await;
    let (mut letters, mut all) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let task = world.running(&["a"]).await;
        letters.push(task_died(&world, &task).await.id.to_string());
        all.push(task);
    }
    let command = ReplayLetters { letters: letters.clone(), canary: 1, ..ReplayLetters::default() };
    let delivery = world.delivery(COMMANDS.queue);
    accept(&world.lead, "ada", &command, &delivery).await.expect("accepted");
    let sent = async || {
        let running = world.store().read().running_replays().await.expect("read").remove(0);
        world.store().read().replay_counts(&running.asked.id).await.expect("read").sent
    };
    let canary = async {
        super::world::eventually("the canary is sent", async || sent().await == 1).await;
        let report = embedded(&world.task(all[0].id).await, &[[1.0, 0.0]]);
        assert_eq!(sent().await, 1, "its fate is not known");
        Reports(world.lead.clone()).handle(&[received(&world, REPORTS, report)]).await.expect("recorded");
    };
    tokio::join!(world.replaying(), canary);
    assert_eq!(world.outbox().await.len(), 3);
}

#[tokio::test]
async fn nothing_follows_a_canary_that_comes_back() {
    let world = World::new().await;
    let (one, two) = (world.running(&["a"]).await, world.running(&["b"]).await);
    let (first, second) = (task_died(&world, &one).await, task_died(&world, &two).await);
    let letters = vec![first.id.to_string(), second.id.to_string()];
    let command = ReplayLetters { letters, canary: 1, request_id: "careful".to_owned(), ..ReplayLetters::default() };
    let delivery = world.delivery(COMMANDS.queue);
    accept(&world.lead, "ada", &command, &delivery).await.expect("accepted");
    let back = async {
        super::world::eventually("it is sent", async || !world.outbox().await.is_empty()).await;
        died_again(&world, &world.task(one.id).await, &first).await;
    };
    tokio::join!(world.replaying(), back);
    let ended = world.store().read().replay("ada careful").await.expect("read").expect("known");
    assert_eq!(ended.stopped.as_deref(), Some("1 of 1 letters came back"));
    assert_eq!((world.outbox().await.len(), state(&world, &second).await), (1, LetterState::Dead));
}

#[tokio::test]
async fn work_whose_input_is_gone_is_sent_only_by_force() {
    let world = World::new().await;
    let task = world.preparing().await;
    let died = letter(&world, tasks(TaskKind::Prepare), &message(&task));
    let died = buried(&world, died).await;
    replayed(&world, &of(&died)).await;
    assert_eq!((state(&world, &died).await, world.task(task.id).await.state), (LetterState::Dead, TaskState::Dead));
    let audit = world.store().read().audit(1).await.expect("read").remove(0);
    assert!(audit.detail.contains("gone from object storage"), "{audit:?}");
    replayed(&world, &ReplayLetters { force: true, ..of(&died) }).await;
    assert_eq!(world.task(task.id).await.state, TaskState::Released);
}

#[tokio::test]
async fn force_changes_nothing_that_is_over() {
    let world = World::new().await;
    let task = world.running(&["a"]).await;
    let died = task_died(&world, &task).await;
    replayed(&world, &of(&died)).await;
    let back = world.task(task.id).await;
    let again = died_again(&world, &back, &died).await;
    // Its job was cancelled meanwhile.
    let tx = world.lead.begin().await.expect("begun");
    let event = warren_store::NewEvent::new(warren_store::EventLevel::Info, "job.redriven", "once more");
    tx.set_job_state(task.job_id, JobState::Failed, JobState::Running, &event).await.expect("moved");
    tx.set_job_state(task.job_id, JobState::Running, JobState::Cancelled, &event).await.expect("moved");
    tx.commit().await.expect("committed");
    let (job, events) = (world.job(task.job_id).await, world.store().read().events_after(task.job_id, 0, 99).await);
    replayed(&world, &ReplayLetters { force: true, ..of(&again) }).await;
    assert_eq!(state(&world, &again).await, LetterState::Replaying);
    assert_eq!((world.job(task.job_id).await, world.task(task.id).await.state), (job, TaskState::Dead));
    let after = world.store().read().events_after(task.job_id, 0, 99).await;
    assert_eq!(after.expect("read"), events.expect("read"));
}

#[tokio::test]
async fn a_body_published_by_hand_replays_the_letter_of_its_task() {
    let world = World::new().await;
    let task = world.running(&["a"]).await;
    let died = task_died(&world, &task).await;
    let queue = tasks(TaskKind::Embed).queue.to_owned();
    let by_hand = ReplayLetters { edited_body: died.body.clone(), queue, ..ReplayLetters::default() };
    replayed(&world, &by_hand).await;
    assert_eq!(state(&world, &died).await, LetterState::Replaying);
    assert_eq!((world.task(task.id).await.dispatch, world.job(task.job_id).await.state), (2, JobState::Running));
    assert_eq!(world.outbox().await.len(), 1);
    // Of a task that is out, a message goes back to its queue; of an earlier dispatch, none.
    let now = serde_json::to_vec(&message(&world.task(task.id).await)).expect("JSON");
    replayed(&world, &ReplayLetters { edited_body: now, ..by_hand.clone() }).await;
    assert_eq!(world.outbox().await.len(), 2);
    replayed(&world, &by_hand).await;
    assert_eq!(world.outbox().await.len(), 2);
}
