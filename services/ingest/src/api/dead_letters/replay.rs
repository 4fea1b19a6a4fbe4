//! Replaying dead letters: what would happen, having the coordinator do it, and how far it is.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;
use tonic::Status;
use uuid::Uuid;
use warren_blob::Key;
use warren_jobs::state::Standing;
use warren_messages::{
    replay::{Content, Original, request, wrong_rate},
    wire::{
        ReplayDeadLettersRequest, ReplayDeadLettersResponse, ReplayLetters, ReplayOutcome, ReplayState as Shown,
        command::Command as What,
    },
};
use warren_store::{DeadLetter, LetterState, Replay, ReplayLetterState, ReplayState, StoreError};

use super::select::{self, Selection};
use crate::{
    accept,
    auth::Caller,
    check,
    parts::Parts,
    status::{invalid, of_blob, of_store},
};

/// Longest wait for the effect.
const EFFECT: Duration = Duration::from_secs(10);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(200);
/// Letters looked at side by side.
const SIDE_BY_SIDE: usize = 16;

/// Replays the letters that a request selects, or says what would happen. Sent again under its id, a request selects
/// nothing more: the answer tells how far it is.
///
/// # Errors
/// The field that is wrong; `NOT_FOUND` for an id that is no letter's.
pub(super) async fn replay(
    parts: &Parts,
    caller: &Caller,
    asked: ReplayDeadLettersRequest,
) -> Result<ReplayDeadLettersResponse, Status> {
    if let Some(problem) = wrong_rate(asked.rate) {
        return Err(invalid("rate", problem));
    }
    let given = check::request_id(&asked.request_id)?;
    let request_id = given.clone().unwrap_or_else(|| parts.clock.new_id().to_string());
    let name = request(&caller.name, &request_id);
    if let (Some(_), false) = (&given, asked.dry_run)
        && let Some(known) = known(parts, &name).await?
    {
        return answer(parts, &known, request_id, &asked.ids).await;
    }
    let mut states = vec![LetterState::Dead];
    states.extend(asked.force.then_some(LetterState::Parked));
    states.extend(asked.from_index.then_some(LetterState::Purged));
    let selection = Selection { ids: &asked.ids, filter: asked.filter.as_ref(), all: asked.all };
    let selected = selection.letters(parts, &states).await?;
    if selected.letters.iter().any(|letter| letter.state == LetterState::Parked) && asked.ids.is_empty() && !asked.force
    {
        return Err(invalid(
            "filter.state",
            "parked letters died again after two replays; name their ids, or use `force`",
        ));
    }
    check_edited(parts, &asked, &selected.letters).await?;
    let parked = if asked.ids.is_empty() && !asked.force { parked(parts, &asked).await? } else { 0 };
    let begun = ReplayDeadLettersResponse {
        dry_run: asked.dry_run,
        request_id: request_id.clone(),
        state: Shown::Finished.into(),
        left: selected.left,
        parked,
        ..Default::default()
    };
    if asked.dry_run {
        let looks: Vec<_> = selected.letters.iter().map(|letter| would(parts, &asked, letter)).collect();
        let outcomes = stream::iter(looks).buffered(SIDE_BY_SIDE).try_collect().await?;
        return Ok(ReplayDeadLettersResponse { outcomes, ..begun });
    }
    if selected.letters.is_empty() {
        return Ok(begun);
    }
    let paced = asked.rate > 0.0 || asked.canary > 0;
    let command = ReplayLetters {
        request_id: request_id.clone(),
        letters: selected.letters.iter().map(|letter| letter.letter.id.clone()).collect(),
        edited_body: asked.edited_body,
        rate: asked.rate,
        canary: asked.canary,
        force: asked.force,
        from_index: asked.from_index,
        reason: asked.reason,
        queue: String::new(),
    };
    accept::command(parts, caller, What::Replay(command)).await?;
    let answered = match effect(parts, &name, paced).await? {
        Some(known) => answer(parts, &known, request_id, &[]).await?,
        None => {
            let later = "it was asked for, but has not happened yet; ask again with the same request id";
            let outcomes = selected.letters.iter().map(|letter| outcome(letter, Some(later.to_owned()))).collect();
            ReplayDeadLettersResponse { outcomes, state: Shown::Running.into(), ..begun }
        }
    };
    Ok(ReplayDeadLettersResponse { left: selected.left, parked, ..answered })
}

/// How many letters match but are parked.
async fn parked(parts: &Parts, asked: &ReplayDeadLettersRequest) -> Result<u64, Status> {
    let filter = select::filter(asked.filter.as_ref(), &[LetterState::Parked])?;
    if filter.states != [LetterState::Parked] {
        return Ok(0);
    }
    parts.store.read().count_letters(&filter).await.map_err(|error| of_store(&error))
}

/// The body to send instead must be a message that its queue carries, and do the same work.
async fn check_edited(parts: &Parts, asked: &ReplayDeadLettersRequest, letters: &[DeadLetter]) -> Result<(), Status> {
    let (letter, body) = match (asked.edited_body.as_slice(), letters, asked.ids.as_slice()) {
        ([], ..) => return Ok(()),
        (body, [letter], [_]) => (&letter.letter, body),
        _ => return Err(invalid("edited_body", "needs exactly one id in `ids`")),
    };
    let edited = Content::read(&letter.queue, body).map_err(|cause| invalid("edited_body", cause.message))?;
    let task = match letter.task_id {
        Some(task) => parts.store.read().task(task).await.map_err(|error| of_store(&error))?,
        None => None,
    };
    let original = Original {
        queue: &letter.queue,
        body: &letter.body,
        task: letter.task_id,
        job: letter.job_id,
        dispatch: letter.dispatch,
        payload: task.as_ref().map(|task| task.payload.as_str()),
    };
    original.misplaced(&edited).map_or(Ok(()), |why| Err(invalid("edited_body", why)))
}

fn outcome(letter: &DeadLetter, refused: Option<String>) -> ReplayOutcome {
    ReplayOutcome {
        id: letter.letter.id.clone(),
        queue: letter.letter.queue.clone(),
        replayed: refused.is_none(),
        refused: refused.unwrap_or_default(),
        came_back: String::new(),
    }
}

/// What the leader would do with a letter.
async fn would(parts: &Parts, asked: &ReplayDeadLettersRequest, letter: &DeadLetter) -> Result<ReplayOutcome, Status> {
    Ok(outcome(letter, refusal(parts, asked, letter).await?))
}

async fn refusal(
    parts: &Parts,
    asked: &ReplayDeadLettersRequest,
    letter: &DeadLetter,
) -> Result<Option<String>, Status> {
    if let Some(why) = letter.stays(asked.from_index) {
        return Ok(Some(why));
    }
    let edited = Some(asked.edited_body.as_slice()).filter(|body| !body.is_empty());
    let content = match Content::read(&letter.letter.queue, edited.unwrap_or(&letter.letter.body)) {
        Ok(content) => content,
        Err(cause) => return Ok(Some(format!("{}; replay it with a corrected body", cause.message))),
    };
    if asked.force {
        return Ok(None);
    }
    let now = match content.task() {
        Some(task) => standing(parts, task).await.map_err(|error| of_store(&error))?,
        None => None,
    };
    if let Some(why) = content.refused(now) {
        return Ok(Some(why.to_owned()));
    }
    for key in content.inputs() {
        let Ok(key) = Key::parse(key) else { return Ok(Some(format!("`{key}` is no object of Warren"))) };
        if parts.blobs.head(&key).await.map_err(|error| of_blob(&error))?.is_none() {
            return Ok(Some(format!("its input {} is gone from object storage", key.as_str())));
        }
    }
    Ok(None)
}

async fn standing(parts: &Parts, task: Uuid) -> Result<Option<Standing>, StoreError> {
    let Some(task) = parts.store.read().task(task).await? else { return Ok(None) };
    let Some(job) = parts.store.read().job(task.job_id).await? else { return Ok(None) };
    Ok(Some(task.standing(&job)))
}

async fn known(parts: &Parts, name: &str) -> Result<Option<Replay>, Status> {
    parts.store.read().replay(name).await.map_err(|error| of_store(&error))
}

/// Waits until the leader has carried the request out, or has begun to when that takes its time, or patience ends.
async fn effect(parts: &Parts, name: &str, paced: bool) -> Result<Option<Replay>, Status> {
    let begun = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let known = known(parts, name).await?;
        let there = known.as_ref().is_some_and(|replay| paced || replay.state != ReplayState::Running);
        if there || begun.elapsed() > EFFECT {
            return Ok(known);
        }
    }
}

/// How far a request is. `ids`: those that it names now; the ones that it did not name at first are refused.
async fn answer(
    parts: &Parts,
    replay: &Replay,
    request_id: String,
    ids: &[String],
) -> Result<ReplayDeadLettersResponse, Status> {
    let letters = parts.store.read().replay_letters(&replay.asked.id).await.map_err(|error| of_store(&error))?;
    let waits = match &replay.stopped {
        Some(why) => format!("the replay was stopped: {why}"),
        None => "it waits for its turn".to_owned(),
    };
    let outcomes = letters.into_iter().map(|letter| ReplayOutcome {
        id: letter.letter,
        queue: letter.queue,
        replayed: letter.state == ReplayLetterState::Sent,
        refused: match letter.state {
            ReplayLetterState::Sent => String::new(),
            ReplayLetterState::Waiting => waits.clone(),
            ReplayLetterState::Refused => letter.refused.unwrap_or_default(),
        },
        came_back: letter.came_back.unwrap_or_default(),
    });
    let mut outcomes: Vec<ReplayOutcome> = outcomes.collect();
    if !ids.is_empty() {
        let mut by_id: BTreeMap<String, ReplayOutcome> =
            outcomes.into_iter().map(|outcome| (outcome.id.clone(), outcome)).collect();
        let other = |id: &String| ReplayOutcome {
            id: id.clone(),
            refused: "the request's id was used before, without this letter".to_owned(),
            ..Default::default()
        };
        outcomes = ids.iter().map(|id| by_id.remove(id).unwrap_or_else(|| other(id))).collect();
    }
    let state = match replay.state {
        ReplayState::Running => Shown::Running,
        ReplayState::Finished => Shown::Finished,
        ReplayState::Stopped => Shown::Stopped,
    };
    let stopped = replay.stopped.clone().unwrap_or_default();
    Ok(ReplayDeadLettersResponse { outcomes, request_id, state: state.into(), stopped, ..Default::default() })
}
