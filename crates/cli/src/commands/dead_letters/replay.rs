//! Sending letters back to where they came from.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::json;
use warren_messages::wire::{
    ReplayDeadLettersRequest, ReplayDeadLettersResponse, ReplayOutcome, ReplayState,
    dead_letters_client::DeadLettersClient,
};

use super::Filter;
use crate::{client::Server, error::CliError, input, output};

/// Between two looks at a replay that takes its time.
const LOOK: Duration = Duration::from_millis(500);
/// Between two lines that say how far it is.
const TOLD: Duration = Duration::from_secs(5);
/// More letters are told as sums.
const EACH: usize = 20;

/// Send letters back to where they came from.
#[derive(Args, Debug)]
pub(super) struct Replay {
    /// Ids of letters.
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// All letters.
    #[arg(long)]
    all: bool,
    /// Send the content of this file instead of the letter's body, - for standard input; with exactly one id.
    #[arg(long, value_name = "FILE")]
    edit: Option<PathBuf>,
    /// So many a second, e.g. 5/s. Default: as fast as it goes.
    #[arg(long, value_name = "N/s", value_parser = rate)]
    rate: Option<f64>,
    /// Replay so many first, and go on only when each has done its work.
    #[arg(long, value_name = "N")]
    canary: Option<u32>,
    /// Parked letters, too, and those whose task is over or whose input is gone: what is over does not change.
    #[arg(long)]
    force: bool,
    /// Letters that somebody purged in RabbitMQ's page, too, from their copies in the index.
    #[arg(long)]
    from_index: bool,
    /// Why, for the audit.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Name of this request. The same name again replays nothing more, and tells how far it is.
    #[arg(long, value_name = "NAME")]
    request_id: Option<String>,
    /// Say what would happen and change nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(server: &Server, arguments: &Replay, json: bool) -> Result<(), CliError> {
    let ways = [!arguments.ids.is_empty(), !arguments.filter.is_empty(), arguments.all];
    match ways.into_iter().filter(|way| *way).count() {
        1 => {}
        0 if arguments.request_id.is_some() && !arguments.dry_run => {}
        0 => {
            return Err(CliError::Usage("name ids of letters, or a filter such as --fingerprint, or --all".to_owned()));
        }
        _ => return Err(CliError::Usage("give either ids of letters, or a filter, or --all".to_owned())),
    }
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
        filter: (!arguments.filter.is_empty()).then(|| arguments.filter.wire()),
        all: arguments.all,
        edited_body,
        dry_run: arguments.dry_run,
        request_id: arguments.request_id.clone().unwrap_or_else(|| format!("replay-{:016x}", rand::random::<u64>())),
        rate: arguments.rate.unwrap_or_default(),
        canary: arguments.canary.unwrap_or_default(),
        force: arguments.force,
        from_index: arguments.from_index,
        reason: arguments.reason.clone(),
    };
    let mut answer = ask(server, &request).await.map_err(|error| in_file(&file, error))?;
    let (left, parked) = (answer.left, answer.parked);
    if answer.state() == ReplayState::Running {
        let rest = format!("dlq replay --request-id {}", request.request_id);
        eprintln!("it goes on without this command; to see how far it is: {}", server.command(&rest));
    }
    let mut told = Instant::now();
    while answer.state() == ReplayState::Running {
        tokio::time::sleep(LOOK).await;
        answer = ask(server, &request).await?;
        if told.elapsed() >= TOLD {
            told = Instant::now();
            eprintln!("{}", progress(&answer.outcomes));
        }
    }
    tell(server, &answer, json)?;
    if left > 0 {
        eprintln!("{left} letters more match; run it again for those");
    }
    if parked > 0 {
        eprintln!("{parked} parked letters match and are left alone: name their ids, or use --force");
    }
    let failed = answer.outcomes.iter().any(|outcome| !outcome.refused.is_empty());
    if failed || answer.state() == ReplayState::Stopped { Err(CliError::Failed) } else { Ok(()) }
}

async fn ask(server: &Server, request: &ReplayDeadLettersRequest) -> Result<ReplayDeadLettersResponse, CliError> {
    server
        .call(async |transport| {
            DeadLettersClient::new(transport).replay(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await
}

fn progress(outcomes: &[ReplayOutcome]) -> String {
    let sent = outcomes.iter().filter(|outcome| outcome.replayed).count();
    let back = outcomes.iter().filter(|outcome| !outcome.came_back.is_empty()).count();
    format!("{sent} of {} replayed, {back} came back", outcomes.len())
}

fn tell(server: &Server, answer: &ReplayDeadLettersResponse, json: bool) -> Result<(), CliError> {
    if json {
        for outcome in &answer.outcomes {
            let mut value = json!({
                "id": outcome.id, "queue": outcome.queue, "replayed": outcome.replayed, "refused": outcome.refused,
                "dry_run": answer.dry_run,
            });
            if !outcome.came_back.is_empty() {
                value["came_back"] = outcome.came_back.clone().into();
            }
            output::json_line(&value)?;
        }
    } else if answer.outcomes.is_empty() {
        eprintln!("no letter matches");
    } else if answer.outcomes.len() <= EACH {
        for outcome in &answer.outcomes {
            output::line(line(outcome, answer.dry_run))?;
        }
    }
    if !json && answer.outcomes.len() > 1 {
        for line in sums(&answer.outcomes, answer.dry_run) {
            output::line(line)?;
        }
    }
    if !answer.stopped.is_empty() {
        eprintln!("stopped: {}; look at one with: {}", answer.stopped, server.command("dlq groups"));
    }
    Ok(())
}

fn line(outcome: &ReplayOutcome, dry_run: bool) -> String {
    if !outcome.refused.is_empty() {
        return format!("{}  not replayed: {}", outcome.id, outcome.refused);
    }
    let way = if dry_run { "would go to" } else { "→" };
    let back =
        if outcome.came_back.is_empty() { String::new() } else { format!(", came back as {}", outcome.came_back) };
    format!("{}  {way} {}{back}", outcome.id, outcome.queue)
}

/// How many go, or went, where, and how many stay and why.
fn sums(outcomes: &[ReplayOutcome], dry_run: bool) -> Vec<String> {
    let (mut goes, mut stays) = (BTreeMap::<&str, usize>::new(), BTreeMap::<&str, usize>::new());
    for outcome in outcomes {
        let (map, key) = if outcome.replayed { (&mut goes, &outcome.queue) } else { (&mut stays, &outcome.refused) };
        *map.entry(key).or_default() += 1;
    }
    let way = if dry_run { "would go to" } else { "went to" };
    let goes = goes.into_iter().map(|(queue, letters)| format!("{letters} {way} {queue}"));
    let stays = stays.into_iter().map(|(why, letters)| format!("{letters} not replayed: {why}"));
    let back = outcomes.iter().filter(|outcome| !outcome.came_back.is_empty()).count();
    let back = (back > 0).then(|| format!("{back} came back"));
    goes.chain(stays).chain(back).collect()
}

/// `5/s`, or `5`.
fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse::<f64>().ok();
    number
        .filter(|rate| rate.is_finite() && *rate > 0.0)
        .ok_or_else(|| format!("`{text}` is no rate; write it as 5/s, or 0.5/s for one every two seconds"))
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

    #[test]
    fn rates_are_letters_a_second() {
        assert_eq!((rate("5/s"), rate("0.5"), rate("50/s")), (Ok(5.0), Ok(0.5), Ok(50.0)));
        for wrong in ["", "/s", "0", "-1/s", "inf", "5/m"] {
            assert!(rate(wrong).is_err_and(|why| why.contains("5/s")), "{wrong}");
        }
    }

    #[test]
    fn many_letters_are_told_as_sums() {
        let outcome = |refused: &str, came_back: &str| ReplayOutcome {
            id: "l".to_owned(),
            queue: "warren.task.embed".to_owned(),
            replayed: refused.is_empty(),
            refused: refused.to_owned(),
            came_back: came_back.to_owned(),
        };
        let outcomes = [outcome("", ""), outcome("", "m"), outcome("its task is done", "")];
        let told = ["2 went to warren.task.embed", "1 not replayed: its task is done", "1 came back"];
        assert_eq!(sums(&outcomes, false), told);
        assert_eq!(sums(&outcomes[..1], true), ["1 would go to warren.task.embed"]);
        assert_eq!(progress(&outcomes), "2 of 3 replayed, 1 came back");
    }
}
