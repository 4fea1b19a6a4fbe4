//! The life of a job as its caller sees it: its states, its history, its speed, why it waits, doing it again, its end.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tonic::{Code, Response, Status, transport::Channel};
use warren_local::http;
use warren_messages::{
    to_millis,
    wire::{
        CancelJobRequest, DeleteJobRequest, EmbedSpec, ExplainJobRequest, GetEmbeddingsRequest, GetJobRequest, Job,
        JobEvent, JobEventsRequest, JobExplanation, JobLimits, JobState, ListJobsRequest, ResubmitJobRequest,
        SubmitJobRequest, TranscribeSpec, WaitingFor, embeddings_client::EmbeddingsClient, job,
        jobs_client::JobsClient, submit_job_request::Spec,
    },
};
use warren_recordings::error_rate;
use warren_tests::{
    cases::Cases,
    nightly,
    recordings::inaugural,
    stack::{Stack, Wishes},
    wait::until,
    wave,
};

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn a_job_has_a_life_that_can_be_followed() {
    let settings = "[coordinator.release]\ntask_texts = 1\ntask_audio_s = 30\n\
                    [[coordinator.devices]]\nname = \"cpu\"\nmax_concurrent = 8\n\
                    [coordinator.reaper]\ninterval_s = 1\n[batch-embedding.work]\nslots = 1\n";
    let stack = Stack::with(&Wishes { settings: settings.to_owned(), ..Wishes::default() });
    let caller = Caller::of(&stack);
    let mut cases = Cases::new();
    cases.case("only what is legal happens to a job", || only_legal_moves(&caller));
    cases.case("one call shows a job, another its events", || shown_with_its_events(&stack, &caller));
    cases.case("what has ended does not change, and can be done again", || done_again(&stack, &caller));
    cases.case("many texts are one row whose progress grows", || many_texts(&caller));
    cases.case("a job explains why it does not run", || explained(&stack, &caller));
    cases.case("a long recording: speed, end, seams, quality", || a_long_recording(&stack, &caller));
    cases.case("jobs are listed page by page", || listed(&caller));
    cases.case("an ended job is deleted with all that it made", || deleted(&stack, &caller));
    cases.case("four workers do nearly four times the work", || four_workers(&stack, &caller));
    cases.finish();
    stack.stop();
}

/// A caller over gRPC.
struct Caller {
    runtime: Runtime,
    channel: Channel,
}

impl Caller {
    fn of(stack: &Stack) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let url = stack.endpoints()["grpc"]["url"].as_str().expect("an address").to_owned();
        let channel = runtime.block_on(async { Channel::from_shared(url).expect("an address").connect_lazy() });
        Self { runtime, channel }
    }

    fn ask<T>(&self, call: impl AsyncFnOnce(JobsClient<Channel>) -> Result<Response<T>, Status>) -> Result<T, Status> {
        self.runtime.block_on(call(JobsClient::new(self.channel.clone()))).map(Response::into_inner)
    }

    fn submit(&self, request: SubmitJobRequest) -> Job {
        self.ask(async |mut jobs| jobs.submit(request).await).expect("accepted")
    }

    /// One task for each text.
    fn embed(&self, model: &str, texts: usize) -> Job {
        self.submit(embed(model, (0..texts).map(|text| format!("text {text}")).collect()))
    }

    fn get(&self, id: &str) -> Result<Job, Status> {
        let request = GetJobRequest { id: id.to_owned() };
        self.ask(async |mut jobs| jobs.get(request).await)
    }

    fn job(&self, id: &str) -> Job {
        self.get(id).expect("there")
    }

    fn events(&self, id: &str, limit: u32) -> Result<Vec<JobEvent>, Status> {
        let request = JobEventsRequest { id: id.to_owned(), limit };
        self.ask(async |mut jobs| jobs.events(request).await).map(|answer| answer.events)
    }

    fn cancel(&self, id: &str) -> u32 {
        let request = CancelJobRequest { id: id.to_owned(), reason: String::new() };
        self.ask(async |mut jobs| jobs.cancel(request).await).expect("a cancel is never refused").tasks_cancelled
    }

    fn resubmit(&self, id: &str) -> Result<Job, Status> {
        let request = ResubmitJobRequest { id: id.to_owned(), request_id: String::new() };
        self.ask(async |mut jobs| jobs.resubmit(request).await)
    }

    fn delete(&self, id: &str) -> Result<bool, Status> {
        let request = DeleteJobRequest { id: id.to_owned() };
        self.ask(async |mut jobs| jobs.delete(request).await).map(|answer| answer.effective)
    }

    fn explain(&self, id: &str) -> JobExplanation {
        let request = ExplainJobRequest { id: id.to_owned() };
        self.ask(async |mut jobs| jobs.explain(request).await).expect("explained")
    }

    fn ended(&self, id: &str) -> Job {
        until("its end", PATIENCE, || Some(self.job(id)).filter(has_ended))
    }

    fn vectors(&self, id: &str) -> Vec<Vec<f32>> {
        let request = GetEmbeddingsRequest { job: id.to_owned(), first: 0 };
        self.runtime.block_on(async {
            let mut batches =
                EmbeddingsClient::new(self.channel.clone()).get(request).await.expect("vectors").into_inner();
            let mut vectors = Vec::new();
            while let Some(batch) = batches.message().await.expect("vectors") {
                vectors.extend(batch.embeddings.into_iter().map(|embedding| embedding.values));
            }
            vectors
        })
    }

    fn list(&self, request: ListJobsRequest) -> (Vec<Job>, String) {
        let page = self.ask(async |mut jobs| jobs.list(request).await).expect("a page");
        (page.jobs, page.next_page_token)
    }
}

fn embed(model: &str, texts: Vec<String>) -> SubmitJobRequest {
    let spec = Spec::Embed(EmbedSpec { texts, model: model.to_owned(), index: false });
    SubmitJobRequest { spec: Some(spec), ..SubmitJobRequest::default() }
}

fn has_ended(job: &Job) -> bool {
    matches!(job.state(), JobState::Succeeded | JobState::Failed | JobState::Cancelled)
}

fn code<T: std::fmt::Debug>(answer: Result<T, Status>) -> Code {
    answer.expect_err("refused").code()
}

/// When it was accepted, in milliseconds.
fn created(job: &Job) -> i64 {
    to_millis(job.created_at.as_ref().expect("every job has"))
}

/// When it began.
fn started(job: &Job) -> i64 {
    to_millis(job.started_at.as_ref().unwrap_or_else(|| panic!("not begun: {job:?}")))
}

/// When it ended.
fn finished(job: &Job) -> i64 {
    to_millis(job.finished_at.as_ref().unwrap_or_else(|| panic!("not ended: {job:?}")))
}

fn only_legal_moves(caller: &Caller) {
    let given = std::env::var("WARREN_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or_else(rand::random);
    println!("    repeat with WARREN_TEST_SEED={seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let mut jobs: Vec<String> = Vec::new();
    let mut refused = 0;
    for round in 0..80 {
        if round % 8 == 0 {
            jobs.push(caller.embed("drill-wait-50", 3).id);
        }
        let id = jobs[chance.random_range(0..jobs.len())].clone();
        let before = caller.job(&id);
        match chance.random_range(0..3) {
            0 => {
                let stopped = caller.cancel(&id);
                assert!(!has_ended(&before) || stopped == 0, "{before:?}");
            }
            1 => match caller.resubmit(&id) {
                Ok(new) => {
                    assert!(has_ended(&caller.job(&id)) && new.id != id);
                    jobs.push(new.id);
                }
                Err(status) => {
                    assert_eq!((status.code(), has_ended(&before)), (Code::FailedPrecondition, false), "{status}");
                    refused += 1;
                }
            },
            // What has ended is deleted below.
            _ if has_ended(&before) => {}
            _ => match caller.delete(&id) {
                Ok(_) => jobs.retain(|job| *job != id),
                Err(status) => {
                    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
                    refused += 1;
                }
            },
        }
    }
    println!("    {} jobs, {refused} refusals", jobs.len());
    assert!(refused > 0, "nothing illegal was tried");
    for id in &jobs {
        let job = caller.ended(id);
        let events: Vec<String> =
            caller.events(id, 0).expect("events").into_iter().rev().map(|event| event.event).collect();
        let moves: Vec<&str> = events
            .iter()
            .map(String::as_str)
            .filter(|event| {
                ["job.submitted", "job.started", "job.succeeded", "job.failed", "job.cancelled"].contains(event)
            })
            .collect();
        let end = format!("job.{}", warren_state(job.state()));
        let started = job.started_at.is_some();
        let wanted: Vec<&str> =
            if started { vec!["job.submitted", "job.started", &end] } else { vec!["job.submitted", &end] };
        assert_eq!(moves, wanted, "{events:?}");
        assert_eq!(events.last(), Some(&end), "nothing happens to it after its end");
    }
}

fn warren_state(state: JobState) -> String {
    state.as_str_name().trim_start_matches("JOB_STATE_").to_lowercase()
}

fn shown_with_its_events(stack: &Stack, caller: &Caller) {
    let job = caller.ended(&caller.embed("drill-20", 3).id);
    let limits = job.limits.expect("limits");
    assert_eq!((job.kind.as_str(), job.name.as_str(), job.state()), ("embed", "3 texts", JobState::Succeeded));
    assert!(matches!(&job.spec, Some(job::Spec::Embed(spec)) if spec.model == "drill-20"), "{job:?}");
    assert_eq!((job.progress_done, job.progress_planned, job.planned_final), (3.0, 3.0, true));
    assert_eq!((job.error_code.as_str(), job.error_message.as_str(), limits.timeout_s), ("", "", 0));
    assert!(created(&job) <= started(&job) && started(&job) <= finished(&job), "{job:?}");
    assert_eq!(job.tasks.map(|tasks| tasks.done), Some(3));

    // One that failed says why.
    let limits = JobLimits { timeout_s: 1, ..JobLimits::default() };
    let late = embed("drill-wait-5000", vec!["late".to_owned(), "later".to_owned()]);
    let failed = caller.ended(&caller.submit(SubmitJobRequest { limits: Some(limits), ..late }).id);
    assert_eq!((failed.state(), failed.error_code.as_str()), (JobState::Failed, "JobTimeout"), "{failed:?}");
    assert!(failed.error_message.contains("limit of 1 s") && failed.finished_at.is_some(), "{failed:?}");
    let told = stack.warren(&["jobs", "show", "--json", &failed.id]).ok().json();
    assert_eq!((&told["error_code"], &told["state"]), (&json!("JobTimeout"), &json!("failed")), "{told}");
    assert_eq!(told["events"][0]["sequence"], failed.sequence, "the newest first: {told}");

    let all = caller.events(&job.id, 0).expect("events");
    assert!(all.windows(2).all(|pair| pair[0].sequence > pair[1].sequence), "newest first: {all:?}");
    assert_eq!(all.last().map(|event| event.event.as_str()), Some("job.submitted"));
    assert!(all.iter().all(|event| event.at.is_some() && !event.message.is_empty()), "{all:?}");
    assert_eq!(all.first().map(|event| event.sequence), Some(job.sequence));
    assert_eq!(caller.events(&job.id, 2).expect("events"), all[..2], "no more than asked for");
    assert_eq!(code(caller.events(&job.id, 2_001)), Code::InvalidArgument);
    let nobody = "job_00000000-0000-0000-0000-000000000000";
    assert_eq!(code(caller.get(nobody)), Code::NotFound);
    assert_eq!((code(caller.events(nobody, 0)), code(caller.get("job"))), (Code::NotFound, Code::InvalidArgument));
}

fn done_again(stack: &Stack, caller: &Caller) {
    let broker = stack.management();
    broker.tap("warren.task", "embed", "copies");
    let succeeded = caller.ended(&caller.embed("drill-20", 3).id);
    let slow = caller.embed("drill-wait-1000", 9).id;
    until("it runs", PATIENCE, || (caller.job(&slow).state() == JobState::Running).then_some(()));
    assert_eq!(code(caller.resubmit(&slow)), Code::FailedPrecondition);
    assert!(caller.cancel(&slow) > 0);
    let cancelled = caller.ended(&slow);
    let history = |job: &Job| caller.events(&job.id, 0).expect("events");
    let before = [&succeeded, &cancelled].map(|job| (caller.job(&job.id), history(job)));

    for job in [&succeeded, &cancelled] {
        assert_eq!(caller.cancel(&job.id), 0);
    }
    // Their messages come once more, as from a dead letter.
    let copies = until("their messages", PATIENCE, || {
        let copies = broker.peek("copies", 100);
        (copies.len() >= 4).then_some(copies)
    });
    broker.remove("copies");
    for copy in &copies {
        broker.publish("warren.task", "embed", &copy.properties, &copy.body);
    }
    let again = [&succeeded, &cancelled].map(|job| caller.resubmit(&job.id).expect("it has ended"));
    for (new, old) in again.iter().zip([&succeeded, &cancelled]) {
        assert!(new.id != old.id && new.resubmitted_from == old.id, "{new:?}");
        assert_eq!((&new.spec, &new.name, new.limits), (&old.spec, &old.name, old.limits));
    }
    assert_eq!(caller.vectors(&caller.ended(&again[0].id).id), caller.vectors(&succeeded.id));
    assert!(caller.cancel(&again[1].id) > 0);
    until("the copies have been heard", PATIENCE, || {
        let queues = stack.warren(&["queues", "--json"]).ok().json_lines();
        let idle = queues.iter().all(|queue| queue["unreleased"] == 0 && queue["released"] == 0);
        (idle && broker.depths().get("warren.task.embed") == Some(&0)).then_some(())
    });
    let after = [&succeeded, &cancelled].map(|job| (caller.job(&job.id), history(job)));
    assert_eq!(after, before, "nothing has changed");

    // Asked twice under one name, it is done once.
    let named = || ResubmitJobRequest { id: succeeded.id.clone(), request_id: "again".to_owned() };
    let twice = [(), ()].map(|()| caller.ask(async |mut jobs| jobs.resubmit(named()).await).expect("accepted").id);
    assert_eq!(twice[0], twice[1]);
    let told = stack.warren(&["jobs", "resubmit", "--json", &twice[0]]);
    // It may run still.
    if told.code == 0 {
        assert_eq!(told.json()["resubmitted_from"], twice[0].as_str());
    }
}

fn many_texts(caller: &Caller) {
    let texts = if nightly() { 10_000 } else { 600 };
    let (rows, _) = caller.list(ListJobsRequest { page_size: 500, ..Default::default() });
    let job = caller.embed("drill-10", texts);
    let mut seen = vec![0.0];
    until("all of it", PATIENCE, || {
        let job = caller.job(&job.id);
        seen.push(job.progress_done);
        has_ended(&job).then_some(())
    });
    println!("    {} looks", seen.len());
    assert!(seen.is_sorted(), "progress went back: {seen:?}");
    assert!(seen.iter().any(|done| *done > 0.0 && *done < texts as f64), "nobody saw it grow");
    assert_eq!(seen.last(), Some(&(texts as f64)));
    let (now, _) = caller.list(ListJobsRequest { page_size: 500, ..Default::default() });
    assert_eq!(now.len(), rows.len() + 1, "one row");
    assert_eq!(caller.job(&job.id).tasks.map(|tasks| tasks.done as usize), Some(texts));
}

fn listed(caller: &Caller) {
    for _ in 0..7 {
        caller.embed("drill-0", 1);
    }
    let stopped = caller.embed("drill-wait-5000", 4).id;
    caller.cancel(&stopped);
    let (all, next) = caller.list(ListJobsRequest { page_size: 500, ..Default::default() });
    assert_eq!(next, "", "this is all");
    let ids = |jobs: &[Job]| jobs.iter().map(|job| job.id.clone()).collect::<Vec<_>>();
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let (page, next) = caller.list(ListJobsRequest { page_size: 5, page_token: token, ..Default::default() });
        assert!(page.len() <= 5);
        seen.extend(ids(&page));
        token = next;
        if token.is_empty() {
            break;
        }
        // What comes meanwhile moves nothing.
        caller.embed("drill-0", 1);
    }
    assert_eq!(seen, ids(&all));
    let times: Vec<i64> = all.iter().map(created).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "newest first");
    for state in [JobState::Succeeded, JobState::Failed, JobState::Cancelled] {
        let wanted: BTreeSet<String> =
            all.iter().filter(|job| job.state() == state).map(|job| job.id.clone()).collect();
        let (found, _) = caller.list(ListJobsRequest { state: state.into(), page_size: 500, ..Default::default() });
        assert!(found.iter().all(|job| job.state() == state), "{found:?}");
        let found: BTreeSet<String> = ids(&found).into_iter().collect();
        assert!(wanted.is_subset(&found) && !wanted.is_empty(), "{state:?}");
    }
    let (recordings, _) = caller.list(ListJobsRequest { kind: "transcribe".to_owned(), ..Default::default() });
    assert!(!recordings.is_empty() && recordings.iter().all(|job| job.kind == "transcribe"));
    let wrong = [
        ListJobsRequest { page_size: 501, ..Default::default() },
        ListJobsRequest { page_token: "?".to_owned(), ..Default::default() },
        ListJobsRequest { kind: "translate".to_owned(), ..Default::default() },
    ];
    for request in wrong {
        assert_eq!(code(caller.ask(async |mut jobs| jobs.list(request).await)), Code::InvalidArgument);
    }
}

fn explained(stack: &Stack, caller: &Caller) {
    let until_for = |id: &str, wanted: WaitingFor| {
        let why = until(&format!("{wanted:?}"), PATIENCE, || {
            Some(caller.explain(id)).filter(|why| why.waiting_for() == wanted)
        });
        println!("    {wanted:?}: {}", why.reason);
        why
    };
    stack.warren(&["queues", "pause", "embed", "--reason", "a new model comes"]).ok();
    let paused = caller.embed("drill-0", 1).id;
    let why = until_for(&paused, WaitingFor::Resume);
    assert!(why.reason.contains("embed is paused by local: a new model comes"), "{why:?}");
    stack.warren(&["queues", "resume", "embed"]).ok();
    let ended = caller.ended(&paused);
    assert_eq!(caller.explain(&ended.id).waiting_for(), WaitingFor::Nothing);

    // One worker with one slot, and several jobs before the last one.
    let first = caller.embed("drill-wait-1000", 10).id;
    let others: Vec<String> = (0..4).map(|_| caller.embed("drill-wait-1000", 10).id).collect();
    let second = others.last().expect("four").clone();
    let why = until_for(&second, WaitingFor::Turn);
    assert!(why.jobs_ahead >= 1 && why.tasks_ahead >= why.jobs_ahead, "{why:?}");
    let why = until_for(&first, WaitingFor::ItsTasks);
    assert!(why.reason.contains("batch-embedding is at it"), "{why:?}");
    let why = until("who has the device, and until when", PATIENCE, || {
        let why = caller.explain(&second);
        why.holders
            .iter()
            .any(|holder| holder.expected_end.is_some() && holder.model == "drill-wait-1000")
            .then_some(why)
    });
    assert_eq!((why.holders[0].device.as_str(), why.holders[0].worker.as_str()), ("cpu", "batch-embedding"));
    shows_the_holder(stack);
    stack.warren(&["scale", "batch-embedding", "0"]).ok();
    let why = until_for(&second, WaitingFor::Worker);
    assert!(why.reason.contains("no worker takes embed"), "{why:?}");
    let told = stack.warren(&["jobs", "explain", "--json", &second]).ok().json();
    assert_eq!((&told["waiting_for"], &told["state"]), (&json!("worker"), &json!(warren_state(why.state()))), "{told}");
    for job in others.iter().chain([&first]) {
        caller.cancel(job);
    }
    let why = caller.explain(&second);
    assert!(why.waiting_for() == WaitingFor::Nothing && why.reason.contains("cancelled by local"), "{why:?}");
    stack.warren(&["scale", "batch-embedding", "1"]).ok();
}

/// The coordinator's metrics tell each device's memory, its use and who holds it.
fn shows_the_holder(stack: &Stack) {
    let address = stack.service("coordinator").http.expect("it has one");
    let address = address.trim_start_matches("http://").parse().expect("an address");
    let value = |metrics: &str, name: &str| {
        metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok())
    };
    until("the holder in the metrics", PATIENCE, || {
        let metrics = http::get(address, "/metrics", PATIENCE).expect("metrics").body;
        let of = |name: &str| value(&metrics, &format!("warren_{name}{{device=\"cpu\"}}"));
        let budget = of("device_memory_budget_bytes")?;
        let (used, held) = (of("device_memory_leased_bytes")?, of("leases_held")?);
        let holder = "warren_lease_memory_bytes{device=\"cpu\",model=\"drill-wait-1000\",worker=\"batch-embedding\"}";
        let holder = value(&metrics, holder)?;
        (budget > 1e8 && held == 1.0 && used > 0.0 && holder == used).then_some(())
    });
}

fn a_long_recording(stack: &Stack, caller: &Caller) {
    // One human voice again and again: what is said is known word for word.
    let voice = inaugural();
    let times = if nightly() { 100 } else { 6 };
    let sound = wave::read(&voice.path);
    let samples = wave::join(&vec![sound.as_slice(); times], 0.8);
    let file = stack.folder().join("again and again.wav");
    wave::write(&file, &samples);
    let path = file.to_str().expect("a plain name");
    let before = caller.list(ListJobsRequest::default()).0.remove(0).id;
    let client = stack.begin(&["transcribe", "--json", "--model", "tiny.en", path]);
    let id = until("the job", PATIENCE, || {
        Some(caller.list(ListJobsRequest::default()).0.remove(0).id).filter(|newest| *newest != before)
    });
    let running = until("its speed and its expected end", PATIENCE, || {
        let job = caller.job(&id);
        assert!(!has_ended(&job), "nobody saw it run");
        (job.speed > 0.0 && job.expected_end.is_some()).then_some(job)
    });
    assert!(running.expected_end.as_ref().map(to_millis) > Some(started(&running)), "{running:?}");
    let heard = client.wait(PATIENCE).ok().json();
    let job = caller.job(&id);
    let took = (finished(&job) - started(&job)) as f64 / 1_000.0;
    println!("    {:.0} s in {took:.1} s: {:.1} times as fast as spoken", job.duration_seconds, job.speed);
    // Silence takes no time and is not planned.
    assert!((job.speed * took - job.progress_done).abs() < 1.0, "{job:?}");
    assert!(job.progress_done > job.duration_seconds * 0.9, "{job:?}");
    assert_eq!(job.expected_end, None, "it has ended");

    assert!(job.tasks.is_some_and(|tasks| tasks.done > 2), "it was cut: {job:?}");
    let text = heard["text"].as_str().expect("a text");
    let once = voice.text.split_whitespace().count();
    let (words, errors) =
        (text.split_whitespace().count(), error_rate::words(&vec![voice.text.as_str(); times].join(" "), text));
    println!("    {words} words for {}, {:.1} % errors", once * times, errors * 100.0);
    // A small model mishears a word now and then; a seam would lose or double whole ones.
    assert!(errors <= 0.06 && words.abs_diff(once * times) <= times / 6, "{text}");
    let said = text.to_lowercase();
    let said = |words: &str| said.matches(words).count();
    assert_eq!((said("fellow americans"), said("your country")), (times, 2 * times), "each was heard once: {text}");
    let starts: Vec<f64> = heard["segments"]
        .as_array()
        .expect("segments")
        .iter()
        .filter_map(|segment| segment["start"].as_f64())
        .collect();
    assert!(starts.is_sorted_by(|a, b| a < b), "{starts:?}");

    // Fast or good: what was chosen is in the result.
    assert_eq!((&heard["model"], &stack.job(&id)["model"]), (&json!("tiny.en"), &json!("tiny.en")));
    let better = stack.warren(&["transcribe", "--json", "--model", "base", voice.path.to_str().expect("plain")]).ok();
    let better = better.json();
    assert_eq!(better["model"], "base", "{better}");
}

fn deleted(stack: &Stack, caller: &Caller) {
    let voice = inaugural().path;
    let arguments = ["transcribe", "--json", "--index", "--model", "tiny.en", voice.to_str().expect("plain")];
    let heard = stack.warren(&arguments).ok().json();
    let first = caller.job(heard["job"].as_str().expect("an id"));
    let Some(job::Spec::Transcribe(spec)) = &first.spec else { panic!("{first:?}") };
    let media = spec.media.clone();
    let object = stack.data().join("s3/warren/media").join(media.trim_start_matches("media_"));
    assert!(object.exists(), "{}", object.display());
    let again = TranscribeSpec { media: media.clone(), model: "tiny.en".to_owned(), ..TranscribeSpec::default() };
    let second = SubmitJobRequest { spec: Some(Spec::Transcribe(again)), ..SubmitJobRequest::default() };
    let second = caller.submit(second).id;
    let found = || {
        let hits = stack.warren(&["search", "--json", "country"]).ok().json_lines();
        hits.iter().filter(|hit| hit["job"] == first.id.as_str()).count()
    };
    until("it is in the archive", PATIENCE, || (found() > 0).then_some(()));
    caller.ended(&second);

    assert!(caller.delete(&first.id).expect("it has ended"));
    assert_eq!((code(caller.get(&first.id)), code(caller.events(&first.id, 0))), (Code::NotFound, Code::NotFound));
    assert_eq!(code(caller.delete(&first.id)), Code::NotFound, "it is gone");
    assert_eq!(found(), 0);
    assert!(stack.jobs().iter().all(|job| job["id"] != first.id.as_str()));
    assert!(object.exists(), "another job names the recording");
    let told = stack.warren(&["jobs", "delete", "--json", &second]).ok().json();
    assert_eq!(told["effective"], true, "{told}");
    until("the recording is gone", PATIENCE, || (!object.exists()).then_some(()));
    let deeds = stack.warren(&["audit", "--json"]).ok().json_lines();
    assert!(deeds.iter().any(|deed| deed["verb"] == "delete" && deed["subject"] == second.as_str()), "{deeds:?}");

    // A request id is free again with its job.
    let named = || SubmitJobRequest { request_id: "once".to_owned(), ..embed("drill-0", vec!["a".to_owned()]) };
    let old = caller.ended(&caller.submit(named()).id).id;
    assert_eq!(caller.submit(named()).id, old);
    assert!(caller.delete(&old).expect("it has ended"));
    assert_ne!(caller.submit(named()).id, old);
}

fn four_workers(stack: &Stack, caller: &Caller) {
    let tasks = if nightly() { 400 } else { 60 };
    let seconds = || {
        let begun = Instant::now();
        let job = caller.ended(&caller.embed("drill-wait-200", tasks).id);
        println!("    {tasks} tasks in {:.1} s", begun.elapsed().as_secs_f64());
        (finished(&job) - started(&job)) as f64 / 1_000.0
    };
    let alone = seconds();
    stack.warren(&["scale", "batch-embedding", "4"]).ok();
    until("four workers", PATIENCE, || {
        let workers = stack.warren(&["workers", "--json"]).ok().json_lines();
        let live = |worker: &&Value| worker["service"] == "batch-embedding" && worker["state"] == "live";
        (workers.iter().filter(live).count() == 4).then_some(())
    });
    // What else the machine does is no matter of theirs.
    let four = seconds().min(seconds());
    println!("    {:.2} times as fast", alone / four);
    assert!(alone / four >= 3.5, "{alone:.1} s alone, {four:.1} s with four");
}
