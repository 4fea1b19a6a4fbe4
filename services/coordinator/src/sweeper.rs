//! Deleting what ended jobs leave behind: objects that nobody will read again, and searches.
//!
//! An object is kept while its job is open or has a dead task, which may be replayed. What there is to do is read from
//! the storage itself: results that lost a race, and whatever was written after its job had ended, are found by a later
//! round.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use warren_blob::{Blobs, Key, Prefix};
use warren_clock::UnixMillis;
use warren_fault::Fault;
use warren_store::{Store, StoreError};

use crate::lead::Lead;

/// An object is written before the row of its job; until then nothing is known of it.
const UNKNOWN: Duration = Duration::from_secs(600);
/// Nobody waits so long for the answer to a search.
const SEARCH: Duration = Duration::from_secs(60);
/// The longest that a search stays open; a round looks back so far.
const OPEN_SEARCH: Duration = Duration::from_secs(3_600);
/// Objects that are looked up at once.
const GROUP: usize = 500;

/// Sweeps until `over`.
///
/// # Errors
/// When the term is lost.
pub(crate) async fn run(lead: &Arc<Lead>, over: &CancellationToken) -> Result<(), StoreError> {
    let mut every = tokio::time::interval(Duration::from_secs(lead.parts.settings.reaper.interval_s.max(1)));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut searches_from = UnixMillis(0);
    loop {
        tokio::select! {
            () = over.cancelled() => return Ok(()),
            _ = every.tick() => {}
        }
        let now = lead.parts.clock.now();
        match forget_searches(lead, searches_from, ago(now, SEARCH)).await {
            Ok(()) => searches_from = ago(now, OPEN_SEARCH),
            Err(StoreError::TermLost) => return Err(StoreError::TermLost),
            Err(error) => tracing::warn!(%error, "searches are forgotten in the next round"),
        }
        tokio::select! {
            () = over.cancelled() => return Ok(()),
            swept = sweep(&lead.parts.store, &lead.parts.blobs, now) => match swept {
                Ok(0) => {}
                Ok(objects) => tracing::info!(objects, "deleted objects of ended jobs"),
                Err(fault) => tracing::warn!(%fault, "objects of ended jobs are deleted in the next round"),
            }
        }
    }
}

async fn forget_searches(lead: &Lead, from: UnixMillis, before: UnixMillis) -> Result<(), StoreError> {
    let tx = lead.begin().await?;
    tx.forget_searches(from, before).await?;
    tx.commit().await
}

/// Deletes the objects that are needed no more; returns how many.
async fn sweep(store: &Store, blobs: &Blobs, now: UnixMillis) -> Result<u64, Fault> {
    let mut deleted = 0;
    for prefix in [Prefix::TEXTS, Prefix::PCM, Prefix::RESULTS] {
        let listed = blobs.list(prefix).await.map_err(|error| error.fault())?;
        let keys = listed.iter().filter_map(|object| Key::parse(&object.name).ok());
        let keys: Vec<Key> = keys.filter(|key| made(key.owner()) < ago(now, UNKNOWN)).collect();
        for group in keys.chunks(GROUP) {
            let owners: BTreeSet<Uuid> = group.iter().map(Key::owner).collect();
            let owners: Vec<Uuid> = owners.into_iter().collect();
            let needed = store.read().need_objects(&owners).await.map_err(|error| error.fault())?;
            for key in group.iter().filter(|key| !needed.contains(&key.owner())) {
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
    use bytes::Bytes;
    use warren_blob::BlobSettings;
    use warren_clock::Clock;
    use warren_jobs::{JobClass, JobKind, JobState};
    use warren_settings::Secret;
    use warren_store::{EventLevel, NewEvent, NewJob, StoreSettings, SubmitRequest, migrate};

    use super::*;

    #[tokio::test]
    async fn objects_go_when_their_job_has_ended_and_not_before() {
        let s3 = warren_local::s3::for_tests().await;
        let blobs = Blobs::connect(&BlobSettings {
            endpoint: s3.endpoint.clone(),
            bucket: s3.bucket.clone(),
            access_key: s3.access_key.clone(),
            secret_key: Secret::new(s3.secret_key.clone()),
            ..BlobSettings::default()
        });
        blobs.ensure_bucket().await.expect("a bucket");
        let folder = warren_local::Scratch::new("sweeper").expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("warren.sqlite").display());
        migrate::up(&url).await.expect("migrated");
        let clock = Clock::system();
        let store = Store::open(&StoreSettings::at(url), clock.clone()).await.expect("opened");

        let job = clock.new_id();
        let new = NewJob {
            id: job,
            caller: "ada".to_owned(),
            kind: JobKind::Embed,
            class: JobClass::Default,
            media_id: None,
            name: "notes".to_owned(),
            spec: "{}".to_owned(),
            model: "m".to_owned(),
            language: None,
            timeout_s: 0,
            progress_planned: 1.0,
            resubmitted_from: None,
        };
        let tx = store.begin().await.expect("begun");
        tx.submit(&new, &SubmitRequest::default()).await.expect("submitted");
        tx.commit().await.expect("committed");
        let (media, orphan) = (Key::media(clock.new_id()), Key::texts(clock.new_id()));
        let of_job = [Key::texts(job), Key::pcm(job, 0), Key::pcm(job, 1)];
        for key in of_job.iter().chain([&media, &orphan]) {
            blobs.put_bytes(key, Bytes::from_static(b"x")).await.expect("put");
        }
        let names = async || {
            let listed = blobs.list(Prefix::EVERYTHING).await.expect("listed");
            listed.into_iter().map(|object| object.name).collect::<BTreeSet<_>>()
        };
        let all = names().await;
        assert_eq!(all.len(), 5);

        assert_eq!(sweep(&store, &blobs, clock.now()).await, Ok(0), "the orphan's row may still be written");
        let later = clock.now().plus(UNKNOWN + Duration::from_secs(1));
        assert_eq!(sweep(&store, &blobs, later).await, Ok(1), "the orphan alone: the job is open");
        assert_eq!(names().await.len(), 4);

        let tx = store.begin().await.expect("begun");
        let event = NewEvent::new(EventLevel::Info, "job.succeeded", "done");
        tx.set_job_state(job, JobState::Queued, JobState::Succeeded, &event).await.expect("ended");
        tx.commit().await.expect("committed");
        assert_eq!(sweep(&store, &blobs, later).await, Ok(3));
        assert_eq!(names().await, BTreeSet::from([media.to_string()]), "recordings are kept");
    }

    #[test]
    fn an_id_tells_its_time() {
        let clock = Clock::system();
        let (before, id, after) = (clock.now(), clock.new_id(), clock.now());
        assert!(before <= made(id) && made(id) <= after);
    }
}
