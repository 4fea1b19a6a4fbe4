//! Looking at letters.

use std::collections::BTreeMap;

use serde_json::json;
use warren_messages::wire::{
    DeadLetter, DeadLetterGroupsRequest, DeadLetterState, DeadLetterStatsRequest, ListDeadLettersRequest,
    ShowDeadLetterRequest, dead_letters_client::DeadLettersClient,
};

use super::{Filter, as_json, word};
use crate::{client::Server, error::CliError, output};

pub(super) async fn list(server: &Server, filter: &Filter, limit: u32, json: bool) -> Result<(), CliError> {
    let request =
        ListDeadLettersRequest { filter: Some(filter.wire()), page_size: limit, ..ListDeadLettersRequest::default() };
    let found = server
        .call(async |transport| {
            DeadLettersClient::new(transport).list(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await?;
    if json {
        return found.letters.iter().try_for_each(|letter| output::json_line(&as_json(letter)));
    }
    let mut table = output::listing(&["id", "state", "queue", "class", "fingerprint", "first seen (UTC)", "cause"]);
    for letter in &found.letters {
        table.add_row([
            &letter.id,
            word(letter.state()),
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

pub(super) async fn groups(server: &Server, filter: &Filter, json: bool) -> Result<(), CliError> {
    let request = DeadLetterGroupsRequest { filter: Some(filter.wire()) };
    let found = server
        .call(async |transport| {
            DeadLettersClient::new(transport).groups(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await?;
    if json {
        return found.groups.iter().try_for_each(|group| {
            output::json_line(&json!({
                "fingerprint": group.fingerprint, "letters": group.letters, "parked": group.parked,
                "jobs": group.jobs, "class": group.class, "queue": group.queue, "kind": group.kind,
                "cause": group.cause, "first_seen": group.first_seen, "last_seen": group.last_seen,
            }))
        });
    }
    let mut table = output::listing(&[
        "fingerprint",
        "letters",
        "parked",
        "jobs",
        "class",
        "queue",
        "first seen (UTC)",
        "last seen (UTC)",
        "a cause",
    ]);
    for group in &found.groups {
        table.add_row([
            &group.fingerprint,
            &group.letters.to_string(),
            &group.parked.to_string(),
            &group.jobs.to_string(),
            &group.class,
            &group.queue,
            &output::time(group.first_seen.as_ref()),
            &output::time(group.last_seen.as_ref()),
            &output::beginning(&group.cause, 80),
        ]);
    }
    output::line(table)?;
    let shown: u64 = found.groups.iter().map(|group| group.letters).sum();
    if found.letters > shown {
        eprintln!("{} letters more are in smaller groups; narrow it down, e.g. with --class", found.letters - shown);
    }
    if let Some(group) = found.groups.first() {
        let rest = format!("dlq replay --fingerprint {} --dry-run", group.fingerprint);
        eprintln!("to see what a replay of the first would do: {}", server.command(&rest));
    }
    Ok(())
}

pub(super) async fn stats(server: &Server, json: bool) -> Result<(), CliError> {
    let stats = server
        .call(async |transport| {
            DeadLettersClient::new(transport).stats(DeadLetterStatsRequest {}).await.map(tonic::Response::into_inner)
        })
        .await?;
    if json {
        let counts: Vec<_> = stats
            .counts
            .iter()
            .map(|count| {
                json!({
                    "state": word(count.state()), "class": count.class, "queue": count.queue,
                    "letters": count.letters, "size_bytes": count.size_bytes, "oldest": count.oldest,
                })
            })
            .collect();
        let value = json!({ "counts": counts, "in_queue": stats.in_queue, "in_broker": stats.in_broker });
        return output::json_line(&value);
    }
    let mut table = output::listing(&["state", "class", "queue", "letters", "bytes", "oldest (UTC)"]);
    for count in &stats.counts {
        table.add_row([
            word(count.state()),
            &count.class,
            &count.queue,
            &count.letters.to_string(),
            &count.size_bytes.to_string(),
            &output::time(count.oldest.as_ref()),
        ]);
    }
    output::line(table)?;
    match stats.in_broker {
        Some(there) => output::line(format_args!("\nin warren.dead: {there}, in the index: {}", stats.in_queue)),
        None => output::line(format_args!("\nin the index: {}; RabbitMQ's page gives no count", stats.in_queue)),
    }
}

pub(super) async fn show(server: &Server, id: &str, json: bool) -> Result<(), CliError> {
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
        value["reason"] = letter.void_reason.clone().into();
        value["replay_of"] = letter.replay_of.clone().into();
        value["headers"] = json!(letter.headers.iter().collect::<BTreeMap<_, _>>());
        value["history"] = letter
            .history
            .iter()
            .map(|deed| {
                json!({
                    "at": deed.at, "letter": deed.letter, "event": deed.event, "actor": deed.actor,
                    "detail": deed.detail,
                })
            })
            .collect();
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
        ("came from", &letter.replay_of),
        ("state", &state(&letter)),
    ] {
        if !value.is_empty() {
            output::line(format_args!("{name:<11}  {value}"))?;
        }
    }
    output::line("\nhistory (UTC)")?;
    for deed in &letter.history {
        let other = if deed.letter == letter.id { String::new() } else { format!(" [letter {}]", deed.letter) };
        let by = if deed.actor.is_empty() { String::new() } else { format!(" by {}", deed.actor) };
        let (at, what, detail) = (output::time(deed.at.as_ref()), &deed.event, output::beginning(&deed.detail, 200));
        output::line(format_args!("{at}  {what}{by}{other}: {detail}"))?;
    }
    output::line("")?;
    for (name, value) in letter.headers.iter().collect::<BTreeMap<_, _>>() {
        output::line(format_args!("{name}: {value}"))?;
    }
    output::line(format_args!("\n{}", pretty(&body)))
}

/// Where the letter is, for people.
fn state(letter: &DeadLetter) -> String {
    match (letter.state(), letter.void_reason.as_str()) {
        (DeadLetterState::Parked, _) => "parked: it died again after two replays".to_owned(),
        (state, "") => word(state).to_owned(),
        (state, why) => format!("{}: {why}", word(state)),
    }
}

fn pretty(body: &str) -> String {
    serde_json::from_str::<serde_json::Value>(body)
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or_else(|_| body.to_owned())
}
