//! What happens when a part has no room or is away: new work is refused before it is read, with a time to come back;
//! what runs ends; readiness names the part; and all comes back by itself.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;
use warren_local::http;
use warren_messages::wire::{
    EmbedSpec, Job, JobState, SubmitJobRequest, UploadRequest, jobs_client::JobsClient, media_client::MediaClient,
    submit_job_request::Spec,
};
use warren_tests::{
    cases::Cases,
    faults::{proxy::Fault, world::World},
    wait::until,
};

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(90);
/// Refusals come within this time: the pool of connections is waited for, and no more.
const ANSWER: Duration = Duration::from_secs(25);
/// How long the broker may be away before new work is refused.
const BROKER_AWAY_S: u64 = 6;

#[test]
fn a_platform_without_room_says_so_and_recovers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let disk = folder.path().join("disk");
    symlink("/", &disk).expect("a link");
    let world =
        World::with(&format!("[ingest.limits]\nbroker_away_s = {BROKER_AWAY_S}\ndisk = {disk:?}\nkeep_free_mb = 1\n"));
    world.links();
    let mut cases = Cases::new();
    cases.case("RabbitMQ takes no messages", || the_broker_is_full(&world));
    cases.case("RabbitMQ is away for 20 s", || the_broker_is_away(&world));
    cases.case("S3 is asked too much", || storage_is_asked_too_much(&world));
    cases.case("the disk is full", || the_disk_is_full(&world, &disk));
    cases.case("all connections to the database are in use", || the_pool_is_exhausted(&world));
    cases.case("the database is away", || the_database_is_away(&world));
    cases.finish();
    world.stop();
}

fn channel(world: &World) -> Channel {
    let url = world.stack.endpoints()["grpc"]["url"].as_str().expect("an address").to_owned();
    world.runtime.block_on(async { Channel::from_shared(url).expect("an address").connect_lazy() })
}

/// One attempt, without any patience.
fn submit(world: &World, name: &str) -> Result<Job, Status> {
    let channel = channel(world);
    let embed = EmbedSpec { texts: vec![name.to_owned()], model: "drill-20".to_owned(), index: false };
    let request =
        SubmitJobRequest { spec: Some(Spec::Embed(embed)), request_id: name.to_owned(), ..SubmitJobRequest::default() };
    world.runtime.block_on(async { JobsClient::new(channel).submit(request).await }).map(tonic::Response::into_inner)
}

/// Why an upload is refused of which nothing has been sent, not even its header.
fn upload_refused(world: &World) -> Status {
    let channel = channel(world);
    let silent = tokio_stream::pending::<UploadRequest>();
    let upload = async { tokio::time::timeout(ANSWER, MediaClient::new(channel).upload(silent)).await };
    let answer = world.runtime.block_on(upload).unwrap_or_else(|_| panic!("the upload was waited for"));
    answer.expect_err("there is no room")
}

/// It is the platform that has trouble, it says which, and when to come back.
fn assert_refused(status: &Status, grpc: Code, reason: &str) {
    let details = status.get_error_details();
    println!("    {:?}: {}", status.code(), status.message());
    assert_eq!(
        (status.code(), details.error_info().map(|info| info.reason.as_str())),
        (grpc, Some(reason)),
        "{status}"
    );
    let delay = details.retry_info().and_then(|info| info.retry_delay);
    assert!(delay.is_some_and(|delay| delay > Duration::ZERO), "no time to come back: {status}");
}

/// Submits until that is refused; the names of what was accepted before.
fn submit_until_refused(world: &World, name: &str, grpc: Code, reason: &str) -> Vec<String> {
    let mut accepted = Vec::new();
    let status = until("a refusal", PATIENCE, || {
        let name = format!("{name} {}", accepted.len());
        let begun = Instant::now();
        let answer = submit(world, &name);
        assert!(begun.elapsed() < ANSWER, "an answer after {:?}", begun.elapsed());
        match answer {
            Ok(job) => {
                accepted.push(job.id);
                None
            }
            Err(status) => Some(status),
        }
    });
    println!("    {} accepted before", accepted.len());
    assert_refused(&status, grpc, reason);
    accepted
}

/// Waits until ingest lives and is not ready, for this part.
fn until_not_ready_for(world: &World, part: &str) {
    let address = ingest(world);
    let get = |path: &str| http::get(address, path, PATIENCE).expect("ingest answers");
    let why = until(&format!("not ready for {part}"), PATIENCE, || {
        let ready = get("/health/ready");
        let told: Value = serde_json::from_str(&ready.body).expect("JSON");
        (ready.status == 503).then(|| told["parts"][part].as_str().map(str::to_owned)).flatten()
    });
    println!("    not ready, {part}: {why}");
    let alive = get("/health");
    assert_eq!((alive.status, alive.body.as_str()), (200, r#"{"status":"ok"}"#));
}

fn until_ready(world: &World) {
    let address = ingest(world);
    until("ready again", PATIENCE, || {
        let ready = http::get(address, "/health/ready", PATIENCE).expect("ingest answers");
        (ready.status == 200 && ready.body == r#"{"status":"ready"}"#).then_some(())
    });
    world.stack.until_ready();
}

fn ingest(world: &World) -> std::net::SocketAddr {
    let http = world.stack.service("ingest").http.expect("it has one");
    http.trim_start_matches("http://").parse().unwrap_or_else(|error| panic!("{http}: {error}"))
}

/// So many tasks of 200 ms.
fn begin(world: &World, name: &str, tasks: usize) -> String {
    let texts: Vec<String> = (0..tasks).map(|task| format!("{name} {task}")).collect();
    let passes = world.passes();
    let job = world.runtime.block_on(world.client.submit(name, "drill-wait-200", &texts)).expect("accepted");
    until("it runs", PATIENCE, || (world.passes() > passes).then_some(()));
    job
}

fn assert_succeeds(world: &World, jobs: &[String]) {
    for job in jobs {
        let ended = world.runtime.block_on(world.client.ended(job, PATIENCE)).expect("it ends");
        assert_eq!(ended.state(), JobState::Succeeded, "{ended:?}");
    }
}

/// New work is taken, and everything that was accepted has ended well: so many jobs more than before.
fn assert_recovered(world: &World, name: &str, before: u64, mut accepted: Vec<String>) {
    until_ready(world);
    accepted.push(submit(world, &format!("{name} afterwards")).expect("there is room again").id);
    assert_succeeds(world, &accepted);
    let jobs = world.counts().expect("the database answers").jobs;
    assert_eq!(jobs, before + accepted.len() as u64, "what was refused left nothing");
    world.stack.balances();
}

fn jobs(world: &World) -> u64 {
    world.counts().expect("the database answers").jobs
}

fn the_broker_is_full(world: &World) {
    let before = jobs(world);
    let mut accepted = vec![begin(world, "runs while the broker is full", 40)];
    world.set_broker_memory(&["0.00001"]);
    accepted.extend(submit_until_refused(world, "full", Code::ResourceExhausted, "BrokerUnavailable"));
    assert_refused(&upload_refused(world), Code::ResourceExhausted, "BrokerUnavailable");
    until_not_ready_for(world, "rabbitmq");
    world.set_broker_memory(&["absolute", "512MB"]);
    assert_recovered(world, "full", before, accepted);
}

fn the_broker_is_away(world: &World) {
    let before = jobs(world);
    let mut accepted = vec![begin(world, "runs while the broker is away", 20)];
    let begun = Instant::now();
    world.links().amqp.fail(Fault::Cut);
    until_not_ready_for(world, "rabbitmq");
    let taken = submit_until_refused(world, "away", Code::Unavailable, "BrokerUnavailable");
    assert!(!taken.is_empty(), "for a while, jobs wait for it here");
    accepted.extend(taken);
    assert!(begun.elapsed() >= Duration::from_secs(BROKER_AWAY_S));
    assert_refused(&upload_refused(world), Code::Unavailable, "BrokerUnavailable");
    std::thread::sleep(Duration::from_secs(20).saturating_sub(begun.elapsed()));
    world.links().amqp.heal();
    assert_recovered(world, "away", before, accepted);
}

fn storage_is_asked_too_much(world: &World) {
    let before = jobs(world);
    let mut accepted = vec![begin(world, "runs while storage is slow", 20)];
    world.links().storage.fail(Fault::SlowDown);
    accepted.extend(submit_until_refused(world, "slow", Code::Unavailable, "BlobUnavailable"));
    until_not_ready_for(world, "s3");
    assert_refused(&upload_refused(world), Code::Unavailable, "BlobUnavailable");
    // It needs no storage any more.
    assert_succeeds(world, &accepted[..1]);
    world.links().storage.heal();
    assert_recovered(world, "slow", before, accepted);
}

fn the_disk_is_full(world: &World, disk: &Path) {
    let becomes = |target: &str| {
        let new = disk.with_extension("new");
        symlink(target, &new).and_then(|()| fs::rename(&new, disk)).expect("a link");
    };
    let before = jobs(world);
    let running = begin(world, "runs while the disk is full", 20);
    // It has no blocks at all.
    becomes("/proc");
    let none = submit_until_refused(world, "disk", Code::ResourceExhausted, "InsufficientDisk");
    assert_eq!(none, Vec::<String>::new());
    assert_refused(&upload_refused(world), Code::ResourceExhausted, "InsufficientDisk");
    until_not_ready_for(world, "disk");
    assert_succeeds(world, std::slice::from_ref(&running));
    becomes("/");
    assert_recovered(world, "disk", before, vec![running]);
}

fn the_pool_is_exhausted(world: &World) {
    let before = jobs(world);
    let held = world.runtime.block_on(world.facts.hold_jobs()).expect("the database answers");
    // More calls than there are connections, all at once: each is answered.
    let (channel, begun) = (channel(world), Instant::now());
    let calls: Vec<_> = (0..24)
        .map(|number| {
            let channel = channel.clone();
            let embed = EmbedSpec { texts: vec!["x".to_owned()], model: "drill-20".to_owned(), index: false };
            let name = format!("exhausted {number}");
            let request = SubmitJobRequest { spec: Some(Spec::Embed(embed)), request_id: name, ..Default::default() };
            world.runtime.spawn(async move { JobsClient::new(channel).submit(request).await })
        })
        .collect();
    for call in calls {
        let answer = world.runtime.block_on(call).expect("calls do not panic");
        assert_refused(&answer.expect_err("nobody can write"), Code::Unavailable, "StoreUnavailable");
    }
    println!("    all answered after {:.1} s", begun.elapsed().as_secs_f64());
    assert!(begun.elapsed() < ANSWER);
    world.runtime.block_on(held.rollback()).expect("released");
    assert_recovered(world, "exhausted", before, Vec::new());
}

fn the_database_is_away(world: &World) {
    let before = jobs(world);
    world.links().database.fail(Fault::Cut);
    until_not_ready_for(world, "database");
    assert_refused(&submit(world, "no database").expect_err("nobody can write"), Code::Unavailable, "StoreUnavailable");
    assert_refused(&upload_refused(world), Code::Unavailable, "StoreUnavailable");
    world.links().database.heal();
    assert_recovered(world, "no database", before, Vec::new());
}
