//! Putting dead letters back to work.
//!
//! A request to replay letters is a row with a list of letters, so it outlives its client and its leader. Sending them is
//! a duty of the leader ([`run`]): as fast as it goes, or at a rate, a few first and the rest when these did their work.
//! Each letter is one transaction ([`send`]); from then on its replay will happen, whatever breaks. Taking it out of
//! `warren.dead` is a duty of its own (`leaving`), because the queue may be long and the broker away.

mod pace;
mod send;

use std::time::Duration;

pub(crate) use pace::run;
use warren_broker::Delivery;
use warren_fault::{Code, Fault};
use warren_jobs::TaskState;
use warren_messages::{
    replay::{self, Content},
    wire::ReplayLetters,
};
use warren_store::{LetterFilter, LetterState, NewReplay, StoreError};

use crate::{board::Changes, lead::Lead};

/// A letter that somebody moves by hand may be known here a little later than there.
const INDEXED_WITHIN: Duration = Duration::from_secs(60);

/// Takes note of letters that are to be sent again; the same request comes to the same row.
///
/// # Errors
/// When the store is away, or a letter is not indexed yet.
pub(crate) async fn accept(
    lead: &Lead,
    actor: &str,
    command: &ReplayLetters,
    delivery: &Delivery,
) -> Result<(), Fault> {
    let message = delivery.message_id.to_string();
    let id = if command.request_id.is_empty() { &message } else { &command.request_id };
    let asked = NewReplay {
        id: replay::request(actor, id),
        actor: actor.to_owned(),
        reason: command.reason.clone(),
        rate: command.rate,
        canary: command.canary,
        forced: command.force,
        from_index: command.from_index,
        edited_body: (!command.edited_body.is_empty()).then(|| command.edited_body.clone()),
    };
    let store = &lead.parts.store;
    if store.read().replay(&asked.id).await?.is_some() {
        return Ok(());
    }
    let letters = if command.letters.is_empty() {
        match by_hand(lead, command).await? {
            Some(letter) => vec![letter],
            None => return Ok(()),
        }
    } else {
        command.letters.clone()
    };
    for letter in &letters {
        let early = lead.parts.clock.now().since(delivery.first_seen) < INDEXED_WITHIN;
        if early && store.read().letter(letter).await?.is_none() {
            return Err(Fault::retry_later(Code::BrokerUnavailable, format!("letter {letter} is not indexed yet")));
        }
    }
    let tx = lead.begin().await?;
    tx.insert_replay(&asked, &letters).await?;
    tx.commit().await?;
    lead.replays.notify_one();
    Ok(())
}

/// Somebody published a body without its headers. If its task is dead, this is the newest letter of it; if the task is
/// out under the same dispatch, the body goes back to its queue, with its headers.
async fn by_hand(lead: &Lead, command: &ReplayLetters) -> Result<Option<String>, StoreError> {
    let Ok(content) = Content::read(&command.queue, &command.edited_body) else { return Ok(None) };
    let Some(task) = content.task() else { return Ok(None) };
    let states = vec![LetterState::Dead, LetterState::Parked, LetterState::Purged];
    let filter = LetterFilter { states, task: Some(task), ..LetterFilter::default() };
    if let Some(newest) = lead.parts.store.read().letters(&filter, None, 1).await?.letters.pop() {
        return Ok(Some(newest.letter.id));
    }
    let tx = lead.begin().await?;
    let found = send::found(&tx, task).await?;
    let standing = found.as_ref().map(|(task, job)| task.standing(job));
    match content.refused(standing) {
        None if standing.is_some_and(|now| now.task == TaskState::Released) => {
            tx.outbox(&send::outgoing(&lead.parts, &content)).await?;
            lead.commit(tx, &Changes::default()).await?;
        }
        why => tracing::warn!(queue = command.queue, why, "a message published by hand comes to nothing"),
    }
    Ok(None)
}
