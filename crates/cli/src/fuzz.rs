//! `warren fuzz`: hands over to the program that tries out what strangers may send, built when it is wanted.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use clap::Args;

use crate::{check::Workspace, error::CliError};

/// Try out what strangers may send, e.g. `./warren fuzz --minutes 20 grpc_body`.
#[derive(Args, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct Fuzz {
    /// Which inputs, and for how long: see `./warren fuzz --help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Becomes that program.
///
/// # Errors
/// [`CliError::Usage`] outside the sources.
pub(crate) fn run(fuzz: &Fuzz) -> Result<(), CliError> {
    let workspace = Workspace::find()?;
    let mut command = Command::new("cargo");
    // From the root, so that nothing is built anew with other features than the whole has.
    command.args(["run", "--quiet", "--example", "fuzz", "--"]);
    command.args(&fuzz.arguments).current_dir(&workspace.root);
    // Returns only when it failed.
    Err(CliError::file("start cargo")(command.exec()))
}
