//! Accepting jobs.

use std::{task::Poll, time::Duration};

use tonic::Code as Grpc;
use warren_blob::{Key, Prefix};
use warren_jobs::JobKind;
use warren_messages::wire::{
    EmbedSpec, GetJobRequest, Job, JobClass, JobLimits, JobState, ListJobsRequest, SubmitJobRequest,
    command::Command as What, job, submit_job_request::Spec,
};
use warren_store::JobFilter;

use super::world::{World, embed, eventually, reason, transcribe, uuid, wav, within};
use crate::{
    accept::{Asked, accept},
    auth::Caller,
    shown,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_sent_twice_is_one_job_and_one_command() {
    let world = World::new().await;
    let mut commands = world.coordinator(false);
    let media = world.upload("talk.wav", wav(1)).await;
    let request = || SubmitJobRequest {
        request_id: "mine-1".to_owned(),
        class: JobClass::Batch.into(),
        ..transcribe(&media.id, "whisper-tiny.en")
    };
    let first = world.jobs().submit(request()).await.expect("accepted").into_inner();
    assert_eq!((first.kind.as_str(), first.name.as_str()), ("transcribe", "talk.wav"));
    assert_eq!((first.state(), first.class(), first.sequence), (JobState::Queued, JobClass::Batch, 1));
    assert!(
        matches!(&first.spec, Some(job::Spec::Transcribe(spec)) if spec.model == "tiny.en" && spec.language == "en")
    );
    let row = world.parts.store.read().job(uuid(&first)).await.expect("read").expect("there");
    assert_eq!(row.language.as_deref(), Some("en"));

    let again = world.jobs().submit(request()).await.expect("the same").into_inner();
    assert_eq!(again.id, first.id);
    let limits = Some(JobLimits { timeout_s: 9, ..Default::default() });
    let other = SubmitJobRequest { limits, ..request() };
    let status = world.jobs().submit(other).await.expect_err("another request");
    assert_eq!((status.code(), reason(&status).as_str()), (Grpc::AlreadyExists, "RequestIdReused"));

    let command = within("the command comes", commands.recv()).await.expect("one");
    assert_eq!(command.actor, "local");
    assert!(matches!(command.command, Some(What::Submitted(submitted)) if submitted.job == first.id));
    let next = world.submit_texts(&["a"]).await;
    let command = within("the next command comes", commands.recv()).await.expect("one");
    assert!(matches!(command.command, Some(What::Submitted(submitted)) if submitted.job == next.id));
    eventually("the outbox is empty", async || world.parts.store.read().unsent_count().await.expect("read") == 0).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_texts_lie_in_object_storage_before_their_job_does() {
    let world = World::new().await;
    let long = "三".repeat(1_365);
    let request = || SubmitJobRequest { request_id: "texts".to_owned(), ..embed(&["\"\n", &long]) };
    let job = world.jobs().submit(request()).await.expect("accepted").into_inner();
    assert_eq!((job.progress_planned, job.progress_unit.as_str(), job.name.as_str()), (2.0, "texts", "2 texts"));
    assert!(matches!(&job.spec, Some(job::Spec::Embed(spec)) if spec.texts.is_empty()));
    let lines = world.parts.blobs.get_bytes(&Key::texts(uuid(&job)), 10_000).await.expect("there");
    let texts: Vec<String> =
        lines.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).expect("JSON")).collect();
    assert_eq!(texts, ["\"\n", &long]);
    assert!(lines.ends_with(b"\n"));

    // The texts of a repeated request are not kept a second time.
    let again = world.jobs().submit(request()).await.expect("the same").into_inner();
    assert_eq!(again.id, job.id);
    eventually("one object is left", async || {
        world.parts.blobs.list(Prefix::EVERYTHING).await.expect("listed").len() == 1
    })
    .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_texts_lie_in_the_row_of_their_job() {
    let world = World::new().await;
    let most = "三".repeat(1_365);
    let job = world.jobs().submit(embed(&["\0", &most])).await.expect("accepted").into_inner();
    assert!(matches!(&job.spec, Some(job::Spec::Embed(spec)) if spec.texts.is_empty()), "callers know them");
    let row = world.parts.store.read().job(uuid(&job)).await.expect("read").expect("there");
    assert!(matches!(shown::asked(&row), Ok(job::Spec::Embed(spec)) if spec.texts == ["\0", &most]));
    assert!(world.parts.blobs.list(Prefix::EVERYTHING).await.expect("listed").is_empty());
    world.stop().await;
}

/// Polls a call this often and drops it then, as the server does when its client goes. True: it ended before.
async fn ends_within(polls: u32, call: impl Future) -> bool {
    let mut call = std::pin::pin!(call);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if call.as_mut().poll(context).is_ready() {
            return Poll::Ready(true);
        }
        left -= 1;
        if left == 0 { Poll::Ready(false) } else { Poll::Pending }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_has_its_texts_whenever_its_caller_goes() {
    let world = World::new().await;
    let caller = Caller { name: "local".to_owned(), operator: true };
    let asked = || Asked {
        kind: JobKind::Embed,
        class: warren_jobs::JobClass::Default,
        media: None,
        name: "1 text".to_owned(),
        spec: job::Spec::Embed(EmbedSpec { texts: vec!["a".repeat(5_000)], ..Default::default() }),
        limits: warren_store::JobLimits::default(),
        resubmitted_from: None,
        request: None,
    };
    let jobs = async || {
        let filter = JobFilter { state: None, kind: None, caller: None };
        world.parts.store.read().jobs(&filter, None, 10_000).await.expect("read")
    };
    // Some call goes while its commit, which takes place all the same, is under way.
    let mut ended = 0;
    within("a job of a caller who has gone", async {
        while jobs().await.len() == ended {
            let mut polls = 1;
            while !ends_within(polls, accept(&world.parts, &caller, asked())).await {
                polls += 1;
            }
            ended += 1;
        }
    })
    .await;
    // What is going to be deleted is deleted by then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for job in jobs().await {
        let texts = world.parts.blobs.head(&Key::texts(job.id)).await.expect("reached");
        assert!(texts.is_some(), "{job:?}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_refused_with_its_field() {
    let world = World::new().await;
    let media = world.upload("talk.wav", wav(1)).await;
    let unknown = "media_00000000-0000-0000-0000-000000000001";
    let spec = |spec: Spec| SubmitJobRequest { spec: Some(spec), ..Default::default() };
    let long = JobLimits { timeout_s: 1_000_000, ..Default::default() };
    for (request, code, why, says) in [
        (SubmitJobRequest::default(), Grpc::InvalidArgument, "InputInvalid", "spec:"),
        (transcribe("", ""), Grpc::InvalidArgument, "InputInvalid", "transcribe.media"),
        (transcribe("talk.wav", ""), Grpc::InvalidArgument, "InputInvalid", "`talk.wav`"),
        (transcribe(unknown, ""), Grpc::NotFound, "", unknown),
        (transcribe(&media.id, "huge"), Grpc::NotFound, "ModelUnknown", "tiny.en, base"),
        (embed(&["a", "", "b"]), Grpc::InvalidArgument, "InputInvalid", "embed.texts[1]"),
        (spec(Spec::Embed(EmbedSpec::default())), Grpc::InvalidArgument, "InputInvalid", "embed.texts"),
        (SubmitJobRequest { class: 17, ..embed(&["a"]) }, Grpc::InvalidArgument, "InputInvalid", "class"),
        (
            SubmitJobRequest { limits: Some(long), ..embed(&["a"]) },
            Grpc::InvalidArgument,
            "InputInvalid",
            "limits.timeout_s",
        ),
    ] {
        let status = world.jobs().submit(request).await.expect_err(says);
        assert_eq!((status.code(), reason(&status).as_str()), (code, why), "{status}");
        assert!(status.message().contains(says), "{status}");
    }
    let listed = world.jobs().list(ListJobsRequest::default()).await.expect("listed").into_inner();
    assert!(listed.jobs.is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_have_pages_and_their_tokens_one_filter() {
    let world = World::new().await;
    let mut ids = Vec::new();
    let media = world.upload("talk.wav", wav(1)).await;
    for number in 0..5 {
        let request = if number % 2 == 0 { embed(&["a"]) } else { transcribe(&media.id, "") };
        ids.insert(0, world.jobs().submit(request).await.expect("accepted").into_inner().id);
    }
    let page = async |kind: &str, token: &str| {
        let request =
            ListJobsRequest { kind: kind.to_owned(), page_size: 2, page_token: token.to_owned(), ..Default::default() };
        world.jobs().list(request).await.map(tonic::Response::into_inner)
    };
    let names = |jobs: &[Job]| jobs.iter().map(|job| job.id.clone()).collect::<Vec<_>>();
    let first = page("", "").await.expect("a page");
    assert_eq!(names(&first.jobs), ids[..2]);
    let second = page("", &first.next_page_token).await.expect("a page");
    assert_eq!(names(&second.jobs), ids[2..4]);
    let last = page("", &second.next_page_token).await.expect("a page");
    assert_eq!((names(&last.jobs), last.next_page_token.as_str()), (ids[4..].to_vec(), ""));
    let transcribes = page("transcribe", "").await.expect("a page");
    assert_eq!((transcribes.jobs.len(), transcribes.next_page_token.as_str()), (2, ""));

    let status = page("embed", &first.next_page_token).await.expect_err("another filter");
    assert!(status.message().starts_with("page_token"), "{status}");
    for kind in ["dance", "query"] {
        let status = page(kind, "").await.expect_err("no kind");
        assert!(status.message().starts_with(&format!("kind: `{kind}`")), "{status}");
    }
    let large = ListJobsRequest { page_size: 501, ..Default::default() };
    assert!(world.jobs().list(large).await.expect_err("large").message().starts_with("page_size"));
    let failed = ListJobsRequest { state: JobState::Failed.into(), ..Default::default() };
    assert!(world.jobs().list(failed).await.expect("none").into_inner().jobs.is_empty());
    let status = world.jobs().get(GetJobRequest { id: "1".to_owned() }).await.expect_err("no id");
    assert_eq!(status.code(), Grpc::InvalidArgument);
    world.stop().await;
}
