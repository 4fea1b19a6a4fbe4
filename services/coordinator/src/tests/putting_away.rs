//! Letters that are discarded, and letters that come back from an export.

use warren_broker::{GroupHandler as _, Letter};
use warren_jobs::{JobState, TaskKind, TaskState};
use warren_messages::{
    envelope::headers,
    ids::{JobId, TaskId},
    routes::tasks,
    wire::{self, DiscardLetters, ImportLetter, ReplayLetters},
};
use warren_store::{DeadLetter, LetterState};

use super::world::{World, letter, message};
use crate::{
    letters::Index,
    put_away::{discard, put_back},
};

async fn row(world: &World, id: &str) -> DeadLetter {
    world.store().read().letter(id).await.expect("read").expect("known")
}

/// As an export tells of it.
fn exported(row: &DeadLetter) -> ImportLetter {
    let letter = row.letter.clone();
    ImportLetter {
        letter: Some(wire::DeadLetter {
            id: letter.id,
            queue: letter.queue,
            kind: letter.kind,
            class: letter.class,
            cause: letter.cause,
            fingerprint: letter.fingerprint,
            job: letter.job_id.map(|id| JobId(id).to_string()).unwrap_or_default(),
            task: letter.task_id.map(|id| TaskId(id).to_string()).unwrap_or_default(),
            dispatch: letter.dispatch.and_then(|dispatch| u32::try_from(dispatch).ok()).unwrap_or_default(),
            body: letter.body,
            content_type: letter.content_type,
            headers: letter.headers.into_iter().collect(),
            ..wire::DeadLetter::default()
        }),
    }
}

#[tokio::test]
async fn a_discarded_letter_stays_on_record_and_can_be_put_back() {
    let world = World::new().await;
    let task = world.running(&["a"]).await;
    let died: Letter = letter(&world, tasks(TaskKind::Embed), &message(&task));
    Index(world.lead.clone()).handle(std::slice::from_ref(&died)).await.expect("indexed");
    let id = died.id.to_string();
    let before = row(&world, &id).await;

    let command = DiscardLetters { letters: vec![id.clone()], reason: "no such model".to_owned() };
    discard(&world.lead, "ada", &command).await.expect("discarded");
    discard(&world.lead, "ada", &command).await.expect("nothing more to do");
    let after = row(&world, &id).await;
    assert_eq!((after.state, after.reason.as_deref()), (LetterState::Discarded, Some("no such model")));
    assert_eq!(after.letter, before.letter, "body and headers are kept");
    assert_eq!(world.store().read().leaving_letters().await.expect("read"), std::slice::from_ref(&id));
    assert_eq!(
        (world.task(task.id).await.state, world.job(task.job_id).await.state),
        (TaskState::Dead, JobState::Failed)
    );
    let audit = world.store().read().audit_of(std::slice::from_ref(&id)).await.expect("read");
    assert_eq!(audit.iter().map(|deed| deed.verb.as_str()).collect::<Vec<_>>(), ["discard"]);
    world.replayed(&ReplayLetters { letters: vec![id.clone()], ..ReplayLetters::default() }).await;
    assert_eq!(row(&world, &id).await.state, LetterState::Discarded, "it is not replayed");

    let tx = world.lead.begin().await.expect("begun");
    tx.letters_left(std::slice::from_ref(&id)).await.expect("written");
    tx.commit().await.expect("committed");
    put_back(&world.lead, "ada", &exported(&before)).await.expect("put back");
    put_back(&world.lead, "ada", &exported(&before)).await.expect("it is there");
    assert_eq!(row(&world, &id).await.state, LetterState::Dead);
    let sent = world.outbox().await;
    assert_eq!(sent.len(), 1, "once");
    assert_eq!((sent[0].exchange.as_str(), sent[0].routing_key.as_str()), ("warren.dlx", "embed"));
    assert_eq!((&sent[0].headers[headers::LETTER], &sent[0].body), (&id, &died.body));
    world.replayed(&ReplayLetters { letters: vec![id], ..ReplayLetters::default() }).await;
    assert_eq!(world.job(task.job_id).await.state, JobState::Running);
}

#[tokio::test]
async fn a_letter_of_another_installation_is_put_in() {
    let world = World::new().await;
    let task = world.running(&["a"]).await;
    let died = letter(&world, tasks(TaskKind::Embed), &message(&task));
    Index(world.lead.clone()).handle(std::slice::from_ref(&died)).await.expect("indexed");
    let export = exported(&row(&world, &died.id.to_string()).await);
    let other = World::new().await;
    put_back(&other.lead, "ada", &export).await.expect("put in");
    assert_eq!(row(&other, &died.id.to_string()).await.state, LetterState::Dead);
    assert_eq!(other.outbox().await.len(), 1);
}
