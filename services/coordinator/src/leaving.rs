//! Keeping `warren.dead` and its index alike: letters that were replayed or discarded leave the queue, and what somebody
//! took out of it by hand is noted.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::Duration,
};

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use warren_broker::dead::{self, Lying};
use warren_clock::Reconnect;
use warren_messages::{replay::BY_HAND, routes::DEAD_QUEUE};
use warren_store::StoreError;

use crate::{lead::Lead, letters};

/// The index may know a letter a little before `warren.dead` has it.
const SETTLING: Duration = Duration::from_millis(500);
/// Between two comparisons of the queue's length with the index.
const COMPARED: Duration = Duration::from_secs(10);
/// Longest time between two that say the same: each look counts as a delivery of every letter.
const LONGEST_COMPARED: Duration = Duration::from_secs(600);
/// Letters that the index had missed and that are noted in one go: they are in memory.
const NOTED_AT_ONCE: usize = 64;
/// The queue is looked through for at most one part in so many of the time: each look takes all letters in hand.
const REST: u32 = 4;
/// Longest rest after a look.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// Works until `over`.
///
/// # Errors
/// When the term is lost.
pub(crate) async fn run(lead: &Lead, over: &CancellationToken) -> Result<(), StoreError> {
    // Not there at the last look, and since when.
    let mut missed = BTreeMap::new();
    let mut suspects = Suspects::default();
    let mut trouble = Reconnect::new();
    let (mut compare, mut pause) = (Instant::now() + COMPARED, COMPARED);
    loop {
        let begun = Instant::now();
        let looked = async {
            clear(lead, &mut missed).await?;
            if begun < compare {
                return Ok(());
            }
            pause = if reconcile(lead, &mut suspects).await? { COMPARED } else { (pause * 2).min(LONGEST_COMPARED) };
            compare = Instant::now() + pause;
            Ok(())
        };
        let wait = match looked.await {
            Ok(()) => {
                trouble.reset();
                if missed.is_empty() { compare.saturating_duration_since(Instant::now()) } else { SETTLING }
            }
            Err(Trouble::Store(StoreError::TermLost)) => return Err(StoreError::TermLost),
            Err(error) => {
                tracing::warn!(%error, "letters not removed from warren.dead; again later");
                trouble.next_delay()
            }
        };
        let rest = (begun.elapsed() * REST).min(LONGEST_REST);
        tokio::select! {
            () = over.cancelled() => return Ok(()),
            () = tokio::time::sleep(rest) => {}
        }
        tokio::select! {
            () = over.cancelled() => return Ok(()),
            () = lead.leaving.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Scan(#[from] dead::ScanError),
}

async fn clear(lead: &Lead, missed: &mut BTreeMap<Uuid, Instant>) -> Result<(), Trouble> {
    let ids = lead.parts.store.read().leaving_letters().await?;
    let leaving: BTreeSet<Uuid> = ids.iter().filter_map(|id| id.parse().ok()).collect();
    missed.retain(|id, _| leaving.contains(id));
    if leaving.is_empty() {
        return Ok(());
    }
    let (removed, interrupted) = match dead::remove(&lead.parts.broker, &leaving).await {
        Ok(removed) => (removed, None),
        Err(error) => (error.removed.clone(), Some(error)),
    };
    let mut done: Vec<String> = removed.iter().map(Uuid::to_string).collect();
    if interrupted.is_none() {
        for id in leaving.difference(&removed) {
            // Somebody moved or purged it by hand, unless it is yet to come.
            if missed.entry(*id).or_insert_with(Instant::now).elapsed() >= SETTLING {
                done.push(id.to_string());
            }
        }
    }
    if !done.is_empty() {
        let tx = lead.begin().await?;
        tx.letters_left(&done).await?;
        tx.commit().await?;
        missed.retain(|id, _| !done.contains(&id.to_string()));
    }
    interrupted.map_or(Ok(()), |error| Err(error.into()))
}

/// What the queue and its index differed in at the last comparison: what is so at two looks is not on its way.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Suspects {
    /// Noted, and not in the queue.
    missing: BTreeSet<String>,
    /// In the queue, and not noted.
    unknown: BTreeSet<String>,
}

/// Compares the length of the queue with the index; where they differ, looks through it. Letters that are gone were
/// purged by hand, those that were said to be gone are not, and those that nobody noted are noted. False: the two differ,
/// and nothing is to be done about it.
pub(crate) async fn reconcile(lead: &Lead, suspects: &mut Suspects) -> Result<bool, Trouble> {
    let read = lead.parts.store.read();
    let known = read.letters_in_queue().await?;
    let there = lead.parts.broker.ready_messages(DEAD_QUEUE).await;
    let Some(there) = there.filter(|there| u64::from(*there) != known) else {
        *suspects = Suspects::default();
        return Ok(true);
    };
    tracing::debug!(known, there, "warren.dead and its index differ");
    // Those that were found before this look began: younger ones may be on their way.
    let before = lead.parts.clock.now();
    let wanted = suspects.unknown.iter().take(NOTED_AT_ONCE).filter_map(|id| id.parse().ok()).collect();
    let Lying { ids, read: mut strangers } = dead::lying(&lead.parts.broker, &wanted).await?;
    let lying: BTreeSet<String> = ids.iter().map(Uuid::to_string).collect();
    let noted: BTreeSet<String> = read.known_letters(&Vec::from_iter(lying.clone())).await?.into_iter().collect();
    let unknown: BTreeSet<String> = lying.difference(&noted).cloned().collect();
    let missing: BTreeSet<String> =
        read.letters_lying(before).await?.into_iter().filter(|id| !lying.contains(id)).collect();
    let last = mem::replace(suspects, Suspects { missing, unknown });
    let gone: Vec<String> = suspects.missing.intersection(&last.missing).cloned().collect();
    let tx = lead.begin().await?;
    for id in tx.letters_purged(&gone).await? {
        tracing::warn!(letter = id, "a letter was taken out of warren.dead by hand");
        tx.audit(BY_HAND, "purged", &id, &json!({ "queue": DEAD_QUEUE }).to_string()).await?;
    }
    for id in tx.letters_found(&Vec::from_iter(noted)).await? {
        tracing::warn!(letter = id, "a letter is in warren.dead again");
        tx.audit(BY_HAND, "found again", &id, &json!({ "queue": DEAD_QUEUE }).to_string()).await?;
    }
    tx.commit().await?;
    strangers.retain(|letter| suspects.unknown.contains(&letter.id.to_string()));
    if !strangers.is_empty() {
        tracing::warn!(letters = strangers.len(), "warren.dead held letters that were not in its index");
        letters::index(lead, &strangers).await?;
    }
    Ok(*suspects != last)
}
