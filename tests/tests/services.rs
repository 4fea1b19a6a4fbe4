//! Each service without anything it needs: it runs, says what it misses, stops when asked, and refuses bad settings.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use warren_local::{http, ports};
use warren_tests::{
    cases::Cases,
    command::{Running, run},
    stack,
    wait::until,
};

/// The longest that an answer, a start or a stop takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// For settings that are refused.
const BAD_SETTINGS: i32 = 64;

/// A service, and the parts that it needs.
const SERVICES: [(&str, &[&str]); 4] = [
    ("ingest", &["database", "rabbitmq", "s3"]),
    ("coordinator", &["database", "rabbitmq", "s3"]),
    ("transcription", &["coordinator", "rabbitmq", "s3"]),
    ("batch-embedding", &["coordinator", "rabbitmq", "s3"]),
];

#[test]
fn each_service_stands_alone() {
    let mut cases = Cases::new();
    for (service, parts) in SERVICES {
        cases.case(&format!("{service} waits for what it misses"), || waits(service, parts));
        cases.case(&format!("{service} refuses bad settings"), || refuses_bad_settings(service));
    }
    for (service, model) in [("transcription", "base"), ("batch-embedding", "all-MiniLM-L6-v2")] {
        cases.case(&format!("{service} names the weights that it may not fetch"), || misses_weights(service, model));
    }
    cases.case("damaged weights are found, and mended without a network", damaged_weights);
    cases.finish();
}

fn waits(service: &str, parts: &[&str]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let free = ports::free(2).expect("free ports");
    let (address, nobody) = (SocketAddr::from((Ipv4Addr::LOCALHOST, free[0])), free[1]);
    let mut command = nothing_there(service, folder.path(), nobody);
    command.env("WARREN_HTTP__BIND", address.to_string());
    let mut running = Running::start(command, "");

    let get = |path: &str| http::get(address, path, PATIENCE);
    let health = until("an answer", PATIENCE, || get("/health").ok());
    assert_eq!((health.status, parse(&health.body)), (200, json!({"status": "ok"})));

    // It answers before it has begun to look for all of them.
    until(&format!("readiness that names {parts:?}"), PATIENCE, || {
        let ready = get("/health/ready").ok()?;
        let down = parse(&ready.body)["parts"].as_object().cloned().unwrap_or_default();
        let names: Vec<_> = down.keys().map(String::as_str).collect();
        let explained = down.values().all(|why| why.as_str().is_some_and(|why| !why.is_empty()));
        (ready.status == 503 && names == parts && explained).then_some(())
    });

    let metrics = get("/metrics").expect("it answers");
    let build = format!("warren_build_info{{service=\"{service}\"");
    assert!(metrics.status == 200 && metrics.body.contains(&build), "{}", metrics.body);

    assert!(running.runs(), "it waits, and does not end");
    kill(Pid::from_raw(running.pid().cast_signed()), Signal::SIGTERM).expect("it runs");
    running.wait(PATIENCE).ok();
}

fn misses_weights(service: &str, model: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let free = ports::free(2).expect("free ports");
    let (address, nobody) = (SocketAddr::from((Ipv4Addr::LOCALHOST, free[0])), free[1]);
    let mut command = nothing_there(service, folder.path(), nobody);
    command.env("WARREN_HTTP__BIND", address.to_string()).env("WARREN_WORK__PULL", "false");
    let _running = Running::start(command, "");
    let advice = format!("`warren models pull {model}`");
    until(&format!("readiness that says {advice}"), PATIENCE, || {
        let told = parse(&http::get(address, "/health/ready", PATIENCE).ok()?.body);
        told["parts"]["models"].as_str().is_some_and(|why| why.contains(&advice)).then_some(())
    });
}

fn damaged_weights() {
    const MODEL: &str = "all-MiniLM-L6-v2";
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (own, beside) = (folder.path().join("own"), folder.path().join("beside"));
    let models = |mut command: Command, arguments: &[&str]| {
        command.arg("models").args(arguments);
        run(command, PATIENCE)
    };
    // Fetched beforehand, where there is a network.
    for copy in [&own, &beside] {
        models(stack::warren(), &["pull", MODEL, "--to", copy.to_str().expect("a plain name")]).ok();
    }
    // From here on nothing can be fetched.
    let alone = || {
        let mut command = stack::warren();
        command.env("WARREN_MODELS__CACHE", &own).env("WARREN_MODELS__LOCAL", &beside);
        command.env("WARREN_MODELS__HUB", "http://127.0.0.1:9").env("HTTPS_PROXY", "http://127.0.0.1:9");
        command
    };
    models(alone(), &["verify"]).ok();
    let weights = largest(&own);
    let length = fs::metadata(&weights).expect("the weights").len();
    fs::OpenOptions::new().write(true).open(&weights).and_then(|file| file.set_len(length / 2)).expect("our own file");
    let found = models(alone(), &["verify", MODEL]).expect_code(1).stdout;
    assert!(found.contains("ModelCorrupt") && found.contains(&format!("pull --force {MODEL}")), "{found}");

    let trouble = || {
        let free = ports::free(2).expect("free ports");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free[0]));
        let mut command = nothing_there("batch-embedding", folder.path(), free[1]);
        command.env("WARREN_HTTP__BIND", address.to_string()).env("WARREN_WORK__PULL", "false");
        command.env("WARREN_MODELS__CACHE", &own);
        let _running = Running::start(command, "");
        // Of RabbitMQ it is known only later that it is not there.
        until("what it thinks of its weights", PATIENCE, || {
            let told = parse(&http::get(address, "/health/ready", PATIENCE).ok()?.body);
            let why = told["parts"]["models"].as_str().unwrap_or_default().to_owned();
            (told["parts"].is_object() && why != "not checked yet").then_some(why)
        })
    };
    let why = trouble();
    println!("    {why}");
    assert!(why.contains(MODEL) && why.contains("--force"), "{why}");
    let mended = models(alone(), &["--json", "pull", "--force", MODEL]).ok().json();
    assert_eq!(mended["fetched"], true, "{mended}");
    models(alone(), &["verify", MODEL]).ok();
    assert_eq!(trouble(), "");
    assert_eq!(models(alone(), &["--json", "rm", MODEL]).ok().json()["removed"], true);
}

/// The largest file below a folder.
fn largest(folder: &Path) -> PathBuf {
    let (mut folders, mut files) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let kind = entry.metadata().expect("its kind");
            if kind.is_dir() {
                folders.push(entry.path());
            } else {
                files.push((kind.len(), entry.path()));
            }
        }
    }
    files.into_iter().max().expect("there are files").1
}

fn refuses_bad_settings(service: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bad = [
        ("WARREN_BROKER__URLL", "amqp://127.0.0.1", "urll"),
        ("WARREN_BROKER__URL", "http://127.0.0.1", "broker.url"),
        ("WARREN_HTTP__BIND", "somewhere", "bind"),
        ("WARREN_BLOB__BUCKET", "", "blob.bucket"),
    ];
    for (name, value, named) in bad {
        let mut command = nothing_there(service, folder.path(), 1);
        command.env(name, value);
        let output = run(command, PATIENCE).expect_code(BAD_SETTINGS);
        assert!(output.stderr.contains(named), "{name}={value}: {}", output.stderr);
    }
}

/// A service whose every part would be at the port `nobody`, where nobody listens.
fn nothing_there(service: &str, folder: &Path, nobody: u16) -> Command {
    let mut command = stack::service_alone(service);
    command.current_dir(folder);
    let mut set = |name: &str, value: String| {
        command.env(format!("WARREN_{name}"), value);
    };
    set("BROKER__URL", format!("amqp://guest:guest@127.0.0.1:{nobody}/%2f"));
    set("BLOB__ENDPOINT", format!("http://127.0.0.1:{nobody}"));
    match service {
        "ingest" | "coordinator" => {
            set("STORE__URL", format!("postgres://warren@127.0.0.1:{nobody}/warren"));
            set("GRPC__BIND", "127.0.0.1:0".to_owned());
        }
        _ => {
            set("LEASES__COORDINATORS", format!("[\"http://127.0.0.1:{nobody}\"]"));
            set("MODELS__CACHE", folder.join("no models").display().to_string());
        }
    }
    command
}

fn parse(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}
