//! Deleting what ended jobs leave behind: objects that nobody will read again, and searches.
//!
//! An object is kept while its job is open or has a dead task, which may be replayed; the texts that a job was given, as
//! long as the job itself: it may be resubmitted; a recording as long as its row. What there is to do is read from the
//! storage itself: results that lost a race, whatever was written after its job had ended, and recordings whose upload
//! ended between object and row, are found by a later round.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use warren_blob::{Blobs, Key, Prefix};
use warren_clock::UnixMillis;
use warren_fault::Fault;
use warren_store::{Store, StoreError};

use crate::{
    lead::Lead,
    rounds::{Rounds, or_next_round},
};

/// An object is written before the row of its job or recording; until then nothing is known of it.
const UNKNOWN: Duration = Duration::from_secs(600);
/// Nobody waits so long for the answer to a search.
const SEARCH: Duration = Duration::from_secs(60);
/// The longest that a search stays open; a round looks back so far.
const OPEN_SEARCH: Duration = Duration::from_secs(3_600);
/// A sweep is followed by a rest of so many times its length: a large bucket is not listed all the time.
const REST: u32 = 20;

/// Sweeps until `over`.
///
/// # Errors
/// When the term is lost.
pub(crate) async fn run(lead: &Arc<Lead>, over: &CancellationToken) -> Result<(), StoreError> {
    let mut rounds = Rounds::every(Duration::from_secs(lead.parts.settings.reaper.interval_s), over);
    let (mut searches_from, mut rest_until) = (UnixMillis(0), Instant::now());
    while rounds.next().await {
        let (begun, now) = (Instant::now(), lead.parts.clock.now());
        let forgotten = forget_searches(lead, searches_from, ago(now, SEARCH)).await;
        if forgotten.is_ok() {
            searches_from = ago(now, OPEN_SEARCH);
        }
        or_next_round("searches", forgotten)?;
        if begun < rest_until {
            continue;
        }
        tokio::select! {
            () = over.cancelled() => return Ok(()),
            swept = sweep(&lead.parts.store, &lead.parts.blobs, now) => match swept {
                Ok(objects) => {
                    if objects > 0 {
                        tracing::info!(objects, "deleted objects of ended jobs");
                    }
                    rest_until = Instant::now() + REST * begun.elapsed();
                }
                Err(fault) => tracing::warn!(%fault, "objects of ended jobs are deleted in the next round"),
            }
        }
    }
    Ok(())
}

async fn forget_searches(lead: &Lead, from: UnixMillis, before: UnixMillis) -> Result<(), StoreError> {
    let tx = lead.begin().await?;
    tx.forget_searches(from, before).await?;
    tx.commit().await
}

/// Deletes the objects that are needed no more; returns how many.
///
/// # Errors
/// When the store or the storage is away.
pub(crate) async fn sweep(store: &Store, blobs: &Blobs, now: UnixMillis) -> Result<u64, Fault> {
    let mut deleted = 0;
    for prefix in [Prefix::MEDIA, Prefix::TEXTS, Prefix::PCM, Prefix::RESULTS] {
        let mut pages = blobs.pages(prefix);
        while let Some(listed) = pages.next().await.map_err(|error| error.fault())? {
            // An upload may take long: the age of its id says nothing, that of the object does.
            let listed = listed.iter().filter(|object| UnixMillis(object.modified_ms) < ago(now, UNKNOWN));
            let keys = listed.filter_map(|object| Key::parse(&object.name).ok());
            let keys: Vec<Key> = keys.filter(|key| made(key.owner()) < ago(now, UNKNOWN)).collect();
            let owners: BTreeSet<Uuid> = keys.iter().map(Key::owner).collect();
            let owners: Vec<Uuid> = owners.into_iter().collect();
            let needed = match prefix {
                Prefix::MEDIA => store.read().known_media(&owners).await,
                Prefix::TEXTS => store.read().known_jobs(&owners).await,
                _ => store.read().need_objects(&owners).await,
            };
            let needed = needed.map_err(|error| error.fault())?;
            for key in keys.iter().filter(|key| !needed.contains(&key.owner())) {
                blobs.delete(key).await.map_err(|error| error.fault())?;
                deleted += 1;
            }
        }
    }
    Ok(deleted)
}

/// When an id was made: UUIDv7 carries its time.
fn made(id: Uuid) -> UnixMillis {
    let (seconds, nanos) = id.get_timestamp().map_or((0, 0), |made| made.to_unix());
    UnixMillis(i64::try_from(seconds).unwrap_or(0) * 1_000 + i64::from(nanos / 1_000_000))
}

fn ago(now: UnixMillis, age: Duration) -> UnixMillis {
    UnixMillis(now.0 - i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use warren_clock::Clock;

    use super::*;

    #[test]
    fn an_id_tells_its_time() {
        let clock = Clock::system();
        let (before, id, after) = (clock.now(), clock.new_id(), clock.now());
        assert!(before <= made(id) && made(id) <= after);
    }
}
