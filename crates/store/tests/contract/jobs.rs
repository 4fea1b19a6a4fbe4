use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use warren_jobs::{JobKind, JobState, TaskKind};
use warren_store::{
    EmbeddingRow, EventLevel, Heartbeat, JobFilter, Media, NewEvent, NewJob, NewLetter, NewOutbox, Segment,
    SubmitRequest, Submitted, Want,
};

use crate::{letters::letter, world::World};

pub(crate) async fn submit_is_idempotent(world: World) {
    let store = &world.store;
    let media = Media {
        id: world.clock.new_id(),
        caller: "ada".into(),
        name: "talk.wav".into(),
        container: "wav".into(),
        size_bytes: 44,
        sha256: "00".into(),
        blob_key: "media/1".into(),
        created: world.clock.now(),
    };
    store.write(async |tx| tx.insert_media(&media).await).await.unwrap();
    assert_eq!(store.read().media(media.id).await.unwrap(), Some(media.clone()));

    let message = NewOutbox {
        exchange: "warren.event".into(),
        routing_key: "warren.job".into(),
        kind: "warren.v1.Command".into(),
        message_id: "m1".into(),
        body: b"{}".to_vec(),
        headers: BTreeMap::new(),
        relay: "ingest-1".into(),
    };
    let request = SubmitRequest { request_id: Some("r1".into()), body_hash: "h1".into(), outbox: vec![message] };
    let mut new = world.new_job();
    new.media_id = Some(media.id);
    let submit = async |new: &_, request: &_| store.write(async |tx| tx.submit(new, request).await).await.unwrap();
    let Submitted::New(first) = submit(&new, &request).await else { panic!("not new") };
    assert_eq!(store.read().job(new.id).await.unwrap(), Some(first.clone()));
    assert_eq!((first.state, first.sequence, first.media_id), (JobState::Queued, 1, Some(media.id)));

    new.id = world.clock.new_id();
    assert_eq!(submit(&new, &request).await, Submitted::Existing(first));
    let other = SubmitRequest { body_hash: "h2".into(), ..request.clone() };
    assert_eq!(submit(&new, &other).await, Submitted::Conflict);
    assert_eq!(store.read().unsent("ingest-1", &[], 9).await.unwrap().len(), 1);
    assert_eq!(store.read().audit(9).await.unwrap().len(), 1);

    // The request id belongs to its caller.
    new.caller = "grace".into();
    assert!(matches!(submit(&new, &other).await, Submitted::New(_)));
    world.clock.advance(Duration::from_secs(86_400));
    assert_eq!(store.write(async |tx| tx.purge_requests(Duration::from_secs(60)).await).await.unwrap(), 2);
}

pub(crate) async fn events_are_numbered_without_gaps(world: World) {
    let (one, two) = (world.job().await, world.job().await);
    let event = |name: &str| NewEvent::new(EventLevel::Warning, name, "why").with(json!({ "wait_ms": 5 }));
    for (job, name) in [(one, "a"), (two, "b"), (one, "c")] {
        world.store.write(async |tx| tx.event(job, &event(name)).await).await.unwrap();
    }
    let nobody = world.clock.new_id();
    let lost = world.store.write(async |tx| tx.event(nobody, &event("lost")).await).await;
    assert!(matches!(lost, Err(warren_store::StoreError::Conflict { .. })), "{lost:?}");
    let next = world.store.write(async |tx| tx.event(one, &event("d")).await).await.unwrap();
    assert_eq!(next, 4);
    let names = |events: Vec<warren_store::JobEvent>| -> Vec<(i64, String)> {
        events.into_iter().map(|each| (each.sequence, each.event.event)).collect()
    };
    let after = world.store.read().events_after(one, 1, 10).await.unwrap();
    assert_eq!(after[0].event, event("a"));
    assert_eq!(names(after), [(2, "a".into()), (3, "c".into()), (4, "d".into())]);
    let newest = world.store.read().newest_events(two, 1).await.unwrap();
    assert_eq!(names(newest), [(2, "b".into())]);
    assert_eq!(world.store.read().job(one).await.unwrap().unwrap().sequence, 4);
}

pub(crate) async fn changes_of_a_job_are_seen(world: World) {
    let (store, job) = (&world.store, world.job().await);
    let event = |name: &str| NewEvent::new(EventLevel::Info, name, "");
    let now = world.clock.now();
    store
        .write(async |tx| {
            let moved = tx.set_job_state(job, JobState::Queued, JobState::Running, &event("job.running")).await?;
            assert_eq!(moved, Some(2));
            let again = tx.set_job_state(job, JobState::Queued, JobState::Running, &event("job.running")).await?;
            assert_eq!(again, None);
            tx.set_language(job, "de").await?;
            tx.set_duration(job, 12.5).await?;
            tx.add_planned(job, 4.5, true).await?;
            tx.refresh_progress(&[(job, 3.5)]).await?;
            tx.set_deadline(job, now.plus(Duration::from_secs(5))).await?;
            let beat = |step: &str, at| Heartbeat { job, step: step.into(), at };
            tx.heartbeats(&[beat("decode", now.plus(Duration::from_secs(1))), beat("older", now)]).await?;
            tx.set_job_error(job, "WorkerLost", "lost in decode").await?;
            tx.set_job_state(job, JobState::Running, JobState::Failed, &event("job.failed")).await?;
            Ok(())
        })
        .await
        .unwrap();
    let failed = store.read().job(job).await.unwrap().unwrap();
    assert_eq!((failed.state, failed.finished, failed.started), (JobState::Failed, Some(now), Some(now)));
    assert_eq!((failed.progress_done, failed.progress_planned, failed.planned_final), (3.5, 7.5, true));
    assert_eq!((failed.language.as_deref(), failed.duration_s), (Some("de"), 12.5));
    assert_eq!((failed.last_step.as_deref(), failed.sequence), (Some("decode"), 3));
    assert_eq!(failed.error_code.as_deref(), Some("WorkerLost"));

    store
        .write(async |tx| tx.set_job_state(job, JobState::Failed, JobState::Running, &event("job.redriven")).await)
        .await
        .unwrap();
    let redriven = store.read().job(job).await.unwrap().unwrap();
    assert_eq!((redriven.finished, redriven.error_code, redriven.redrive_count), (None, None, 1));
    assert_eq!(redriven.started, Some(now));
    assert!(store.read().overdue_jobs(now, 9).await.unwrap().is_empty());
    assert_eq!(store.read().overdue_jobs(now.plus(Duration::from_secs(5)), 9).await.unwrap().len(), 1);
    let other = world.job().await;
    let open = [(JobKind::Embed, JobState::Queued, 1), (JobKind::Embed, JobState::Running, 1)];
    assert_eq!(store.read().open_job_counts().await.unwrap(), open);
    store
        .write(async |tx| tx.set_job_state(other, JobState::Queued, JobState::Cancelled, &event("job.cancelled")).await)
        .await
        .unwrap();
    assert_eq!(store.read().open_job_counts().await.unwrap(), open[1..]);
}

pub(crate) async fn paging_is_stable_while_jobs_arrive(world: World) {
    // All in the same millisecond, so that only the id tells them apart.
    let mut known = Vec::new();
    for _ in 0..7 {
        known.push(world.job().await);
    }
    known.sort_unstable_by(|a, b| b.cmp(a));
    let filter = JobFilter { caller: Some("ada".into()), kind: Some(JobKind::Embed), state: Some(JobState::Queued) };
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = world.store.read().jobs(&filter, after.as_ref(), 3).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.page_key());
        seen.extend(page.iter().map(|job| job.id));
        world.clock.advance(Duration::from_millis(1));
        world.job().await;
    }
    assert_eq!(seen, known);
    let other = JobFilter { caller: Some("' OR 1 = 1 --".into()), ..JobFilter::default() };
    assert!(world.store.read().jobs(&other, None, 3).await.unwrap().is_empty());
    assert_eq!(world.store.read().jobs_by_id(&known[..2]).await.unwrap().len(), 2);
}

pub(crate) async fn results_are_stored_once(world: World) {
    let (store, job) = (&world.store, world.job().await);
    let segment = |task_ordinal, idx, text: &str| Segment {
        task_ordinal,
        idx,
        start_s: idx as f64,
        end_s: idx as f64 + 0.5,
        text: text.into(),
        avg_logprob: -0.25,
        no_speech_prob: 0.1,
    };
    let vector =
        |ordinal, value: f32| EmbeddingRow { job, ordinal, model: "m".into(), vector: vec![value, -value, 0.1] };
    for text in ["first", "second"] {
        store
            .write(async |tx| {
                tx.replace_segments(job, 1, &[segment(1, 0, "later")]).await?;
                tx.replace_segments(job, 0, &[segment(0, 0, text), segment(0, 1, text)]).await?;
                tx.upsert_embeddings(&[vector(0, 1.0), vector(1, 2.0)]).await?;
                tx.upsert_embeddings(&[vector(1, 9.0), vector(1, 3.0), vector(2, 4.0)]).await
            })
            .await
            .unwrap();
    }
    let segments = store.read().segments(job).await.unwrap();
    assert_eq!(segments, [segment(0, 0, "second"), segment(0, 1, "second"), segment(1, 0, "later")]);
    assert_eq!(store.read().embeddings(job, 1, 9).await.unwrap(), [vector(1, 3.0), vector(2, 4.0)]);
    assert_eq!(store.read().embeddings(job, 0, 1).await.unwrap(), [vector(0, 1.0)]);
}

pub(crate) async fn a_soft_limit_takes_out_what_has_not_begun(world: World) {
    let store = &world.store;
    let mut new = world.new_job();
    new.limits.soft_timeout_s = 60;
    let job = world.submit(new).await;
    let tasks: Vec<_> = (0..4).map(|ordinal| world.task(job, ordinal)).collect();
    let event = NewEvent::new(EventLevel::Info, "job.started", "");
    let now = world.clock.now();
    store
        .write(async |tx| {
            tx.insert_tasks(&tasks).await?;
            tx.release_next(&[Want { job, kind: TaskKind::Embed, count: 2 }]).await?;
            tx.set_job_state(job, JobState::Queued, JobState::Running, &event).await?;
            tx.set_deadline(job, now.plus(Duration::from_secs(600))).await?;
            // One that was put off has not begun either.
            tx.retry_announced(tasks[1].id, 1, now.plus(Duration::from_secs(100))).await
        })
        .await
        .unwrap();
    // One without a soft limit, and one whose tasks all run.
    world.job_with_tasks(2, 1).await;
    let overdue = async |after: u64| {
        let jobs = store.read().softly_overdue_jobs(now.plus(Duration::from_secs(after)), 9).await.unwrap();
        jobs.into_iter().map(|job| job.id).collect::<Vec<_>>()
    };
    assert!(overdue(59).await.is_empty());
    assert_eq!(overdue(60).await, [job]);

    world.clock.advance(Duration::from_secs(60));
    let mut stopped = store.write(async |tx| tx.begin_no_more(job).await).await.unwrap();
    stopped.sort_unstable();
    let mut wanted: Vec<_> = tasks[1..].iter().map(|task| task.id).collect();
    wanted.sort_unstable();
    assert_eq!(stopped, wanted);
    let counts = store.read().counts(job).await.unwrap();
    assert_eq!((counts.released, counts.cancelled, counts.open()), (1, 3, 1));
    let row = store.read().job(job).await.unwrap().unwrap();
    assert_eq!((row.planned_final, row.soft_deadline), (true, None));
    assert!(overdue(600).await.is_empty());
    assert!(store.write(async |tx| tx.begin_no_more(job).await).await.unwrap().is_empty());
}

pub(crate) async fn a_job_is_deleted_with_all_that_is_its_own(world: World) {
    let store = &world.store;
    let media = Media {
        id: world.clock.new_id(),
        caller: "ada".into(),
        name: "talk.wav".into(),
        container: "wav".into(),
        size_bytes: 44,
        sha256: "00".into(),
        blob_key: "media/1".into(),
        created: world.clock.now(),
    };
    store.write(async |tx| tx.insert_media(&media).await).await.unwrap();
    let [first, second] = [(), ()].map(|()| NewJob { media_id: Some(media.id), ..world.new_job() });
    let again = NewJob { resubmitted_from: Some(first.id), ..second };
    let named = SubmitRequest { request_id: Some("once".into()), ..SubmitRequest::default() };
    store.write(async |tx| tx.submit(&first, &named).await).await.unwrap();
    let again = world.submit(again).await;
    let tasks = [world.task(first.id, 0)];
    let vector = EmbeddingRow { job: first.id, ordinal: 0, model: "m".into(), vector: vec![1.0] };
    let dead = NewLetter { job_id: Some(first.id), ..letter("of a command", "Internal") };
    store
        .write(async |tx| {
            tx.insert_tasks(&tasks).await?;
            tx.upsert_embeddings(std::slice::from_ref(&vector)).await?;
            tx.insert_letter(&dead).await
        })
        .await
        .unwrap();
    let delete = async |job| store.write(async |tx| tx.delete_job(job).await).await.unwrap();
    assert!(!delete(first.id).await, "it is open");
    let end = async |job| {
        let event = NewEvent::new(EventLevel::Info, "job.cancelled", "over");
        store
            .write(async |tx| {
                tx.cancel_open(job).await?;
                tx.set_job_state(job, JobState::Queued, JobState::Cancelled, &event).await
            })
            .await
            .unwrap()
            .unwrap();
    };
    end(first.id).await;
    end(again).await;
    assert!(!delete(first.id).await, "a letter of it may be replayed");
    assert_eq!(store.read().letters_of_job(first.id).await.unwrap(), 1);
    store
        .write(async |tx| {
            tx.discard_letter(&dead.id, "not needed").await?;
            tx.letters_left(std::slice::from_ref(&dead.id)).await
        })
        .await
        .unwrap();
    assert!(delete(first.id).await);
    assert!(!delete(first.id).await, "it is gone");

    let read = store.read();
    assert!(read.job(first.id).await.unwrap().is_none() && read.tasks_of(first.id).await.unwrap().is_empty());
    assert!(read.newest_events(first.id, 9).await.unwrap().is_empty());
    assert!(read.embeddings(first.id, 0, 9).await.unwrap().is_empty());
    assert!(read.letter(&dead.id).await.unwrap().is_none());
    assert!(read.media(media.id).await.unwrap().is_some(), "another job names it");
    assert_eq!(read.job(again).await.unwrap().and_then(|job| job.resubmitted_from), Some(first.id));
    let renamed = world.new_job();
    let submitted = store.write(async |tx| tx.submit(&renamed, &named).await).await.unwrap();
    assert!(matches!(submitted, Submitted::New(_)), "its request id is free again");
    assert!(delete(again).await);
    assert!(store.read().media(media.id).await.unwrap().is_none());
}
