//! `warren`: client, operator's tool and local supervisor.
//!
//! Results go to standard output, everything else to standard error. Exit codes: 0 all succeeded, 1 some of it failed,
//! 2 wrong usage or something missing, 3 the server is out of reach, 130 interrupted, 141 nobody reads the results.

#![allow(rustdoc::bare_urls, reason = "the comments of arguments are help texts, where a URL is a URL")]

mod bench;
mod caches;
mod check;
mod client;
mod commands;
mod demo;
mod ending;
mod error;
mod fuzz;
mod input;
mod output;
#[cfg(test)]
mod readme;
#[cfg(test)]
mod script;
mod span;
mod up;
mod verify;

use std::{path::PathBuf, process::ExitCode};

use bench::Bench;
use check::Test;
use clap::{CommandFactory as _, Parser, Subcommand};
use client::Target;
use commands::{
    audit::{self, Audit},
    dead_letters::{self, DeadLetters},
    diagnose, doctor,
    embed::{self, Embed},
    jobs::{self, Cancel, Jobs, Watch},
    models::{self, Models},
    queues::{self, Queues},
    search::{self, Search},
    stack::{self, Down, Logs, Reset, Restart, Scale, Up},
    transcribe::{self, Transcribe},
    transcript::{self, Transcript},
    vectors::{self, Vectors},
    workers,
};
use demo::Demo;
use error::CliError;
use fuzz::Fuzz;
use tokio_util::sync::CancellationToken;
use verify::Verify;

/// Speech to text, text to vectors, and an archive to search, on your own machines.
#[derive(Debug, Parser)]
#[command(name = "warren", version, about, propagate_version = true, infer_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    target: Target,
    /// One JSON value a line instead of text for people.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(Demo),
    Test(Test),
    Bench(Bench),
    Fuzz(Fuzz),
    Up(Up),
    #[command(visible_alias = "stop")]
    Down(Down),
    Scale(Scale),
    Restart(Restart),
    /// What runs, and how it is.
    Ps,
    /// Addresses and logins of the local stack.
    Endpoints,
    Logs(Logs),
    Transcribe(Transcribe),
    Transcript(Transcript),
    Embed(Embed),
    Vectors(Vectors),
    Search(Search),
    Jobs(Jobs),
    Watch(Watch),
    Cancel(Cancel),
    Dlq(DeadLetters),
    Queues(Queues),
    /// Who works, on what, and who holds which device.
    Workers,
    /// What runs, what waits, and whether anything is stuck.
    Diagnose,
    Audit(Audit),
    Verify(Verify),
    Models(Models),
    /// Is everything here that Warren needs, and does the stack work?
    Doctor,
    Reset(Reset),
    /// Print a script that completes commands in your shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Bring the database to the revision of this build.
    Migrate {
        /// Its address. Default: WARREN_STORE__URL.
        #[arg(env = "WARREN_STORE__URL", hide_env_values = true)]
        url: String,
    },
    #[command(hide = true)]
    Supervise,
    #[command(hide = true)]
    S3 {
        #[arg(long)]
        config: PathBuf,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = parse();
    let (target, json) = (arguments.target.clone(), arguments.json);
    // The parts of the stack have their own way of ending; everything else ends at Ctrl-C.
    let ends_itself = matches!(
        arguments.command,
        Command::Up(_)
            | Command::Demo(_)
            | Command::Test(_)
            | Command::Bench(_)
            | Command::Fuzz(_)
            | Command::Supervise
            | Command::S3 { .. }
    );
    let ready = if ends_itself { Ok(()) } else { ending::at_ctrl_c(target.clone(), json) };
    let outcome = match ready {
        Ok(()) => run(arguments).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ending::report(&error, &target, json).into(),
    }
}

/// The command line. Help, and what is wrong with it, end the process.
fn parse() -> Arguments {
    Arguments::try_parse().unwrap_or_else(|error| {
        let json = error.use_stderr() && std::env::args_os().any(|argument| argument == "--json");
        if !json {
            error.exit();
        }
        let text = error.render().to_string();
        let why = text.strip_prefix("error: ").unwrap_or(&text).trim().to_owned();
        std::process::exit(ending::report(&CliError::Usage(why), &Target::default(), json).into())
    })
}

async fn run(Arguments { target, json, command }: Arguments) -> Result<(), CliError> {
    match command {
        Command::Demo(arguments) => demo::run(target.data, &arguments).await,
        Command::Test(arguments) => check::run(&arguments).await,
        Command::Bench(arguments) => bench::run(&arguments, json),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Up(arguments) => stack::start(target.folder(), &arguments, json).await,
        Command::Down(arguments) => stack::stop(&target.folder(), arguments, json).await,
        Command::Scale(arguments) => stack::scale(&target.folder(), &arguments, json).await,
        Command::Restart(arguments) => stack::restart(&target.folder(), &arguments, json).await,
        Command::Reset(arguments) => stack::reset(&target.folder(), arguments, json).await,
        Command::Ps => stack::ps(&target.folder(), json),
        Command::Endpoints => stack::endpoints(&target.folder(), json),
        Command::Logs(arguments) => stack::logs(&target.folder(), &arguments, json).await,
        Command::Transcribe(arguments) => transcribe::run(&target.server()?, &arguments, json).await,
        Command::Transcript(arguments) => transcript::run(&target.server()?, &arguments, json).await,
        Command::Embed(arguments) => embed::run(&target.server()?, &arguments).await,
        Command::Vectors(arguments) => vectors::run(&target.server()?, &arguments).await,
        Command::Search(arguments) => search::run(&target.server()?, &arguments, json).await,
        Command::Jobs(arguments) => jobs::run(&target.server()?, &arguments, json).await,
        Command::Watch(arguments) => jobs::follow(&target.server()?, &arguments, json).await,
        Command::Cancel(arguments) => jobs::cancel(&target.server()?, &arguments, json).await,
        Command::Dlq(arguments) => dead_letters::run(&target.server()?, &arguments, json).await,
        Command::Queues(arguments) => queues::run(&target.server()?, &arguments, json).await,
        Command::Diagnose => diagnose::run(&target.server()?, json).await,
        Command::Audit(arguments) => audit::run(&target.server()?, &arguments, json).await,
        Command::Workers => workers::workers(&target.server()?, json).await,
        Command::Verify(arguments) => verify::run(&target, &arguments, json).await,
        Command::Models(arguments) => models::run(&target.folder(), &arguments, json),
        Command::Doctor => doctor::run(&target, json),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "warren", &mut script);
            output::text(String::from_utf8_lossy(&script))
        }
        Command::Migrate { url } => stack::migrate(&url, json).await,
        Command::Supervise => Ok(up::supervise(&target.folder(), CancellationToken::new()).await?),
        Command::S3 { config } => stack::s3(&config).await,
    }
}
