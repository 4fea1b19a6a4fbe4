//! Letters that go for good, to a file, or back from one.

use std::{
    io::{BufRead as _, IsTerminal as _, Write as _},
    path::PathBuf,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use serde_json::{Value, json};
use warren_messages::wire::{
    DeadLetter, DiscardDeadLettersRequest, DiscardDeadLettersResponse, ImportDeadLettersRequest,
    ListDeadLettersRequest, dead_letters_client::DeadLettersClient,
};

use super::{Filter, as_json};
use crate::{client::Server, error::CliError, input, output};

/// Letters in one request, and bytes of their bodies.
const BATCH: (usize, usize) = (100, 1 << 20);

/// Take letters out of warren.dead for good; their rows and bodies stay on record.
#[derive(Args, Debug)]
pub(super) struct Discard {
    /// Ids of letters.
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// All letters.
    #[arg(long)]
    all: bool,
    /// Why; kept with each letter.
    #[arg(long, required_unless_present = "dry_run")]
    reason: Option<String>,
    /// The number of letters that you mean, instead of being asked for it.
    #[arg(long, value_name = "N")]
    yes: Option<u64>,
    /// Say what would happen and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Write letters with their bodies, one JSON value a line.
#[derive(Args, Debug)]
pub(super) struct Export {
    #[command(flatten)]
    filter: Filter,
    /// Into this file instead of standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Put exported letters back: those that are not there.
#[derive(Args, Debug)]
pub(super) struct Import {
    /// File that export wrote, - for standard input.
    file: PathBuf,
    /// Say what would happen and change nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn discard(server: &Server, arguments: &Discard, json: bool) -> Result<(), CliError> {
    let ways = [!arguments.ids.is_empty(), !arguments.filter.is_empty(), arguments.all];
    if ways.into_iter().filter(|way| *way).count() != 1 {
        return Err(CliError::Usage(
            "give either ids of letters, or a filter such as --fingerprint, or --all".to_owned(),
        ));
    }
    let request = DiscardDeadLettersRequest {
        ids: arguments.ids.clone(),
        filter: (!arguments.filter.is_empty()).then(|| arguments.filter.wire()),
        all: arguments.all,
        reason: arguments.reason.clone().unwrap_or_default(),
        dry_run: true,
        confirm: 0,
    };
    let mut answer = ask_discard(server, &request).await?;
    let goes = answer.outcomes.iter().filter(|outcome| outcome.discarded).count() as u64;
    if !arguments.dry_run && goes > 0 {
        let confirm = match arguments.yes {
            Some(number) => number,
            None => confirmed(goes)?,
        };
        answer = ask_discard(server, &DiscardDeadLettersRequest { dry_run: false, confirm, ..request }).await?;
    }
    let mut refused = false;
    for outcome in &answer.outcomes {
        refused |= !outcome.refused.is_empty();
        if json {
            output::json_line(&json!({
                "id": outcome.id, "queue": outcome.queue, "discarded": outcome.discarded, "refused": outcome.refused,
                "dry_run": answer.dry_run,
            }))?;
        } else if !outcome.refused.is_empty() {
            output::line(format_args!("{}  not discarded: {}", outcome.id, outcome.refused))?;
        }
    }
    if !json {
        let done = answer.outcomes.iter().filter(|outcome| outcome.discarded).count();
        let way = if arguments.dry_run { "would be discarded" } else { "discarded" };
        output::line(format_args!("{done} {way}"))?;
    }
    if answer.left > 0 {
        eprintln!("{} letters more match; run it again for those", answer.left);
    }
    if refused { Err(CliError::Failed) } else { Ok(()) }
}

async fn ask_discard(
    server: &Server,
    request: &DiscardDeadLettersRequest,
) -> Result<DiscardDeadLettersResponse, CliError> {
    server
        .call(async |transport| {
            DeadLettersClient::new(transport).discard(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await
}

/// The number, typed by a person.
fn confirmed(letters: u64) -> Result<u64, CliError> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(CliError::Usage(format!(
            "{letters} letters would be discarded; if that is meant: --yes {letters}"
        )));
    }
    eprint!("{letters} letters will be discarded. Type their number to go on: ");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    stdin.lock().read_line(&mut line).map_err(CliError::unreadable("standard input"))?;
    match line.trim().parse() {
        Ok(number) if number == letters => Ok(number),
        _ => Err(CliError::Usage("nothing was discarded".to_owned())),
    }
}

pub(super) async fn export(server: &Server, arguments: &Export) -> Result<(), CliError> {
    let mut file = match &arguments.output {
        Some(path) => {
            let file = std::fs::File::create(path).map_err(CliError::file(path.display().to_string()))?;
            Some((path, std::io::BufWriter::new(file)))
        }
        None => None,
    };
    let filter = Some(arguments.filter.wire());
    let (mut token, mut letters) = (String::new(), 0);
    loop {
        let request =
            ListDeadLettersRequest { filter: filter.clone(), page_token: token, bodies: true, ..Default::default() };
        let page = server
            .call(async |transport| {
                let mut client = DeadLettersClient::new(transport).max_decoding_message_size(crate::client::MAX_ANSWER);
                client.list(request.clone()).await.map(tonic::Response::into_inner)
            })
            .await?;
        for letter in &page.letters {
            match &mut file {
                Some((path, file)) => {
                    writeln!(file, "{}", written(letter)).map_err(CliError::file(path.display().to_string()))?;
                }
                None => output::json_line(&written(letter))?,
            }
        }
        letters += page.letters.len();
        if page.next_page_token.is_empty() {
            break;
        }
        token = page.next_page_token;
    }
    if let Some((path, mut file)) = file {
        file.flush().map_err(CliError::file(path.display().to_string()))?;
        eprintln!("{letters} letters in {}", path.display());
    }
    Ok(())
}

/// All that a letter is; its body as text, or in base64 when it is none.
fn written(letter: &DeadLetter) -> Value {
    let mut value = as_json(letter);
    value["kind"] = letter.kind.clone().into();
    value["dispatch"] = letter.dispatch.into();
    value["replay_of"] = letter.replay_of.clone().into();
    value["last_seen"] = json!(letter.last_seen);
    value["content_type"] = letter.content_type.clone().into();
    value["headers"] = json!(letter.headers.iter().collect::<std::collections::BTreeMap<_, _>>());
    match std::str::from_utf8(&letter.body) {
        Ok(text) => value["body"] = text.into(),
        Err(_) => value["body_base64"] = STANDARD.encode(&letter.body).into(),
    }
    value
}

/// A line that [`written`] wrote.
fn read(line: &str) -> Result<DeadLetter, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let number = |field: &str| value[field].as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or_default();
    let body = match (value["body"].as_str(), value["body_base64"].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(coded)) => STANDARD.decode(coded).map_err(|error| format!("body_base64: {error}"))?,
        (None, None) => return Err("body: is missing; was this written by `dlq export`?".to_owned()),
    };
    let headers = value["headers"].as_object().into_iter().flatten();
    Ok(DeadLetter {
        id: text("id"),
        queue: text("queue"),
        kind: text("kind"),
        class: text("class"),
        cause: text("cause"),
        fingerprint: text("fingerprint"),
        job: text("job"),
        task: text("task"),
        dispatch: number("dispatch"),
        replays: number("replays"),
        replay_of: text("replay_of"),
        content_type: text("content_type"),
        headers: headers.filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned()))).collect(),
        body,
        ..DeadLetter::default()
    })
}

pub(super) async fn import(server: &Server, arguments: &Import, json: bool) -> Result<(), CliError> {
    let (file, bytes) = input::read(&arguments.file)?;
    let lines = String::from_utf8(bytes).map_err(|error| CliError::Usage(format!("{file}: is not UTF-8: {error}")))?;
    let lines = lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let letters: Vec<DeadLetter> = lines
        .map(|(n, line)| read(line).map_err(|why| CliError::Usage(format!("{file}:{}: {why}", n + 1))))
        .collect::<Result<_, _>>()?;
    let (mut batches, mut size) = (vec![Vec::new()], 0);
    for letter in letters {
        let batch = batches.last_mut().expect("there is always one");
        let room = batch.len() < BATCH.0 && size + letter.body.len() <= BATCH.1;
        if room || batch.is_empty() {
            size += letter.body.len();
            batch.push(letter);
        } else {
            size = letter.body.len();
            batches.push(vec![letter]);
        }
    }
    let (mut done, mut there) = (0, 0);
    for letters in batches.into_iter().filter(|batch| !batch.is_empty()) {
        let request = ImportDeadLettersRequest { letters, dry_run: arguments.dry_run };
        let answer = server
            .call(async |transport| {
                DeadLettersClient::new(transport).import(request.clone()).await.map(tonic::Response::into_inner)
            })
            .await?;
        for outcome in &answer.outcomes {
            if outcome.imported {
                done += 1
            } else {
                there += 1
            }
            if json {
                output::json_line(&json!({
                    "id": outcome.id, "imported": outcome.imported, "refused": outcome.refused,
                    "dry_run": answer.dry_run,
                }))?;
            } else if !outcome.imported {
                output::line(format_args!("{}  not put back: {}", outcome.id, outcome.refused))?;
            }
        }
    }
    if !json {
        let way = if arguments.dry_run { "would be put back" } else { "put back" };
        output::line(format_args!("{done} {way}, {there} not"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exported_is_what_is_imported() {
        for body in [b"{\"a\": 1}".to_vec(), b"\xff\x00".to_vec(), Vec::new()] {
            let letter = DeadLetter {
                id: "0192f0c1-1111-7000-8000-000000000001".to_owned(),
                queue: "warren.task.embed".to_owned(),
                kind: "warren.v1.Task".to_owned(),
                class: "Malformed".to_owned(),
                cause: "two\nlines".to_owned(),
                fingerprint: "f".to_owned(),
                dispatch: 3,
                replays: 1,
                headers: [("x-warren-job".to_owned(), "job_1".to_owned())].into(),
                content_type: "application/json".to_owned(),
                body,
                ..DeadLetter::default()
            };
            let line = written(&letter).to_string();
            assert_eq!((line.lines().count(), read(&line)), (1, Ok(letter)));
        }
        assert!(read("{}").is_err_and(|why| why.starts_with("body: is missing")));
        assert!(read(r#"{"body_base64": "?"}"#).is_err_and(|why| why.starts_with("body_base64")));
    }
}
