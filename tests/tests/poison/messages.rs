//! Row 11: messages that no consumer can read, on every queue that the services consume.

use std::{thread, time::Duration};

use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value, json};
use warren_tests::{
    faults::{
        flood::{Flood, Load},
        table::Row,
        world::World,
    },
    nightly,
    stack::Service,
    wait::until,
};

use crate::number;

/// Exchange and routing key of each queue that a service of these stacks consumes.
const QUEUES: [(&str, &str); 3] =
    [("warren.task", "embed"), ("warren.event", "warren.job"), ("warren.event", "warren.result")];
/// What is read within this time.
const SOON: Duration = Duration::from_secs(60);
/// Work that goes on all the time.
const LOAD: Load = Load { lanes: 2, jobs: None, tasks: 10, model: "drill-20", other: None };

/// A message as somebody else might send it.
#[derive(Clone)]
struct Bad {
    properties: Value,
    body: Vec<u8>,
}

pub(crate) fn malformed(world: &World) -> Row {
    let broker = world.stack.management();
    let before = identities(world);
    let counted = || number(world, "SELECT count(*) AS n FROM dead_letter WHERE class = 'Malformed'");
    let all = || number(world, "SELECT count(*) AS n FROM dead_letter");
    let (malformed, others) = (counted(), all() - counted());
    let mut chance = world.chance(11);
    let mutations = if nightly() { 10_000 } else { 50 };

    // Real messages of work that is over by the time: what becomes of a damaged one that can still be read is nothing.
    let taps = QUEUES.map(|(exchange, key)| (exchange, key, format!("samples.of.{key}")));
    taps.iter().for_each(|(exchange, key, tap)| broker.tap(exchange, key, tap));
    let sampled = Flood::start(world, "samples", Load { jobs: Some(2), ..LOAD }).finish(world);
    assert!(sampled.lost.is_empty() && sampled.wrong.is_empty(), "{sampled:?}");
    let samples = taps.map(|(exchange, key, tap)| {
        let taken = broker.take_many(&tap, 20);
        broker.remove(&tap);
        assert!(!taken.is_empty(), "no message went to {key}");
        (exchange, key, taken)
    });

    let flood = Flood::start(world, "meanwhile", LOAD);
    let mut sent = 0;
    for (exchange, key) in QUEUES {
        for bad in unreadable(&mut chance) {
            broker.publish_bytes(exchange, key, &bad.properties, &bad.body);
            sent += 1;
        }
    }
    for (exchange, key) in QUEUES {
        nested(world, exchange, key);
        sent += 1;
    }
    until("each has its letter", SOON, || (counted() - malformed >= sent).then_some(()));
    for _ in 0..mutations {
        let (exchange, key, taken) = samples.choose(&mut chance).expect("three");
        let real = taken.choose(&mut chance).expect("not empty");
        let body = damaged(real.body.as_bytes(), &mut chance);
        broker.publish_bytes(exchange, key, &real.properties, &body);
    }
    let depths = || broker.depths();
    until("all of them are read", SOON, || {
        let left = QUEUES.iter().map(|(_, key)| depths().get(&queue(key)).copied().unwrap_or(0)).sum::<u64>();
        (left < 50 && number(world, "SELECT count(*) AS n FROM outbox") < 50).then_some(())
    });
    // Behind all of them.
    let after = Flood::start(world, "afterwards", Load { jobs: Some(4), ..LOAD }).finish(world);
    let tally = flood.finish(world);
    for tally in [&after, &tally] {
        assert!(tally.lost.is_empty() && tally.wrong.is_empty(), "{tally:?}");
    }
    // A damaged id may still be one, of a job that there is not: that is a letter of another class.
    let (letters, stray) = (counted() - malformed, all() - counted() - others);
    println!("    {sent} unreadable, {mutations} damaged, {letters} letters and {stray} of other classes");
    println!("    {} jobs meanwhile", tally.jobs);
    assert!(letters >= sent && letters + stray <= sent + mutations, "one letter each");
    // The broker counts every few seconds.
    let lying = || depths().get("warren.dead").copied();
    let dead = || number(world, "SELECT count(*) AS n FROM dead_letter WHERE in_queue");
    until("as many lie there", SOON, || (lying() == Some(dead())).then_some(()));
    assert_eq!(identities(world), before, "nobody died of it");
    Row { faults: (sent + mutations) as usize, jobs: tally.jobs + after.jobs + sampled.jobs, ..Row::default() }
}

fn queue(key: &str) -> String {
    if key.starts_with("warren.") { key.to_owned() } else { format!("warren.task.{key}") }
}

fn identities(world: &World) -> Vec<(String, Option<u32>, u64)> {
    let identity = |service: Service| (service.name, service.pid, service.restarts);
    world.stack.ps().into_iter().map(identity).collect()
}

/// None of these is a message of any queue.
fn unreadable(chance: &mut StdRng) -> Vec<Bad> {
    let json = "application/json";
    let bad = |properties: Value, body: &[u8]| Bad { properties, body: body.to_owned() };
    let garbage: Vec<u8> = (0..1_000_000).map(|_| chance.random()).collect();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let headers = |name: &str, value: Value| json!({ "content_type": json, "headers": { name: value } });
    vec![
        bad(json!({}), b""),
        bad(json!({}), &garbage),
        bad(json!({}), deep.as_bytes()),
        bad(json!({ "content_type": "text/plain" }), b"{}"),
        bad(json!({ "content_type": json, "type": "warren.v9.Task" }), b"{}"),
        // A database cannot store it as text.
        bad(json!({ "content_type": "a\0b", "type": "a\0b", "message_id": "\0" }), b"{}"),
        bad(json!({ "content_type": json }), b"\xff\xfe\x00{}"),
        bad(json!({ "content_type": json }), b"null"),
        bad(json!({ "content_type": json }), "{\"id\":\"\\u0000\",\"job\":\"🦫\"}".as_bytes()),
        bad(headers("x-warren-task", json!({ "a": [1, true] })), b"{}"),
        bad(headers("x-warren-attempt", json!("many")), b"{}"),
        bad(headers("x-warren-attempt", json!(-1)), b"{}"),
        bad(headers("x-warren-first-ts", json!(1e300)), b"{}"),
        bad(headers("x-warren-dispatch", json!("9".repeat(50))), b"{}"),
        bad(headers("x-warren-job", json!("a\0b")), b"{}"),
        bad(headers("x-warren-replay-of", json!("a\0b")), b"{}"),
        bad(headers("x-huge", json!("h".repeat(100_000))), b"{}"),
        // As large as a frame may be, and of those that travel on.
        bad(headers("x-warren-job", json!("h".repeat(130_700))), b"{}"),
    ]
}

/// Sends a message with headers in headers, about as deep as fits into a frame of 128 KiB.
fn nested(world: &World, exchange: &str, key: &str) {
    let send = || {
        let around = |inner, _| Value::Object([(String::new(), inner)].into_iter().collect());
        let deep = (0..21_000).fold(json!(1), around);
        let properties = json!({ "content_type": "application/json", "headers": { "x": deep } });
        world.stack.management().publish_bytes(exchange, key, &properties, b"{}");
    };
    // What is so deep is written and dropped by recursion here, too.
    let roomy = thread::Builder::new().stack_size(1 << 30);
    thread::scope(|scope| roomy.spawn_scoped(scope, send).expect("a thread").join().expect("it is sent"));
}

/// A message with a few random changes.
fn damaged(body: &[u8], chance: &mut StdRng) -> Vec<u8> {
    let mut body = body.to_vec();
    for _ in 0..chance.random_range(1..5) {
        if body.is_empty() {
            break;
        }
        let at = chance.random_range(0..body.len());
        match chance.random_range(0..5) {
            0 => body[at] = chance.random(),
            1 => body.truncate(at),
            2 => drop(body.remove(at)),
            3 => body.insert(at, *b"{}[]\",:0\\\0".choose(chance).expect("ten")),
            _ => {
                let piece = body[at..(at + 20).min(body.len())].to_vec();
                body.splice(at..at, piece);
            }
        }
    }
    body
}
