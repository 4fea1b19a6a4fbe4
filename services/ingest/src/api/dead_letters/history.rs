//! What was done with a letter, and with the letters that it came back from.

use std::collections::BTreeSet;

use warren_clock::UnixMillis;
use warren_messages::{from_millis, wire::DeadLetterEvent};
use warren_store::{AuditEntry, DeadLetter, Reads, StoreError};

/// Longest chain of letters that is followed.
const CHAIN: usize = 20;

/// The history of a letter, oldest first.
///
/// # Errors
/// When the store is away.
pub(super) async fn of(read: &Reads<'_>, letter: &DeadLetter) -> Result<Vec<DeadLetterEvent>, StoreError> {
    let mut chain = vec![letter.clone()];
    let mut known = BTreeSet::from([letter.letter.id.clone()]);
    while let Some(before) = chain.last().and_then(|first| first.letter.replay_of.clone()) {
        if chain.len() == CHAIN || !known.insert(before.clone()) {
            break;
        }
        let Some(before) = read.letter(&before).await? else { break };
        chain.push(before);
    }
    let mut events: Vec<(UnixMillis, DeadLetterEvent)> =
        chain.iter().map(|one| event(one.first_seen, &one.letter.id, "died", "", &died(one))).collect();
    for back in read.came_back(&letter.letter.id).await? {
        let detail = format!("as letter {}: {}", back.letter.id, died(&back));
        events.push(event(back.first_seen, &letter.letter.id, "came back", "", &detail));
    }
    let ids: Vec<String> = chain.into_iter().map(|one| one.letter.id).collect();
    let deeds = read.audit_of(&ids).await?;
    events.extend(deeds.iter().map(|deed| {
        let AuditEntry { actor, verb, subject, detail, at, request: _ } = deed;
        event(*at, subject, verb, actor, detail)
    }));
    // Stable: what has the same time stays in the order of cause and effect.
    events.sort_by_key(|(at, _)| *at);
    Ok(events.into_iter().map(|(_, event)| event).collect())
}

fn died(letter: &DeadLetter) -> String {
    format!("{}: {}", letter.letter.class, letter.letter.cause)
}

fn event(at: UnixMillis, letter: &str, event: &str, actor: &str, detail: &str) -> (UnixMillis, DeadLetterEvent) {
    let event = DeadLetterEvent {
        at: Some(from_millis(at.0)),
        letter: letter.to_owned(),
        event: event.to_owned(),
        actor: actor.to_owned(),
        detail: detail.to_owned(),
    };
    (at, event)
}
