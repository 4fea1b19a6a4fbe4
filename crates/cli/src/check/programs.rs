//! Test programs: built together, as every other command builds them, and run by name.

use std::path::PathBuf;

use serde_json::Value;
use tokio::process::Command;

use super::{bench::Bench, tally::Tally, workspace::TESTS};
use crate::error::CliError;

/// A program that cargo built from tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Which package it tests.
    pub package: String,
    /// Name of the target.
    pub name: String,
    /// True for tests beside the code, false for those in a package's folder of tests.
    pub unit: bool,
    path: PathBuf,
    /// The package's folder, where tests expect to be run.
    folder: PathBuf,
}

impl Program {
    /// A suite on whole stacks.
    pub(crate) fn end_to_end(&self) -> bool {
        self.package == TESTS && !self.unit
    }

    fn command(&self, bench: &Bench) -> Command {
        let mut command = bench.program(&self.path);
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
        if bench.nightly {
            command.env("WARREN_TEST_NIGHTLY", "1");
        }
        if let Some(script) = &bench.broker {
            command.env(warren_local::rabbitmq::SERVER, script);
        }
        command
    }

    /// The program that a line of cargo's JSON tells of, if it tells of one.
    fn read(line: &str) -> Option<Self> {
        let message: Value = serde_json::from_str(line).ok()?;
        if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
            return None;
        }
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let folder = PathBuf::from(text(&message["manifest_path"])?).parent()?.to_owned();
        // `path+file:///…/crates/jobs#warren-jobs@0.1.0`, or `…/warren-jobs#0.1.0`.
        let id = text(&message["package_id"])?;
        let (place, name) = id.rsplit_once('#')?;
        let package = match name.split_once('@') {
            Some((name, _)) => name.to_owned(),
            None => place.rsplit('/').next()?.to_owned(),
        };
        let is_test = message["target"]["kind"].as_array()?.iter().any(|kind| kind == "test");
        Some(Self {
            package,
            name: text(&message["target"]["name"])?,
            unit: !is_test,
            path: text(&message["executable"])?.into(),
            folder,
        })
    }
}

/// Builds all test programs, once in a run; `None` when that failed.
async fn build(bench: &mut Bench) -> Result<Option<Vec<Program>>, CliError> {
    if let Some(programs) = &bench.programs {
        return Ok(Some(programs.clone()));
    }
    let mut programs = Vec::new();
    let command = bench.cargo(&["test", "--workspace", "--no-run", "--message-format", "json-render-diagnostics"]);
    let built = bench.whole_with(command, |line| programs.extend(Program::read(line))).await?;
    if !built.sound() {
        return Ok(None);
    }
    programs
        .sort_by(|one, other| (&one.package, !one.unit, &one.name).cmp(&(&other.package, !other.unit, &other.name)));
    bench.programs = Some(programs.clone());
    Ok(Some(programs))
}

/// Builds and runs those programs that `wanted` names, as many at once as there are processors.
pub(crate) async fn run(bench: &mut Bench, wanted: impl Fn(&Program) -> bool) -> Result<Tally, CliError> {
    let Some(programs) = build(bench).await? else { return Ok(Tally::one(false)) };
    let commands = programs.iter().filter(|program| wanted(program)).map(|program| program.command(bench)).collect();
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    bench.tests_side_by_side(commands, at_once).await.map(something_ran)
}

/// Builds and runs those programs that `wanted` names, one after the other.
pub(crate) async fn run_in_turn(bench: &mut Bench, wanted: impl Fn(&Program) -> bool) -> Result<Tally, CliError> {
    let Some(programs) = build(bench).await? else { return Ok(Tally::one(false)) };
    let mut all = Tally::default();
    for program in programs.iter().filter(|program| wanted(program)) {
        let mut command = program.command(bench);
        command.arg("--nocapture");
        let tally = bench.tests(command).await?;
        all.add(&tally);
        all.trouble.extend(tally.trouble);
    }
    Ok(something_ran(all))
}

/// Builds and runs one program, and shows what its tests print while they run.
pub(crate) async fn run_alone(bench: &mut Bench, wanted: impl Fn(&Program) -> bool) -> Result<Tally, CliError> {
    let Some(command) = alone(bench, wanted).await? else { return Ok(nothing_ran()) };
    bench.tests(command).await.map(something_ran)
}

/// Builds one program; `None` when there is none or it cannot be built.
pub(crate) async fn alone(bench: &mut Bench, wanted: impl Fn(&Program) -> bool) -> Result<Option<Command>, CliError> {
    let programs = build(bench).await?.unwrap_or_default();
    Ok(programs.iter().find(|program| wanted(program)).map(|program| {
        let mut command = program.command(bench);
        command.arg("--nocapture");
        command
    }))
}

/// What a suite without a program comes to.
pub(crate) fn nothing_ran() -> Tally {
    something_ran(Tally::default())
}

fn something_ran(mut tally: Tally) -> Tally {
    if tally.run == 0 && tally.failed == 0 {
        tally.fail("no test ran".to_owned());
    }
    tally
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn programs_are_told_from_what_they_test() {
        let line = json!({
            "reason": "compiler-artifact",
            "package_id": "path+file:///here/crates/store#warren-store@0.1.0",
            "manifest_path": "/here/crates/store/Cargo.toml",
            "target": {"kind": ["test"], "name": "contract"},
            "profile": {"test": true},
            "executable": "/here/target/debug/deps/contract-1",
        });
        let program = Program::read(&line.to_string()).expect("a program");
        assert_eq!(
            (program.package.as_str(), program.name.as_str(), program.unit),
            ("warren-store", "contract", false)
        );
        assert_eq!(program.folder, PathBuf::from("/here/crates/store"));
        assert!(!program.end_to_end());

        let mut library = line.clone();
        library["package_id"] = "path+file:///here/warren-tests#0.1.0".into();
        library["target"]["kind"] = json!(["lib"]);
        let program = Program::read(&library.to_string()).expect("a program");
        assert!(program.package == "warren-tests" && program.unit && !program.end_to_end());

        let mut plain = line;
        plain["profile"]["test"] = false.into();
        assert_eq!(Program::read(&plain.to_string()), None);
        assert_eq!(Program::read("   Compiling warren-store"), None);
    }
}
