//! Replaying dead letters: what would happen, and having the coordinator do it.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;
use tonic::Status;
use warren_fault::Cause;
use warren_jobs::{TaskKind, TaskState};
use warren_messages::{
    envelope::decode,
    ids::TaskId,
    routes::{self, COMMANDS, REPORTS},
    wire::{
        Command, ReplayDeadLettersRequest, ReplayDeadLettersResponse, ReplayLetters, ReplayOutcome, Task, TaskReport,
        command::Command as What,
    },
};
use warren_store::{DeadLetter, LetterFilter, LetterState, PageKey};

use crate::{
    accept,
    auth::Caller,
    check,
    parts::Parts,
    status::{invalid, not_found, of_store},
};

/// Letters that one request may replay.
const MOST: usize = 1_000;
/// Letters read at once.
const PAGE: u64 = 200;
/// Longest wait for the effect.
const EFFECT: Duration = Duration::from_secs(10);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// Replays the letters that a request selects, or says what would happen.
///
/// # Errors
/// The field that is wrong; `NOT_FOUND` for an id that is no letter's.
pub(crate) async fn replay(
    parts: &Parts,
    caller: &Caller,
    request: ReplayDeadLettersRequest,
) -> Result<ReplayDeadLettersResponse, Status> {
    let ReplayDeadLettersRequest { dry_run, force, .. } = request;
    let request_id = check::request_id(&request.request_id)?.unwrap_or_default();
    let letters = select(parts, &request).await?;
    let edited = edited(&request, &letters)?;
    let mut outcomes = Vec::new();
    for letter in &letters {
        let refused = refused(parts, letter, edited, force).await?;
        let replayed = refused.is_none();
        let (id, queue) = (letter.letter.id.clone(), letter.letter.queue.clone());
        outcomes.push(ReplayOutcome { id, queue, replayed, refused: refused.unwrap_or_default() });
    }
    let ids: Vec<String> =
        outcomes.iter().filter(|outcome| outcome.replayed).map(|outcome| outcome.id.clone()).collect();
    if !dry_run && !ids.is_empty() {
        let edited_body = request.edited_body.clone();
        let command = ReplayLetters { request_id, letters: ids.clone(), edited_body, force };
        accept::command(parts, caller, What::Replay(command)).await?;
        let states = effect(parts, &ids).await?;
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.replayed) {
            if states.get(&outcome.id) != Some(&LetterState::Replayed) {
                outcome.replayed = false;
                outcome.refused = "it was asked for, but has not happened yet; look again with Show".to_owned();
            }
        }
    }
    Ok(ReplayDeadLettersResponse { outcomes, dry_run })
}

async fn select(parts: &Parts, request: &ReplayDeadLettersRequest) -> Result<Vec<DeadLetter>, Status> {
    let ways = [!request.ids.is_empty(), !request.fingerprint.is_empty(), request.all];
    if ways.into_iter().filter(|way| *way).count() != 1 {
        return Err(invalid("ids", "select by exactly one of `ids`, `fingerprint`, `all`"));
    }
    if request.ids.len() > MOST {
        return Err(invalid("ids", format!("at most {MOST} at once, there are {}", request.ids.len())));
    }
    let mut letters = Vec::new();
    let read = || parts.store.read();
    if !request.ids.is_empty() {
        for id in &request.ids {
            let letter = read().letter(id).await.map_err(|error| of_store(&error))?;
            letters.push(letter.ok_or_else(|| not_found("dead letter", id))?);
        }
        return Ok(letters);
    }
    let fingerprint = (!request.fingerprint.is_empty()).then(|| request.fingerprint.clone());
    let filter = LetterFilter { fingerprint, ..LetterFilter::default() };
    let mut after: Option<PageKey<String>> = None;
    while letters.len() < MOST {
        let page = read().letters(&filter, after.as_ref(), PAGE).await.map_err(|error| of_store(&error))?;
        after = page.letters.last().map(DeadLetter::page_key);
        let last = (page.letters.len() as u64) < PAGE;
        letters.extend(page.letters);
        if last {
            break;
        }
    }
    Ok(letters)
}

/// The body to send instead, checked as the message that its queue carries.
fn edited<'r>(request: &'r ReplayDeadLettersRequest, letters: &[DeadLetter]) -> Result<Option<&'r [u8]>, Status> {
    let body = request.edited_body.as_slice();
    match (body, letters, request.ids.as_slice()) {
        ([], ..) => Ok(None),
        (_, [letter], [_]) => {
            let fits = fits(&letter.letter.queue, body);
            fits.map_err(|cause| invalid("edited_body", cause.message))?;
            Ok(Some(body))
        }
        _ => Err(invalid("edited_body", "needs exactly one id in `ids`")),
    }
}

/// Whether a queue's consumer would understand this body. Returns the task, if it is one.
fn fits(queue: &str, body: &[u8]) -> Result<Option<Task>, Cause> {
    let unfit = |message: String| Cause::new(warren_fault::Code::Malformed, message);
    if let Some(kind) = TaskKind::ALL.iter().find(|kind| routes::tasks(**kind).queue == queue) {
        let task: Task = decode(None, body)?;
        return match task.kind() {
            Some(other) if other != *kind => {
                Err(unfit(format!("is work for `{other}`, and `{queue}` is for `{kind}`")))
            }
            _ => Ok(Some(task)),
        };
    }
    if queue == COMMANDS.queue {
        return decode::<Command>(None, body).map(|_| None);
    }
    if queue == REPORTS.queue {
        return decode::<TaskReport>(None, body).map(|_| None);
    }
    Err(unfit(format!("`{queue}` is no work queue of Warren; the letter cannot go back there")))
}

/// Why a letter would not be replayed.
async fn refused(
    parts: &Parts,
    letter: &DeadLetter,
    edited: Option<&[u8]>,
    force: bool,
) -> Result<Option<String>, Status> {
    let gone = match letter.state {
        LetterState::Dead | LetterState::Replaying => None,
        LetterState::Replayed => Some("it was replayed already"),
        LetterState::Discarded => Some("it was discarded"),
        LetterState::Purged => Some("it was removed from `warren.dead` by hand"),
    };
    if let Some(gone) = gone {
        return Ok(Some(gone.to_owned()));
    }
    let body = edited.unwrap_or(&letter.letter.body);
    let task = match fits(&letter.letter.queue, body) {
        Ok(task) => task,
        Err(cause) => return Ok(Some(format!("{}; replay it with a corrected body", cause.message))),
    };
    let Some(task) = task else { return Ok(None) };
    let Ok(TaskId(id)) = task.id.parse() else { return Ok(Some("its task has no id".to_owned())) };
    let row = parts.store.read().task(id).await.map_err(|error| of_store(&error))?;
    let why = match row.map(|row| row.state) {
        None => Some("its task is not known"),
        Some(TaskState::Unreleased) => Some("its task waits to be released and will go out by itself"),
        Some(TaskState::Done) if !force => Some("its task is done"),
        Some(TaskState::Failed) if !force => Some("its task has failed by its input"),
        Some(TaskState::Cancelled) if !force => Some("its task is cancelled"),
        Some(_) => None,
    };
    Ok(why.map(str::to_owned))
}

/// The letters' states, once all are replayed or patience ends.
async fn effect(parts: &Parts, ids: &[String]) -> Result<BTreeMap<String, LetterState>, Status> {
    let begun = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let mut states = BTreeMap::new();
        for id in ids {
            let letter = parts.store.read().letter(id).await.map_err(|error| of_store(&error))?;
            states.extend(letter.map(|letter| (id.clone(), letter.state)));
        }
        if states.values().all(|state| *state == LetterState::Replayed) || begun.elapsed() > EFFECT {
            return Ok(states);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_must_suit_its_queue() {
        assert!(fits("warren.task.embed", b"not json").expect_err("no task").message.contains("warren.v1.Task"));
        let id = "00000000-0000-0000-0000-000000000001";
        let prepare = format!(
            r#"{{"id":"task_{id}","job":"job_{id}","dispatch":1,"prepare":{{"mediaKey":"media/{id}","sizeBytes":"9"}}}}"#
        );
        assert!(fits("warren.task.prepare", prepare.as_bytes()).expect("a task").is_some());
        let cause = fits("warren.task.embed", prepare.as_bytes()).expect_err("another kind");
        assert!(cause.message.contains("`prepare`") && cause.message.contains("`embed`"), "{cause}");
        let cancel = format!(r#"{{"cancel":{{"job":"job_{id}"}}}}"#);
        assert!(fits("warren.job", cancel.as_bytes()).expect("a command").is_none());
        assert!(fits("elsewhere", b"{}").is_err());
    }
}
