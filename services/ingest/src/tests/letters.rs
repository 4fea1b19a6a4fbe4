//! Dead letters.

use std::collections::BTreeMap;

use tonic::Code as Grpc;
use warren_jobs::{JobState, TaskKind};
use warren_messages::{
    ids::TaskId,
    wire::{
        self, DeadLetterState, Job, ListDeadLettersRequest, ReplayDeadLettersRequest, ReplayDeadLettersResponse,
        ShowDeadLetterRequest, Texts, command::Command as What, embed_task::Input, task::Work,
    },
};
use warren_store::{Finish, NewLetter, NewTask};

use super::world::{World, uuid, within};

/// A message for a task that is out.
async fn task(world: &World, job: &Job, ordinal: i64) -> wire::Task {
    let id = world.parts.clock.new_id();
    let new = NewTask {
        id,
        job_id: uuid(job),
        kind: TaskKind::Embed,
        ordinal,
        payload: "{}".to_owned(),
        cost: 1.0,
        units: 1.0,
    };
    let tx = world.parts.store.begin().await.expect("begun");
    tx.insert_tasks(&[new]).await.expect("planned");
    tx.release(&[id]).await.expect("released");
    tx.commit().await.expect("committed");
    let texts = Texts { texts: vec!["a".to_owned()] };
    let work = wire::EmbedTask { model: "m".to_owned(), first: 0, input: Some(Input::Texts(texts)) };
    wire::Task {
        id: TaskId(id).to_string(),
        job: job.id.clone(),
        dispatch: 1,
        deadline: None,
        work: Some(Work::Embed(work)),
    }
}

async fn letter(world: &World, job: &Job, task: &wire::Task, body: &[u8], fingerprint: &str) -> String {
    let id = world.parts.clock.new_id().to_string();
    let new = NewLetter {
        id: id.clone(),
        queue: "warren.task.embed".to_owned(),
        kind: "warren.v1.Task".to_owned(),
        class: "Malformed".to_owned(),
        cause: "body is not a warren.v1.Task".to_owned(),
        fingerprint: fingerprint.to_owned(),
        job_id: Some(uuid(job)),
        task_id: task.id.parse::<TaskId>().ok().map(|id| id.0),
        dispatch: Some(1),
        body: body.to_vec(),
        content_type: "application/json".to_owned(),
        headers: BTreeMap::from([("x-warren-job".to_owned(), job.id.clone())]),
    };
    let tx = world.parts.store.begin().await.expect("begun");
    assert!(tx.insert_letter(&new).await.expect("written"));
    tx.commit().await.expect("committed");
    id
}

async fn replay(world: &World, request: ReplayDeadLettersRequest) -> ReplayDeadLettersResponse {
    world.letters().replay(request).await.expect("answered").into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_shown_and_replayed() {
    let world = World::new().await;
    let mut commands = world.coordinator(true);
    let job = world.submit_texts(&["a"]).await;
    within("the job is submitted", commands.recv()).await.expect("a command");
    let (good, broken) = (task(&world, &job, 0).await, task(&world, &job, 1).await);
    let body = serde_json::to_vec(&good).expect("JSON");
    let sound = letter(&world, &job, &good, &body, "f1").await;
    let damaged = letter(&world, &job, &broken, b"not json", "f2").await;

    let list = |page_size, token: String| ListDeadLettersRequest { page_size, page_token: token, ..Default::default() };
    let first = world.letters().list(list(1, String::new())).await.expect("listed").into_inner();
    assert_eq!((first.letters[0].id.as_str(), first.total), (damaged.as_str(), 2));
    assert!(first.letters[0].body.is_empty());
    let second = world.letters().list(list(1, first.next_page_token)).await.expect("listed").into_inner();
    assert_eq!((second.letters[0].id.as_str(), second.next_page_token.as_str()), (sound.as_str(), ""));
    let shown = world.letters().show(ShowDeadLetterRequest { id: damaged.clone() }).await.expect("shown").into_inner();
    assert_eq!((shown.body.as_slice(), shown.size_bytes), (b"not json".as_slice(), 8));
    assert_eq!((shown.headers["x-warren-job"].as_str(), shown.task.as_str()), (job.id.as_str(), broken.id.as_str()));

    let dry = replay(&world, ReplayDeadLettersRequest { all: true, dry_run: true, ..Default::default() }).await;
    assert!(dry.dry_run);
    assert!(dry.outcomes[0].refused.contains("corrected body"), "{dry:?}");
    assert_eq!((dry.outcomes[1].refused.as_str(), dry.outcomes[1].queue.as_str()), ("", "warren.task.embed"));
    assert!(commands.try_recv().is_err(), "nothing was changed");

    let edited = serde_json::to_vec(&broken).expect("JSON");
    let request =
        ReplayDeadLettersRequest { ids: vec![damaged.clone()], edited_body: edited.clone(), ..Default::default() };
    let done = replay(&world, request).await;
    assert!(done.outcomes[0].replayed, "{done:?}");
    let command = within("the command comes", commands.recv()).await.expect("one").command;
    assert!(
        matches!(command, Some(What::Replay(replay)) if replay.letters == [damaged.clone()] && replay.edited_body == edited)
    );
    let replayed = ListDeadLettersRequest { state: DeadLetterState::Replayed.into(), ..Default::default() };
    let replayed = world.letters().list(replayed).await.expect("listed").into_inner();
    assert_eq!((replayed.letters[0].id.as_str(), replayed.letters[0].replays), (damaged.as_str(), 1));

    let again = replay(&world, ReplayDeadLettersRequest { ids: vec![damaged], ..Default::default() }).await;
    assert_eq!(again.outcomes[0].refused, "it was replayed already");
    let tx = world.parts.store.begin().await.expect("begun");
    let TaskId(id) = good.id.parse().expect("a task id");
    let to = warren_jobs::TaskState::Done;
    tx.finish(&Finish { task: id, dispatch: 1, to, worker: "w".to_owned(), error: None }).await.expect("done");
    tx.commit().await.expect("committed");
    let late = ReplayDeadLettersRequest { fingerprint: "f1".to_owned(), ..Default::default() };
    assert_eq!(replay(&world, late).await.outcomes[0].refused, "its task is done");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_sent_again_has_the_same_answer() {
    let world = World::new().await;
    let mut commands = world.coordinator(true);
    let job = world.submit_texts(&["a"]).await;
    within("the job is submitted", commands.recv()).await.expect("a command");
    let mut letters = Vec::new();
    for ordinal in 0..3 {
        let task = task(&world, &job, ordinal).await;
        letters.push(letter(&world, &job, &task, &serde_json::to_vec(&task).expect("JSON"), "f").await);
    }
    let damaged = letter(&world, &job, &task(&world, &job, 3).await, b"not json", "f").await;
    let request = |id: &str| ReplayDeadLettersRequest { request_id: id.to_owned(), ..Default::default() };
    let alike = || ReplayDeadLettersRequest { fingerprint: "f".to_owned(), ..request("r1") };
    let first = replay(&world, alike()).await;
    let replayed = |answer: &ReplayDeadLettersResponse| -> Vec<String> {
        answer.outcomes.iter().filter(|outcome| outcome.replayed).map(|outcome| outcome.id.clone()).collect()
    };
    letters.reverse();
    assert_eq!((first.outcomes.len(), replayed(&first)), (4, letters.clone()), "{first:?}");
    assert!(first.outcomes[0].id == damaged && first.outcomes[0].refused.contains("corrected body"), "{first:?}");
    within("the command comes", commands.recv()).await.expect("one");

    // The answer was lost; meanwhile something else died.
    let task = task(&world, &job, 4).await;
    let newer = letter(&world, &job, &task, &serde_json::to_vec(&task).expect("JSON"), "f").await;
    assert_eq!(replay(&world, alike()).await, first);
    let by_ids = |id: &str, ids: &[String]| ReplayDeadLettersRequest { ids: ids.to_vec(), ..request(id) };
    let again = replay(&world, by_ids("r1", &letters)).await;
    assert_eq!(replayed(&again), letters);
    let other = replay(&world, by_ids("r1", std::slice::from_ref(&newer))).await;
    assert!(other.outcomes[0].refused.contains("used before"), "{other:?}");
    let refused = replay(&world, by_ids("r2", &letters[..1])).await;
    assert_eq!(refused.outcomes[0].refused, "it was replayed already");
    assert!(commands.try_recv().is_err(), "there was nothing more to do");

    let late = replay(&world, ReplayDeadLettersRequest { fingerprint: "f".to_owned(), ..request("r3") }).await;
    assert_eq!(replayed(&late), [newer]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_task_of_a_cancelled_job_stays_dead() {
    let world = World::new().await;
    let job = world.submit_texts(&["a"]).await;
    let task = task(&world, &job, 0).await;
    let id = letter(&world, &job, &task, &serde_json::to_vec(&task).expect("JSON"), "f").await;
    let tx = world.parts.store.begin().await.expect("begun");
    let TaskId(task) = task.id.parse().expect("a task id");
    assert!(tx.mark_dead(task, Some(1), "Internal", "why").await.expect("written").is_some());
    tx.commit().await.expect("committed");
    world.move_job(&job, JobState::Queued, JobState::Cancelled).await;
    let answer = replay(&world, ReplayDeadLettersRequest { ids: vec![id], ..Default::default() }).await;
    assert_eq!((answer.outcomes[0].replayed, answer.outcomes[0].refused.as_str()), (false, "its job is cancelled"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_that_make_no_sense_are_refused() {
    let world = World::new().await;
    let job = world.submit_texts(&["a"]).await;
    let task = task(&world, &job, 0).await;
    let id = letter(&world, &job, &task, b"not json", "f").await;
    let ids = || vec![id.clone()];
    let request = ReplayDeadLettersRequest::default;
    let other =
        serde_json::json!({ "id": task.id, "job": task.job, "dispatch": 1, "prepare": { "mediaKey": "media/1" } });
    for (request, code, says) in [
        (request(), Grpc::InvalidArgument, "exactly one"),
        (ReplayDeadLettersRequest { ids: ids(), all: true, ..request() }, Grpc::InvalidArgument, "exactly one"),
        (ReplayDeadLettersRequest { ids: vec!["x".to_owned()], ..request() }, Grpc::NotFound, "`x`"),
        (
            ReplayDeadLettersRequest { all: true, edited_body: b"{}".to_vec(), ..request() },
            Grpc::InvalidArgument,
            "one id",
        ),
        (
            ReplayDeadLettersRequest { ids: ids(), edited_body: b"{}".to_vec(), ..request() },
            Grpc::InvalidArgument,
            "`id`",
        ),
        (
            ReplayDeadLettersRequest { ids: ids(), edited_body: other.to_string().into_bytes(), ..request() },
            Grpc::InvalidArgument,
            "`prepare`",
        ),
    ] {
        let status = world.letters().replay(request).await.expect_err(says);
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(says), "{status}");
    }
    assert!(world.letters().show(ShowDeadLetterRequest::default()).await.is_err());
    world.stop().await;
}
