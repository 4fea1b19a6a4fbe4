//! Fuzzes inputs one after another and prints what came of it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use clap::Parser;
use nix::sys::{resource::UsageWho, time::TimeValLike as _};
use warren_child::Limits;
use warren_fuzz::{INPUTS, Input};

/// Memory of a driver, as RabbitMQ's queues and S3's objects would meet it in a small container.
const MEMORY: u64 = 1 << 30;
/// One input may take so long; more is a hang.
const HANG_S: u32 = 10;
/// What a machine without cargo-fuzz is told.
const GET: &str = "cargo-fuzz is missing; get it with `cargo install cargo-fuzz --version 0.13.2 --locked`";

/// Try out what strangers may send, with coverage to guide the choice: no panic, no hang, at most 1 GiB.
#[derive(Debug, Parser)]
#[command(name = "./warren fuzz")]
struct Arguments {
    /// Minutes of processor time for each input.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Folder of what was found interesting: later runs go on from there. Its `TABLE.tsv` sums all runs up.
    #[arg(long, default_value = "target/fuzz/corpora")]
    corpora: PathBuf,
    /// Take the drivers as they were built last.
    #[arg(long)]
    no_build: bool,
    /// Say which inputs there are, and try none.
    #[arg(long)]
    list: bool,
    /// Only these.
    #[arg(value_name = "INPUT")]
    inputs: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("warren fuzz: {problem}");
            ExitCode::from(2)
        }
    }
}

/// What was done with one input.
#[derive(Debug, Default)]
struct Tried {
    seconds: f64,
    executions: u64,
    edges: u64,
    /// Files of inputs that must not be.
    findings: Vec<PathBuf>,
}

fn run(arguments: &Arguments) -> Result<bool, String> {
    if let Some(unknown) = arguments.inputs.iter().find(|name| INPUTS.iter().all(|input| input.name != **name)) {
        return Err(format!("there is no input {unknown}; --list shows those there are"));
    }
    let chosen: Vec<&Input> = INPUTS
        .iter()
        .filter(|input| arguments.inputs.is_empty() || arguments.inputs.iter().any(|name| name == input.name))
        .collect();
    if arguments.list {
        chosen.iter().for_each(|input| println!("{}", input.name));
        return Ok(true);
    }
    let drivers = drivers(&chosen, arguments.no_build)?;
    let mut rows = Vec::new();
    for input in chosen {
        eprintln!("{}: {} minutes", input.name, arguments.minutes);
        let tried = fuzz(input, &drivers, arguments).map_err(|error| format!("{}: {error}", input.name))?;
        remember(&arguments.corpora.join("TABLE.tsv"), input.name, &tried).map_err(|error| error.to_string())?;
        rows.push((input.name, tried));
    }
    println!("{:<20} {:>8} {:>12} {:>8} {:>8}", "input", "seconds", "executions", "edges", "findings");
    for (name, tried) in &rows {
        let Tried { seconds, executions, edges, findings } = tried;
        println!("{name:<20} {seconds:>8.0} {executions:>12} {edges:>8} {:>8}", findings.len());
    }
    for finding in rows.iter().flat_map(|(_, tried)| &tried.findings) {
        println!("found: {}", finding.display());
    }
    Ok(rows.iter().all(|(_, tried)| tried.findings.is_empty()))
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Builds the drivers, unless they are there, and returns their folder.
fn drivers(inputs: &[&Input], there: bool) -> Result<PathBuf, String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| here().join("../../target"), PathBuf::from);
    let target = target.join("fuzz");
    if !there {
        build(inputs, &target)?;
    }
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    Ok(target.join(triple).join("release"))
}

fn build(inputs: &[&Input], target: &Path) -> Result<(), String> {
    let cargo = || Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let there = cargo().args(["fuzz", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        return Err(GET.to_owned());
    }
    // One driver by its name, several all at once.
    let only = if let [input] = inputs { Some(input.name) } else { None };
    let status = cargo()
        .args(["fuzz", "build", "--sanitizer", "none", "-O", "--codegen-units", "4", "--fuzz-dir"])
        .arg(here().join("drivers"))
        .arg("--target-dir")
        .arg(target)
        .args(only)
        // The compiler's counters are not stable yet.
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove("CARGO_TARGET_DIR")
        .status()
        .map_err(|error| format!("cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err("the drivers cannot be built; what cargo says is above".to_owned()) }
}

fn fuzz(input: &Input, drivers: &Path, arguments: &Arguments) -> io::Result<Tried> {
    let folder = arguments.corpora.join(input.name);
    let found = folder.join("found");
    let corpus = folder.join("corpus");
    fs::create_dir_all(&found)?;
    fs::create_dir_all(&corpus)?;
    for (index, seed) in (input.seeds)().into_iter().enumerate() {
        fs::write(corpus.join(format!("seed-{index}")), seed)?;
    }
    let mut tried = Tried::default();
    let wanted = Duration::from_secs_f64(arguments.minutes * 60.0);
    let begun = Instant::now();
    loop {
        let left = wanted.as_secs_f64() - tried.seconds;
        // On a machine that has no time for it, it ends nevertheless.
        if left < 1.0 || begun.elapsed() > 4 * wanted || !tried.findings.is_empty() {
            break;
        }
        let log = folder.join("log");
        let before = spent()?;
        let mut command = Command::new(drivers.join(input.name));
        command
            .arg(&corpus)
            .args(["seeds", "fixtures"].map(|kind| here().join(kind).join(input.name)).iter().filter(|at| at.exists()))
            .arg(format!("-max_total_time={}", left.ceil()))
            .arg(format!("-max_len={}", input.max_len))
            .arg(format!("-rss_limit_mb={}", MEMORY >> 20))
            .arg(format!("-timeout={HANG_S}"))
            .arg(format!("-artifact_prefix={}/", found.display()))
            .args(["-print_final_stats=1", "-reload=0"])
            // candle takes one for each of its errors; reading the symbols takes longer than the input.
            .env("RUST_BACKTRACE", "0")
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        let limits = Limits { address_space_bytes: Some(MEMORY), ..Limits::NONE };
        let mut driver = warren_child::spawn(command, limits)?;
        // One that hangs so that libFuzzer cannot tell is ended, and did not end well.
        let longest = 4 * wanted + Duration::from_secs(60);
        let sound = match driver.wait_for(longest)? {
            Some(status) => status.success(),
            None => {
                driver.kill()?;
                false
            }
        };
        tried.seconds += spent()? - before;
        let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        tried.executions += last(&said, "stat::number_of_executed_units:").unwrap_or_default();
        tried.edges = tried.edges.max(last(&said, " cov:").unwrap_or_default());
        if !sound {
            let artifact = said.lines().rev().find_map(|line| line.split_once("Test unit written to "));
            tried.findings.push(artifact.map_or(log, |(_, path)| path.trim().into()));
        }
    }
    Ok(tried)
}

/// Processor seconds of all children so far.
fn spent() -> io::Result<f64> {
    let usage = nix::sys::resource::getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok((usage.user_time() + usage.system_time()).num_milliseconds() as f64 / 1e3)
}

/// The number after the last `word` in a log.
fn last(log: &str, word: &str) -> Option<u64> {
    let (_, rest) = log.rsplit_once(word)?;
    rest.split_whitespace().next()?.parse().ok()
}

fn remember(table: &Path, name: &str, tried: &Tried) -> io::Result<()> {
    let Tried { seconds, executions, edges, findings } = tried;
    let mut file = OpenOptions::new().create(true).append(true).open(table)?;
    writeln!(file, "{name}\t{seconds:.0}\t{executions}\t{edges}\t{}", findings.len())
}
