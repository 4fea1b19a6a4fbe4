//! Memory that is short: on the device, for the process, for good. The processor stands in for a card, and stand-in models
//! for those that find no room.

use std::{
    fs,
    path::{Path, PathBuf},
    process::id,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::runtime::Runtime;
use warren_tests::{
    cases::Cases,
    faults::client::Client,
    nightly,
    stack::{Stack, Wishes},
    wait::{during, until},
};

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(40);
/// The worker that all of it is about.
const WORKER: &str = "batch-embedding";
/// A real model.
const MODEL: &str = "all-MiniLM-L6-v2";
/// Above so many MB it leaves.
const MOST_MB: u64 = 700;
/// A task that took so many workers with it is dead.
const LOSSES: usize = 3;

#[test]
fn memory_runs_short() {
    let orders = tempfile::tempdir().expect("a temporary folder");
    let settings = format!(
        "[coordinator.release]\ntask_texts = 32\n[coordinator.reaper]\nmax_losses = {LOSSES}\n\
         [[coordinator.devices]]\nname = \"cpu\"\nmax_concurrent = 8\nmemory_mib = 4096\n\
         [{WORKER}.work]\nmax_memory_mb = {MOST_MB}\nslots = 2\n"
    );
    let folder = orders.path().to_str().expect("temporary folders have plain names");
    let environment = &[(warren_drills::FOLDER, folder)];
    let stack = Stack::with(&Wishes { settings, environment, ..Wishes::default() });
    let mut cases = Cases::new();
    cases.case("once: what can be freed is freed, and the job succeeds", || once(&stack));
    cases.case("again: smaller batches, and the size is remembered", || smaller_batches(&stack));
    cases.case("always: it ends, with the arithmetic", || always(&stack));
    cases.case("somebody else has the device's memory", || a_stranger(&stack, &orders.path().join("held-cpu")));
    cases.case("jobs leave memory as it was, and a worker that has grown too large is replaced", || {
        soak(&stack);
        grown_too_large(&stack);
    });
    cases.case("a worker that is killed for its memory", || killed_by_the_kernel(&stack));
    cases.case("a task that kills every worker ends", || kills_every_worker(&stack));
    cases.finish();
    stack.stop();
}

/// Embeds texts to the end; the job as it is then, and its events, oldest first.
fn embed(stack: &Stack, model: &str, texts: &[String]) -> (Value, Vec<Value>) {
    stack.warren_within(PATIENCE, &["embed", "--json", "--model", model, "-"], &texts.join("\n"));
    ended(stack)
}

/// The newest job.
fn ended(stack: &Stack) -> (Value, Vec<Value>) {
    let job = stack.jobs().remove(0);
    let events = events(stack, &job);
    (job, events)
}

fn events(stack: &Stack, job: &Value) -> Vec<Value> {
    let lines = stack.warren(&["watch", "--json", job["id"].as_str().expect("an id")]).json_lines();
    lines.into_iter().filter(|line| line["event"].is_string()).collect()
}

/// One order and so many texts in all.
fn texts(order: &str, count: usize) -> Vec<String> {
    let plain = (1..count).map(|n| format!("text {n}"));
    std::iter::once(order.to_owned()).chain(plain).collect()
}

fn of<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

/// From and to, of each step down.
fn steps(events: &[Value]) -> Vec<(u64, u64)> {
    let field = |event: &Value, name: &str| event["fields"][name].as_f64().expect("a number") as u64;
    let all = of(events, "gpu.oom");
    for event in &all {
        println!("    {}", event["message"].as_str().unwrap_or_default());
        let free = ["memory_free_before_bytes", "memory_free_after_bytes"].map(|name| field(event, name));
        assert!(free.iter().all(|bytes| *bytes > 1 << 20), "{event}");
    }
    all.iter().map(|event| (field(event, "batch"), field(event, "next_batch"))).collect()
}

fn assert_done(job: &Value, texts: usize) {
    assert_eq!((&job["state"], &job["progress_done"]), (&"succeeded".into(), &(texts as f64).into()), "{job}");
}

fn once(stack: &Stack) {
    let file = stack.folder().join("once");
    let (job, events) = embed(stack, "drill-1", &texts(&format!("drill:memory-once {}", file.display()), 8));
    assert_done(&job, 8);
    assert_eq!(steps(&events), [(8, 8)]);
    assert!(job["peak_memory_bytes"].as_u64().is_some_and(|bytes| bytes > 4 << 20), "{job}");
    assert!(of(&events, "task.worker_lost").is_empty() && of(&events, "job.retry_later").is_empty(), "{events:?}");
}

fn smaller_batches(stack: &Stack) {
    let order = texts("drill:memory 6", 32);
    let down = [(32, 32), (32, 16), (16, 8), (8, 4)];
    let (job, events) = embed(stack, "drill-2", &order);
    assert_done(&job, 32);
    assert_eq!(steps(&events), down);

    // The next one begins with what fitted; so does another process, which is told by the coordinator.
    let (job, events) = embed(stack, "drill-2", &order);
    assert_done(&job, 32);
    assert_eq!(steps(&events), []);
    stack.warren(&["restart", WORKER]).ok();
    stack.warren(&["restart", "coordinator"]).ok();
    stack.until_ready();
    let (job, events) = embed(stack, "drill-2", &order);
    assert_done(&job, 32);
    assert_eq!(steps(&events), [], "it is remembered");

    // Nothing is known of other models, nor of longer texts.
    assert_eq!(steps(&embed(stack, "drill-5", &order).1), down);
    let mut longer = order;
    longer[7] = "long ".repeat(200);
    assert_eq!(steps(&embed(stack, "drill-2", &longer).1), down);
}

fn always(stack: &Stack) {
    let letters = stack.dead_letters().len();
    let begun = Instant::now();
    let (job, events) = embed(stack, "drill-10", &texts("drill:memory 0", 32));
    println!("    {} ({:.1} s)", job["error_message"].as_str().unwrap_or_default(), begun.elapsed().as_secs_f64());
    assert_eq!((&job["state"], &job["error_code"]), (&"failed".into(), &"OutOfMemory".into()), "{job}");
    assert_eq!(steps(&events), [(32, 32), (32, 16), (16, 8), (8, 4), (4, 2), (2, 1), (1, 0)]);
    let message = job["error_message"].as_str().unwrap_or_default();
    for said in ["`drill-10`", "tried 32, 32, 16, 8, 4, 2, 1 at once", "are free", "there is room for 0"] {
        assert!(message.contains(said), "{said}: {message}");
    }
    assert_eq!(stack.dead_letters().len(), letters + 1);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

/// Somebody who has the device's memory, as it seems, until this is dropped.
struct Stranger<'a>(&'a Path);

impl<'a> Stranger<'a> {
    fn with(held: &'a Path, bytes: u64) -> Self {
        fs::write(held, bytes.to_string()).expect("room for a file");
        Self(held)
    }
}

impl Drop for Stranger<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}

/// Work that would need what a stranger has waits outside the worker, which does other work meanwhile.
fn a_stranger(stack: &Stack, held: &Path) {
    // What is loaded works on, as it would not make room enough.
    assert_done(&embed(stack, "drill-2", &texts("one", 4)).0, 4);
    let stranger = Stranger::with(held, 1 << 50);
    let file = stack.folder().join("waits.txt");
    fs::write(&file, "one\ntwo\n").expect("room for a file");
    let waiting = stack.begin(&["embed", "--json", "--model", MODEL, file.to_str().expect("a plain name")]);
    let waits = || stack.warren(&["queues", "--json"]).ok().json_lines().iter().any(|queue| queue["retry_later"] == 1);
    until("it waits", PATIENCE, || waits().then_some(()));
    let (other, _) = embed(stack, "drill-2", &texts("one", 4));
    assert_done(&other, 4);
    let leased = || stack.warren(&["workers"]).ok().stdout.contains(&format!("for {MODEL} "));
    until("it holds no device while it waits", PATIENCE, || (!leased()).then_some(()));
    assert!(waits(), "it was given back before the task came again");
    drop(stranger);
    waiting.wait(PATIENCE).ok();
    let job = stack.jobs().into_iter().find(|job| job["model"] == MODEL).expect("accepted");
    let events = events(stack, &job);
    assert_done(&job, 2);
    let later = of(&events, "job.retry_later");
    let said = later[0]["message"].as_str().unwrap_or_default();
    println!("    {said}");
    let need = format!("`{MODEL}` needs 0.5 GB and cpu has 0 MB free of ");
    assert!(
        said.contains(&need) && said.contains("models of this worker hold ") && said.contains(" MB, other programs "),
        "{said}"
    );
    let fields = &later[0]["fields"];
    assert_eq!((&fields["error_code"], &fields["spends_attempt"]), (&"OutOfMemory".into(), &false.into()), "{fields}");
}

/// Bytes that a service's process has in memory.
fn resident(stack: &Stack, service: &str) -> u64 {
    let pid = stack.service(service).pid.expect("it runs");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
}

fn soak(stack: &Stack) {
    let jobs = if nightly() { 1_000 } else { 100 };
    let runtime = Runtime::new().expect("a runtime");
    let grpc = stack.endpoints()["grpc"]["url"].as_str().expect("an address").to_owned();
    let client = runtime.block_on(async { Client::new(&grpc) });
    let run = |name: &str, count: usize| {
        runtime.block_on(async {
            for n in 0..count {
                let sentence = |m| format!("Sentence {m} of job {n} says what the badger found under the old roof.");
                let texts: Vec<String> = (0..16).map(sentence).collect();
                let id = format!("{name}-{n}");
                let job = client.submit(&id, MODEL, &texts).await.expect("accepted");
                let ended = client.ended(&job, PATIENCE).await.expect("it ends");
                assert_eq!(ended.progress_done, 16.0, "{ended:?}");
            }
        });
    };
    // What allocators and caches of a fixed size take at first is no leak.
    run("warm", 50);
    let services = [WORKER, "coordinator", "ingest"];
    let restarts = services.map(|service| stack.service(service).restarts);
    let begun = Instant::now();
    // Threads come and go with their pools of memory, so the most of each half is compared.
    let half = |name: &str| {
        (0..jobs / 20).fold([0; 3], |most, part| {
            run(&format!("{name}-{part}"), 10);
            let now = services.map(|service| resident(stack, service));
            std::array::from_fn(|service| most[service].max(now[service]))
        })
    };
    let (first, second) = (half("first"), half("second"));
    for ((service, first), second) in services.iter().zip(first).zip(second) {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        println!("    {service}: {:.1} MB, then {:.1} MB", megabytes(first), megabytes(second));
        assert!(second < first + first / 20 + (8 << 20), "{service} grows");
    }
    println!("    {jobs} jobs in {:.1} s", begun.elapsed().as_secs_f64());
    assert_eq!(services.map(|service| stack.service(service).restarts), restarts);
}

/// A group of processes that may have only so much memory, as a container is one. Removed at the end.
struct Confined(PathBuf);

impl Confined {
    /// `None` where this process may not make one, as inside most containers.
    fn at(bytes: u64) -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = |controller: &str| {
            let line = groups.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(controller))?;
            line.strip_prefix(':').map(|path| path.trim_start_matches('/').to_owned())
        };
        let name = format!("warren-test-{}", id());
        let (root, limit) = match own("memory") {
            Some(path) => (Path::new("/sys/fs/cgroup/memory").join(path), "memory.limit_in_bytes"),
            None => (Path::new("/sys/fs/cgroup").join(own("")?), "memory.max"),
        };
        let group = Self(root.join(name));
        fs::create_dir(&group.0).ok()?;
        fs::write(group.0.join(limit), bytes.to_string()).ok()?;
        Some(group)
    }

    fn take(&self, pid: u32) -> bool {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).is_ok()
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Its own order would make every worker too large, so the second one, which nobody confines, can do it.
fn killed_by_the_kernel(stack: &Stack) {
    stack.until_ready();
    let before = stack.service(WORKER);
    let small = resident(stack, WORKER);
    let confined = Confined::at(small + (100 << 20)).filter(|group| group.take(before.pid.expect("it runs")));
    let file = stack.folder().join("fill.txt");
    fs::write(&file, texts("drill:fill 300", 8).join("\n")).expect("room for a file");
    let model = if confined.is_some() { "drill-1000" } else { "drill-wait-5000" };
    let client = stack.begin(&["embed", "--json", "--model", model, file.to_str().expect("a plain name")]);
    if confined.is_none() {
        println!("    memory of a process cannot be limited here; it is killed without that");
        let runs = || stack.warren(&["workers", "--json"]).ok().stdout.contains(r#""step":"embed""#);
        until("the worker has it", PATIENCE, || runs().then_some(()));
        stack.kill(WORKER);
    }
    until("it is killed", PATIENCE, || (stack.service(WORKER).restarts > before.restarts).then_some(()));
    client.wait(PATIENCE).ok();
    drop(confined);
    let (job, events) = ended(stack);
    assert_done(&job, 8);
    let lost = of(&events, "task.worker_lost");
    println!("    {}", lost[0]["message"].as_str().unwrap_or_default());
    assert_eq!((lost.len(), &lost[0]["fields"]["step"]), (1, &"embed".into()), "{events:?}");
    let said = lost[0]["message"].as_str().unwrap_or_default();
    assert!(said.contains(WORKER) && said.contains("`embed` of texts from 0 on"), "{said}");
}

fn grown_too_large(stack: &Stack) {
    stack.until_ready();
    let before = stack.service(WORKER);
    let file = stack.folder().join("grow.txt");
    fs::write(&file, texts(&format!("drill:fill {MOST_MB}"), 320).join("\n")).expect("room for a file");
    let client = stack.begin(&["embed", "--json", "--model", "drill-wait-500", file.to_str().expect("a plain name")]);
    let gone = || stack.service(WORKER).restarts > before.restarts;
    until("it leaves", PATIENCE, || gone().then_some(()));
    client.wait(PATIENCE).ok();
    let (job, events) = ended(stack);
    assert_done(&job, 320);
    assert!(of(&events, "task.worker_lost").is_empty(), "nothing is lost: {events:?}");
    stack.until_ready();
    let why = until("it is told why", PATIENCE, || {
        let workers = stack.warren(&["workers", "--json"]).ok().json_lines();
        let worker = workers.into_iter().find(|worker| worker["id"] == WORKER && worker["state"] == "live")?;
        worker["last_error"].as_str().filter(|why| why.starts_with("left: ")).map(str::to_owned)
    });
    println!("    {why}");
    assert!(why.contains("MB are in use, work.max_memory_mb is 700"), "{why}");
    assert_eq!(stack.service(WORKER).restarts, before.restarts + 1, "once");
    assert!(resident(stack, WORKER) < MOST_MB << 20);
    assert_eq!(during(Duration::from_secs(1), || (!gone()).then_some(())), None, "the fresh one stays");
}

fn kills_every_worker(stack: &Stack) {
    stack.until_ready();
    let letters = stack.dead_letters().len();
    let (begun, before) = (Instant::now(), stack.service(WORKER).restarts);
    let (job, events) = embed(stack, "drill-0", &texts("drill:kill", 1));
    println!("    {} ({:.1} s)", job["error_message"].as_str().unwrap_or_default(), begun.elapsed().as_secs_f64());
    assert_eq!((&job["state"], &job["error_code"]), (&"failed".into(), &"WorkerLost".into()), "{job}");
    let message = job["error_message"].as_str().unwrap_or_default();
    assert!(
        message.contains(&format!("{LOSSES} workers were lost")) && message.contains("last step was `"),
        "{message}"
    );
    assert_eq!(
        (of(&events, "task.worker_lost").len(), stack.dead_letters().len()),
        (LOSSES, letters + 1),
        "{events:?}"
    );
    assert!(stack.service(WORKER).restarts >= before + LOSSES as u64);
    stack.until_ready();
    assert_done(&embed(stack, "drill-0", &texts("one", 4)).0, 4);
}
