//! What fuzzing found, and what it starts from, read again.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use warren_child::Limits;
use warren_fuzz::{INPUTS, Input};

/// Names the input that a child of this test reads.
const CHILD: &str = "WARREN_FUZZ_INPUT";
/// One input, on a busy machine and without optimisation.
const TIME: Duration = Duration::from_secs(20);
const LIMITS: Limits = Limits { address_space_bytes: Some(1 << 30), cpu_seconds: Some(120), ..Limits::NONE };
/// Longest file that is kept, bytes.
const LARGEST: u64 = 64 << 10;

fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(kind)
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn files(input: &Input, kind: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder(kind).join(input.name);
    if !folder.exists() {
        return Vec::new();
    }
    let files = names(&folder).into_iter().map(|name| (format!("{kind}/{}/{name}", input.name), folder.join(name)));
    files
        .map(|(name, path)| {
            assert!(fs::metadata(&path).unwrap().len() <= LARGEST, "{name} is too long to be kept");
            (name, fs::read(&path).unwrap())
        })
        .collect()
}

#[test]
fn every_folder_and_every_driver_has_its_input() {
    let inputs: BTreeSet<String> = INPUTS.iter().map(|input| input.name.to_owned()).collect();
    assert_eq!(inputs.len(), INPUTS.len(), "two inputs of one name");
    for kind in ["fixtures", "seeds"] {
        let strangers: Vec<_> = names(&folder(kind)).difference(&inputs).cloned().collect();
        assert!(strangers.is_empty(), "{kind}/ holds folders of no input: {strangers:?}");
    }
    let drivers = names(&folder("drivers/fuzz_targets"));
    let wanted: BTreeSet<String> = inputs.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(drivers, wanted, "each input has a driver, and each driver an input");
    let manifest = fs::read_to_string(folder("drivers/Cargo.toml")).unwrap();
    for input in INPUTS {
        assert!(manifest.contains(&format!("name = \"{}\"", input.name)), "drivers/Cargo.toml lacks {}", input.name);
        assert!(
            !(input.seeds)().is_empty() || !files(input, "seeds").is_empty(),
            "{} has nothing to start from",
            input.name
        );
    }
}

#[test]
fn every_seed_and_fixture_is_read_within_its_bounds() {
    if let Ok(name) = std::env::var(CHILD) {
        return read(INPUTS.iter().find(|input| input.name == name).unwrap());
    }
    for input in INPUTS {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "every_seed_and_fixture_is_read_within_its_bounds", "--nocapture"]);
        child.env(CHILD, input.name).env("RUST_BACKTRACE", "0");
        let status = warren_child::spawn(child, LIMITS).unwrap().wait().unwrap();
        assert!(status.success(), "{}: {status}; what it says is above", input.name);
    }
}

fn read(input: &Input) {
    let made = (input.seeds)().into_iter().enumerate().map(|(index, data)| (format!("made seed {index}"), data));
    for (name, data) in made.chain(files(input, "seeds")).chain(files(input, "fixtures")) {
        let begun = Instant::now();
        // Printed before: a crash leaves it as the last word.
        println!("{}: {name}, {} bytes", input.name, data.len());
        (input.read)(&data);
        assert!(begun.elapsed() < TIME, "{name} took {:?}", begun.elapsed());
    }
}
