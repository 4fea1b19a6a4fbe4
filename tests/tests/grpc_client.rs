//! A Python client that learns the API by reflection submits a job, watches it and fetches its text.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use warren_models::ModelsSettings;
use warren_recordings::error_rate;
use warren_tests::{command::run, recordings::inaugural, stack::Stack};

/// Pinned, so that every machine tests the same.
const PACKAGES: [&str; 3] = ["grpcio==1.76.0", "grpcio-reflection==1.76.0", "protobuf==6.33.6"];

#[test]
fn a_client_by_reflection_can_do_it_all() {
    let stack = Stack::start();
    let voice = inaugural();
    let endpoints = stack.endpoints();
    let address = endpoints["grpc"]["url"].as_str().expect("a text").trim_start_matches("http://");
    let mut python = Command::new("python3");
    python
        .args(["-c", include_str!("grpc_client.py")])
        .args([address.as_ref(), voice.path.as_os_str(), "tiny.en".as_ref()])
        .env("PYTHONPATH", packages())
        .env("no_proxy", "127.0.0.1");
    let told = run(python, Duration::from_secs(120)).ok().json();
    println!("{told}");

    assert_eq!(told["state"], "JOB_STATE_SUCCEEDED");
    assert_eq!((told["same_job"].as_bool(), told["complete"].as_bool()), (Some(true), Some(true)));
    assert!(error_rate::words(&voice.text, told["text"].as_str().expect("a text")) <= 0.15);
    assert!(told["segments"].as_u64().is_some_and(|count| count > 0));
    let events: Vec<_> = told["events"].as_array().into_iter().flatten().filter_map(|event| event.as_str()).collect();
    assert_eq!((events.first(), events.last()), (Some(&"job.submitted"), Some(&"job.succeeded")), "{events:?}");
    let services = told["services"].as_array().expect("an array");
    for name in ["Media", "Jobs", "Transcripts", "Embeddings", "Search", "DeadLetters", "Operations"] {
        assert!(services.iter().any(|service| *service == format!("warren.v1.{name}")), "{name}: {services:?}");
    }
    stack.stop();
}

/// A folder with the client's packages, fetched once; nothing is installed into the system.
fn packages() -> PathBuf {
    let parent = ModelsSettings::default().cache.join("test-packages");
    let target = parent.join(PACKAGES.join(" "));
    if target.is_dir() {
        return target;
    }
    fs::create_dir_all(&parent).unwrap_or_else(|error| panic!("{}: {error}", parent.display()));
    // Put aside and renamed, so that an interrupted run leaves no half folder behind.
    let aside = tempfile::tempdir_in(&parent).expect("a folder beside it");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"])
        .arg(aside.path())
        .args(PACKAGES);
    let output = run(pip, Duration::from_secs(300));
    assert_eq!(output.code, 0, "pip needs its package registry within reach, once: {}", output.stderr);
    if let Err(error) = fs::rename(aside.path(), &target) {
        assert!(target.is_dir(), "{}: {error}", target.display());
    }
    target
}
