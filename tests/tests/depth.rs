//! Very many tasks wait: whose turn it is is decided as fast as ever, and memory does not grow with them.

use std::{net::SocketAddr, thread, time::Duration};

use serde_json::json;
use warren_local::http;
use warren_tests::{
    faults::grounds::Grounds,
    memory::Peaks,
    nightly,
    stack::{Stack, Wishes},
    wait::until,
};

/// Longest that 99 of 100 releases take: to choose the tasks, and to have them written down and committed.
const DECISION: &str = "0.05";
/// Most memory of the coordinator, and of the broker, whose queues hold no more than a window of all that.
const COORDINATOR: u64 = 300 << 20;
const BROKER: u64 = 500 << 20;
/// Messages of the raw part.
const RAW: usize = 100_000;

#[test]
fn many_tasks_wait() {
    // One job of half of them, and a hundred that share the other half.
    let (tasks, span) =
        if nightly() { (100_000_u64, Duration::from_secs(60)) } else { (20_000, Duration::from_secs(12)) };
    let grounds = Grounds::start(&Wishes {
        arguments: &["--workers", "transcription=0,batch-embedding=1"],
        settings: "[coordinator.release]\ntask_texts = 1\n".to_owned(),
        ..Wishes::default()
    });
    let Grounds { runtime, client, facts, stack, .. } = &grounds;

    let sizes = std::iter::once(tasks / 2).chain(std::iter::repeat_n(tasks / 200, 100));
    for (number, size) in sizes.enumerate() {
        let texts: Vec<String> = (0..size).map(|text| format!("job {number} text {text}")).collect();
        let submitted = runtime.block_on(client.submit(&format!("job {number}"), "drill-wait-10", &texts));
        submitted.unwrap_or_else(|status| panic!("job {number}: {status}"));
    }
    until("all are planned", Duration::from_secs(120), || grounds.counts().filter(|counts| counts.tasks == tasks));

    let address = stack.service("coordinator").http.expect("a service");
    let address: SocketAddr = address.trim_start_matches("http://").parse().expect("an address");
    let releases = || {
        let answer = http::get(address, "/metrics", Duration::from_secs(10)).expect("it answers");
        let figure = |name: &str| {
            let line = answer.body.lines().find_map(|line| line.strip_prefix(name));
            line.map_or(0, |value| value.trim().parse::<u64>().expect("a count"))
        };
        let kind = "kind=\"embed\"";
        let fast = figure(&format!("warren_release_duration_seconds_bucket{{{kind},le=\"{DECISION}\"}}"));
        (fast, figure(&format!("warren_release_duration_seconds_count{{{kind}}}")))
    };
    let done = || runtime.block_on(facts.progress()).expect("it answers").0;
    let (before, done_before) = (releases(), done());
    thread::sleep(span);
    let (after, done_after) = (releases(), done());
    let mut peaks = Peaks::default();
    stack.measure(&mut peaks);
    let (fast, all) = (after.0 - before.0, after.1 - before.1);
    let waiting = tasks - done_after;
    println!("{waiting} tasks waited in the end; {} ended in {} s", done_after - done_before, span.as_secs());
    println!("{all} releases, {fast} of them within {DECISION} s");
    for (name, bytes) in peaks.services() {
        println!("{name}: at most {} MB", bytes >> 20);
    }
    assert!(waiting > tasks / 2, "most were to wait all the time");
    assert!(all >= 50, "{all} releases are too few to tell");
    assert!(fast * 100 >= all * 99, "{} of {all} releases took longer than {DECISION} s", all - fast);
    for (name, most) in [("coordinator", COORDINATOR), ("rabbitmq", BROKER)] {
        let had = peaks.of(name).unwrap_or_else(|| panic!("{name}: not seen"));
        assert!(had < most, "{name} had {} MB in memory", had >> 20);
    }

    // They need not all be run.
    stack.warren(&["queues", "pause", "embed"]).ok();
    let counts = grounds.at_rest(Duration::from_secs(60)).expect("nothing is under way");
    assert_eq!(counts.done, counts.vectors, "each has one result");
    let open = (counts.tasks - counts.done).to_string();
    stack.warren(&["queues", "purge", "embed", "--yes", &open]).ok();
    grounds.at_rest(Duration::from_secs(120)).expect("nothing is left");
    if nightly() {
        raw_messages(stack);
    }
    grounds.stop();
}

/// As many messages as Warren never puts on a queue: somebody's mistake must not take the broker with it.
fn raw_messages(stack: &Stack) {
    const THREADS: usize = 8;
    let (broker, body) = (stack.management(), "x".repeat(500));
    broker.tap("warren.task", "raw", "raw");
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..RAW / THREADS {
                    broker.publish("warren.task", "raw", &json!({ "delivery_mode": 2 }), &body);
                }
            });
        }
    });
    until("all are counted", Duration::from_secs(60), || {
        (broker.depths().get("raw") == Some(&(RAW as u64))).then_some(())
    });
    let mut peaks = Peaks::default();
    stack.measure(&mut peaks);
    let had = peaks.of("rabbitmq").expect("it runs");
    println!("{RAW} messages on one queue: rabbitmq had at most {} MB", had >> 20);
    assert!(had < BROKER, "rabbitmq had {} MB in memory", had >> 20);
    stack.until_ready();
    broker.remove("raw");
}
