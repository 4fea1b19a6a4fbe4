//! Pulling from a hub that breaks off, lies, and is asked by several at once.

mod support;

use std::{
    cell::RefCell,
    fs,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
    process::Command,
    sync::mpsc,
    thread,
};

use support::{CONFIG, Hub, Next};
use warren_child::Limits;
use warren_fault::{Code, Fault};
use warren_models::{Cache, Model, ModelError, ModelsSettings, Phase, PullOptions, Pulled, Status};

const QUIET: &dyn Fn(warren_models::Progress<'_>) = &|_| ();
const FORCE: PullOptions = PullOptions { force: true };

fn pull(cache: &Cache, model: &Model) -> Result<Pulled, ModelError> {
    cache.pull(model, PullOptions::default(), QUIET)
}

fn flip_byte(path: &Path, at: u64) {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path).expect("opened");
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).expect("sought");
    file.read_exact(&mut byte).expect("read");
    file.seek(SeekFrom::Start(at)).expect("sought");
    file.write_all(&[byte[0] ^ 1]).expect("written");
}

#[test]
fn a_model_is_pulled_once_and_found_afterwards() {
    let (hub, dir) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let (cache, model) = (hub.cache(dir.path()), hub.model());
    assert_eq!(cache.status(&model), Status::Missing);
    assert!(matches!(cache.open(&model), Err(ModelError::Missing { .. })));

    let seen = RefCell::new(Vec::new());
    let pulled = cache.pull(&model, PullOptions::default(), &|progress| {
        if progress.phase == Phase::Downloading && progress.file == "model.safetensors" {
            seen.borrow_mut().push((progress.bytes_done, progress.bytes_total));
        }
    });
    assert_eq!(pulled.expect("pulled"), Pulled::Fetched { source: "hub people/small-one".to_owned() });
    let size = hub.weights.len() as u64;
    assert_eq!(seen.borrow().last(), Some(&(size, size)), "progress ends with all bytes");

    let files = cache.open(&model).expect("ready");
    assert_eq!(fs::read(&files.weights).expect("weights"), hub.weights);
    assert_eq!(fs::read_to_string(&files.config).expect("config"), CONFIG);
    assert_eq!(pull(&cache, &model).expect("again"), Pulled::Already);
    assert_eq!(hub.seen("model.safetensors"), [0], "one download");
    assert!(!dir.path().join(".staging/small-one").exists(), "nothing is left behind");

    assert!(cache.remove(&model).expect("removed"));
    assert!(!cache.remove(&model).expect("nothing there"));
    assert_eq!(cache.status(&model), Status::Missing);
}

#[test]
fn a_cut_connection_goes_on_where_it_stopped() {
    let (hub, dir) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    hub.then(Next::Cut(200_000));
    hub.then(Next::Cut(150_000));
    let cache = hub.cache(dir.path());
    pull(&cache, &hub.model()).expect("pulled");
    let firsts = hub.seen("model.safetensors");
    assert_eq!(firsts.len(), 3, "{firsts:?}");
    assert!(firsts[0] == 0 && firsts[1] > 0 && firsts[2] > firsts[1], "{firsts:?}");
    assert_eq!(cache.verify(&hub.model(), QUIET), Status::Ready);
}

#[test]
fn a_server_that_ignores_ranges_starts_over() {
    let (hub, dir) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    hub.then(Next::Cut(200_000));
    hub.then(Next::IgnoreRange);
    pull(&hub.cache(dir.path()), &hub.model()).expect("pulled");
}

#[test]
fn a_busy_server_is_asked_again() {
    let (hub, dir) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    hub.then(Next::Status(503));
    pull(&hub.cache(dir.path()), &hub.model()).expect("pulled");
    assert_eq!(hub.seen("model.safetensors").len(), 2);
}

#[test]
fn a_refusal_and_a_wrong_file_are_told_apart() {
    let (hub, dir) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let cache = hub.cache(dir.path());
    hub.then(Next::Status(403));
    let error = pull(&cache, &hub.model()).expect_err("forbidden");
    assert!(error.to_string().contains("HTTP 403"), "{error}");
    assert!(matches!(error.fault(), Fault::RetryLater { .. }));

    let error = pull(&cache, &hub.model_with_sha256(&"0".repeat(64))).expect_err("another file");
    assert!(error.to_string().contains("sha256"), "{error}");
    assert_eq!(cache.status(&hub.model()), Status::Missing, "nothing wrong is published");
}

#[test]
fn a_flipped_byte_is_found_and_mended() {
    let (hub, dir) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let (cache, model) = (hub.cache(dir.path()), hub.model());
    pull(&cache, &model).expect("pulled");
    let weights = dir.path().join("small-one/model.safetensors");
    flip_byte(&weights, 300_000);
    assert!(matches!(cache.verify(&model, QUIET), Status::Corrupt { file, .. } if file == "model.safetensors"));
    let error = cache.open(&model).expect_err("damaged");
    assert_eq!(error.code(), Code::ModelCorrupt);
    assert!(error.to_string().contains("pull --force small-one"), "{error}");

    cache.pull(&model, FORCE, QUIET).expect("mended");
    assert_eq!(cache.verify(&model, QUIET), Status::Ready);
    assert!(cache.open(&model).is_ok());
}

#[test]
fn a_file_of_the_wrong_size_or_a_garbled_manifest_is_found_without_hashing() {
    let (hub, dir) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let (cache, model) = (hub.cache(dir.path()), hub.model());
    pull(&cache, &model).expect("pulled");
    let folder = dir.path().join("small-one");
    fs::write(folder.join("config.json"), "{").expect("cut");
    assert!(matches!(cache.status(&model), Status::Corrupt { file, .. } if file == "config.json"));
    fs::remove_file(folder.join("config.json")).expect("removed");
    assert!(matches!(cache.status(&model), Status::Corrupt { file, .. } if file == "config.json"));
    fs::write(folder.join("manifest.json"), "{").expect("garbled");
    assert!(matches!(cache.status(&model), Status::Corrupt { file, .. } if file == "manifest.json"));
    pull(&cache, &model).expect("a plain pull mends it too");
    assert_eq!(cache.status(&model), Status::Ready);
}

#[test]
fn two_that_pull_at_once_download_once() {
    let (hub, dir) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let (release, first_in) = mpsc::channel();
    // The first to come is held up until the second waits.
    hub.then(Next::Cut(100_000));
    thread::scope(|scope| {
        let (waiting, waited) = mpsc::channel();
        let slow = {
            let (cache, model, release) = (hub.cache(dir.path()), hub.model(), release);
            scope.spawn(move || {
                let told = RefCell::new(Some(release));
                cache.pull(&model, PullOptions::default(), &|progress| {
                    if progress.phase == Phase::Downloading
                        && let Some(release) = told.borrow_mut().take()
                    {
                        release.send(()).expect("the test waits");
                        waited.recv().expect("the other waits");
                    }
                })
            })
        };
        first_in.recv().expect("the first downloads");
        let second = hub.cache(dir.path()).pull(&hub.model(), PullOptions::default(), &|progress| {
            if progress.phase == Phase::Waiting {
                waiting.send(()).expect("the first waits");
            }
        });
        assert_eq!(second.expect("second"), Pulled::Already);
        assert!(matches!(slow.join().expect("first"), Ok(Pulled::Fetched { .. })));
    });
}

#[test]
fn an_exported_folder_is_a_source_and_a_cache() {
    let (hub, dir) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let (cache, model) = (hub.cache(&dir.path().join("cache")), hub.model());
    let export = dir.path().join("export");
    assert!(matches!(cache.export_all(&[&model], &export, QUIET), Err(ModelError::Missing { .. })));
    pull(&cache, &model).expect("pulled");
    cache.export_all(&[&model], &export, QUIET).expect("exported");
    cache.export_all(&[&model], &export, QUIET).expect("exported again");
    assert_eq!(Cache::new(&export).verify(&model, QUIET), Status::Ready);

    let offline = |cache: &str| {
        Cache::with(&ModelsSettings {
            cache: dir.path().join(cache),
            local: Some(export.clone()),
            hub: "http://127.0.0.1:1".to_owned(),
        })
    };
    let pulled = pull(&offline("offline"), &model).expect("from the folder");
    assert!(matches!(pulled, Pulled::Fetched { source } if source.starts_with("folder ")));

    // A damaged folder is passed over, here for the hub, which is away.
    flip_byte(&export.join("small-one/tokenizer.json"), 3);
    let error = pull(&offline("other"), &model).expect_err("no source").to_string();
    assert!(error.contains("tokenizer.json: its sha256") && error.contains("127.0.0.1:1"), "{error}");
}

/// Run by the next test in a process of its own, which that test kills.
#[test]
fn pull_until_killed() {
    let (Some(dir), Some(url)) = (std::env::var_os("WARREN_TEST_CACHE"), std::env::var_os("WARREN_TEST_HUB")) else {
        return;
    };
    let mut hub = Hub::start();
    hub.url = url.into_string().expect("an address");
    let _ = pull(&hub.cache(Path::new(&dir)), &hub.model());
}

#[test]
fn killed_in_the_middle_it_goes_on() {
    let (hub, dir) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let (signal, stalled) = mpsc::channel();
    hub.then(Next::Stall(400_000, signal));
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "pull_until_killed"]);
    command.env("WARREN_TEST_CACHE", dir.path()).env("WARREN_TEST_HUB", &hub.url);
    let mut child = warren_child::spawn(command, Limits::NONE).expect("started");
    stalled.recv().expect("400 000 bytes are on their way");
    let staging = dir.path().join(".staging/small-one/downloads");
    let arrived = || {
        let entries = fs::read_dir(&staging).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "partial"))
            .filter_map(|entry| entry.metadata().ok())
            .map(|found| found.len())
            .sum::<u64>()
    };
    while arrived() == 0 {
        thread::yield_now();
    }
    child.kill().expect("killed");
    let kept = arrived();
    pull(&hub.cache(dir.path()), &hub.model()).expect("goes on");
    assert_eq!(hub.seen("model.safetensors"), [0, kept]);
    assert_eq!(hub.cache(dir.path()).verify(&hub.model(), QUIET), Status::Ready);
}
