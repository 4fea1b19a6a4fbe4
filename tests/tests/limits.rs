//! What a job may take, and who ends it: limits of time, memory and disk, models that fit, workers that hang, are slow or
//! die, and cancelling.

use std::{
    fs,
    num::NonZero,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use warren_tests::{
    cases::Cases,
    command::Running,
    processes,
    recordings::{self, inaugural},
    stack::{Stack, Wishes},
    wait::{during, until},
    wave,
};

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(120);
/// What a lost worker may cost.
const LOST: Duration = Duration::from_secs(90);
/// How soon cancelling frees device and processor.
const FREED: Duration = Duration::from_secs(2);

#[test]
fn jobs_keep_to_their_limits() {
    let ffmpeg = tempfile::tempdir().expect("a temporary folder");
    let program = stand_in_ffmpeg(ffmpeg.path());
    let settings = format!(
        "[ingest.limits]\naudio_s = 600\nupload_bytes = 40000000\n\
         [coordinator.release]\ntask_texts = 1\n[coordinator.reaper]\ninterval_s = 1\n\
         [[coordinator.devices]]\nname = \"cpu\"\nmax_concurrent = 8\nmemory_mib = 2048\n\
         [[coordinator.devices]]\nname = \"cuda:0\"\nmax_concurrent = 1\nmemory_mib = 8192\n\
         [transcription.prepare]\nmax_seconds = 600.0\nffmpeg = {program:?}\n"
    );
    let stack = Stack::with(&Wishes { settings, ..Wishes::default() });
    let mut cases = Cases::new();
    cases.case("a model that fits no device, or cannot translate", || models_that_cannot(&stack));
    cases.case("recordings that are too long or too large", || too_long_or_too_large(&stack));
    cases.case("memory and disk of one job", || memory_and_disk(&stack));
    cases.case("a soft limit", || a_soft_limit(&stack));
    cases.case("a hard limit", || a_hard_limit_of_its_own(&stack));
    cases.case("cancelling in the middle of work", || cancelling(&stack));
    cases.case("cancelling speech on a busy machine", || cancelling_speech(&stack));
    cases.case("callers that hang up", || hanging_up(&stack));
    cases.case("cancelling while ffmpeg says nothing", || cancelling_ffmpeg(&stack, ffmpeg.path()));
    cases.finish();
    stack.stop();
}

#[test]
fn time_runs_out_and_disk_is_looked_at_first() {
    let settings = "[coordinator.release]\ntask_texts = 1\n[coordinator.reaper]\ninterval_s = 1\ntimeout_s = 5\n\
                    [[coordinator.devices]]\nname = \"cpu\"\nmax_concurrent = 8\nmemory_mib = 2048\n\
                    [transcription.prepare]\nkeep_free_mb = 1000000000\n";
    let stack = Stack::with(&Wishes { settings: settings.to_owned(), ..Wishes::default() });
    let mut cases = Cases::new();
    cases.case("the hard limit", || the_hard_limit(&stack));
    cases.case("a smaller model in place of one that does not fit", || a_smaller_model(&stack));
    cases.case("a disk without room", || a_disk_without_room(&stack));
    cases.finish();
    stack.stop();
}

#[test]
fn hung_slow_and_dead_workers_are_told_apart() {
    let settings = "[coordinator.release]\ntask_texts = 1\n[coordinator.reaper]\nworker_lost_s = 10\n\
                    [batch-embedding.leases]\nlongest_pass_s = 3\n[batch-embedding-2.leases]\nlongest_pass_s = 3\n";
    let arguments = &["--workers", "batch-embedding=2"];
    let stack = Stack::with(&Wishes { arguments, settings: settings.to_owned(), ..Wishes::default() });
    let mut cases = Cases::new();
    cases.case("a slow worker is left alone", || a_slow_worker(&stack));
    cases.case("a worker that is told to go", || a_worker_told_to_go(&stack));
    cases.case("a worker that was killed", || a_killed_worker(&stack));
    cases.case("work that hangs", || hung_work(&stack));
    cases.case("a worker that hangs", || a_hung_worker(&stack));
    cases.finish();
    stack.stop();
}

/// Needs as much memory as a bad recording might, and says nothing while a file `silent` lies beside it; else the real
/// one.
fn stand_in_ffmpeg(folder: &Path) -> PathBuf {
    let program = folder.join("ffmpeg");
    let script = format!(
        "#!/bin/sh\nif [ -e {folder:?}/silent ]; then exec sleep 1003; fi\n\
         if ! dd if=/dev/zero of=/dev/null bs=700M count=1 2>/dev/null; then\n\
         echo 'Cannot allocate memory' >&2; exit 1\nfi\nexec ffmpeg \"$@\"\n",
    );
    fs::write(&program, script).expect("room for a file");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("our own file");
    program
}

fn path(path: &Path) -> &str {
    path.to_str().expect("test files have plain names")
}

/// `warren transcribe --json` of a file, to its end.
fn transcribe(stack: &Stack, file: &Path, arguments: &[&str]) -> Value {
    let all = [&["transcribe", "--json", path(file)], arguments].concat();
    stack.warren_within(PATIENCE, &all, "").json()
}

fn refused(stack: &Stack, file: &Path, arguments: &[&str], code: &str, says: &[&str]) {
    let answer = transcribe(stack, file, arguments);
    assert_eq!(answer["error"]["code"], code, "{answer}");
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    println!("    {message}");
    for word in says {
        assert!(message.contains(word), "{word}: {message}");
    }
}

fn models_that_cannot(stack: &Stack) {
    let voice = inaugural().path;
    let jobs = stack.jobs().len();
    let says = ["`large-v3` needs 10.0 GB", "the largest device, cuda:0, has 7.9 GB", "use large-v3-turbo (6.0 GB)"];
    refused(stack, &voice, &["--model", "large-v3"], "OutOfMemory", &says);
    let says = ["`large-v3-turbo` cannot translate", "use base, small, medium, large-v3"];
    refused(stack, &voice, &["--model", "turbo", "--translate"], "Unsupported", &says);
    let says = ["`tiny.en` cannot translate", "use base"];
    refused(stack, &voice, &["--model", "tiny.en", "--translate"], "Unsupported", &says);
    let says = ["`base` needs 0.9 GB", "max_memory_mb allows 0.6 GB"];
    refused(stack, &voice, &["--model", "base", "--max-memory", "600"], "OutOfMemory", &says);
    assert_eq!(stack.jobs().len(), jobs, "nothing was accepted");
}

fn too_long_or_too_large(stack: &Stack) {
    let file = |name: &str, seconds: u32| {
        let path = stack.folder().join(name);
        let bytes = seconds * 32_000;
        fs::write(&path, wave::header(16_000, 1, bytes)).expect("room for a file");
        let whole = fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(44 + u64::from(bytes)));
        whole.expect("a file of no room");
        path
    };
    refused(stack, &file("long.wav", 700), &[], "InputTooLong", &["long.wav lasts 700 s, 600 are allowed"]);
    refused(stack, &file("large.wav", 1_300), &[], "InputTooLarge", &["may have at most 40000000 bytes"]);
    // Only its end tells how long an mp3 is; its decoding is given up at the limit.
    let quiet = ["-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono", "-t", "700", "-map", "1:a", "-b:a", "32k"];
    let mp3 = wave::convert(&inaugural().path, &stack.folder().join("long.mp3"), &quiet);
    refused(stack, &mp3, &["--model", "tiny.en"], "InputTooLong", &["longer than the limit of 600 s"]);
}

fn memory_and_disk(stack: &Stack) {
    let letters = stack.dead_letters().len();
    let speech = recordings::long_english(&stack.folder().join("speech.wav"), 2);
    let opus = wave::convert(&speech.path, &stack.folder().join("speech.opus"), &["-b:a", "24k"]);
    let tiny = ["--model", "tiny.en"];
    let says = ["ffmpeg needs more than the allowed 700 MB"];
    refused(stack, &opus, &[&tiny[..], &["--max-memory", "700"]].concat(), "OutOfMemory", &says);
    let says = ["max_disk_mb", "1.0 MB are not enough", "speech.wav"];
    refused(stack, &speech.path, &[&tiny[..], &["--max-disk", "1"]].concat(), "InsufficientDisk", &says);
    let says = ["MB and the copy for ffmpeg", "max_disk_mb is 1"];
    refused(stack, &opus, &[&tiny[..], &["--max-disk", "1"]].concat(), "InsufficientDisk", &says);
    assert_eq!(stack.dead_letters().len(), letters, "a caller's own limit is no operator's matter");
    let heard = transcribe(stack, &opus, &[&tiny[..], &["--max-memory", "1500", "--max-disk", "3"]].concat());
    assert_eq!((&heard["state"], &heard["model"]), (&"succeeded".into(), &"tiny.en".into()), "{heard}");
}

/// A job of stand-in work: one task for each text.
struct Embedding {
    client: Running,
    job: String,
}

impl Embedding {
    fn begin(stack: &Stack, model: &str, texts: usize, arguments: &[&str]) -> Self {
        Self::of(stack, model, &(0..texts).map(|n| format!("text {n}\n")).collect::<String>(), arguments)
    }

    fn of(stack: &Stack, model: &str, texts: &str, arguments: &[&str]) -> Self {
        let before = stack.jobs().len();
        let file = stack.folder().join(format!("{model}-{before}.txt"));
        fs::write(&file, texts).expect("room for a file");
        let client = stack.begin(&[&["embed", "--json", "--model", model, path(&file)], arguments].concat());
        let job = until("the job is accepted", PATIENCE, || {
            let jobs = stack.jobs();
            (jobs.len() > before).then(|| jobs[0]["id"].as_str().expect("an id").to_owned())
        });
        Self { client, job }
    }

    /// Waits until some worker computes a task of it; returns that worker.
    fn until_running(&self, stack: &Stack) -> Value {
        until("a worker has it", PATIENCE, || workers(stack).into_iter().find(|worker| self.is_of(worker)))
    }

    fn is_of(&self, worker: &Value) -> bool {
        worker["running"]
            .as_array()
            .is_some_and(|tasks| tasks.iter().any(|task| task["job"] == self.job.as_str() && task["step"] == "embed"))
    }

    /// Waits for its end; returns the job and its events, oldest first.
    fn end(self, stack: &Stack) -> (Value, Vec<Value>) {
        self.client.wait(PATIENCE);
        (stack.job(&self.job), events(stack, &self.job))
    }
}

fn workers(stack: &Stack) -> Vec<Value> {
    stack.warren(&["workers", "--json"]).ok().json_lines()
}

fn events(stack: &Stack, job: &str) -> Vec<Value> {
    let lines = stack.warren(&["watch", "--json", job]).json_lines();
    lines.into_iter().filter(|line| line["event"].is_string()).collect()
}

fn event<'a>(events: &'a [Value], name: &str) -> &'a Value {
    events.iter().find(|event| event["event"] == name).unwrap_or_else(|| panic!("no {name}: {events:?}"))
}

/// Seconds from one moment to a later one on the same day, or the next.
fn between(earlier: &Value, later: &Value) -> f64 {
    let of_day = |at: &Value| {
        let clock = at.as_str().and_then(|text| text.split_once('T')).unwrap_or_else(|| panic!("no time: {at}")).1;
        let parts = clock
            .split(['Z', '+'])
            .next()
            .unwrap_or_default()
            .split(':')
            .map(|part| part.parse::<f64>().expect("a number"));
        parts.fold(0.0, |sum, part| sum * 60.0 + part)
    };
    (of_day(later) - of_day(earlier)).rem_euclid(86_400.0)
}

fn a_soft_limit(stack: &Stack) {
    let embedding = Embedding::begin(stack, "drill-wait-1000", 40, &["--soft-timeout", "3"]);
    let (job, events) = embedding.end(stack);
    assert_eq!((&job["state"], &job["error_code"]), (&"failed".into(), &"JobTimeout".into()), "{job}");
    let soft = event(&events, "job.timeout_soft");
    assert_eq!(soft["fields"]["timeout_seconds"], 3.0, "{soft}");
    // What ran was finished and counts; what had not begun never ran.
    let cancelled = soft["fields"]["tasks_cancelled"].as_f64().expect("a number");
    let done = job["progress_done"].as_f64().expect("a number");
    println!("    {done} done, {cancelled} not begun");
    assert!(done >= 1.0 && cancelled >= 1.0 && done + cancelled == 40.0, "{job} {soft}");
    let took = between(&event(&events, "job.started")["at"], &soft["at"]);
    assert!((2.9..6.0).contains(&took), "{took} s");
    assert_eq!(event(&events, "job.failed")["fields"]["error_code"], "JobTimeout");
}

/// In the middle of a task that takes longer: by force.
fn a_hard_limit_of_its_own(stack: &Stack) {
    let (job, events) = Embedding::begin(stack, "drill-20000", 3, &["--timeout", "3"]).end(stack);
    assert_eq!((&job["error_code"], &job["progress_done"]), (&"JobTimeout".into(), &0.0.into()), "{job}");
    let timeout = event(&events, "job.timeout");
    let took = between(&event(&events, "job.started")["at"], &timeout["at"]);
    println!("    stopped after {took:.1} s");
    assert!((2.9..=5.0).contains(&took), "{took} s");
    until("the device is free", FREED, || (!is_leased(stack)).then_some(()));
    let before = worked(stack);
    during(Duration::from_secs(1), || None::<()>);
    assert!(worked(stack) - before < 0.4, "the workers still work");
}

/// Seconds of processor time that the workers have used.
fn worked(stack: &Stack) -> f64 {
    let workers = stack.ps().into_iter().filter(|s| s.name.starts_with("batch") || s.name.starts_with("trans"));
    let all = workers.filter_map(|service| service.pid).flat_map(processes::family);
    all.map(|process| ticks(process.pid) as f64 / 100.0).sum()
}

fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// True while somebody has a device.
fn is_leased(stack: &Stack) -> bool {
    stack.warren(&["workers"]).ok().stdout.contains(" is leased to ")
}

/// Cancels, and waits until device and processor are free. Returns the answer.
fn cancel(stack: &Stack, job: &str) -> Value {
    let begun = Instant::now();
    let answer = stack.warren(&["cancel", "--json", job]).ok().json();
    let told = begun.elapsed();
    until("the device is free", FREED, || (!is_leased(stack)).then_some(()));
    let free = begun.elapsed();
    assert!(free <= FREED, "free after {:.2} s", free.as_secs_f64());
    let before = worked(stack);
    during(Duration::from_secs(1), || None::<()>);
    let busy = worked(stack) - before;
    println!(
        "    answered after {:.2} s, free after {:.2} s, then {busy:.2} s of work",
        told.as_secs_f64(),
        free.as_secs_f64()
    );
    assert!(busy < 0.4, "the workers still worked for {busy} s");
    answer
}

fn cancelling(stack: &Stack) {
    let embedding = Embedding::begin(stack, "drill-5000", 50, &[]);
    embedding.until_running(stack);
    until("the device is in use", PATIENCE, || is_leased(stack).then_some(()));
    let job = embedding.job.clone();
    let answer = cancel(stack, &job);
    assert_eq!((&answer["state"], &answer["effective"]), (&"cancelled".into(), &true.into()), "{answer}");
    let stopped = answer["tasks_cancelled"].as_f64().expect("a number");
    let (ended, _) = embedding.end(stack);
    assert_eq!(stopped + ended["progress_done"].as_f64().expect("a number"), 50.0, "{answer} {ended}");
    // Once more does nothing, and says so.
    let again = stack.warren(&["cancel", "--json", &job]).ok().json();
    assert_eq!((&again["state"], &again["tasks_cancelled"]), (&"cancelled".into(), &0.into()), "{again}");
    assert_eq!(stack.job(&job), ended, "what has ended does not change");
}

/// Keeps the processors busy until it is dropped.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn all() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            let over = over.clone();
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(over)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// An encoder pass takes seconds then, and is given up in the middle.
fn cancelling_speech(stack: &Stack) {
    let speech = recordings::long_english(&stack.folder().join("cancelled.wav"), 6);
    for step in ["encode", "decode"] {
        let before = stack.jobs().len();
        let client = stack.begin(&["transcribe", "--json", "--model", "base", "--language", "en", path(&speech.path)]);
        let busy = Busy::all();
        let at_it = |task: &Value| task["step"] == step;
        until("the model is at it", PATIENCE, || {
            let running = |worker: &Value| worker["running"].as_array().is_some_and(|tasks| tasks.iter().any(at_it));
            workers(stack).iter().any(running).then_some(())
        });
        let job = stack.jobs()[0]["id"].as_str().expect("an id").to_owned();
        assert_eq!(stack.jobs().len(), before + 1);
        println!("    {step}:");
        let answer = cancel(stack, &job);
        assert_eq!((&answer["state"], &answer["effective"]), (&"cancelled".into(), &true.into()), "{answer}");
        drop(busy);
        client.wait(PATIENCE);
    }
}

/// A caller who waits and hangs up ends its job, unless somebody else waits; whoever only handed it in does not.
fn hanging_up(stack: &Stack) {
    let Embedding { client, job } = Embedding::begin(stack, "drill-5000", 50, &["--attached"]);
    until("the device is in use", PATIENCE, || is_leased(stack).then_some(()));
    let begun = Instant::now();
    drop(client);
    until("the device is free", FREED, || (!is_leased(stack)).then_some(()));
    println!("    free after {:.2} s", begun.elapsed().as_secs_f64());
    assert!(begun.elapsed() <= FREED, "{:?}", begun.elapsed());
    let before = worked(stack);
    during(Duration::from_secs(1), || None::<()>);
    assert!(worked(stack) - before < 0.4, "the workers still work");
    assert_eq!(stack.job(&job)["state"], "cancelled");
    let told = events(stack, &job);
    assert!(event(&told, "job.cancelled")["message"].as_str().is_some_and(|why| why.contains("hung up")), "{told:?}");

    let Embedding { client, job } = Embedding::begin(stack, "drill-wait-1000", 12, &["--attached"]);
    let watching = stack.begin(&["watch", "--json", &job]);
    during(Duration::from_secs(1), || None::<()>);
    drop(client);
    watching.wait(PATIENCE).ok();
    assert_eq!(stack.job(&job)["state"], "succeeded", "somebody else waited for it");

    let Embedding { client, job } = Embedding::begin(stack, "drill-wait-1000", 8, &[]);
    drop(client);
    stack.warren_within(PATIENCE, &["watch", "--json", &job], "").ok();
    assert_eq!(stack.job(&job)["state"], "succeeded", "nobody was promised to wait for it");

    // To its end, an attached command is like any other.
    let embedding = Embedding::begin(stack, "drill-wait-100", 4, &["--attached"]);
    assert_eq!(embedding.end(stack).0["state"], "succeeded");
}

fn cancelling_ffmpeg(stack: &Stack, folder: &Path) {
    fs::write(folder.join("silent"), "").expect("room for a file");
    let opus = wave::convert(&inaugural().path, &stack.folder().join("voice.opus"), &["-b:a", "24k"]);
    let client = stack.begin(&["transcribe", "--json", "--model", "tiny.en", path(&opus)]);
    let worker = stack.service("transcription").pid.expect("it runs");
    let children = || processes::family(worker).into_iter().filter(|child| child.pid != worker).collect::<Vec<_>>();
    let child = until("ffmpeg runs", PATIENCE, || children().first().copied());
    let job = stack.jobs()[0]["id"].as_str().expect("an id").to_owned();
    let begun = Instant::now();
    stack.warren(&["cancel", "--json", &job]).ok();
    until("ffmpeg has gone", FREED, || (!child.alive()).then_some(()));
    println!("    gone after {:.2} s", begun.elapsed().as_secs_f64());
    assert!(begun.elapsed() <= FREED);
    fs::remove_file(folder.join("silent")).expect("our own file");
    client.wait(PATIENCE);
    assert_eq!(stack.job(&job)["state"], "cancelled");
}

fn the_hard_limit(stack: &Stack) {
    let (job, events) = Embedding::begin(stack, "drill-wait-1000", 200, &[]).end(stack);
    assert_eq!((&job["state"], &job["error_code"]), (&"failed".into(), &"JobTimeout".into()), "{job}");
    let timeout = event(&events, "job.timeout");
    assert_eq!(timeout["fields"]["timeout_seconds"], 5.0, "{timeout}");
    let took = between(&event(&events, "job.started")["at"], &timeout["at"]);
    println!("    failed after {took:.1} s");
    assert!((4.9..=7.0).contains(&took), "{took} s");
    let message = job["error_message"].as_str().unwrap_or_default();
    assert!(message.contains("limit of 5 s") && message.contains("last step: "), "{message}");
    until("its tasks are dropped", FREED, || {
        workers(stack).iter().all(|worker| worker["running"].as_array().is_none_or(Vec::is_empty)).then_some(())
    });
    let queues = stack.warren(&["queues", "--json"]).ok().json_lines();
    let open = |queue: &Value| queue["unreleased"].as_u64().unwrap_or(1) + queue["released"].as_u64().unwrap_or(1);
    assert!(queues.iter().all(|queue| open(queue) == 0), "{queues:?}");
    during(Duration::from_secs(3), || None::<()>);
    assert_eq!(
        stack.job(job["id"].as_str().expect("an id"))["progress_done"],
        job["progress_done"],
        "nothing more ran"
    );

    // A job's own limit goes before the server's, either way.
    let (job, _) = Embedding::begin(stack, "drill-wait-1000", 40, &["--timeout", "90"]).end(stack);
    assert_eq!(job["state"], "succeeded", "{job}");
    let (job, events) = Embedding::begin(stack, "drill-wait-1000", 40, &["--timeout", "2"]).end(stack);
    assert_eq!(job["error_code"], "JobTimeout", "{job}");
    assert_eq!(event(&events, "job.timeout")["fields"]["timeout_seconds"], 2.0);
}

fn a_smaller_model(stack: &Stack) {
    let voice = inaugural();
    let says = ["`large-v3` needs 10.0 GB", "cpu, has 1.6 GB", "use base (0.9 GB)"];
    refused(stack, &voice.path, &["--model", "large-v3"], "OutOfMemory", &says);
    let heard = transcribe(stack, &voice.path, &["--model", "large-v3", "--allow-downgrade", "--timeout", "120"]);
    assert_eq!(heard["state"], "succeeded", "{heard}");
    assert_eq!((&heard["model"], &heard["downgraded_from"]), (&"base".into(), &"large-v3".into()), "{heard}");
    let job = stack.job(heard["job"].as_str().expect("an id"));
    assert_eq!((&job["model"], &job["downgraded_from"]), (&"base".into(), &"large-v3".into()), "{job}");
    assert!(heard["text"].as_str().is_some_and(|text| text.contains("your country")), "{heard}");
}

fn a_disk_without_room(stack: &Stack) {
    let before = stack.jobs().len();
    let opus = wave::convert(&inaugural().path, &stack.folder().join("voice.opus"), &["-b:a", "24k"]);
    let client = stack.begin(&["transcribe", "--json", "--model", "tiny.en", "--timeout", "60", path(&opus)]);
    let job = until("the job is accepted", PATIENCE, || {
        let jobs = stack.jobs();
        (jobs.len() > before).then(|| jobs[0]["id"].as_str().expect("an id").to_owned())
    });
    let waits = || stack.warren(&["queues", "--json"]).ok().json_lines().iter().any(|q| q["retry_later"] == 1);
    until("it waits for room", PATIENCE, || waits().then_some(()));
    // One call says so, with the cause.
    let why = stack.warren(&["jobs", "explain", "--json", &job]).ok().json();
    assert_eq!((&why["waiting_for"], &why["state"]), (&"retry".into(), &"running".into()), "{why}");
    assert!(why["next_retry_at"].is_string(), "{why}");
    let reason = why["reason"].as_str().unwrap_or_default();
    println!("    {reason}");
    assert!(reason.contains("wait for a later try: prepare waits") && reason.contains("free"), "{reason}");
    stack.warren(&["cancel", &job]).ok();
    client.wait(PATIENCE);
    let events = events(stack, &job);
    let later = event(&events, "job.retry_later");
    assert_eq!(later["fields"]["error_code"], "InsufficientDisk", "{later}");
    assert_eq!(later["fields"]["spends_attempt"], false, "{later}");
    assert!(events.iter().all(|event| event["event"] != "job.prepared"), "{events:?}");
}

fn a_slow_worker(stack: &Stack) {
    // Longer than a worker may be silent.
    let embedding = Embedding::begin(stack, "drill-20000", 1, &[]);
    let id = embedding.until_running(stack)["id"].clone();
    let (mut beats, mut client) = (Vec::new(), embedding.client);
    while client.runs() {
        let job = stack.job(&embedding.job);
        if job["state"] == "running" && job["heartbeat_at"].is_string() {
            assert!(job["last_step"].as_str().is_some_and(|step| !step.is_empty()), "{job}");
            beats.push(job["heartbeat_at"].clone());
        }
        let workers = workers(stack);
        let worker = workers.iter().find(|worker| worker["id"] == id).expect("listed");
        assert_eq!(worker["state"], "live", "{worker}");
        during(Duration::from_millis(500), || None::<()>);
    }
    client.wait(PATIENCE).ok();
    let still = beats.windows(2).map(|pair| between(&pair[0], &pair[1])).fold(0.0, f64::max);
    println!("    {} looks, the heartbeat stood for at most {still:.1} s", beats.len());
    assert!(between(&beats[0], &beats[beats.len() - 1]) > 12.0, "{beats:?}");
    assert!(still < 15.0);
    let events = events(stack, &embedding.job);
    assert!(events.iter().all(|event| event["event"] != "task.worker_lost"), "{events:?}");
    assert_eq!(stack.job(&embedding.job)["state"], "succeeded");

    // What it does changes, too, while it works on windows of speech.
    let speech = recordings::long_english(&stack.folder().join("slow.wav"), 6);
    let mut client = stack.begin(&["transcribe", "--json", "--model", "base", path(&speech.path)]);
    let (mut last, mut since, mut longest) = (Value::Null, Instant::now(), Duration::ZERO);
    while client.runs() {
        let job = stack.jobs().remove(0);
        let now = Value::Array(vec![job["last_step"].clone(), job["progress_done"].clone()]);
        if now != last {
            longest = longest.max(since.elapsed());
            (last, since) = (now, Instant::now());
        }
        during(Duration::from_millis(300), || None::<()>);
    }
    client.wait(PATIENCE).ok();
    println!("    step and progress stood for at most {:.1} s", longest.as_secs_f64());
    assert!(longest < Duration::from_secs(15));
}

/// The worker's loss as the job tells it.
fn assert_lost(events: &[Value], worker: &str) {
    let named = |event: &Value| {
        let message = event["message"].as_str().unwrap_or_default();
        event["event"] == "task.worker_lost" && event["fields"]["step"] == "embed" && message.contains(worker)
    };
    // Those that waited for the device are told of, too.
    assert!(events.iter().any(named), "{events:?}");
}

/// It ends what it is at and goes; nothing runs twice.
fn a_worker_told_to_go(stack: &Stack) {
    let embedding = Embedding::begin(stack, "drill-wait-5000", 8, &[]);
    let victim = embedding.until_running(stack)["id"].as_str().expect("a name").to_owned();
    stack.service(&victim).signal(Signal::SIGTERM);
    until("another process in its place", LOST, || (stack.service(&victim).restarts == 1).then_some(()));
    assert_eq!(stack.service(&victim).last_end.as_deref(), Some("ended with exit status: 0"));
    let (job, events) = embedding.end(stack);
    assert_eq!((&job["state"], &job["progress_done"]), (&"succeeded".into(), &8.0.into()), "{job}");
    // What it has not begun it gives back.
    let not_begun = |event: &Value| event["fields"]["error_code"] == "LeaseNotGranted";
    let names: Vec<&Value> = events.iter().filter(|event| !not_begun(event)).map(|event| &event["event"]).collect();
    assert_eq!(names, ["job.submitted", "job.started", "job.succeeded"], "{events:?}");
}

fn a_killed_worker(stack: &Stack) {
    let embedding = Embedding::begin(stack, "drill-wait-5000", 8, &[]);
    let victim = embedding.until_running(stack);
    let (name, boot) = (victim["id"].as_str().expect("a name").to_owned(), victim["boot"].clone());
    let begun = Instant::now();
    stack.kill(&name);
    let gone = until("another process in its place", LOST, || {
        let all = workers(stack);
        all.iter().all(|worker| worker["boot"] != boot || worker["state"] == "lost").then(|| begun.elapsed())
    });
    println!("    {name} gone after {:.1} s", gone.as_secs_f64());
    let (job, events) = embedding.end(stack);
    assert_eq!((&job["state"], &job["progress_done"]), (&"succeeded".into(), &8.0.into()), "{job}");
    assert_lost(&events, &name);
    assert!(begun.elapsed() < LOST, "{:?}", begun.elapsed());
}

/// The process lives and reports; only its work does not end.
fn hung_work(stack: &Stack) {
    stack.until_ready();
    let embedding = Embedding::of(stack, "drill-0", "drill:hang\n", &[]);
    let victim = embedding.until_running(stack);
    let name = victim["id"].as_str().expect("a name");
    let (begun, before) = (Instant::now(), stack.service(name).restarts);
    until("the worker ends itself", LOST, || (stack.service(name).restarts > before).then_some(()));
    println!("    {name} ended itself after {:.1} s", begun.elapsed().as_secs_f64());
    let lost = || workers(stack).iter().all(|worker| worker["boot"] != victim["boot"]).then_some(());
    until("it is taken for lost", LOST, lost);
    stack.warren(&["cancel", &embedding.job]).ok();
    let (_, events) = embedding.end(stack);
    assert_lost(&events, name);
}

fn a_hung_worker(stack: &Stack) {
    stack.until_ready();
    let embedding = Embedding::begin(stack, "drill-wait-5000", 16, &[]);
    let victim = embedding.until_running(stack)["id"].as_str().expect("a name").to_owned();
    let begun = Instant::now();
    stack.service(&victim).signal(Signal::SIGSTOP);
    until("it is shown as lost", LOST, || {
        workers(stack).iter().any(|worker| worker["id"] == victim.as_str() && worker["state"] == "lost").then_some(())
    });
    println!("    {victim} lost after {:.1} s", begun.elapsed().as_secs_f64());
    let (job, events) = embedding.end(stack);
    println!("    all done after {:.1} s", begun.elapsed().as_secs_f64());
    assert_eq!((&job["state"], &job["progress_done"]), (&"succeeded".into(), &16.0.into()), "{job}");
    assert!(begun.elapsed() < LOST, "{:?}", begun.elapsed());
    assert_lost(&events, &victim);
    stack.service(&victim).signal(Signal::SIGCONT);
    until("it is back", LOST, || {
        workers(stack).iter().any(|worker| worker["id"] == victim.as_str() && worker["state"] == "live").then_some(())
    });
    stack.until_ready();
}
