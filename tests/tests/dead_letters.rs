//! What no service can read ends where a person finds it, and can be put right and sent again; what somebody throws away
//! goes out again by itself.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use warren_recordings::error_rate;
use warren_tests::{
    cases::Cases,
    command::Running,
    nightly,
    recordings::inaugural,
    stack::{Stack, Wishes, keys},
    wait::{during, until},
};

/// Exchange, routing key and queue of each work queue.
const WORK: [(&str, &str, &str); 5] = [
    ("warren.task", "prepare", "warren.task.prepare"),
    ("warren.task", "transcribe", "warren.task.transcribe"),
    ("warren.task", "embed", "warren.task.embed"),
    ("warren.event", "warren.job", "warren.job"),
    ("warren.event", "warren.result", "warren.result"),
];
/// A message is handled within this time.
const SOON: Duration = Duration::from_secs(30);

#[test]
fn dead_letters_are_found_and_replayed() {
    // Each text is a task of its own: one that dies takes no other with it.
    let settings = "[coordinator.release]\ntask_texts = 1\n[batch-embedding.work]\nslots = 8\n\
                    [[coordinator.devices]]\nname = \"cpu\"\nmax_concurrent = 16\n"
        .to_owned();
    let stack = Stack::with(&Wishes { settings, ..Wishes::default() });
    let mut cases = Cases::new();
    cases.case("every work queue has somewhere to die", || every_work_queue_has_somewhere_to_die(&stack));
    cases.case("a letter moved by hand is done again", || a_letter_moved_by_hand_is_done_again(&stack));
    cases.case("queues emptied by hand fill again", || queues_emptied_by_hand_fill_again(&stack));
    cases.case("a message that is not JSON dies once, with its cause", || what_is_not_json_dies(&stack));
    cases.case("consumers go on", || consumers_go_on(&stack));
    cases.case("a damaged task is put right and replayed", || a_damaged_task_is_replayed(&stack));
    cases.case("looking changes nothing, and all count alike", || looking_changes_nothing(&stack));
    cases.case("of a hundred batches, three die, are told, and are the only ones to run again", || {
        three_of_a_hundred_die(&stack);
    });
    cases.case("three causes are three groups, and one is replayed at its rate", || three_causes(&stack));
    cases.case("a letter that comes back is stopped at, and parked the second time", || {
        what_comes_back_is_parked(&stack)
    });
    cases.case("a replay outlives the coordinator, and each letter goes once", || {
        a_replay_outlives_the_coordinator(&stack)
    });
    cases.case("what has ended does not change", || what_has_ended_does_not_change(&stack));
    cases.case("letters are exported, discarded with their number, and put back", || letters_are_discarded(&stack));
    cases.case("letters purged by hand are replayed from the index", || purged_letters_are_replayed(&stack));
    cases.finish();
    stack.stop();
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field}: not a text in {value}"))
}

fn every_work_queue_has_somewhere_to_die(stack: &Stack) {
    let queues = stack.management().queues();
    let arguments = |name: &str| {
        let queue = queues.iter().find(|queue| queue["name"] == name).unwrap_or_else(|| panic!("no queue {name}"));
        assert_eq!(queue["durable"], true, "{name}");
        queue["arguments"].clone()
    };
    for (_, key, queue) in WORK {
        let arguments = arguments(queue);
        assert_eq!(text(&arguments, "x-dead-letter-exchange"), "warren.dlx", "{queue}");
        assert_eq!(text(&arguments, "x-dead-letter-routing-key"), key, "{queue}");
        assert_eq!(text(&arguments, "x-dead-letter-strategy"), "at-least-once", "{queue}");
        assert_eq!(text(&arguments, "x-overflow"), "reject-publish", "{queue}: at-least-once needs it");
    }
    for seconds in [5, 10, 20, 40, 80, 160, 320, 600] {
        let arguments = arguments(&format!("warren.retry.{seconds:03}s"));
        assert_eq!(text(&arguments, "x-dead-letter-exchange"), "warren.task", "the ladder's rung of {seconds} s");
        assert_eq!(arguments["x-message-ttl"], seconds * 1_000);
    }
    assert_eq!(arguments("warren.dead").get("x-dead-letter-exchange"), None, "here they stay");
}

fn a_letter_moved_by_hand_is_done_again(stack: &Stack) {
    let management = stack.management();
    let voice = inaugural();
    let file = voice.path.to_str().expect("a plain name");
    // As "Move messages" does, and as a person does who copies the payload alone into "Publish message".
    for headers in [true, false] {
        stack.warren(&["up", "--detach", "--workers", "transcription=0"]).ok();
        let client = stack.begin(&["transcribe", "--json", "--model", "tiny.en", file]);
        let rejected = until("the job's first task", SOON, || management.reject("warren.task.prepare"));
        client.wait(SOON).expect_code(1);
        let letters = until("its letter", SOON, || Some(stack.dead_letters()).filter(|letters| !letters.is_empty()));
        let job = text(&letters[0], "job").to_owned();
        assert_eq!((letters.len(), text(&letters[0], "queue")), (1, "warren.task.prepare"), "{letters:?}");
        assert_eq!(stack.job(&job)["state"], "failed");

        let moved = until("the letter itself", SOON, || management.take("warren.dead"));
        assert_eq!(moved.body, rejected.body);
        let properties = if headers { moved.properties } else { json!({}) };
        management.publish("warren.task", "prepare", &properties, &moved.body);
        stack.warren(&["up", "--detach", "--workers", "transcription=1"]).ok();
        until("the job's success", Duration::from_secs(60), || (stack.job(&job)["state"] == "succeeded").then_some(()));
        let events = events(stack, &job);
        let redriven = events.iter().find(|event| event["event"] == "job.redriven").expect("the event that says so");
        assert!(text(redriven, "message").contains("by hand"), "{redriven}");
        until("the letter to be gone", SOON, || stack.dead_letters().is_empty().then_some(()));
        until("the message to be gone", SOON, || (dead(stack) == 0).then_some(()));
        assert!(done(stack, text(&letters[0], "id"), "replay").iter().all(|deed| deed["actor"] == "by hand"));
    }
}

/// A job's events, and the job as it ended in the last line.
fn events(stack: &Stack, job: &str) -> Vec<Value> {
    stack.warren(&["watch", "--json", job]).json_lines()
}

/// What was done with a letter.
fn done(stack: &Stack, letter: &str, what: &str) -> Vec<Value> {
    let shown = stack.warren(&["dlq", "show", "--json", letter]).ok().json();
    let deeds = shown["history"].as_array().cloned().unwrap_or_default();
    deeds.into_iter().filter(|deed| deed["event"] == what && deed["letter"] == letter).collect()
}

/// What was released and is gone goes out again within this time.
const FILLED: Duration = Duration::from_secs(120);

fn queues_emptied_by_hand_fill_again(stack: &Stack) {
    let management = stack.management();
    let voice = inaugural();
    let file = voice.path.to_str().expect("a plain name");
    stack.warren(&["up", "--detach", "--workers", "transcription=0"]).ok();
    let clients = [(); 2].map(|()| stack.begin(&["transcribe", "--json", "--model", "tiny.en", file]));
    let waiting = || management.depths().get("warren.task.prepare").copied().unwrap_or_default();
    until("both first tasks", SOON, || (waiting() == 2).then_some(()));
    // A long job, and a short one of so many tasks that hundreds of them are out at a time.
    let long = begun(stack, "drill-wait-20000", &texts(2, &[]));
    let many = if nightly() { 20_000 } else { 6_000 };
    let short = begun(stack, "drill-0", &texts(many, &[]));
    let released = || queue(stack, "embed")["released"].as_u64().unwrap_or_default();
    until("hundreds of tasks out", FILLED, || (released() >= 500).then_some(()));
    // While the worker stands still, for much less than its lease lasts, what it has not in hand waits in the queue.
    let worker = stack.service("batch-embedding");
    worker.signal(Signal::SIGSTOP);
    // Released is not yet published.
    let queued = || management.depths().get("warren.task.embed").copied().filter(|tasks| *tasks >= 500);
    let out = until("hundreds of tasks in their queue", SOON, queued);
    WORK.iter().for_each(|(_, _, queue)| management.purge(queue));
    let purged = Instant::now();
    worker.signal(Signal::SIGCONT);
    println!("    {out} tasks were out, {} of {many} done", stack.job(&short.1)["progress_done"]);
    // Another long one, so that the queue is never empty.
    let flowing = nightly().then(|| begun(stack, "drill-wait-500", &texts(800, &[])));
    until("both tasks again", FILLED, || (waiting() == 2).then_some(()));
    let ends = |job: &str| {
        until("the job's end", FILLED.saturating_sub(purged.elapsed()), || {
            (stack.job(job)["state"] == "succeeded").then_some(())
        });
    };
    ends(&long.1);
    if flowing.is_none() {
        ends(&short.1);
    }
    println!("    all done after {:.0} s", purged.elapsed().as_secs_f64());
    stack.warren(&["up", "--detach", "--workers", "transcription=1"]).ok();
    for client in clients {
        let heard = client.wait(Duration::from_secs(60)).ok().json();
        assert!(error_rate::words(&voice.text, text(&heard, "text")) <= 0.1, "once, and right: {heard}");
        assert!(redispatched(stack, text(&heard, "job")) >= 1);
    }
    let shorts = short.1.clone();
    for (client, job) in [Some(long), Some(short), flowing].into_iter().flatten() {
        client.wait(2 * FILLED).ok();
        let count = stack.job(&job)["progress_planned"].as_f64().unwrap_or_default() as u64;
        assert_eq!(vectors(stack, &job), (1..=count).collect::<Vec<u64>>(), "each once");
        let again = redispatched(stack, &job);
        println!("    {count} tasks, {again} of them again");
        assert!(again >= 100 || job != shorts, "the queue was to be full");
    }
    stack.balances();
}

/// Texts being embedded, and their job.
fn begun(stack: &Stack, model: &str, texts: &str) -> (Running, String) {
    let known: Vec<Value> = stack.jobs().iter().map(|job| job["id"].clone()).collect();
    let file = stack.folder().join(format!("{model}.txt"));
    fs::write(&file, texts).expect("room for a file");
    let client = stack.begin(&["embed", "--model", model, file.to_str().expect("a plain name")]);
    let job = until("the job", SOON, || stack.jobs().into_iter().find(|job| !known.contains(&job["id"])));
    (client, text(&job, "id").to_owned())
}

/// One line of `warren queues`.
fn queue(stack: &Stack, kind: &str) -> Value {
    let queues = stack.warren(&["queues", "--json"]).ok().json_lines();
    queues.into_iter().find(|queue| queue["kind"] == kind).expect("a queue of that kind")
}

fn redispatched(stack: &Stack, job: &str) -> usize {
    events(stack, job).iter().filter(|event| event["event"] == "task.redispatched").count()
}

fn what_is_not_json_dies(stack: &Stack) {
    let management = stack.management();
    for (exchange, key, _) in WORK {
        management.publish(exchange, key, &json!({}), "not json");
    }
    let letters = until("a letter for each queue", SOON, || {
        let letters = stack.dead_letters();
        (letters.len() >= WORK.len()).then_some(letters)
    });
    let mut queues: Vec<_> = letters.iter().map(|letter| text(letter, "queue")).collect();
    queues.sort_unstable();
    let mut expected = WORK.map(|(_, _, queue)| queue);
    expected.sort_unstable();
    assert_eq!(queues, expected);
    for letter in &letters {
        for field in ["id", "queue", "class", "cause", "fingerprint", "job", "task", "first_seen"] {
            assert!(letter.get(field).is_some(), "{field}: {letter}");
        }
        assert_eq!(text(letter, "class"), "Malformed", "{letter}");
        assert!(text(letter, "cause").contains("JSON") || text(letter, "cause").contains("expected"), "{letter}");
        assert!(!text(letter, "fingerprint").is_empty(), "{letter}");
        println!("    {}: {}", text(letter, "queue"), text(letter, "cause"));
        let shown = stack.warren(&["dlq", "show", "--json", text(letter, "id")]).ok().json();
        assert_eq!(text(&shown, "body"), "not json");
    }
    // Exactly one message each, and no more come.
    until("the broker's own count", SOON, || (dead(stack) == WORK.len() as u64).then_some(()));
    let more = during(Duration::from_secs(6), || (dead(stack) != WORK.len() as u64).then(|| dead(stack)));
    assert_eq!(more, None, "letters in warren.dead");
    assert!(stack.ps().iter().all(|service| service.restarts == 0), "{:?}", stack.ps());
}

fn dead(stack: &Stack) -> u64 {
    stack.management().depths().get("warren.dead").copied().unwrap_or_default()
}

fn consumers_go_on(stack: &Stack) {
    let voice = inaugural();
    let file = voice.path.to_str().expect("a plain name");
    let heard = stack.warren(&["transcribe", "--json", "--model", "tiny.en", "--index", file]).ok().json();
    assert!(error_rate::words(&voice.text, text(&heard, "text")) <= 0.15, "{heard}");
    assert_eq!(stack.dead_letters().len(), WORK.len());
}

fn a_damaged_task_is_replayed(stack: &Stack) {
    let management = stack.management();
    let voice = inaugural();
    let file = voice.path.to_str().expect("a plain name");
    let before = stack.dead_letters().len();

    // Without a worker, the task waits where a hand can reach it.
    stack.warren(&["up", "--detach", "--workers", "transcription=0"]).ok();
    let client = stack.begin(&["transcribe", "--json", "--model", "tiny.en", file]);
    let taken = until("the job's first task", SOON, || management.take("warren.task.prepare"));
    let good: Value = serde_json::from_str(&taken.body).expect("tasks are JSON");
    let mut damaged = good.clone();
    damaged["prepare"]["sizeBytes"] = json!("many");
    assert_ne!(damaged, good);
    management.publish(&taken.exchange, &taken.key, &taken.properties, &damaged.to_string());
    stack.warren(&["up", "--detach", "--workers", "transcription=1"]).ok();

    let letters = until("a letter more", SOON, || {
        let letters = stack.dead_letters();
        (letters.len() > before).then_some(letters)
    });
    let letter = &letters[0];
    assert_eq!(text(letter, "queue"), "warren.task.prepare", "newest first: {letter}");
    assert_eq!((text(letter, "class"), text(letter, "task")), ("Malformed", text(&good, "id")), "{letter}");
    let (id, job) = (text(letter, "id"), text(letter, "job"));
    assert_eq!(job, text(&good, "job"));
    println!("    {}", text(letter, "cause"));

    // Its job tells why it failed.
    let failed = client.wait(SOON).expect_code(1).json();
    assert!(!text(&failed["error"], "message").is_empty(), "{failed}");
    assert_eq!(stack.job(job)["state"], "failed");

    let shown = stack.warren(&["dlq", "show", "--json", id]).ok().json();
    let mut edited: Value = serde_json::from_str(text(&shown, "body")).expect("it is JSON still");
    edited["prepare"]["sizeBytes"] = good["prepare"]["sizeBytes"].clone();
    let edit = stack.folder().join("put right.json");
    fs::write(&edit, edited.to_string()).expect("room for a file");
    let edit = edit.to_str().expect("a plain name");

    // Trying it out changes nothing.
    let tried = stack.warren(&["dlq", "replay", "--json", "--dry-run", "--edit", edit, id]).ok().json();
    assert_eq!(keys(&tried), ["dry_run", "id", "queue", "refused", "replayed"]);
    assert_eq!((tried["dry_run"].as_bool(), text(&tried, "queue")), (Some(true), "warren.task.prepare"), "{tried}");
    let changed = during(Duration::from_secs(3), || (stack.job(job)["state"] != "failed").then_some(()));
    assert_eq!(changed, None);
    assert_eq!(stack.dead_letters(), letters);

    let replayed = stack.warren(&["dlq", "replay", "--json", "--edit", edit, id]).ok().json();
    assert_eq!((replayed["replayed"].as_bool(), replayed["refused"].as_str()), (Some(true), Some("")), "{replayed}");
    until("the job's success", Duration::from_secs(60), || {
        let state = stack.job(job)["state"].clone();
        (state == "succeeded").then_some(())
    });
    let lines = stack.warren(&["watch", "--json", job]).ok().json_lines();
    let names: Vec<_> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
    println!("    {}", names.join(", "));
    until("the letter to be gone", SOON, || (stack.dead_letters().len() == before).then_some(()));
    until("the message to be gone", SOON, || (dead(stack) == before as u64).then_some(()));
}

/// Texts for the stand-in model; the ones in `dying` die until the file of their cause is there.
fn texts(count: usize, dying: &[(usize, &Path, &str)]) -> String {
    let line = |n: usize| match dying.iter().find(|(line, ..)| *line == n) {
        Some((_, mended, why)) => format!("drill:die-until {}: {why}\n", mended.display()),
        None => format!("text {n}\n"),
    };
    (1..=count).map(line).collect()
}

/// A job of these texts that has failed.
fn failed(stack: &Stack, texts: &str) -> String {
    let known: Vec<Value> = stack.jobs().iter().map(|job| job["id"].clone()).collect();
    stack.warren_within(Duration::from_secs(60), &["embed", "--model", "drill-0", "-"], texts).expect_code(1);
    let new = stack.jobs().into_iter().find(|job| !known.contains(&job["id"])).expect("it was submitted");
    assert_eq!(new["state"], "failed", "{new}");
    text(&new, "id").to_owned()
}

/// Lines of a job that have a vector.
fn vectors(stack: &Stack, job: &str) -> Vec<u64> {
    let lines = stack.warren(&["vectors", job]).ok().json_lines();
    lines.iter().map(|line| line["line"].as_u64().expect("a number")).collect()
}

fn letters_of(stack: &Stack, job: &str) -> Vec<Value> {
    stack.warren(&["dlq", "list", "--json", "--limit", "500", "--job", job]).ok().json_lines()
}

fn succeeds(stack: &Stack, job: &str) {
    until("the job's success", Duration::from_secs(60), || (stack.job(job)["state"] == "succeeded").then_some(()));
}

/// Milliseconds of an RFC 3339 time of today; only differences are of use.
fn millis(time: &Value) -> f64 {
    let text = time.as_str().unwrap_or_else(|| panic!("no time: {time}"));
    let clock =
        text.split('T').nth(1).unwrap_or_default().trim_end_matches(['Z']).split('+').next().unwrap_or_default();
    clock.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().expect("a number")) * 1_000.0
}

fn looking_changes_nothing(stack: &Stack) {
    let management = stack.management();
    let (listed, count) = (stack.dead_letters(), WORK.len() as u64);
    let look = || -> Vec<(Value, String)> {
        let there = management.peek("warren.dead", count);
        there.into_iter().map(|one| (one.properties["headers"]["x-warren-letter"].clone(), one.body)).collect()
    };
    let before = look();
    assert_eq!(before.len() as u64, count);
    for round in 0..30 {
        assert_eq!(look(), before, "look {round}");
    }
    assert_eq!(stack.dead_letters(), listed);
    until("the same number everywhere", SOON, || {
        let stats = stack.warren(&["dlq", "stats", "--json"]).ok().json();
        let counted: u64 = stats["counts"]
            .as_array()?
            .iter()
            .filter(|one| one["state"] == "dead")
            .map(|one| one["letters"].as_u64().unwrap_or(0))
            .sum();
        let numbers =
            [counted, stats["in_queue"].as_u64()?, stats["in_broker"].as_u64()?, listed.len() as u64, dead(stack)];
        (numbers == [count; 5]).then_some(())
    });
}

fn three_of_a_hundred_die(stack: &Stack) {
    let mended = stack.folder().join("mended");
    let why = "x".repeat(3_000);
    // The last one is among them, so that the job ends with a letter.
    let dying = [17, 58, 100].map(|line| (line, mended.as_path(), why.as_str()));
    let (mut client, job) = begun(stack, "drill-20", &texts(100, &dying));
    let jobs = stack.jobs().len();
    let mut progress = vec![0.0];
    while client.runs() {
        progress.push(stack.job(&job)["progress_done"].as_f64().expect("a number"));
    }
    client.wait(SOON).expect_code(1);
    assert!(progress.is_sorted() && stack.job(&job)["progress_done"] == 97.0, "{progress:?}");
    assert_eq!(stack.jobs().len(), jobs, "one row, however many batches");
    assert_eq!(stack.job(&job)["state"], "failed");
    let told = events(stack, &job);
    let children: Vec<_> = told.iter().filter(|event| event["event"] == "child.failed").collect();
    let mut batches: Vec<_> = children.iter().filter_map(|child| child["fields"]["batch"].as_f64()).collect();
    batches.sort_by(f64::total_cmp);
    assert_eq!(batches, [16.0, 57.0, 99.0], "{children:?}");
    let letters = letters_of(stack, &job);
    for child in &children {
        assert_eq!(child["fields"]["error_code"], "Internal", "{child}");
        assert!(text(child, "message").chars().count() <= 2_000);
        assert!(letters.iter().any(|letter| letter["id"] == child["fields"]["dead_letter"]), "{child}");
    }
    let ended = told.iter().find(|event| event["event"] == "job.failed").expect("it failed");
    let last = children.iter().map(|child| millis(&child["at"])).fold(0.0, f64::max);
    assert!(millis(&ended["at"]) - last <= 2_000.0, "{ended}");
    let all_but_three: Vec<u64> = (1..=100).filter(|line| ![17, 58, 100].contains(line)).collect();
    assert_eq!(vectors(stack, &job), all_but_three, "what was done can be had");

    fs::write(&mended, "").expect("room for a file");
    stack.warren(&["dlq", "replay", "--job", &job]).ok();
    succeeds(stack, &job);
    assert_eq!(vectors(stack, &job), (1..=100).collect::<Vec<u64>>());
    let after = events(stack, &job);
    let again: Vec<_> = after[told.len() - 1..].iter().filter_map(|event| event["event"].as_str()).collect();
    let redriven = again.iter().filter(|event| event.ends_with(".redriven")).count();
    assert_eq!(redriven, 3, "only these run again: {again:?}");
}

fn three_causes(stack: &Stack) {
    let mended = stack.folder().join("roof mended");
    let never = stack.folder().join("never");
    let causes =
        [(20, mended.as_path(), "the roof leaks"), (6, &never, "the cellar is wet"), (4, &never, "the well is dry")];
    let causes: Vec<_> =
        causes.iter().flat_map(|(count, file, why)| std::iter::repeat_n((*file, *why), *count)).collect();
    let dying: Vec<_> = causes.iter().enumerate().map(|(n, (file, why))| (n + 1, *file, *why)).collect();
    let job = failed(stack, &texts(30, &dying));
    let groups = stack.warren(&["dlq", "groups", "--json", "--job", &job]).ok().json_lines();
    let found: Vec<_> = groups.iter().map(|group| group["letters"].as_u64().unwrap_or(0)).collect();
    assert_eq!(found, [20, 6, 4], "{groups:?}");
    let roof = &groups[0];
    assert!(text(roof, "cause").contains("the roof leaks"), "{roof}");
    assert_eq!((text(roof, "class"), text(roof, "queue")), ("Internal", "warren.task.embed"));

    let roof = text(roof, "fingerprint");
    let tried = stack.warren(&["dlq", "replay", "--group", roof, "--dry-run"]).ok();
    assert!(tried.stdout.contains("20 would go to warren.task.embed"), "{}", tried.stdout);
    assert_eq!(letters_of(stack, &job).len(), 30, "nothing changed");

    fs::write(&mended, "").expect("room for a file");
    let sent =
        stack.warren(&["dlq", "replay", "--json", "--group", roof, "--rate", "5/s", "--canary", "1"]).ok().json_lines();
    assert_eq!(sent.len(), 20);
    let mut times: Vec<f64> = Vec::new();
    for letter in &sent {
        assert_eq!(letter["replayed"], true, "{letter}");
        let deeds = done(stack, text(letter, "id"), "replay");
        assert_eq!((deeds.len(), &deeds[0]["actor"]), (1, &json!("local")));
        times.push(millis(&deeds[0]["at"]));
    }
    times.sort_by(f64::total_cmp);
    // The first is the canary; the rate counts from the second on.
    let rate = (times.len() - 2) as f64 / (times[times.len() - 1] - times[1]) * 1_000.0;
    println!("    {rate:.2} letters a second");
    assert!((4.5..=5.5).contains(&rate), "{times:?}");
    until("twenty vectors", SOON, || (vectors(stack, &job).len() == 20).then_some(()));
    until("twenty letters to be gone", SOON, || (letters_of(stack, &job).len() == 10).then_some(()));
    // The rest is nobody's any more.
    let discarded =
        stack.warren(&["dlq", "discard", "--job", &job, "--reason", "the house is sold", "--yes", "10"]).ok();
    assert!(discarded.stdout.contains("10 discarded"), "{}", discarded.stdout);
    assert_eq!(stack.job(&job)["state"], "failed");
}

fn what_comes_back_is_parked(stack: &Stack) {
    let mended = stack.folder().join("gate mended");
    let dying: Vec<_> = (1..=6).map(|line| (line, mended.as_path(), "the gate is shut")).collect();
    let job = failed(stack, &texts(6, &dying));
    let careful = stack.warren(&["dlq", "replay", "--json", "--job", &job, "--canary", "1"]).expect_code(1);
    let outcomes = careful.json_lines();
    let sent: Vec<_> = outcomes.iter().filter(|outcome| outcome["replayed"] == true).collect();
    assert_eq!((outcomes.len(), sent.len()), (6, 1), "{outcomes:?}");
    assert!(careful.stderr.contains("1 of 1 letters came back"), "{}", careful.stderr);
    let back = text(sent[0], "came_back").to_owned();
    let shown = stack.warren(&["dlq", "show", "--json", &back]).ok().json();
    assert_eq!((shown["replays"].as_u64(), text(&shown, "replay_of")), (Some(1), text(sent[0], "id")), "{shown}");

    stack.warren(&["dlq", "replay", &back]).ok();
    let parked = until("it comes back again", SOON, || {
        letters_of(stack, &job).into_iter().find(|letter| letter["state"] == "parked")
    });
    let id = text(&parked, "id");
    let history: Vec<_> = stack.warren(&["dlq", "show", "--json", id]).ok().json()["history"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|deed| text(deed, "event").to_owned())
        .collect();
    assert_eq!(history, ["died", "replay", "died", "replay", "died"], "the whole story");

    let spared = stack.warren(&["dlq", "replay", "--job", &job, "--dry-run"]).ok();
    assert!(!spared.stdout.contains(id) && spared.stderr.contains("1 parked"), "{}{}", spared.stdout, spared.stderr);
    fs::write(&mended, "").expect("room for a file");
    stack.warren(&["dlq", "replay", "--job", &job, "--force"]).ok();
    succeeds(stack, &job);
    until("no letter is left", SOON, || letters_of(stack, &job).is_empty().then_some(()));
}

fn a_replay_outlives_the_coordinator(stack: &Stack) {
    let mended = stack.folder().join("bridge mended");
    let dying: Vec<_> = (1..=12).map(|line| (line, mended.as_path(), "the bridge is out")).collect();
    let job = failed(stack, &texts(12, &dying));
    let ids: Vec<String> = letters_of(stack, &job).iter().map(|letter| text(letter, "id").to_owned()).collect();
    fs::write(&mended, "").expect("room for a file");
    let client = stack.begin(&["dlq", "replay", "--json", "--job", &job, "--rate", "3/s", "--request-id", "bridge"]);
    until("the first vectors", SOON, || (vectors(stack, &job).len() >= 2).then_some(()));
    stack.kill("coordinator");
    let until_then = vectors(stack, &job).len();
    println!("    killed after {until_then} of 12");
    assert!(until_then < 12, "it was in the middle of it");
    let sent = client.wait(Duration::from_secs(60)).ok().json_lines();
    assert!(sent.len() == 12 && sent.iter().all(|letter| letter["replayed"] == true), "{sent:?}");
    succeeds(stack, &job);
    assert_eq!(vectors(stack, &job), (1..=12).collect::<Vec<u64>>());
    for id in &ids {
        assert_eq!(done(stack, id, "replay").len(), 1, "{id}");
    }
    let told = events(stack, &job);
    let redriven = told.iter().filter(|event| event["event"].as_str().is_some_and(|name| name.ends_with(".redriven")));
    assert_eq!(redriven.count(), 12, "each once");
    // The same request again has the same answer.
    let again = stack.warren(&["dlq", "replay", "--json", "--request-id", "bridge"]).ok().json_lines();
    assert_eq!(again, sent);
    stack.until_ready();
}

fn what_has_ended_does_not_change(stack: &Stack) {
    let management = stack.management();
    stack.warren_within(SOON, &["embed", "--model", "drill-0", "-"], &texts(3, &[])).ok();
    let succeeded = text(&stack.jobs()[0], "id").to_owned();
    stack.warren(&["up", "--detach", "--workers", "batch-embedding=0"]).ok();
    let client = stack.begin(&[
        "embed",
        "--model",
        "drill-0",
        stack_file(stack, &texts(1, &[])).to_str().expect("a plain name"),
    ]);
    let late = until("its task", SOON, || management.take("warren.task.embed"));
    let cancelled = text(&stack.jobs()[0], "id").to_owned();
    stack.warren(&["cancel", &cancelled]).ok();
    client.wait(SOON).expect_code(1);
    let whole = || [&succeeded, &cancelled].map(|job| (stack.job(job), events(stack, job)));
    let before = whole();
    assert_eq!((text(&before[0].0, "state"), text(&before[1].0, "state")), ("succeeded", "cancelled"));

    // Its message lies in the dead letters after all, is replayed by force, and published by hand.
    management.publish("warren.dlx", "embed", &late.properties, &late.body);
    let letter = until("a void letter", SOON, || {
        let all = stack.warren(&["dlq", "list", "--json", "--job", &cancelled, "--state", "void"]).ok().json_lines();
        all.into_iter().next()
    });
    let refused = stack.warren(&["dlq", "replay", "--json", "--force", text(&letter, "id")]).expect_code(1).json();
    assert!(!text(&refused, "refused").is_empty(), "{refused}");
    management.publish("warren.task", "embed", &json!({}), &late.body);
    management.publish("warren.task", "embed", &late.properties, &late.body);
    for job in [&succeeded, &cancelled] {
        stack.warren(&["cancel", job]);
    }
    stack.warren(&["up", "--detach", "--workers", "batch-embedding=1"]).ok();
    until("the queue to be empty", SOON, || (management.depths().get("warren.task.embed") == Some(&0)).then_some(()));
    assert_eq!(whole(), before);
}

fn stack_file(stack: &Stack, texts: &str) -> PathBuf {
    let file = stack.folder().join("texts.txt");
    fs::write(&file, texts).expect("room for a file");
    file
}

/// Two letters of a job whose cause is mended by that file.
fn two_letters(stack: &Stack, mended: &Path) -> String {
    failed(stack, &texts(3, &[1, 2].map(|line| (line, mended, "the door is stuck"))))
}

fn letters_are_discarded(stack: &Stack) {
    let job = two_letters(stack, &stack.folder().join("door mended"));
    let (there, gone) = (WORK.len() as u64 + 2, WORK.len() as u64);
    until("both messages", SOON, || (dead(stack) == there).then_some(()));
    let export = stack.folder().join("letters.jsonl");
    let export = export.to_str().expect("a plain name");
    stack.warren(&["dlq", "export", "--job", &job, "-o", export]).ok();
    let listed = letters_of(stack, &job);
    let discard =
        |rest: &[&str]| stack.warren(&[&["dlq", "discard", "--job", &job, "--reason", "not needed"], rest].concat());
    assert!(discard(&["--dry-run"]).ok().stdout.contains("2 would be discarded"));
    assert!(discard(&["--yes", "5"]).expect_code(1).stderr.contains("2 letters"), "another number");
    assert_eq!(letters_of(stack, &job), listed);
    discard(&["--yes", "2"]).ok();
    assert!(letters_of(stack, &job).is_empty());
    let id = text(&listed[0], "id");
    let shown = stack.warren(&["dlq", "show", "--json", id]).ok().json();
    assert_eq!((text(&shown, "state"), text(&shown, "reason")), ("discarded", "not needed"));
    assert!(text(&shown, "body").contains("the door is stuck"), "on record");
    assert_eq!(done(stack, id, "discard").len(), 1);
    assert_eq!(stack.job(&job)["state"], "failed");
    until("both messages to be gone", SOON, || (dead(stack) == gone).then_some(()));

    let back = stack.warren(&["dlq", "import", export]).ok();
    assert!(back.stdout.contains("2 put back, 0 not"), "{}", back.stdout);
    let again = stack.warren(&["dlq", "import", export]).ok();
    assert!(again.stdout.contains("0 put back, 2 not"), "{}", again.stdout);
    let mut found: Vec<_> = letters_of(stack, &job).iter().map(|letter| letter["id"].clone()).collect();
    let mut wanted: Vec<_> = listed.iter().map(|letter| letter["id"].clone()).collect();
    found.sort_by_key(Value::to_string);
    wanted.sort_by_key(Value::to_string);
    assert_eq!(found, wanted);
    until("both messages again", SOON, || (dead(stack) == there).then_some(()));
}

fn purged_letters_are_replayed(stack: &Stack) {
    let mended = stack.folder().join("window mended");
    let job = failed(stack, &texts(2, &[(1, &mended, "the window is broken")]));
    until("its message", SOON, || (dead(stack) == WORK.len() as u64 + 3).then_some(()));
    stack.management().purge("warren.dead");
    let purged = || stack.warren(&["dlq", "list", "--json", "--job", &job, "--state", "purged"]).ok().json_lines();
    let letter = until("it is noticed", Duration::from_secs(60), || purged().into_iter().next());
    let id = text(&letter, "id");
    assert_eq!(done(stack, id, "purged").len(), 1);
    fs::write(&mended, "").expect("room for a file");
    let refused = stack.warren(&["dlq", "replay", "--json", id]).expect_code(1).json();
    assert!(text(&refused, "refused").contains("index"), "{refused}");
    stack.warren(&["dlq", "replay", "--from-index", id]).ok();
    succeeds(stack, &job);
    assert!(stack.dead_letters().is_empty(), "none lies there any more");
}
