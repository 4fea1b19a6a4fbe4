//! Dead letters.

use std::collections::BTreeMap;

use tonic::Code as Grpc;
use warren_jobs::{JobState, TaskKind};
use warren_messages::{
    ids::TaskId,
    wire::{
        self, DeadLetterFilter, DeadLetterGroupsRequest, DeadLetterState, DeadLetterStatsRequest,
        DiscardDeadLettersRequest, ImportDeadLettersRequest, Job, ListDeadLettersRequest, ReplayDeadLettersRequest,
        ReplayDeadLettersResponse, ReplayState, ShowDeadLetterRequest, Texts, command::Command as What,
        embed_task::Input, task::Work,
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
        replay_of: None,
        body: body.to_vec(),
        content_type: "application/json".to_owned(),
        headers: BTreeMap::from([("x-warren-job".to_owned(), job.id.clone())]),
    };
    let tx = world.parts.store.begin().await.expect("begun");
    assert!(tx.insert_letter(&new).await.expect("written"));
    tx.commit().await.expect("committed");
    id
}

fn alike(fingerprint: &str) -> DeadLetterFilter {
    DeadLetterFilter { fingerprint: fingerprint.to_owned(), ..DeadLetterFilter::default() }
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
    assert!(dry.outcomes[1].refused.contains("corrected body"), "the oldest is first: {dry:?}");
    assert_eq!((dry.outcomes[0].refused.as_str(), dry.outcomes[0].queue.as_str()), ("", "warren.task.embed"));
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
    let filter = DeadLetterFilter { state: DeadLetterState::Replayed.into(), ..Default::default() };
    let replayed = ListDeadLettersRequest { filter: Some(filter), ..Default::default() };
    let replayed = world.letters().list(replayed).await.expect("listed").into_inner();
    assert_eq!((replayed.letters[0].id.as_str(), replayed.letters[0].replays), (damaged.as_str(), 1));

    let again = replay(&world, ReplayDeadLettersRequest { ids: vec![damaged], ..Default::default() }).await;
    assert_eq!(again.outcomes[0].refused, "it was replayed already");
    let tx = world.parts.store.begin().await.expect("begun");
    let TaskId(id) = good.id.parse().expect("a task id");
    let to = warren_jobs::TaskState::Done;
    tx.finish(&Finish { task: id, dispatch: 1, to, worker: "w".to_owned(), error: None }).await.expect("done");
    tx.commit().await.expect("committed");
    let late = ReplayDeadLettersRequest { filter: Some(alike("f1")), dry_run: true, ..Default::default() };
    assert_eq!(replay(&world, late.clone()).await.outcomes[0].refused, "its task is done");
    assert_eq!(replay(&world, ReplayDeadLettersRequest { force: true, ..late }).await.outcomes[0].refused, "");
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
    let all_alike = || ReplayDeadLettersRequest { filter: Some(alike("f")), ..request("r1") };
    let first = replay(&world, all_alike()).await;
    let replayed = |answer: &ReplayDeadLettersResponse| -> Vec<String> {
        answer.outcomes.iter().filter(|outcome| outcome.replayed).map(|outcome| outcome.id.clone()).collect()
    };
    assert_eq!((first.outcomes.len(), replayed(&first)), (4, letters.clone()), "{first:?}");
    assert!(first.outcomes[3].id == damaged && first.outcomes[3].refused.contains("corrected body"), "{first:?}");
    assert_eq!((first.state(), first.request_id.as_str()), (ReplayState::Finished, "r1"));
    within("the command comes", commands.recv()).await.expect("one");

    // The answer was lost; meanwhile something else died.
    let task = task(&world, &job, 4).await;
    let newer = letter(&world, &job, &task, &serde_json::to_vec(&task).expect("JSON"), "f").await;
    assert_eq!(replay(&world, all_alike()).await, first);
    assert_eq!(replay(&world, request("r1")).await, first, "its name is enough");
    let by_ids = |id: &str, ids: &[String]| ReplayDeadLettersRequest { ids: ids.to_vec(), ..request(id) };
    let again = replay(&world, by_ids("r1", &letters)).await;
    assert_eq!(replayed(&again), letters);
    let other = replay(&world, by_ids("r1", std::slice::from_ref(&newer))).await;
    assert!(other.outcomes[0].refused.contains("used before"), "{other:?}");
    assert!(commands.try_recv().is_err(), "there was nothing more to do");
    let refused = replay(&world, by_ids("r2", &letters[..1])).await;
    assert_eq!(refused.outcomes[0].refused, "it was replayed already");
    within("the command comes", commands.recv()).await.expect("one");

    let slowly = ReplayDeadLettersRequest { filter: Some(alike("f")), rate: 5.0, ..request("r3") };
    let late = replay(&world, slowly).await;
    assert_eq!((late.state(), late.outcomes.len()), (ReplayState::Running, 2), "it is not waited for: {late:?}");
    assert!(replayed(&late).contains(&newer), "{late:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_grouped_counted_discarded_and_put_back() {
    let world = World::new().await;
    let _commands = world.coordinator(true);
    let job = world.submit_texts(&["a"]).await;
    let mut letters = Vec::new();
    for (ordinal, fingerprint) in [(0, "f"), (1, "f"), (2, "g")] {
        let task = task(&world, &job, ordinal).await;
        letters.push(letter(&world, &job, &task, b"\xff\x00", fingerprint).await);
    }
    let groups = world.letters().groups(DeadLetterGroupsRequest::default()).await.expect("grouped").into_inner();
    let found: Vec<_> =
        groups.groups.iter().map(|group| (group.fingerprint.as_str(), group.letters, group.jobs)).collect();
    assert_eq!((found, groups.letters), (vec![("f", 2, 1), ("g", 1, 1)], 3));
    let stats = world.letters().stats(DeadLetterStatsRequest {}).await.expect("counted").into_inner();
    assert_eq!((stats.counts.len(), stats.counts[0].letters, stats.in_queue), (1, 3, 3));
    assert!(stats.in_broker.is_some(), "RabbitMQ's page counts, too");
    let list = ListDeadLettersRequest { bodies: true, ..Default::default() };
    let exported = world.letters().list(list.clone()).await.expect("listed").into_inner().letters;
    assert_eq!(exported[0].body, b"\xff\x00");
    assert!(world.letters().list(ListDeadLettersRequest { page_size: 21, ..list }).await.is_err());

    let discard = |reason: &str, confirm, dry_run| DiscardDeadLettersRequest {
        filter: Some(alike("f")),
        reason: reason.to_owned(),
        confirm,
        dry_run,
        ..Default::default()
    };
    let dry = world.letters().discard(discard("", 0, true)).await.expect("tried").into_inner();
    assert_eq!(dry.outcomes.iter().filter(|outcome| outcome.discarded).count(), 2);
    for (request, says) in [(discard("", 2, false), "reason"), (discard("wrong", 3, false), "confirm")] {
        let status = world.letters().discard(request).await.expect_err("refused");
        assert!(status.message().starts_with(says), "{status}");
    }
    let done = world.letters().discard(discard("wrong", 2, false)).await.expect("done").into_inner();
    assert!(done.outcomes.iter().all(|outcome| outcome.discarded), "{done:?}");
    let left = world.letters().list(ListDeadLettersRequest::default()).await.expect("listed").into_inner();
    assert_eq!((left.total, left.letters[0].id.as_str()), (1, letters[2].as_str()));

    let import = |dry_run| ImportDeadLettersRequest { letters: exported.clone(), dry_run };
    let tried = world.letters().import(import(true)).await.expect("tried").into_inner();
    let done = world.letters().import(import(false)).await.expect("put back").into_inner();
    assert_eq!(tried.outcomes, done.outcomes);
    assert_eq!(done.outcomes.iter().filter(|outcome| outcome.imported).count(), 2, "{done:?}");
    assert_eq!(
        done.outcomes.iter().find(|outcome| !outcome.imported).map(|one| one.refused.as_str()),
        Some("it is there: dead")
    );
    let mut wrong = import(false);
    wrong.letters[0].id = "x".to_owned();
    let status = world.letters().import(wrong).await.expect_err("refused");
    assert!(status.message().starts_with("letters[0].id"), "{status}");
    let mut unsendable = import(false);
    unsendable.letters[1].kind = "k".repeat(256);
    let status = world.letters().import(unsendable).await.expect_err("refused");
    assert!(status.message().starts_with("letters[1].kind: has 256 bytes"), "{status}");
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
    let answer = replay(&world, ReplayDeadLettersRequest { ids: vec![id], dry_run: true, ..Default::default() }).await;
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
        (ReplayDeadLettersRequest { all: true, rate: f64::NAN, ..request() }, Grpc::InvalidArgument, "rate"),
        (
            ReplayDeadLettersRequest {
                filter: Some(DeadLetterFilter { job: "x".to_owned(), ..DeadLetterFilter::default() }),
                ..request()
            },
            Grpc::InvalidArgument,
            "filter.job",
        ),
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
