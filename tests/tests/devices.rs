//! Several devices under one coordinator: each worker keeps to its own, and who does not get it waits outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use serde_json::Value;
use warren_local::http;
use warren_messages::wire::JobState;
use warren_tests::{cases::Cases, faults::world::World, stack::Service, wait::until};

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(120);
const DEVICES: [(&str, &str); 2] = [("batch-embedding", "east/cpu"), ("batch-embedding-2", "west/cpu")];

#[test]
fn devices_are_shared_by_turns() {
    let records = tempfile::tempdir().expect("a temporary folder");
    let mut settings = "[coordinator]\ndevices = [\n".to_owned();
    for (_, device) in DEVICES {
        settings += &format!("{{ name = {device:?}, max_concurrent = 1, memory_mib = 2048 }},\n");
    }
    settings += "]\n";
    for (worker, device) in DEVICES {
        let record = record(records.path(), worker);
        settings += &format!(
            "[{worker}]\nwork = {{ slots = 2 }}\nleases = {{ device = {device:?}, wait_s = 1, record = {record:?} }}\n"
        );
    }
    let world = World::with(&settings);
    let mut cases = Cases::new();
    cases.case("each worker keeps to its device", || each_keeps_to_its_own(&world, records.path()));
    cases.case("memory, use and holder of each device", || told(&world));
    cases.case("who gets no device waits outside, longer each time", || waiting_outside(&world));
    cases.finish();
    world.stack.balances();
    world.stop();
}

fn record(folder: &Path, worker: &str) -> String {
    folder.join(format!("{worker}.jsonl")).to_str().expect("temporary folders have plain names").to_owned()
}

fn submit(world: &World, name: &str, model: &str, texts: usize) -> String {
    let texts: Vec<String> = (0..texts).map(|number| format!("{name}: text {number}")).collect();
    world.runtime.block_on(world.client.submit(name, model, &texts)).expect("accepted")
}

fn ended(world: &World, job: &str) {
    let job = world.runtime.block_on(world.client.ended(job, PATIENCE)).expect("it ends");
    assert_eq!(job.state(), JobState::Succeeded, "{job:?}");
}

/// Both devices work at the same time, each for one worker and one pass at once.
fn each_keeps_to_its_own(world: &World, records: &Path) {
    let job = submit(world, "both", "drill-100", 60);
    ended(world, &job);
    let mut passes = BTreeMap::new();
    for (worker, device) in DEVICES {
        let text = fs::read_to_string(record(records, worker)).expect("it worked");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
        let devices: BTreeSet<&str> = lines.iter().filter_map(|line| line["device"].as_str()).collect();
        assert_eq!(devices, BTreeSet::from([device]), "{worker}");
        let span = |line: &Value| Some((line["start_ns"].as_u64()?, line["end_ns"].as_u64()?));
        let mut spans: Vec<_> = lines.iter().map(|line| span(line).expect("times")).collect();
        spans.sort_unstable();
        println!("    {worker}: {} passes on {device}", spans.len());
        assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{device} was used twice at once");
        passes.insert(worker, spans);
    }
    let [one, other] = DEVICES.map(|(worker, _)| &passes[worker]);
    let beside = one.iter().filter(|a| other.iter().any(|b| a.0 < b.1 && b.0 < a.1)).count();
    println!("    {beside} passes of one beside passes of the other");
    assert!(beside > 0, "the devices worked one after the other");
}

/// What Prometheus is told of the devices, while they are in use and after.
fn told(world: &World) {
    let (leader, _) = world.coordinators();
    let read = |service: &Service, name: &str, labels: &[(&str, &str)]| {
        let address = service.http.as_deref().expect("a service").trim_start_matches("http://");
        let page = http::get(address.parse().expect("an address"), "/metrics", Duration::from_secs(10));
        let page = page.expect("it answers").body;
        let lines = page.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        let has = |line: &&str| labels.iter().all(|(key, value)| line.contains(&format!("{key}={value:?}")));
        let value = |line: &str| line.rsplit_once(' ')?.1.parse::<f64>().ok();
        lines.filter(has).filter_map(value).reduce(|sum, value| sum + value)
    };
    let spent = || {
        DEVICES.map(|(worker, device)| {
            let service = world.stack.service(worker);
            read(&service, "warren_inference_seconds_total", &[("device", device)]).unwrap_or(0.0)
        })
    };
    let before = spent();
    let job = submit(world, "told", "drill-wait-5000", 2);
    for (worker, device) in DEVICES {
        let device = ("device", device);
        let holds =
            || read(&leader, "warren_lease_memory_bytes", &[device, ("worker", worker), ("model", "drill-wait-5000")]);
        let held = until("its holder is shown", PATIENCE, || holds().filter(|bytes| *bytes > 0.0));
        let of_leader = |name: &str| read(&leader, name, &[device]).unwrap_or_else(|| panic!("{name} {device:?}"));
        assert_eq!(of_leader("warren_device_memory_leased_bytes"), held, "{device:?}");
        assert_eq!(of_leader("warren_leases_held"), 1.0, "{device:?}");
        assert!(of_leader("warren_device_memory_budget_bytes") >= held, "{device:?}");
        let of_worker = |name: &str| read(&world.stack.service(worker), name, &[device]);
        let used = until("its memory is shown", PATIENCE, || of_worker("warren_device_memory_used_bytes"));
        let total = of_worker("warren_device_memory_total_bytes").expect("shown with what is used");
        println!("    {worker} holds {held} bytes of {device:?}; {used} of {total} are in use");
        assert!(0.0 < used && used < total, "{used} of {total}");
    }
    ended(world, &job);
    let worked = spent().into_iter().zip(before).map(|(after, before)| after - before).collect::<Vec<_>>();
    println!("    in use for {worked:?} s");
    assert!(worked.iter().all(|seconds| *seconds > 4.0), "{worked:?}");
    for (_, device) in DEVICES {
        let free =
            || read(&leader, "warren_device_memory_leased_bytes", &[("device", device)]).filter(|bytes| *bytes == 0.0);
        until("it is shown as free", PATIENCE, free);
    }
}

/// Both devices are busy for forty seconds; another job's only task asks, waits a second, and goes to the ladder.
fn waiting_outside(world: &World) {
    let stack = &world.stack;
    let busy = submit(world, "busy", "drill-wait-40000", 2);
    let leased = || stack.warren(&["workers"]).ok().stdout.matches(" is leased to ").count();
    until("both devices are busy", PATIENCE, || (leased() == 2).then_some(()));
    let job = submit(world, "waits", "drill-20", 1);
    let mut later = Vec::new();
    while later.len() < 3 {
        // On the ladder, and in no worker's hands.
        until("it waits outside", PATIENCE, || {
            let queues = stack.warren(&["queues", "--json"]).ok().json_lines();
            let workers = stack.warren(&["workers", "--json"]).ok().json_lines();
            let mut running = workers.iter().filter_map(|worker| worker["running"].as_array()).flatten();
            let outside = queues.iter().any(|queue| queue["retry_later"] == 1);
            (outside && running.all(|task| task["job"] != job.as_str())).then_some(())
        });
        later = events(world, &job, "job.retry_later");
    }
    let delays: Vec<f64> = later.iter().map(|event| event["fields"]["delay_s"].as_f64().expect("seconds")).collect();
    println!("    delays: {delays:?} s");
    // Of each event, its rung or the one below; a second may have gone by until it was written down.
    for (delay, rung) in delays.iter().zip([5.0, 10.0, 20.0]) {
        let below = if rung == 5.0 { 5.0 } else { rung / 2.0 };
        assert!([below, rung].iter().any(|exact| (exact - 2.0..=*exact).contains(delay)), "{delays:?}");
    }
    for event in &later {
        let message = event["message"].as_str().unwrap_or_default();
        assert_eq!(event["fields"]["error_code"], "LeaseNotGranted", "{event}");
        assert_eq!(event["fields"]["spends_attempt"], false, "{event}");
        assert!(DEVICES.iter().any(|(_, device)| message.contains(&format!("{device} was busy for 1 s"))), "{event}");
    }
    let queued = stack.job(&job);
    assert!(["queued", "running"].contains(&queued["state"].as_str().unwrap_or_default()), "{queued}");
    ended(world, &busy);
    ended(world, &job);
}

/// The job's events of this name, oldest first.
fn events(world: &World, job: &str, name: &str) -> Vec<Value> {
    let shown = world.stack.warren(&["jobs", "show", "--json", "--events", "50", job]).ok().json();
    let all = shown["events"].as_array().cloned().unwrap_or_default();
    all.into_iter().rev().filter(|event| event["event"] == name).collect()
}
