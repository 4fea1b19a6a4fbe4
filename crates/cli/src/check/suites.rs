//! Which suites there are, and what each runs.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use warren_models::{Catalogue, Status, USUAL};

use super::{
    bench::Bench,
    capabilities,
    programs::{self, Program},
    tally::Tally,
    tools::{provide_deny, provide_python},
    workspace::Workspace,
};
use crate::{caches::Caches, error::CliError};

/// Takes long, and changes seldom.
const INFERENCE: &str = "warren-inference";

/// Packages with tests on a broker of their own.
const CONTRACT_OF_BROKER: [&str; 3] = ["warren-broker", "warren-local", "warren-relay"];
/// Suites that measure times, which others beside them would spoil.
const MEASURES: [&str; 4] = ["depth", "faults", "long", "poison"];
/// The driver makes it where there is a card.
const CARD: &str = "/dev/nvidia0";
/// End-to-end suites at a time.
const LANES: usize = 2;

/// When a suite runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Also with `--quick`.
    Quick,
    /// Unless `--quick`.
    Always,
    /// Only with `--nightly`, or by name.
    Nightly,
    /// Where there is a CUDA card to run on.
    Card,
}

/// Why a suite does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skip {
    NotQuick,
    Nightly,
    NoCard,
}

impl When {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Always => "",
            Self::Nightly => "nightly",
            Self::Card => "card",
        }
    }
}

#[derive(Clone, Debug)]
enum Kind {
    Fmt,
    Clippy,
    Deny,
    Docs,
    Proto,
    Deploy,
    CudaTypes,
    Cuda,
    Unit,
    Contract,
    Inference,
    EndToEnd,
    OtherBroker,
    Capabilities,
}

/// One suite.
#[derive(Clone, Debug)]
pub(crate) struct Suite {
    /// As it is named on the command line.
    pub name: String,
    /// For people.
    pub about: String,
    /// When it runs.
    pub when: When,
    /// About how long it takes on 2 cores, built.
    pub minutes: u32,
    kind: Kind,
}

/// All suites, in the order in which they run: what fails fastest comes first.
pub(crate) fn all(workspace: &Workspace) -> Result<Vec<Suite>, CliError> {
    let suite = |name: &str, kind, when, minutes, about: &str| Suite {
        name: name.to_owned(),
        about: about.to_owned(),
        when,
        minutes,
        kind,
    };
    let mut suites = vec![
        suite("fmt", Kind::Fmt, When::Quick, 0, "sources are formatted"),
        suite("proto", Kind::Proto, When::Always, 0, "proto/ follows the rules of buf.yaml"),
        suite("unit", Kind::Unit, When::Quick, 1, "rules, beside the code"),
        suite("contract", Kind::Contract, When::Quick, 2, "each crate on real parts: RabbitMQ, PostgreSQL, S3, files"),
        suite("inference", Kind::Inference, When::Always, 1, "models: the same text and vectors as the reference"),
        suite("clippy", Kind::Clippy, When::Always, 2, "no lint warns"),
        suite("docs", Kind::Docs, When::Always, 2, "documentation builds without warnings, its examples compile"),
        suite("deny", Kind::Deny, When::Always, 0, "dependencies: licences, sources, and who may use what"),
        suite("deploy", Kind::Deploy, When::Always, 1, "compose/ and k8s/ as files"),
    ];
    let (measuring, others): (Vec<_>, Vec<_>) =
        workspace.end_to_end.iter().partition(|name| MEASURES.contains(&name.as_str()));
    for name in others.into_iter().chain(measuring) {
        let minutes = if name == "faults" { 12 } else { 2 };
        suites.push(suite(name, Kind::EndToEnd, When::Always, minutes, "end to end, on a whole stack"));
    }
    let about = "contracts and stacks, everyday sizes, on RabbitMQ 4.0";
    suites.push(suite("rabbitmq-4", Kind::OtherBroker, When::Nightly, 45, about));
    suites.push(suite("cuda-types", Kind::CudaTypes, When::Nightly, 3, "the CUDA build, types only: nothing is run"));
    suites.push(suite("cuda", Kind::Cuda, When::Card, 2, "models on a CUDA card: the same text and vectors"));
    suites.push(suite(
        "capabilities",
        Kind::Capabilities,
        When::Always,
        0,
        "what is promised, and the test that shows it",
    ));
    if let Some(twice) = workspace.end_to_end.iter().find(|name| suites.iter().filter(|s| s.name == **name).count() > 1)
    {
        return Err(CliError::Usage(format!("tests/Cargo.toml: a suite is called {twice} already; rename the target")));
    }
    Ok(suites)
}

/// What the chosen suites will fetch, for people.
pub(crate) fn downloads(chosen: &[Suite], bench: &Bench) -> Vec<String> {
    let any = |wanted: fn(&Kind) -> bool| chosen.iter().any(|suite| wanted(&suite.kind));
    let mut downloads = Vec::new();
    if any(|kind| matches!(kind, Kind::Proto | Kind::Deploy)) {
        downloads.extend(bench.tools.python_download());
    }
    if any(|kind| matches!(kind, Kind::Deny)) {
        downloads.extend(bench.tools.deny_download());
    }
    if any(|kind| matches!(kind, Kind::Contract | Kind::Inference | Kind::EndToEnd)) {
        let catalogue = Catalogue::builtin();
        // Settings that cannot be used are refused by what reads them.
        let caches = Caches::of_environment().ok();
        let placed = catalogue.models().iter().filter_map(|model| Some((model, caches.as_ref()?.of(model))));
        let missing = placed
            .filter(|(model, cache)| USUAL.contains(&model.name.as_str()) && cache.status(model) != Status::Ready);
        for (model, cache) in missing {
            let bytes = model.sources.first().map_or(0, |source| source.download_bytes());
            downloads.push(format!(
                "the model {}: {} MB, into {}",
                model.name,
                bytes / 1_000_000,
                cache.dir().display()
            ));
        }
    }
    downloads
}

impl Suite {
    /// Why it does not run, if so.
    pub(crate) fn skip(&self, quick: bool, nightly: bool) -> Option<Skip> {
        match self.when {
            When::Nightly if !nightly => Some(if quick { Skip::NotQuick } else { Skip::Nightly }),
            When::Always | When::Card if quick => Some(Skip::NotQuick),
            When::Card if !Path::new(CARD).exists() => Some(Skip::NoCard),
            _ => None,
        }
    }

    /// It may run beside another one: it has a stack of its own, and does not measure how fast it is.
    pub(crate) fn bears_company(&self) -> bool {
        matches!(self.kind, Kind::EndToEnd) && !MEASURES.contains(&self.name.as_str())
    }

    fn is_of(&self, program: &Program) -> bool {
        program.end_to_end() && program.name == self.name
    }

    /// After this it hangs.
    pub(crate) fn limit(&self, nightly: bool) -> Duration {
        // A cold build may be part of it.
        let minutes = 40 + 4 * u64::from(self.minutes) + if nightly { 180 } else { 0 };
        Duration::from_secs(60 * minutes)
    }

    /// Runs it.
    pub(crate) async fn run(&self, bench: &mut Bench) -> Result<Tally, CliError> {
        match self.kind {
            Kind::Fmt => bench.whole(bench.cargo(&["fmt", "--all", "--check", "--", "--color", "never"])).await,
            Kind::Clippy => {
                let arguments = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
                bench.whole(bench.cargo(&arguments)).await
            }
            Kind::Docs => docs(bench).await,
            Kind::Deny => deny(bench).await,
            Kind::Proto => proto(bench).await,
            Kind::Deploy => deploy(bench).await,
            Kind::CudaTypes => cuda_types(bench).await,
            Kind::Cuda => cuda(bench).await,
            Kind::Unit => programs::run(bench, |program| program.unit).await,
            Kind::Contract => {
                let contract =
                    |program: &Program| !program.unit && !program.end_to_end() && program.package != INFERENCE;
                programs::run(bench, contract).await
            }
            Kind::Inference => programs::run(bench, |program| !program.unit && program.package == INFERENCE).await,
            Kind::EndToEnd => {
                let built = services(bench).await?;
                if !built.sound() {
                    return Ok(built);
                }
                programs::run_alone(bench, |program| self.is_of(program)).await
            }
            Kind::OtherBroker => other_broker(bench).await,
            Kind::Capabilities => capabilities::run(bench),
        }
    }
}

/// Builds the stack's own binaries, which no test target depends on.
async fn services(bench: &mut Bench) -> Result<Tally, CliError> {
    bench.whole(bench.cargo(&["build", "--workspace", "--bins"])).await
}

/// Runs whatever needs a broker on a RabbitMQ of another series than the system's.
async fn other_broker(bench: &mut Bench) -> Result<Tally, CliError> {
    let folder = bench.workspace.target.join("rabbitmq-4");
    let mut unpack = bench.program("tests/brokers/unpack.sh");
    unpack.arg(&folder);
    let mut tally = bench.whole(unpack).await?;
    if tally.sound() {
        tally = services(bench).await?;
    }
    if !tally.sound() {
        return Ok(tally);
    }
    let nightly = std::mem::replace(&mut bench.nightly, false);
    bench.broker = Some(folder.join("bin/rabbitmq-server"));
    let contract = programs::run(bench, |program| CONTRACT_OF_BROKER.contains(&program.package.as_str())).await;
    let stacks = programs::run_in_turn(bench, Program::end_to_end).await;
    bench.broker = None;
    bench.nightly = nightly;
    for part in [contract?, stacks?] {
        tally.add(&part);
        tally.trouble.extend(part.trouble);
    }
    Ok(tally)
}

/// Runs suites that wait more than they work, two at a time. Returns each with what it came to and how long it took.
pub(crate) async fn run_side_by_side(
    suites: &[Suite],
    bench: &mut Bench,
) -> Result<Vec<(Suite, Tally, Duration)>, CliError> {
    let (mut commands, mut missing) = (Vec::new(), Vec::new());
    for suite in suites {
        match programs::alone(bench, |program| suite.is_of(program)).await? {
            Some(command) => commands.push((suite.clone(), command)),
            None => missing.push((suite.clone(), programs::nothing_ran(), Duration::ZERO)),
        }
    }
    let mut all = bench.suites_side_by_side(commands, LANES).await?;
    all.extend(missing);
    Ok(all)
}

async fn docs(bench: &mut Bench) -> Result<Tally, CliError> {
    let mut command = bench.cargo(&["doc", "--workspace", "--no-deps"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    let mut tally = bench.whole(command).await?;
    let mut examples = Tally::default();
    if tally.sound() {
        examples = bench.tests(bench.cargo(&["test", "--workspace", "--doc"])).await?;
    }
    tally.add(&examples);
    tally.trouble.extend(examples.trouble);
    Ok(tally)
}

async fn deny(bench: &mut Bench) -> Result<Tally, CliError> {
    let Some(program) = provide_deny(bench).await? else { return Ok(Tally::one(false)) };
    let mut command = bench.program(program);
    command.args(["--color", "never", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
    bench.whole(command).await
}

async fn proto(bench: &mut Bench) -> Result<Tally, CliError> {
    if !provide_python(bench).await? {
        return Ok(Tally::one(false));
    }
    let mut command = bench.tools.on_path(bench.program("buf"));
    command.arg("lint");
    bench.whole(command).await
}

async fn deploy(bench: &mut Bench) -> Result<Tally, CliError> {
    if !provide_python(bench).await? {
        return Ok(Tally::one(false));
    }
    // The services read the settings files of compose/ and k8s/.
    let built = bench.whole(bench.cargo(&["build", "--workspace", "--bins"])).await?;
    if !built.sound() {
        return Ok(built);
    }
    let mut command = bench.tools.on_path(bench.program("python3"));
    command.args(["tests/deploy/check.py", "--bin"]).arg(bench.workspace.target.join("debug"));
    bench.tests(command).await
}

/// Checks the types of the CUDA build. Its kernels are not compiled: a stand-in answers for nvcc.
async fn cuda_types(bench: &mut Bench) -> Result<Tally, CliError> {
    let home = bench.logs().join("cuda");
    let bin = home.join("bin");
    let nvcc = bin.join("nvcc");
    fs::create_dir_all(&bin)
        .and_then(|()| fs::create_dir_all(home.join("include")))
        .and_then(|()| fs::copy(bench.workspace.root.join("tests/cuda/nvcc"), &nvcc))
        .and_then(|_| fs::set_permissions(&nvcc, fs::Permissions::from_mode(0o755)))
        .map_err(CliError::file(format!("make {}", nvcc.display())))?;
    // Apart: the feature changes crates that every other build shares.
    let target = bench.workspace.target.join("cuda-types");
    let features = "warren-inference/cuda,warren-worker/cuda,warren-transcription/cuda,warren-batch-embedding/cuda";
    let mut command = bench.cargo(&["check", "--features", features]);
    for package in ["inference", "worker", "transcription", "batch-embedding"] {
        command.args(["--package", &format!("warren-{package}")]);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&path)));
    command.env("PATH", path.map_err(|error| CliError::Usage(format!("PATH: {error}")))?);
    command.env("CARGO_TARGET_DIR", target).env("CUDA_HOME", &home).env("CUDA_PATH", &home).env("NVCC", &nvcc);
    command.env("CUDA_COMPUTE_CAP", "80");
    bench.whole(command).await
}

/// Runs the models' tests on the first card.
async fn cuda(bench: &mut Bench) -> Result<Tally, CliError> {
    if !Path::new(CARD).exists() {
        let mut tally = Tally::default();
        tally.fail(format!("this machine has no CUDA card: there is no {CARD}"));
        return Ok(tally);
    }
    let arguments = ["test", "--package", INFERENCE, "--features", "cuda", "--test", "cuda", "--", "--nocapture"];
    let mut command = bench.cargo(&arguments);
    command.env("CARGO_TARGET_DIR", bench.workspace.target.join("cuda"));
    bench.tests(command).await
}

#[cfg(test)]
impl Suite {
    pub(crate) fn for_test(name: &str, when: When) -> Self {
        Self { name: name.to_owned(), about: String::new(), when, minutes: 0, kind: Kind::Fmt }
    }
}
