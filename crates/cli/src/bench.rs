//! `warren bench`: hands over to the program that measures. It is none of a release, which has no model that does nothing.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use clap::Args;

use crate::error::CliError;

/// Stands beside this program in the builds of the sources.
const PROGRAM: &str = "warren-bench";

/// Measure what Warren costs, against others, e.g. `./warren bench orchestration`.
#[derive(Args, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct Bench {
    /// What to measure, and how: see `./warren bench --help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Becomes that program.
///
/// # Errors
/// [`CliError::Usage`] where it is not.
pub(crate) fn run(bench: &Bench, json: bool) -> Result<(), CliError> {
    let me = std::env::current_exe().map_err(CliError::file("find this program"))?;
    let program = me.with_file_name(PROGRAM);
    if !program.is_file() {
        return Err(CliError::Usage("a release cannot be measured; in the sources, run ./warren bench".to_owned()));
    }
    let mut command = Command::new(&program);
    command.args(json.then_some("--json")).args(&bench.arguments);
    // Returns only when it failed.
    Err(CliError::file(format!("start {}", program.display()))(command.exec()))
}
