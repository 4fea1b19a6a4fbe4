use std::{net::TcpStream, process::Command as Plain};

use super::*;
use crate::process::Identity;

const START: Duration = Duration::from_secs(120);

/// Everything with this folder in its environment: the node, its port mapper and their helpers.
fn processes_of(dir: &Path) -> Vec<String> {
    let marker = dir.to_string_lossy().into_owned();
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| {
            let mentions = |file| {
                std::fs::read(entry.path().join(file))
                    .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(&marker))
            };
            mentions("environ")
        })
        .filter_map(|entry| {
            let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
            Some(format!("{} {}", entry.file_name().display(), name.trim()))
        })
        .collect()
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain until {what}");
        thread::yield_now();
    }
}

#[test]
fn a_node_starts_resumes_and_leaves_nothing_behind() {
    let scratch = tempfile::Builder::new().prefix("path with spaces ").tempdir().unwrap();
    let dir = scratch.path().join("rabbit mq");
    let mut spec = RabbitSpec::generate().unwrap();
    let mut node = Node::start(&dir, &spec).unwrap();
    node.wait_ready(START).unwrap();
    TcpStream::connect((Ipv4Addr::LOCALHOST, spec.amqp_port)).unwrap();
    let queue = r#"{"durable":true,"arguments":{"x-queue-type":"quorum"}}"#;
    assert_eq!(spec.management("PUT", "/api/queues/%2f/kept", Some(queue)).unwrap().status, 201);
    assert!(!processes_of(&dir).is_empty());
    node.stop().unwrap();
    wait_until("all processes are gone", || processes_of(&dir).is_empty());

    // Other ports, the same folder: the queue and the login are still there.
    spec = RabbitSpec { user: spec.user, password: spec.password, ..RabbitSpec::generate().unwrap() };
    let mut node = Node::start(&dir, &spec).unwrap();
    node.wait_ready(START).unwrap();
    assert_eq!(spec.management("GET", "/api/queues/%2f/kept", None).unwrap().status, 200);
    node.kill();
    wait_until("all processes are gone", || processes_of(&dir).is_empty());
}

#[test]
fn only_loopback_is_listened_on() {
    let broker = for_tests();
    let listeners = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let spec = &broker.spec;
    for port in [spec.amqp_port, spec.management_port, spec.prometheus_port, spec.dist_port, spec.epmd_port] {
        let everywhere = format!("00000000:{port:04X}");
        let loopback = format!("0100007F:{port:04X}");
        assert!(!listeners.contains(&everywhere), "{port} is open to all");
        assert!(listeners.contains(&loopback), "{port} is not open");
    }
}

#[test]
fn every_test_has_a_vhost_of_its_own() {
    let (one, two) = (for_tests(), for_tests());
    assert_ne!(one.vhost, two.vhost);
    assert_eq!(one.management_url, two.management_url);
    assert_eq!(one.management("PUT", "queues", "/q", Some("{}")).unwrap().status, 201);
    assert_eq!(two.management("GET", "queues", "", None).unwrap().body, "[]");
}

#[test]
fn a_node_that_cannot_start_says_why() {
    let scratch = tempfile::tempdir().unwrap();
    let spec = RabbitSpec::generate().unwrap();
    let _taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, spec.amqp_port)).unwrap();
    let mut node = Node::start(scratch.path(), &spec).unwrap();
    let error = node.wait_ready(START).unwrap_err().to_string();
    assert!(error.contains("rabbitmq is not ready: it ended") && error.contains("eaddrinuse"), "{error}");
}

/// Run by [`a_node_dies_with_a_killed_process`] as a process of its own; alone it does nothing.
#[test]
fn as_process_that_is_killed() {
    if std::env::var_os("WARREN_LOCAL_TEST_PARENT").is_some() {
        let broker = for_tests();
        let folder = std::env::temp_dir();
        println!("{} ready", serde_json::to_string(&(broker.spec, folder)).unwrap());
        thread::park();
    }
}

#[test]
fn a_node_dies_with_a_killed_process() {
    use std::io::{BufRead as _, BufReader};
    let scratch = tempfile::tempdir().unwrap();
    let mut parent = Plain::new(std::env::current_exe().unwrap())
        .args(["--exact", "rabbitmq::tests::as_process_that_is_killed", "--nocapture"])
        .env("WARREN_LOCAL_TEST_PARENT", "1")
        .env_remove("WARREN_TEST_RABBITMQ")
        .env("TMPDIR", scratch.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(parent.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains(" ready") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the parent ended early");
    }
    let identity = Identity::of(parent.id()).unwrap();
    identity.kill();
    parent.wait().unwrap();
    wait_until("all processes are gone", || processes_of(scratch.path()).is_empty());
    wait_until("the folder is gone", || std::fs::read_dir(scratch.path()).unwrap().next().is_none());
}
