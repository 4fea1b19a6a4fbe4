//! What ended jobs leave behind.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use warren_blob::{Key, Prefix};
use warren_clock::Clock;
use warren_jobs::JobState;
use warren_store::{EventLevel, Media, NewEvent};

use super::world::World;
use crate::sweeper::sweep;

#[tokio::test]
async fn objects_go_when_their_job_has_ended_and_not_before() {
    let world = World::new().await;
    let (store, blobs) = (world.store(), &world.lead.parts.blobs);
    let job = world.submitted().await;
    // Ids have the machine's time.
    let clock = Clock::system();
    let (media, orphan) = (Key::media(clock.new_id()), Key::texts(clock.new_id()));
    let of_nobody = Key::media(clock.new_id());
    let row = Media {
        id: media.owner(),
        caller: "ada".to_owned(),
        name: "a.wav".to_owned(),
        container: "wav".to_owned(),
        size_bytes: 1,
        sha256: "0".repeat(64),
        blob_key: media.to_string(),
        created: clock.now(),
    };
    for _ in 0..2 {
        let tx = world.lead.begin().await.expect("begun");
        tx.insert_media(&row).await.expect("written, or there already");
        tx.commit().await.expect("committed");
    }
    let of_job = [Key::texts(job), Key::pcm(job, 0), Key::pcm(job, 1)];
    for key in of_job.iter().chain([&media, &orphan, &of_nobody]) {
        blobs.put_bytes(key, Bytes::from_static(b"x")).await.expect("put");
    }
    let names = async || {
        let listed = blobs.list(Prefix::EVERYTHING).await.expect("listed");
        listed.into_iter().map(|object| object.name).collect::<BTreeSet<_>>()
    };
    assert_eq!(names().await.len(), 6);

    assert_eq!(sweep(store, blobs, clock.now()).await, Ok(0), "the orphans' rows may still be written");
    let later = clock.now().plus(Duration::from_secs(601));
    assert_eq!(sweep(store, blobs, later).await, Ok(2), "the orphans alone: the job is open");
    assert_eq!(names().await.len(), 4);

    let tx = world.lead.begin().await.expect("begun");
    let event = NewEvent::new(EventLevel::Info, "job.succeeded", "done");
    tx.set_job_state(job, JobState::Queued, JobState::Succeeded, &event).await.expect("ended");
    tx.commit().await.expect("committed");
    assert_eq!(sweep(store, blobs, later).await, Ok(2));
    let kept = BTreeSet::from([media.to_string(), Key::texts(job).to_string()]);
    assert_eq!(names().await, kept, "what a job was given is kept");
}
