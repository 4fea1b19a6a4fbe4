//! Discarding letters, and putting back what was exported.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;
use uuid::Uuid;
use warren_messages::{
    ids::{JobId, TaskId},
    wire::{
        self, DiscardDeadLettersRequest, DiscardDeadLettersResponse, DiscardLetters, DiscardOutcome,
        ImportDeadLettersRequest, ImportDeadLettersResponse, ImportLetter, ImportOutcome, command::Command as What,
    },
    wrong_time,
};
use warren_store::{DeadLetter, LetterState};

use super::select::{Selected, Selection};
use crate::{
    accept,
    auth::Caller,
    parts::Parts,
    status::{invalid, of_store},
};

/// Bytes of a short string: AMQP 0-9-1, section 4.2.5.3.
const SHORT: usize = 255;
/// Longest wait for the effect.
const EFFECT: Duration = Duration::from_secs(10);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(200);
/// Characters of a reason.
const REASON: usize = 2_000;
const LATER: &str = "it was asked for, but has not happened yet; look again with Show";

/// Has letters discarded, or says which would be.
///
/// # Errors
/// The field that is wrong: the reason is missing, or the number is not that of the letters.
pub(super) async fn discard(
    parts: &Parts,
    caller: &Caller,
    asked: DiscardDeadLettersRequest,
) -> Result<DiscardDeadLettersResponse, Status> {
    let selection = Selection { ids: &asked.ids, filter: asked.filter.as_ref(), all: asked.all };
    let Selected { letters, left } = selection.letters(parts, &LetterState::OPEN).await?;
    let refused = |letter: &DeadLetter| match letter.state {
        LetterState::Purged => None,
        _ => letter.stays(true),
    };
    let goes: Vec<String> =
        letters.iter().filter(|letter| refused(letter).is_none()).map(|letter| letter.letter.id.clone()).collect();
    let reason = asked.reason.trim();
    let mut still = Vec::new();
    if !asked.dry_run {
        if reason.is_empty() || reason.chars().count() > REASON {
            return Err(invalid("reason", format!("is required, and at most {REASON} characters long")));
        }
        if asked.confirm != goes.len() as u64 {
            let there = goes.len();
            return Err(invalid(
                "confirm",
                format!("{there} letters would be discarded, confirmed are {}", asked.confirm),
            ));
        }
        if !goes.is_empty() {
            let command = DiscardLetters { letters: goes.clone(), reason: reason.to_owned() };
            accept::command(parts, caller, What::Discard(command)).await?;
            still = until(parts, goes, |letter| letter.is_some_and(|letter| letter.stays(true).is_some())).await?;
        }
    }
    let outcomes = letters.iter().map(|letter| {
        let late = still.contains(&letter.letter.id).then(|| LATER.to_owned());
        let refused = refused(letter).or(late);
        DiscardOutcome {
            id: letter.letter.id.clone(),
            queue: letter.letter.queue.clone(),
            discarded: refused.is_none(),
            refused: refused.unwrap_or_default(),
        }
    });
    Ok(DiscardDeadLettersResponse { outcomes: outcomes.collect(), dry_run: asked.dry_run, left })
}

/// Has letters put back that are not there, or says which would be.
///
/// # Errors
/// The letter and field that are wrong.
pub(super) async fn import(
    parts: &Parts,
    caller: &Caller,
    asked: ImportDeadLettersRequest,
) -> Result<ImportDeadLettersResponse, Status> {
    for (index, letter) in asked.letters.iter().enumerate() {
        check(&format!("letters[{index}]"), letter)?;
    }
    let (mut outcomes, mut sent) = (Vec::new(), Vec::new());
    for letter in asked.letters {
        let known = parts.store.read().letter(&letter.id).await.map_err(|error| of_store(&error))?;
        let refused = match known.map(|known| known.state) {
            None | Some(LetterState::Discarded | LetterState::Purged) => None,
            Some(state) => Some(format!("it is there: {}", state.as_str())),
        };
        let goes = refused.is_none();
        outcomes.push(ImportOutcome { id: letter.id.clone(), imported: goes, refused: refused.unwrap_or_default() });
        if goes && !asked.dry_run {
            sent.push(letter.id.clone());
            let letter = wire::DeadLetter { history: Vec::new(), ..letter };
            accept::command(parts, caller, What::PutBack(ImportLetter { letter: Some(letter) })).await?;
        }
    }
    let back = |letter: Option<&DeadLetter>| {
        letter.is_some_and(|letter| !matches!(letter.state, LetterState::Discarded | LetterState::Purged))
    };
    let still = until(parts, sent, back).await?;
    for outcome in outcomes.iter_mut().filter(|outcome| still.contains(&outcome.id)) {
        outcome.imported = false;
        LATER.clone_into(&mut outcome.refused);
    }
    Ok(ImportDeadLettersResponse { outcomes, dry_run: asked.dry_run })
}

fn check(at: &str, letter: &wire::DeadLetter) -> Result<(), Status> {
    let field = |name: &str| format!("{at}.{name}");
    if Uuid::try_parse(&letter.id).is_err() {
        return Err(invalid(&field("id"), format!("`{}` is no id of a letter", letter.id)));
    }
    for (name, text) in [("queue", &letter.queue), ("class", &letter.class), ("fingerprint", &letter.fingerprint)] {
        if text.is_empty() {
            return Err(invalid(&field(name), "is required: as `export` wrote it"));
        }
    }
    if letter.kind.len() > SHORT {
        return Err(invalid(
            &field("kind"),
            format!("has {} bytes; a message's type has at most {SHORT}", letter.kind.len()),
        ));
    }
    if let (false, Err(error)) = (letter.job.is_empty(), letter.job.parse::<JobId>()) {
        return Err(invalid(&field("job"), error.to_string()));
    }
    if let (false, Err(error)) = (letter.task.is_empty(), letter.task.parse::<TaskId>()) {
        return Err(invalid(&field("task"), error.to_string()));
    }
    for (name, time) in [("first_seen", &letter.first_seen), ("last_seen", &letter.last_seen)] {
        if let Some(problem) = wrong_time(time.as_ref()) {
            return Err(invalid(&field(name), problem));
        }
    }
    Ok(())
}

/// Waits until all these letters are as wanted, or patience ends. Returns the ids of those that are not.
async fn until(
    parts: &Parts,
    mut ids: Vec<String>,
    wanted: impl Fn(Option<&DeadLetter>) -> bool,
) -> Result<Vec<String>, Status> {
    let begun = Instant::now();
    while !ids.is_empty() && begun.elapsed() <= EFFECT {
        tokio::time::sleep(LOOK).await;
        let mut still = Vec::new();
        for id in ids {
            let letter = parts.store.read().letter(&id).await.map_err(|error| of_store(&error))?;
            if !wanted(letter.as_ref()) {
                still.push(id);
            }
        }
        ids = still;
    }
    Ok(ids)
}
