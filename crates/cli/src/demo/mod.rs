//! `warren demo`: the whole of Warren at work on real speech, checked against the words that were said.
//!
//! Everything runs on loopback in a folder of its own, and is gone again at the end.

mod facts;
mod fetch;
mod folder;
mod interrupt;
mod phases;
mod searches;
mod speech;

use std::{future::Future, path::PathBuf, time::Duration};

use clap::Args;
use fetch::Materials;
use phases::Phases;
use tokio_util::sync::CancellationToken;

use crate::{
    client::{Server, Target},
    error::CliError,
    up::{self, External, UpOptions},
};

/// See it work: start everything, transcribe, embed, search, check, stop.
#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// Leave the demo's folder there, to look around in with `warren up --data DIR`.
    #[arg(long)]
    keep: bool,
}

/// Runs the command. `data` is an empty folder, or one of an earlier demo.
///
/// # Errors
/// [`CliError::Failed`] when something was heard wrong or not found; what a phase could not do; [`CliError::Interrupted`].
pub(crate) async fn run(data: Option<PathBuf>, arguments: &Demo) -> Result<(), CliError> {
    let stopping = interrupt::listen()?;
    let mut phases = Phases::default();
    let place = folder::claim(data)?;
    let outcome = phased(&place, &stopping, &mut phases).await;
    phases.show();
    let folder = place.data.display().to_string();
    let interrupted = matches!(&outcome, Err(error) if error.exit_code() == CliError::Interrupted.exit_code());
    match &outcome {
        Ok(()) if arguments.keep => eprintln!("kept: {folder}; start it again with: warren --data '{folder}' up"),
        _ if outcome.is_ok() || (interrupted && !arguments.keep) => place.remove(),
        _ => eprintln!("the logs are in {}", place.data.join("logs").display()),
    }
    if outcome.is_ok() {
        println!("Everything was heard and found as it should be.");
    }
    outcome
}

async fn phased(place: &folder::Place, stopping: &CancellationToken, phases: &mut Phases) -> Result<(), CliError> {
    let materials = fetch::all(&place.data, stopping, phases).await?;
    let started = phases.begin("start");
    // Never dropped half way: what it started would go on. A signal ends it too.
    let options = UpOptions { external: External::default(), ..UpOptions::new(place.data.clone()) };
    let stack = up::up(options, &mut |line| eprintln!("{line}")).await?;
    phases.end(started);

    let target = Target { data: Some(place.data.clone()), ..Target::default() };
    let worked = match target.server() {
        Ok(server) => until_stopped(stopping, work(&server, &materials, phases)).await,
        Err(error) => Err(error),
    };
    let stopped = phases.begin("stop");
    let gone = told("stopping", stack.stop()).await;
    phases.end(stopped);
    worked?;
    Ok(gone?)
}

/// All that needs the stack.
async fn work(server: &Server, materials: &Materials, phases: &mut Phases) -> Result<(), CliError> {
    let mut troubles = speech::all(server, materials, phases).await?;
    troubles.extend(searches::all(server, phases).await?);
    if troubles.is_empty() {
        return Ok(());
    }
    for trouble in troubles {
        eprintln!("WRONG  {trouble}");
    }
    Err(CliError::Failed)
}

async fn until_stopped<T>(
    stopping: &CancellationToken,
    work: impl Future<Output = Result<T, CliError>>,
) -> Result<T, CliError> {
    tokio::select! {
        outcome = work => outcome,
        () = stopping.cancelled() => Err(CliError::Interrupted),
    }
}

/// Waits, with a line every 10 s so that nobody has to wonder.
async fn told<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut waited = 0;
    loop {
        match tokio::time::timeout(Duration::from_secs(10), &mut work).await {
            Ok(outcome) => return outcome,
            Err(_) => {
                waited += 10;
                eprintln!("{what} ({waited} s)");
            }
        }
    }
}
