//! Replaying dead letters: what would happen, and having the coordinator do it.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use tokio::time::Instant;
use tonic::Status;
use uuid::Uuid;
use warren_jobs::state::Standing;
use warren_messages::{
    replay::{CONSUMER, Content, request},
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

/// Replays the letters that a request selects, or says what would happen. Sent again under its id, a request has the
/// same answer: what it replayed is replayed, and what died since is not part of it.
///
/// # Errors
/// The field that is wrong; `NOT_FOUND` for an id that is no letter's.
pub(crate) async fn replay(
    parts: &Parts,
    caller: &Caller,
    asked: ReplayDeadLettersRequest,
) -> Result<ReplayDeadLettersResponse, Status> {
    let dry_run = asked.dry_run;
    let request_id = check::request_id(&asked.request_id)?.unwrap_or_default();
    let name = (!dry_run && !request_id.is_empty()).then(|| request(&caller.name, &request_id));
    let name = name.as_deref();
    let mut met = is_met(parts, name).await?;
    let letters = select(parts, &asked, name).await?;
    let edited = edited(&asked, &letters)?;
    let mut verdicts = Vec::new();
    for letter in &letters {
        verdicts.push(verdict(parts, letter, name, edited).await?);
    }
    let to_send = letters.iter().zip(&verdicts).filter(|(_, verdict)| **verdict == Verdict::Goes);
    let ids: Vec<String> = to_send.map(|(letter, _)| letter.letter.id.clone()).collect();
    let mut dead = BTreeMap::new();
    if !dry_run && !met && !ids.is_empty() {
        let edited_body = asked.edited_body.clone();
        let command = ReplayLetters { request_id, letters: ids.clone(), edited_body };
        accept::command(parts, caller, What::Replay(command)).await?;
        (met, dead) = still_dead(parts, &ids, name).await?;
    } else if met {
        dead.extend(letters.iter().map(|letter| (letter.letter.id.clone(), letter.clone())));
    }
    let mut outcomes = Vec::new();
    for (letter, verdict) in letters.iter().zip(verdicts) {
        let refused = match (verdict, dead.get(&letter.letter.id)) {
            (Verdict::Refused(why), _) => why,
            (Verdict::Goes, Some(letter)) => match self::verdict(parts, letter, name, edited).await? {
                // The leader refuses for the same reasons: something may have changed since the first look.
                Verdict::Refused(why) => why,
                // It died after the request was carried out, or was not named in it.
                _ if met && asked.ids.is_empty() => continue,
                _ if met => "the request's id was used before, without this letter".to_owned(),
                _ => "it was asked for, but has not happened yet; look again with Show".to_owned(),
            },
            (Verdict::Goes, None) | (Verdict::Done, _) => String::new(),
        };
        let (id, queue) = (letter.letter.id.clone(), letter.letter.queue.clone());
        outcomes.push(ReplayOutcome { id, queue, replayed: refused.is_empty(), refused });
    }
    Ok(ReplayDeadLettersResponse { outcomes, dry_run })
}

/// True when the leader has carried out this request.
async fn is_met(parts: &Parts, name: Option<&str>) -> Result<bool, Status> {
    match name {
        Some(name) => parts.store.read().has_met(name, CONSUMER).await.map_err(|error| of_store(&error)),
        None => Ok(false),
    }
}

async fn select(
    parts: &Parts,
    request: &ReplayDeadLettersRequest,
    name: Option<&str>,
) -> Result<Vec<DeadLetter>, Status> {
    let ways = [!request.ids.is_empty(), !request.fingerprint.is_empty(), request.all];
    if ways.into_iter().filter(|way| *way).count() != 1 {
        return Err(invalid("ids", "select by exactly one of `ids`, `fingerprint`, `all`"));
    }
    if request.ids.len() > MOST {
        return Err(invalid("ids", format!("at most {MOST} at once, there are {}", request.ids.len())));
    }
    if !request.ids.is_empty() {
        let mut letters = Vec::new();
        for id in &request.ids {
            let letter = parts.store.read().letter(id).await.map_err(|error| of_store(&error))?;
            letters.push(letter.ok_or_else(|| not_found("dead letter", id))?);
        }
        return Ok(letters);
    }
    let fingerprint = (!request.fingerprint.is_empty()).then(|| request.fingerprint.clone());
    let filter = LetterFilter { states: vec![LetterState::Dead], fingerprint, ..LetterFilter::default() };
    let mut letters = read(parts, &filter).await?;
    if let Some(name) = name {
        let filter = LetterFilter { states: Vec::new(), replay_request: Some(name.to_owned()), ..filter };
        let replayed = read(parts, &filter).await?;
        letters.retain(|letter| replayed.iter().all(|replayed| replayed.letter.id != letter.letter.id));
        letters.extend(replayed);
        letters.sort_by_cached_key(|letter| Reverse((letter.first_seen, letter.letter.id.clone())));
    }
    Ok(letters)
}

/// The newest letters of a filter, as many as a request may replay.
async fn read(parts: &Parts, filter: &LetterFilter) -> Result<Vec<DeadLetter>, Status> {
    let mut letters = Vec::new();
    let mut after: Option<PageKey<String>> = None;
    while letters.len() < MOST {
        let page = parts.store.read().letters(filter, after.as_ref(), PAGE).await;
        let page = page.map_err(|error| of_store(&error))?;
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

/// What a request does with a letter.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is to be replayed.
    Goes,
    /// This very request has replayed it.
    Done,
    /// Why it is not replayed.
    Refused(String),
}

async fn verdict(
    parts: &Parts,
    letter: &DeadLetter,
    name: Option<&str>,
    edited: Option<&[u8]>,
) -> Result<Verdict, Status> {
    let refused = |why: &str| Ok(Verdict::Refused(why.to_owned()));
    match letter.state {
        LetterState::Dead => {}
        _ if name.is_some() && letter.replay_request.as_deref() == name => return Ok(Verdict::Done),
        LetterState::Replaying => return refused("it is being replayed"),
        LetterState::Replayed => return refused("it was replayed already"),
        LetterState::Void => return refused(letter.void_reason.as_deref().unwrap_or("nobody needs it")),
    }
    let content = match Content::read(&letter.letter.queue, edited.unwrap_or(&letter.letter.body)) {
        Ok(content) => content,
        Err(cause) => return refused(&format!("{}; replay it with a corrected body", cause.message)),
    };
    let now = match content.task() {
        Some(task) => standing(parts, task).await.map_err(|error| of_store(&error))?,
        None => None,
    };
    content.refused(now).map_or(Ok(Verdict::Goes), refused)
}

async fn standing(parts: &Parts, task: Uuid) -> Result<Option<Standing>, StoreError> {
    let Some(task) = parts.store.read().task(task).await? else { return Ok(None) };
    let Some(job) = parts.store.read().job(task.job_id).await? else { return Ok(None) };
    Ok(Some(task.standing(&job)))
}

/// Waits until none of these letters is dead any more, the request is met, or patience ends. Returns whether it is met,
/// and the letters that still are dead.
async fn still_dead(
    parts: &Parts,
    ids: &[String],
    name: Option<&str>,
) -> Result<(bool, BTreeMap<String, DeadLetter>), Status> {
    let begun = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        // First: what is dead afterwards was not replayed.
        let met = is_met(parts, name).await?;
        let mut dead = BTreeMap::new();
        for id in ids {
            let letter = parts.store.read().letter(id).await.map_err(|error| of_store(&error))?;
            dead.extend(letter.filter(|letter| letter.state == LetterState::Dead).map(|letter| (id.clone(), letter)));
        }
        if dead.is_empty() || met || begun.elapsed() > EFFECT {
            return Ok((met, dead));
        }
    }
}
