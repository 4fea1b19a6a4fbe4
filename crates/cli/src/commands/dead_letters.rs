//! `warren dlq`: what could not be processed, and putting it back to work.

use std::{collections::BTreeMap, path::PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use warren_messages::wire::{
    DeadLetter, ListDeadLettersRequest, ReplayDeadLettersRequest, ShowDeadLetterRequest,
    dead_letters_client::DeadLettersClient,
};

use crate::{client::Server, error::CliError, output};

/// Dead letters: list, show, replay.
#[derive(Args, Debug)]
pub(crate) struct DeadLetters {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List them, newest first, with their causes.
    List {
        /// Only of this class, e.g. Malformed or WorkerLost.
        #[arg(long, default_value = "", hide_default_value = true)]
        class: String,
        /// Only of this job.
        #[arg(long, default_value = "", hide_default_value = true)]
        job: String,
        /// Most letters.
        #[arg(short, long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
    },
    /// Show one with its body and headers.
    Show {
        /// Its id.
        id: String,
    },
    /// Send letters back to where they came from.
    Replay(Replay),
}

#[derive(Args, Debug)]
struct Replay {
    /// Ids of letters.
    #[arg(required_unless_present_any = ["fingerprint", "all"])]
    ids: Vec<String>,
    /// All letters with this fingerprint: the same trouble.
    #[arg(long, default_value = "", hide_default_value = true)]
    fingerprint: String,
    /// All letters.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Send the content of this file instead of the letter's body; with exactly one id.
    #[arg(long, value_name = "FILE")]
    edit: Option<PathBuf>,
    /// Say what would happen and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command.
///
/// # Errors
/// When the server refuses, stays away, or a letter was not replayed.
pub(crate) async fn run(server: &Server, arguments: &DeadLetters, json: bool) -> Result<(), CliError> {
    match &arguments.command {
        Verb::List { class, job, limit } => list(server, class, job, *limit, json).await,
        Verb::Show { id } => show(server, id, json).await,
        Verb::Replay(arguments) => replay(server, arguments, json).await,
    }
}

async fn list(server: &Server, class: &str, job: &str, limit: u32, json: bool) -> Result<(), CliError> {
    let request = ListDeadLettersRequest {
        class: class.to_owned(),
        job: job.to_owned(),
        page_size: limit,
        ..ListDeadLettersRequest::default()
    };
    let found = server
        .call(async |transport| {
            DeadLettersClient::new(transport).list(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await?;
    if json {
        found.letters.iter().for_each(|letter| output::json_line(&as_json(letter)));
        return Ok(());
    }
    let mut table = output::table(&["id", "queue", "class", "cause", "job", "first seen"]);
    for letter in &found.letters {
        table.add_row([
            &letter.id,
            &letter.queue,
            &letter.class,
            &letter.cause,
            &letter.job,
            &output::time(letter.first_seen.as_ref()),
        ]);
    }
    println!("{table}");
    if found.total > found.letters.len() as u64 {
        eprintln!("{} of {} shown; raise --limit", found.letters.len(), found.total);
    }
    Ok(())
}

fn as_json(letter: &DeadLetter) -> serde_json::Value {
    json!({
        "id": letter.id, "queue": letter.queue, "class": letter.class, "cause": letter.cause,
        "fingerprint": letter.fingerprint, "job": letter.job, "task": letter.task, "first_seen": letter.first_seen,
        "replays": letter.replays,
    })
}

async fn show(server: &Server, id: &str, json: bool) -> Result<(), CliError> {
    let request = ShowDeadLetterRequest { id: id.to_owned() };
    let letter = server
        .call(async |transport| {
            let mut client = DeadLettersClient::new(transport).max_decoding_message_size(crate::client::MAX_ANSWER);
            client.show(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await?;
    let body = String::from_utf8_lossy(&letter.body);
    if json {
        let mut value = as_json(&letter);
        value["body"] = body.into();
        value["headers"] = json!(letter.headers.iter().collect::<BTreeMap<_, _>>());
        output::json_line(&value);
        return Ok(());
    }
    println!("letter       {}\nqueue        {}\nclass        {}", letter.id, letter.queue, letter.class);
    println!("cause        {}\nfingerprint  {}\njob          {}", letter.cause, letter.fingerprint, letter.job);
    println!("task         {}\nfirst seen   {}", letter.task, output::time(letter.first_seen.as_ref()));
    println!("replays      {}\n", letter.replays);
    for (name, value) in letter.headers.iter().collect::<BTreeMap<_, _>>() {
        println!("{name}: {value}");
    }
    println!("\n{}", pretty(&body));
    Ok(())
}

fn pretty(body: &str) -> String {
    serde_json::from_str::<serde_json::Value>(body)
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or_else(|_| body.to_owned())
}

async fn replay(server: &Server, arguments: &Replay, json: bool) -> Result<(), CliError> {
    let edited_body = match &arguments.edit {
        None => Vec::new(),
        Some(_) if arguments.ids.len() != 1 => {
            return Err(CliError::Usage("--edit: name exactly one letter".to_owned()));
        }
        Some(file) => std::fs::read(file).map_err(CliError::file(file.display().to_string()))?,
    };
    let request = ReplayDeadLettersRequest {
        ids: arguments.ids.clone(),
        fingerprint: arguments.fingerprint.clone(),
        all: arguments.all,
        edited_body,
        dry_run: arguments.dry_run,
        request_id: format!("replay-{:016x}", rand::random::<u64>()),
    };
    let answer = server
        .call(async |transport| {
            DeadLettersClient::new(transport).replay(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await?;
    let mut refused = false;
    for outcome in &answer.outcomes {
        refused |= !outcome.refused.is_empty();
        if json {
            output::json_line(&json!({
                "id": outcome.id, "queue": outcome.queue, "replayed": outcome.replayed, "refused": outcome.refused,
                "dry_run": answer.dry_run,
            }));
        } else if !outcome.refused.is_empty() {
            println!("{}  not replayed: {}", outcome.id, outcome.refused);
        } else {
            println!("{}  {} {}", outcome.id, if answer.dry_run { "would go to" } else { "→" }, outcome.queue);
        }
    }
    if answer.outcomes.is_empty() && !json {
        eprintln!("no letter matches");
    }
    if refused { Err(CliError::Failed) } else { Ok(()) }
}
