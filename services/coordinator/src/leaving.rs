//! Keeping `warren.dead` and its index alike: letters that were replayed or discarded leave the queue, and what somebody
//! took out of it by hand is noted.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use warren_broker::dead;
use warren_clock::Reconnect;
use warren_messages::{replay::BY_HAND, routes::DEAD_QUEUE};
use warren_store::StoreError;

use crate::lead::Lead;

/// The index may know a letter a little before `warren.dead` has it.
const SETTLING: Duration = Duration::from_millis(500);
/// Between two comparisons of the queue's length with the index.
const COMPARED: Duration = Duration::from_secs(10);
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
    let mut compare = Instant::now() + COMPARED;
    loop {
        let begun = Instant::now();
        let compares = begun >= compare;
        let looked = async {
            clear(lead, &mut missed).await?;
            if compares { reconcile(lead, &mut suspects).await } else { Ok(()) }
        };
        let wait = match looked.await {
            Ok(()) => {
                trouble.reset();
                if compares {
                    compare = Instant::now() + COMPARED;
                }
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
enum Trouble {
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

/// Letters that were not in the queue at the last comparison.
#[derive(Debug, Default)]
struct Suspects(BTreeSet<String>);

/// Compares the length of the queue with the index; where they differ, looks which letters are gone. Gone at two looks,
/// they were purged by hand.
async fn reconcile(lead: &Lead, suspects: &mut Suspects) -> Result<(), Trouble> {
    let read = lead.parts.store.read();
    let known = read.letters_in_queue().await?;
    let there = lead.parts.broker.ready_messages(DEAD_QUEUE).await;
    let Some(there) = there.filter(|there| u64::from(*there) != known) else {
        suspects.0.clear();
        return Ok(());
    };
    tracing::debug!(known, there, "warren.dead and its index differ");
    // Those that were found before this look began: younger ones may be on their way.
    let before = lead.parts.clock.now();
    let lying = dead::lying(&lead.parts.broker).await?;
    let missing: BTreeSet<String> = read
        .letters_lying(before)
        .await?
        .into_iter()
        .filter(|id| !id.parse::<Uuid>().is_ok_and(|id| lying.contains(&id)))
        .collect();
    let gone: Vec<String> = missing.intersection(&suspects.0).cloned().collect();
    if !gone.is_empty() {
        let tx = lead.begin().await?;
        for id in tx.letters_purged(&gone).await? {
            tracing::warn!(letter = id, "a letter was taken out of warren.dead by hand");
            let detail = json!({ "queue": DEAD_QUEUE }).to_string();
            tx.audit(BY_HAND, "purged", &id, &detail).await?;
        }
        tx.commit().await?;
    }
    suspects.0 = missing;
    Ok(())
}
