//! `warren dlq`: what could not be processed, and putting it back to work.

mod filter;
mod look;
mod put_away;
mod replay;

use clap::{Args, Subcommand};
use filter::Filter;
use put_away::{Discard, Export, Import};
use replay::Replay;
use warren_messages::wire::{DeadLetter, DeadLetterState};

use crate::{client::Server, error::CliError};

/// Dead letters: list, group, show, replay, discard.
#[derive(Args, Debug)]
pub(crate) struct DeadLetters {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List them, newest first, with their causes.
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        filter: Filter,
        /// Most letters.
        #[arg(short, long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
    },
    /// The same trouble under one heading, most letters first.
    Groups {
        #[command(flatten)]
        filter: Filter,
    },
    /// Count them by state, class and queue, and compare with RabbitMQ.
    Stats,
    /// Show one with its history, headers and body.
    Show {
        /// Its id.
        id: String,
    },
    Replay(Replay),
    Discard(Discard),
    Export(Export),
    Import(Import),
}

/// Runs the command.
///
/// # Errors
/// When the server refuses, stays away, or a letter was not replayed, discarded or put back.
pub(crate) async fn run(server: &Server, arguments: &DeadLetters, json: bool) -> Result<(), CliError> {
    match &arguments.command {
        Verb::List { filter, limit } => look::list(server, filter, *limit, json).await,
        Verb::Groups { filter } => look::groups(server, filter, json).await,
        Verb::Stats => look::stats(server, json).await,
        Verb::Show { id } => look::show(server, id, json).await,
        Verb::Replay(arguments) => replay::run(server, arguments, json).await,
        Verb::Discard(arguments) => put_away::discard(server, arguments, json).await,
        Verb::Export(arguments) => put_away::export(server, arguments).await,
        Verb::Import(arguments) => put_away::import(server, arguments, json).await,
    }
}

/// Where a letter is, in one word.
fn word(state: DeadLetterState) -> &'static str {
    match state {
        DeadLetterState::Unspecified => "unknown",
        DeadLetterState::Dead => "dead",
        DeadLetterState::Parked => "parked",
        DeadLetterState::Replaying => "replaying",
        DeadLetterState::Replayed => "replayed",
        DeadLetterState::Void => "void",
        DeadLetterState::Discarded => "discarded",
        DeadLetterState::Purged => "purged",
    }
}

fn as_json(letter: &DeadLetter) -> serde_json::Value {
    serde_json::json!({
        "id": letter.id, "queue": letter.queue, "class": letter.class, "cause": letter.cause,
        "fingerprint": letter.fingerprint, "job": letter.job, "task": letter.task, "first_seen": letter.first_seen,
        "replays": letter.replays, "state": word(letter.state()),
    })
}
