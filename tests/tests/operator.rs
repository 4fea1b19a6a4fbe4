//! What an operator decides takes effect on a running stack, can be tried first, leaves an audit row, and loses nothing.

use std::{collections::BTreeSet, fs, time::Duration};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use warren_local::process::Identity;
use warren_recordings::error_rate;
use warren_tests::{
    cases::Cases,
    command::{Output, Running},
    recordings::{Recording, long_english},
    stack::{Stack, Wishes, warren},
    wait::{during, until},
};

/// Effects are seen within this time, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// A recording is transcribed within this time, whatever is done meanwhile.
const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn operators_decide() {
    // Small tasks, so that what is decided meanwhile falls between two of them.
    let settings = "[coordinator.release]\ntask_audio_s = 30\n".to_owned();
    let stack = Stack::with(&Wishes { settings, ..Wishes::default() });
    let recording = long_english(&stack.folder().join("long.wav"), 4);
    println!("{:.0} s of speech", recording.seconds);
    let mut cases = Cases::new();
    cases.case("workers come and go, parts restart, and a job goes on", || services_change(&stack, &recording));
    cases.case("everything is killed at once, and goes on where it was", || killed_at_once(&stack, &recording));
    cases.case("one job's story is picked out of all logs", || a_story_is_picked_out(&stack));
    cases.case("a paused kind waits, over restarts, until it is resumed", || a_kind_is_paused(&stack));
    cases.case("a purge cancels the jobs concerned and keeps a record", || a_kind_is_purged(&stack));
    cases.case("what is stuck is recovered on demand, once", || what_is_stuck_is_recovered(&stack, &recording));
    cases.case("silent jobs are failed by hand, and all that run", || silent_jobs_are_failed(&stack));
    cases.case("the causes of failures are counted", || causes_are_counted(&stack));
    cases.case("a worker that takes no work shows why", || a_worker_shows_why(&stack));
    cases.case("an archive is destroyed only on purpose", || reset_is_no_accident(&stack));
    cases.finish();
    stack.stop();
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field}: not a text in {value}"))
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("{field}: not a number in {value}"))
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().unwrap_or_else(|| panic!("{field}: not a list in {value}"))
}

fn json(stack: &Stack, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = ["--json"].iter().chain(arguments).copied().collect();
    stack.warren_within(LIMIT, &arguments, "").ok().json()
}

/// Deeds of this kind, newest first.
fn audit(stack: &Stack, verb: &str) -> Vec<Value> {
    let rows = stack.warren(&["audit", "--json", "--limit", "500"]).ok().json_lines();
    rows.into_iter().filter(|row| row["verb"] == verb).collect()
}

fn transcribe(stack: &Stack, recording: &Recording) -> Running {
    let file = recording.path.to_str().expect("a plain name");
    stack.begin(&["transcribe", "--json", "--model", "tiny.en", file])
}

/// The newest job, once it is another than it was.
fn newest(stack: &Stack, before: usize) -> String {
    until("a new job", SOON, || {
        let jobs = stack.jobs();
        (jobs.len() > before).then(|| text(&jobs[0], "id").to_owned())
    })
}

/// The words are right, and each second was heard once.
fn is_right(heard: &Value, recording: &Recording) {
    let errors = error_rate::words(&recording.text, text(heard, "text"));
    assert!(errors <= 0.2, "{:.0} % word errors: {heard}", errors * 100.0);
    let starts: Vec<f64> = list(heard, "segments").iter().filter_map(|segment| segment["start"].as_f64()).collect();
    assert!(starts.len() > 5 && starts.is_sorted(), "{starts:?}");
    let different: BTreeSet<u64> = starts.iter().map(|start| (start * 1_000.0) as u64).collect();
    assert_eq!(different.len(), starts.len(), "a segment is there twice: {starts:?}");
}

fn embed(stack: &Stack, name: &str) -> Running {
    let file = stack.folder().join(format!("{name}.txt"));
    fs::write(&file, format!("{name}: a badger digs in the dark.\nAnd another one.\n")).expect("room for a file");
    stack.begin(&["embed", file.to_str().expect("a plain name")])
}

fn queue(stack: &Stack, kind: &str) -> Value {
    let queues = stack.warren(&["queues", "--json"]).ok().json_lines();
    queues.into_iter().find(|queue| queue["kind"] == kind).unwrap_or_else(|| panic!("no kind {kind}"))
}

fn open(queue: &Value) -> u64 {
    number(queue, "unreleased") + number(queue, "released")
}

fn embedders(stack: &Stack, count: &str) {
    stack.warren_within(LIMIT, &["scale", "batch-embedding", count], "").ok();
}

fn diagnosed(stack: &Stack) -> (i32, Value) {
    let output = stack.warren(&["diagnose", "--json"]);
    let found = output.json();
    assert_eq!(output.code == 0, found["stuck"] == false, "{found}");
    (output.code, found)
}

fn refused(output: &Output, says: &str) {
    assert!(output.stderr.contains(says), "{says:?} is not in {:?}", output.stderr);
}

fn services_change(stack: &Stack, recording: &Recording) {
    let before = stack.ps();
    let tried = json(stack, &["scale", "transcription", "2", "--dry-run"]);
    assert_eq!((list(&tried, "starts"), tried["dry_run"].as_bool()), (&[json!("transcription-2")][..], Some(true)));
    let tried = json(stack, &["restart", "all", "--dry-run"]);
    assert_eq!(list(&tried, "restarted").len(), before.len());
    assert_eq!(stack.ps(), before, "trying changes nothing");
    refused(&stack.warren(&["restart", "transcript"]).expect_code(2), "there are: all, rabbitmq");
    refused(&stack.warren(&["scale", "coordinator", "0"]).expect_code(2), "from 1 to 16");

    let client = transcribe(stack, recording);
    let job = newest(stack, 0);
    let healthy = until("a healthy job", SOON, || {
        let (_, found) = diagnosed(stack);
        text(&found, "verdict").starts_with("not stuck: 1 healthy job, ").then_some(found)
    });
    println!("    {}", text(&healthy, "verdict"));
    let running = &list(&healthy, "running")[0];
    assert_eq!(text(running, "id"), job);
    assert!(running["percent"].is_number() && number(running, "heartbeat_age_s") <= 30, "{running}");
    let transcribing =
        list(&healthy, "jobs").iter().find(|count| count["kind"] == "transcribe" && count["state"] == "running");
    assert_eq!(transcribing.map(|count| number(count, "jobs")), Some(1), "{healthy}");
    assert_eq!((list(&healthy, "workers").len(), list(&healthy, "queues").len()), (2, 3), "{healthy}");
    let ticks: Vec<_> = list(&healthy, "ticks").iter().map(|tick| text(tick, "name")).collect();
    assert!(ticks.contains(&"reaper"), "{ticks:?}");
    assert!(list(&healthy, "broker").iter().any(|queue| queue["queue"] == "warren.task.transcribe"), "{healthy}");

    stack.warren_within(LIMIT, &["scale", "transcription", "2"], "").ok();
    assert_eq!(stack.service("transcription-2").state, "ready");
    let old = stack.service("transcription").pid;
    let restarted = json(stack, &["restart", "transcription"]);
    assert_eq!(list(&restarted, "restarted"), [json!("transcription")]);
    let now = stack.service("transcription");
    assert!(now.pid != old && now.state == "ready", "{now:?}");
    for part in ["coordinator", "ingest", "rabbitmq", "s3"] {
        let old = stack.service(part).pid;
        json(stack, &["restart", part]);
        assert_ne!(stack.service(part).pid, old, "{part}");
    }
    // Nobody works at all for a while.
    stack.warren_within(LIMIT, &["scale", "transcription", "0"], "").ok();
    assert!(stack.ps().iter().all(|service| !service.name.starts_with("transcription")), "{:?}", stack.ps());
    stack.warren_within(LIMIT, &["scale", "transcription", "1"], "").ok();
    let heard = client.wait(LIMIT).ok().json();
    is_right(&heard, recording);
    assert_eq!(stack.dead_letters(), Vec::<Value>::new());

    assert_eq!((audit(stack, "scale").len(), audit(stack, "restart").len()), (3, 5));
    assert_eq!(audit(stack, "scale")[2]["detail"], json!({ "from": 1, "to": 2 }));
    let (code, idle) = diagnosed(stack);
    assert!(code == 0 && text(&idle, "verdict").starts_with("idle"), "{idle}");
}

fn killed_at_once(stack: &Stack, recording: &Recording) {
    let before = stack.jobs().len();
    let client = transcribe(stack, recording);
    let job = newest(stack, before);
    until("some of it", SOON, || stack.job(&job)["progress_done"].as_f64().filter(|done| *done > 0.0));
    let tried = json(stack, &["stop", "--now", "--dry-run"]);
    assert!(list(&tried, "would_stop").contains(&json!("rabbitmq")), "{tried}");
    assert!(!stack.ps().is_empty());
    let stopped = stack.warren(&["stop", "--now"]).ok();
    assert!(stopped.took < Duration::from_secs(20), "{:?}", stopped.took);
    assert!(stack.ps().is_empty());
    stack.warren_within(LIMIT, &["up", "--detach"], "").ok();
    let heard = client.wait(LIMIT).ok().json();
    assert_eq!(text(&heard, "job"), job);
    is_right(&heard, recording);
    assert_eq!(audit(stack, "kill").len(), 1);
    assert_eq!(stack.dead_letters(), Vec::<Value>::new());
}

fn a_story_is_picked_out(stack: &Stack) {
    let job = stack.jobs().remove(0);
    let job = text(&job, "id");
    let told = stack.warren(&["logs", "--json", "--job", job]).ok().json_lines();
    let lines: Vec<Value> =
        told.iter().map(|line| serde_json::from_str(text(line, "line")).expect("logs are JSON")).collect();
    let said = |message: &str| lines.iter().position(|line| line["message"] == message);
    let (accepted, planned) = (said("job accepted"), said("job planned"));
    assert!(accepted.is_some() && accepted < planned && planned < said("job started"), "{lines:?}");
    assert!(said("job started") < said("task ended") && said("task ended") < said("job ended"), "{lines:?}");
    let services: BTreeSet<&str> = told.iter().map(|line| text(line, "service")).collect();
    assert_eq!(services, BTreeSet::from(["coordinator", "ingest", "transcription"]));
    assert!(lines.iter().all(|line| line["job.id"] == job || line.get("task.id").is_some()), "{lines:?}");
    let plain = stack.warren(&["logs", "--job", job, "coordinator"]).ok().stdout;
    assert!(plain.lines().all(|line| line.starts_with("coordinator ")) && plain.contains("job ended"), "{plain}");
}

fn a_kind_is_paused(stack: &Stack) {
    let tried = json(stack, &["queues", "pause", "embed", "--dry-run"]);
    assert_eq!((tried["changed"].as_bool(), queue(stack, "embed")["paused"].is_null()), (Some(true), true), "{tried}");
    let paused = json(stack, &["queues", "pause", "embed", "--reason", "a new model comes"]);
    assert_eq!((paused["changed"].as_bool(), paused["effective"].as_bool()), (Some(true), Some(true)), "{paused}");
    assert_eq!(json(stack, &["queues", "pause", "embed"])["changed"], false, "it is paused already");

    let before = stack.jobs().len();
    let client = embed(stack, "paused");
    let job = newest(stack, before);
    until("its plan", SOON, || (open(&queue(stack, "embed")) == 1).then_some(()));
    json(stack, &["restart", "coordinator"]);
    let went_out = during(Duration::from_secs(5), || (number(&queue(stack, "embed"), "released") > 0).then_some(()));
    assert_eq!(went_out, None, "the next leader keeps the pause");
    assert_eq!(stack.job(&job)["state"], "queued");
    let shown = queue(stack, "embed");
    assert_eq!((text(&shown["paused"], "actor"), text(&shown["paused"], "reason")), ("local", "a new model comes"));
    let (code, stuck) = diagnosed(stack);
    assert!(code == 1 && text(&stuck, "verdict").contains("embed is paused by local"), "{stuck}");

    assert_eq!(json(stack, &["queues", "resume", "embed", "--dry-run"])["waiting"], 1);
    assert!(queue(stack, "embed")["paused"].is_object(), "trying changes nothing");
    let follower = stack.begin(&["logs", "--follow", "--job", &job]);
    assert_eq!(json(stack, &["queues", "resume", "embed"])["changed"], true);
    assert_eq!(client.wait(LIMIT).ok().json_lines().len(), 2);
    until("its end in the log", SOON, || {
        stack.warren(&["logs", "--job", &job]).ok().stdout.contains("job ended").then_some(())
    });
    // What is written is shown within this time.
    let ended = during(Duration::from_secs(2), || None::<()>);
    assert_eq!(ended, None);
    Identity::of(follower.pid()).expect("it follows").signal(Signal::SIGINT);
    let followed = follower.wait(SOON).expect_code(130).stdout;
    assert!(followed.contains("job planned") && followed.contains("job ended"), "{followed}");
    assert!(queue(stack, "embed")["paused"].is_null());
    assert_eq!((audit(stack, "pause").len(), audit(stack, "resume").len()), (2, 1));
    refused(&stack.warren(&["queues", "pause", "speech"]).expect_code(2), "prepare, transcribe, embed");
}

fn a_kind_is_purged(stack: &Stack) {
    embedders(stack, "0");
    let before = stack.jobs().len();
    let clients = ["one", "two", "three"].map(|name| embed(stack, name));
    until("three jobs", SOON, || (open(&queue(stack, "embed")) == 3).then_some(()));
    let depth = || stack.management().depths().get("warren.task.embed").copied().unwrap_or_default();
    until("messages on the queue", SOON, || (depth() > 0).then_some(()));

    let tried = json(stack, &["queues", "purge", "embed", "--dry-run"]);
    assert_eq!((number(&tried, "tasks"), number(&tried, "jobs")), (3, 3), "{tried}");
    refused(&stack.warren(&["queues", "purge", "embed"]).expect_code(2), "--yes 3");
    refused(&stack.warren(&["queues", "purge", "embed", "--yes", "2"]).expect_code(1), "there are 3 open tasks");
    assert_eq!((open(&queue(stack, "embed")), audit(stack, "purge refused").len()), (3, 1), "nothing was changed");

    let purged = json(stack, &["queues", "purge", "embed", "--yes", "3", "--reason", "the wrong model"]);
    assert_eq!((number(&purged, "jobs"), purged["effective"].as_bool()), (3, Some(true)), "{purged}");
    for client in clients {
        client.wait(SOON).expect_code(1);
    }
    let jobs = stack.jobs();
    for job in &jobs[..jobs.len() - before] {
        assert_eq!((text(job, "state"), text(job, "error_code")), ("cancelled", "Cancelled"), "{job}");
        assert!(text(job, "error_message").contains("the wrong model"), "{job}");
    }
    assert_eq!(open(&queue(stack, "embed")), 0, "no orphans");
    until("the queue to be empty", SOON, || (depth() == 0).then_some(()));
    assert_eq!((audit(stack, "purge").len(), audit(stack, "cancel").len()), (1, 3));
    let kept: Vec<Value> =
        audit(stack, "keep").iter().flat_map(|row| list(&row["detail"], "letters").to_vec()).collect();
    assert!(!kept.is_empty());
    let shown = stack.warren(&["dlq", "show", "--json", kept[0].as_str().expect("an id")]).ok().json();
    let body: Value = serde_json::from_str(text(&shown, "body")).expect("the body as it was");
    assert!(body["embed"].is_object() && text(&shown, "class") == "Purged", "{shown}");
    assert_eq!(stack.dead_letters(), Vec::<Value>::new(), "a record, not a dead letter");

    embedders(stack, "1");
    let left = during(Duration::from_secs(3), || {
        let jobs = stack.jobs();
        jobs.iter().any(|job| matches!(text(job, "state"), "queued" | "running")).then_some(jobs)
    });
    assert_eq!(left, None);
    assert_eq!(embed(stack, "after").wait(LIMIT).ok().json_lines().len(), 2);
}

fn what_is_stuck_is_recovered(stack: &Stack, recording: &Recording) {
    assert_eq!(json(stack, &["jobs", "recover"])["recovered"], json!([]), "nothing is stuck");
    json(stack, &["queues", "pause", "transcribe"]);
    let before = stack.jobs().len();
    let client = transcribe(stack, recording);
    let job = newest(stack, before);
    until("the recording to be cut", SOON, || (number(&queue(stack, "transcribe"), "unreleased") > 2).then_some(()));
    until("the end of its preparation", SOON, || (open(&queue(stack, "prepare")) == 0).then_some(()));
    stack.warren_within(LIMIT, &["scale", "transcription", "0"], "").ok();
    json(stack, &["queues", "resume", "transcribe"]);
    until("a task on its way", SOON, || (number(&queue(stack, "transcribe"), "released") > 0).then_some(()));
    let depth = || stack.management().depths().get("warren.task.transcribe").copied().unwrap_or_default();
    until("its message", SOON, || (depth() > 0).then_some(()));
    stack.management().purge("warren.task.transcribe");
    until("the queue to be empty", SOON, || (depth() == 0).then_some(()));

    let tried = until("it to be missing", SOON, || {
        let tried = json(stack, &["jobs", "recover", "--dry-run", "--job", &job]);
        (!list(&tried, "recovered").is_empty()).then_some(tried)
    });
    assert_eq!((tried["dry_run"].as_bool(), depth()), (Some(true), 0), "{tried}");
    let other = "job_00000000-0000-0000-0000-000000000000";
    refused(&stack.warren(&["jobs", "recover", "--job", other]).expect_code(1), "no job");
    let mended = json(stack, &["jobs", "recover"]);
    let recovered = list(&mended, "recovered");
    assert!(!recovered.is_empty() && recovered.iter().all(|one| text(one, "job") == job), "{mended}");
    assert!(text(&recovered[0], "task").starts_with("task_"), "{mended}");
    until("the message again", SOON, || (depth() > 0).then_some(()));
    assert_eq!(json(stack, &["jobs", "recover"])["recovered"], json!([]), "once is enough");

    stack.warren_within(LIMIT, &["scale", "transcription", "1"], "").ok();
    let heard = client.wait(LIMIT).ok().json();
    is_right(&heard, recording);
    assert_eq!(audit(stack, "recover").len(), 3);
}

fn silent_jobs_are_failed(stack: &Stack) {
    embedders(stack, "0");
    let before = stack.jobs().len();
    let client = embed(stack, "silent");
    let job = newest(stack, before);
    until("it runs", SOON, || (stack.job(&job)["state"] == "running").then_some(()));
    assert_eq!(json(stack, &["jobs", "fail-stale", "--older", "20m", "--dry-run"])["jobs"], json!([]));
    assert_eq!(json(stack, &["jobs", "fail-stale", "--older", "20m"])["jobs"], json!([]), "it is young");
    until("a second of silence", SOON, || {
        let tried = json(stack, &["jobs", "fail-stale", "--older", "1s", "--dry-run"]);
        list(&tried, "jobs").iter().any(|stale| text(stale, "id") == job).then_some(())
    });
    assert_eq!(stack.job(&job)["state"], "running", "trying changes nothing");
    // All that run: the emergency.
    refused(&stack.warren(&["jobs", "fail-stale", "--older", "0s"]).expect_code(2), "--yes-i-mean-it");
    let failed =
        json(stack, &["jobs", "fail-stale", "--older", "0s", "--yes-i-mean-it", "--reason", "the end of the day"]);
    assert_eq!(list(&failed, "jobs").iter().map(|job| text(job, "id")).collect::<Vec<_>>(), [job.as_str()]);
    client.wait(SOON).expect_code(1);
    let job = stack.job(&job);
    assert_eq!((text(&job, "state"), text(&job, "error_code")), ("failed", "JobTimeout"), "{job}");
    assert!(text(&job, "error_message").contains("failed by local: the end of the day"), "{job}");
    assert_eq!((audit(stack, "fail").len(), audit(stack, "fail-stale").len()), (1, 2));
    refused(&stack.warren(&["jobs", "fail-stale", "--older", "20"]).expect_code(2), "20m");
    embedders(stack, "1");
}

fn causes_are_counted(stack: &Stack) {
    // A tone is no recording of the kind that it says.
    for number in 0..2 {
        let file = stack.folder().join(format!("broken {number}.mp3"));
        fs::write(&file, [b"ID3\x03\0\0\0\0\0\0".as_slice(), &[0x55; 4_000]].concat()).expect("room for a file");
        let output = stack.warren(&["transcribe", "--json", file.to_str().expect("a plain name")]);
        assert_ne!(output.code, 0);
    }
    let failed = stack.warren(&["jobs", "--json", "--state", "failed", "--limit", "500"]).ok().json_lines();
    let found = json(stack, &["jobs", "errors", "--since", "1h"]);
    println!("    {found}");
    let sum: u64 = list(&found, "causes").iter().map(|cause| number(cause, "jobs")).sum();
    assert_eq!((sum + number(&found, "others"), number(&found, "failed")), (failed.len() as u64, failed.len() as u64));
    for code in failed.iter().map(|job| text(job, "error_code")).collect::<BTreeSet<_>>() {
        let jobs = failed.iter().filter(|job| text(job, "error_code") == code).count() as u64;
        let causes = list(&found, "causes").iter().filter(|cause| text(cause, "error_code") == code);
        assert_eq!(causes.map(|cause| number(cause, "jobs")).sum::<u64>(), jobs, "{code}: {found}");
    }
    let counts: Vec<_> = list(&found, "causes").iter().map(|cause| number(cause, "jobs")).collect();
    assert!(counts.is_sorted_by(|a, b| a >= b), "{counts:?}");
    let first = json(stack, &["jobs", "errors", "--limit", "1"]);
    assert_eq!(list(&first, "causes").len(), 1);
    assert_eq!(counts[0] + number(&first, "others"), failed.len() as u64, "what is not listed is counted");
}

fn a_worker_shows_why(stack: &Stack) {
    let management = stack.management();
    management.set_user("embedder", "first password");
    stack.warren(&["down"]).ok();
    let overrides = stack.data().join("overrides.toml");
    let before = fs::read_to_string(&overrides).unwrap_or_default();
    let amqp = text(&stack.endpoints()["amqp"], "url").to_owned();
    let (_, place) = amqp.split_once('@').expect("a login");
    let broker = format!("[batch-embedding.broker]\nurl = \"amqp://embedder:first%20password@{place}\"\n");
    fs::write(&overrides, format!("{before}\n{broker}")).expect("written");
    stack.warren_within(LIMIT, &["up", "--detach"], "").ok();
    let embedder = || {
        let workers = stack.warren(&["workers", "--json"]).ok().json_lines();
        workers.into_iter().find(|worker| worker["service"] == "batch-embedding" && worker["state"] != "lost")
    };
    until("the worker to take work", SOON, || embedder().filter(|worker| worker["state"] == "live"));

    management.set_user("embedder", "second password");
    stack.kill("batch-embedding");
    let refused = until("why it takes none", SOON, || embedder().filter(|worker| worker["state"] == "auth_failed"));
    assert!(text(&refused, "trouble").starts_with("rabbitmq: "), "{refused}");
    println!("    {}", text(&refused, "trouble"));
    let client = embed(stack, "nobody");
    let stuck = until("the verdict", SOON, || Some(diagnosed(stack).1).filter(|found| found["stuck"] == true));
    assert!(text(&stuck, "verdict").contains("takes no work (auth_failed): rabbitmq: "), "{stuck}");
    let log = stack.warren(&["logs", "-n", "200", "batch-embedding"]).ok().stdout;
    assert!(log.contains("part is not ready") && log.contains("ACCESS_REFUSED"), "{log}");

    management.set_user("embedder", "first password");
    assert_eq!(client.wait(LIMIT).ok().json_lines().len(), 2);
    until("the worker to take work", SOON, || embedder().filter(|worker| worker["state"] == "live"));
}

fn reset_is_no_accident(stack: &Stack) {
    let jobs = stack.jobs().len() as u64;
    refused(&stack.warren(&["reset", "--dry-run"]).expect_code(2), "stop it first");
    stack.warren(&["down"]).ok();
    let tried = json(stack, &["reset", "--dry-run"]);
    assert!(number(&tried, "jobs") >= jobs && list(&tried, "folders").len() == 3, "{tried}");
    refused(&stack.warren(&["reset"]).expect_code(2), "WARREN_ALLOW_RESET=1");
    refused(&stack.warren(&["reset", "--yes-i-mean-it"]).expect_code(2), "WARREN_ALLOW_RESET=1");
    let allowed = |arguments: &[&str]| {
        let mut command = warren();
        command.arg("--data").arg(stack.data()).args(arguments).env("WARREN_ALLOW_RESET", "1");
        Running::start(command, "").wait(SOON)
    };
    refused(&allowed(&["reset"]).expect_code(2), "--yes-i-mean-it");
    assert_eq!(json(stack, &["reset", "--dry-run"]), tried, "nothing was deleted");

    allowed(&["reset", "--yes-i-mean-it"]).ok();
    // The login that a case before made went with the broker's folder.
    fs::write(stack.data().join("overrides.toml"), "").expect("written");
    stack.warren_within(LIMIT, &["up", "--detach"], "").ok();
    assert_eq!(stack.jobs(), Vec::<Value>::new());
    let deeds = stack.warren(&["audit", "--json"]).ok().json_lines();
    assert_eq!((deeds.len(), text(&deeds[0], "verb")), (1, "reset"));
    assert_eq!(number(&deeds[0]["detail"], "jobs"), number(&tried, "jobs"));
    assert_eq!(embed(stack, "fresh").wait(LIMIT).ok().json_lines().len(), 2, "it works");
}
