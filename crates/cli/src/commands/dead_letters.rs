//! `warren dlq`: what could not be processed, and putting it back to work.

use std::{collections::BTreeMap, path::PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use warren_messages::wire::{
    DeadLetter, DeadLetterState, ListDeadLettersRequest, ReplayDeadLettersRequest, ShowDeadLetterRequest,
    dead_letters_client::DeadLettersClient,
};

use crate::{client::Server, error::CliError, input, output};

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
        /// Only with this fingerprint: the same trouble.
        #[arg(long, default_value = "", hide_default_value = true)]
        fingerprint: String,
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
    #[arg(required_unless_present_any = ["fingerprint", "all"], conflicts_with_all = ["fingerprint", "all"])]
    ids: Vec<String>,
    /// All letters with this fingerprint: the same trouble.
    #[arg(long, conflicts_with = "all")]
    fingerprint: Option<String>,
    /// All letters.
    #[arg(long)]
    all: bool,
    /// Send the content of this file instead of the letter's body, - for standard input; with exactly one id.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["fingerprint", "all"])]
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
        Verb::List { class, fingerprint, job, limit } => {
            let request = ListDeadLettersRequest {
                class: class.clone(),
                fingerprint: fingerprint.clone(),
                job: job.clone(),
                page_size: *limit,
                ..ListDeadLettersRequest::default()
            };
            list(server, &request, json).await
        }
        Verb::Show { id } => show(server, id, json).await,
        Verb::Replay(arguments) => replay(server, arguments, json).await,
    }
}

async fn list(server: &Server, request: &ListDeadLettersRequest, json: bool) -> Result<(), CliError> {
    let found = server
        .call(async |transport| {
            DeadLettersClient::new(transport).list(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await?;
    if json {
        return found.letters.iter().try_for_each(|letter| output::json_line(&as_json(letter)));
    }
    let mut table = output::listing(&["id", "queue", "class", "fingerprint", "first seen (UTC)", "cause"]);
    for letter in &found.letters {
        table.add_row([
            &letter.id,
            &letter.queue,
            &letter.class,
            &letter.fingerprint,
            &output::time(letter.first_seen.as_ref()),
            &output::beginning(&letter.cause, 80),
        ]);
    }
    output::line(table)?;
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
        value["state"] = state(&letter).into();
        value["headers"] = json!(letter.headers.iter().collect::<BTreeMap<_, _>>());
        return output::json_line(&value);
    }
    for (name, value) in [
        ("letter", &letter.id),
        ("queue", &letter.queue),
        ("class", &letter.class),
        ("cause", &letter.cause),
        ("fingerprint", &letter.fingerprint),
        ("job", &letter.job),
        ("task", &letter.task),
        ("first seen", &output::time(letter.first_seen.as_ref())),
        ("replays", &letter.replays.to_string()),
        ("state", &state(&letter)),
    ] {
        if !value.is_empty() {
            output::line(format_args!("{name:<11}  {value}"))?;
        }
    }
    output::line("")?;
    for (name, value) in letter.headers.iter().collect::<BTreeMap<_, _>>() {
        output::line(format_args!("{name}: {value}"))?;
    }
    output::line(format_args!("\n{}", pretty(&body)))
}

/// Where the letter is, for people.
fn state(letter: &DeadLetter) -> String {
    match letter.state() {
        DeadLetterState::Unspecified => "unknown".to_owned(),
        DeadLetterState::Dead => "dead".to_owned(),
        DeadLetterState::Replaying => "replaying".to_owned(),
        DeadLetterState::Replayed => "replayed".to_owned(),
        DeadLetterState::Void => format!("void: {}", letter.void_reason),
    }
}

fn pretty(body: &str) -> String {
    serde_json::from_str::<serde_json::Value>(body)
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or_else(|_| body.to_owned())
}

async fn replay(server: &Server, arguments: &Replay, json: bool) -> Result<(), CliError> {
    let (file, edited_body) = match &arguments.edit {
        None => (String::new(), Vec::new()),
        Some(_) if arguments.ids.len() != 1 => {
            return Err(CliError::Usage("--edit: name exactly one letter".to_owned()));
        }
        Some(file) => {
            let (file, body) = input::read(file)?;
            check(&file, &body)?;
            (file, body)
        }
    };
    let request = ReplayDeadLettersRequest {
        ids: arguments.ids.clone(),
        fingerprint: arguments.fingerprint.clone().unwrap_or_default(),
        all: arguments.all,
        edited_body,
        dry_run: arguments.dry_run,
        request_id: format!("replay-{:016x}", rand::random::<u64>()),
    };
    let answer = server
        .call(async |transport| {
            DeadLettersClient::new(transport).replay(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await
        .map_err(|error| in_file(&file, error))?;
    let mut refused = false;
    for outcome in &answer.outcomes {
        refused |= !outcome.refused.is_empty();
        if json {
            output::json_line(&json!({
                "id": outcome.id, "queue": outcome.queue, "replayed": outcome.replayed, "refused": outcome.refused,
                "dry_run": answer.dry_run,
            }))?;
        } else if !outcome.refused.is_empty() {
            output::line(format_args!("{}  not replayed: {}", outcome.id, outcome.refused))?;
        } else {
            let way = if answer.dry_run { "would go to" } else { "→" };
            output::line(format_args!("{}  {way} {}", outcome.id, outcome.queue))?;
        }
    }
    if answer.outcomes.is_empty() && !json {
        eprintln!("no letter matches");
    }
    if refused { Err(CliError::Failed) } else { Ok(()) }
}

/// A body that can be sent. To the server, an empty one would mean: as it was.
fn check(file: &str, body: &[u8]) -> Result<(), CliError> {
    match std::str::from_utf8(body) {
        Err(error) => Err(CliError::Usage(format!("{file}: is not UTF-8, from byte {} on", error.valid_up_to() + 1))),
        Ok(text) if text.trim().is_empty() => {
            Err(CliError::Usage(format!("{file}: is empty; it must hold the whole corrected body")))
        }
        Ok(_) => Ok(()),
    }
}

/// What the server says of the body is said of the file that it came from.
fn in_file(file: &str, error: CliError) -> CliError {
    let CliError::Refused { code, message } = error else { return error };
    let said = message.strip_prefix("edited_body").map(|said| format!("{file}{said}"));
    CliError::Refused { code, message: said.unwrap_or(message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_correction_that_cannot_be_sent_is_named() {
        let refused = |body: &[u8]| {
            let error = check("task.json", body).expect_err("refused");
            assert_eq!(error.exit_code(), 2);
            error.to_string()
        };
        assert!(refused(b"").starts_with("task.json: is empty"));
        assert!(refused(b" \n").starts_with("task.json: is empty"));
        assert_eq!(refused(b"{\"id\": \"\xff\"}"), "task.json: is not UTF-8, from byte 9 on");
        assert!(check("task.json", b"{}").is_ok());
    }

    #[test]
    fn what_the_server_says_of_the_body_is_said_of_the_file() {
        let told = |message: &str| {
            let refused = CliError::Refused { code: "Malformed".to_owned(), message: message.to_owned() };
            in_file("task.json", refused).to_string()
        };
        assert_eq!(told("edited_body: is no JSON"), "task.json: is no JSON");
        assert_eq!(told("no dead letter `x`"), "no dead letter `x`");
    }
}
