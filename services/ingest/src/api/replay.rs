//! Replaying dead letters: what would happen, and having the coordinator do it.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;
use tonic::Status;
use uuid::Uuid;
use warren_messages::{
    replay::{Content, Standing},
    wire::{
        ReplayDeadLettersRequest, ReplayDeadLettersResponse, ReplayLetters, ReplayOutcome, command::Command as What,
    },
};
use warren_store::{DeadLetter, LetterFilter, LetterState, PageKey, StoreError};

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
    let dry_run = request.dry_run;
    let request_id = check::request_id(&request.request_id)?.unwrap_or_default();
    let letters = select(parts, &request).await?;
    let edited = edited(&request, &letters)?;
    let mut outcomes = Vec::new();
    for letter in &letters {
        let refused = refused(parts, letter, edited).await?;
        let replayed = refused.is_none();
        let (id, queue) = (letter.letter.id.clone(), letter.letter.queue.clone());
        outcomes.push(ReplayOutcome { id, queue, replayed, refused: refused.unwrap_or_default() });
    }
    let ids: Vec<String> =
        outcomes.iter().filter(|outcome| outcome.replayed).map(|outcome| outcome.id.clone()).collect();
    if !dry_run && !ids.is_empty() {
        let edited_body = request.edited_body.clone();
        let command = ReplayLetters { request_id, letters: ids.clone(), edited_body };
        accept::command(parts, caller, What::Replay(command)).await?;
        let dead = still_dead(parts, &ids).await?;
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.replayed) {
            let Some(letter) = dead.get(&outcome.id) else { continue };
            outcome.replayed = false;
            // The leader refuses for the same reasons: something may have changed since the first look.
            let refused = refused(parts, letter, edited).await?;
            outcome.refused = refused
                .unwrap_or_else(|| "it was asked for, but has not happened yet; look again with Show".to_owned());
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
    let filter = LetterFilter { states: vec![LetterState::Dead], fingerprint, ..LetterFilter::default() };
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
            let content = Content::read(&letter.letter.queue, body);
            content.map_err(|cause| invalid("edited_body", cause.message))?;
            Ok(Some(body))
        }
        _ => Err(invalid("edited_body", "needs exactly one id in `ids`")),
    }
}

/// Why a letter would not be replayed.
async fn refused(parts: &Parts, letter: &DeadLetter, edited: Option<&[u8]>) -> Result<Option<String>, Status> {
    match letter.state {
        LetterState::Dead => {}
        LetterState::Replaying => return Ok(Some("it is being replayed".to_owned())),
        LetterState::Replayed => return Ok(Some("it was replayed already".to_owned())),
    }
    let content = match Content::read(&letter.letter.queue, edited.unwrap_or(&letter.letter.body)) {
        Ok(content) => content,
        Err(cause) => return Ok(Some(format!("{}; replay it with a corrected body", cause.message))),
    };
    let now = match content.task() {
        Some(task) => standing(parts, task).await.map_err(|error| of_store(&error))?,
        None => None,
    };
    Ok(content.refused(now).map(str::to_owned))
}

async fn standing(parts: &Parts, task: Uuid) -> Result<Option<Standing>, StoreError> {
    let Some(task) = parts.store.read().task(task).await? else { return Ok(None) };
    let Some(job) = parts.store.read().job(task.job_id).await? else { return Ok(None) };
    let dispatch = u32::try_from(task.dispatch).unwrap_or(0);
    Ok(Some(Standing { task: task.state, dispatch, job: job.state }))
}

/// Waits until none of these letters is dead any more, or patience ends. Returns those that still are.
async fn still_dead(parts: &Parts, ids: &[String]) -> Result<BTreeMap<String, DeadLetter>, Status> {
    let begun = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let mut dead = BTreeMap::new();
        for id in ids {
            let letter = parts.store.read().letter(id).await.map_err(|error| of_store(&error))?;
            dead.extend(letter.filter(|letter| letter.state == LetterState::Dead).map(|letter| (id.clone(), letter)));
        }
        if dead.is_empty() || begun.elapsed() > EFFECT {
            return Ok(dead);
        }
    }
}
