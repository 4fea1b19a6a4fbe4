//! What no service can read ends where a person finds it, and can be put right and sent again; what somebody throws away
//! goes out again by itself.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use warren_recordings::error_rate;
use warren_tests::{
    cases::Cases,
    recordings::inaugural,
    stack::{Stack, keys},
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
    let stack = Stack::start();
    let mut cases = Cases::new();
    cases.case("every work queue has somewhere to die", || every_work_queue_has_somewhere_to_die(&stack));
    cases.case("a letter moved by hand is done again", || a_letter_moved_by_hand_is_done_again(&stack));
    cases.case("a queue emptied by hand fills again", || a_queue_emptied_by_hand_fills_again(&stack));
    cases.case("a message that is not JSON dies once, with its cause", || what_is_not_json_dies(&stack));
    cases.case("consumers go on", || consumers_go_on(&stack));
    cases.case("a damaged task is put right and replayed", || a_damaged_task_is_replayed(&stack));
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
    management.publish("warren.task", "prepare", &moved.properties, &moved.body);
    stack.warren(&["up", "--detach", "--workers", "transcription=1"]).ok();
    until("the job's success", Duration::from_secs(60), || (stack.job(&job)["state"] == "succeeded").then_some(()));
    let events = stack.warren(&["watch", "--json", &job]).ok().json_lines();
    let redriven = events.iter().find(|event| event["event"] == "job.redriven").expect("the event that says so");
    assert!(text(redriven, "message").contains("by hand"), "{redriven}");
    until("the letter to be gone", SOON, || stack.dead_letters().is_empty().then_some(()));
    until("the message to be gone", SOON, || (dead(stack) == 0).then_some(()));
}

fn a_queue_emptied_by_hand_fills_again(stack: &Stack) {
    let management = stack.management();
    let voice = inaugural();
    let file = voice.path.to_str().expect("a plain name");
    stack.warren(&["up", "--detach", "--workers", "transcription=0"]).ok();
    let clients = [(); 2].map(|()| stack.begin(&["transcribe", "--json", "--model", "tiny.en", file]));
    let waiting = || management.depths().get("warren.task.prepare").copied().unwrap_or_default();
    until("both first tasks", SOON, || (waiting() == 2).then_some(()));
    management.purge("warren.task.prepare");
    until("the queue to be empty", SOON, || (waiting() == 0).then_some(()));
    until("both tasks again", Duration::from_secs(120), || (waiting() == 2).then_some(()));
    stack.warren(&["up", "--detach", "--workers", "transcription=1"]).ok();
    for client in clients {
        let heard = client.wait(Duration::from_secs(60)).ok().json();
        assert!(error_rate::words(&voice.text, text(&heard, "text")) <= 0.1, "once, and right: {heard}");
        let events = stack.warren(&["watch", "--json", text(&heard, "job")]).ok().json_lines();
        assert!(events.iter().any(|event| event["event"] == "task.redispatched"), "{events:?}");
    }
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
