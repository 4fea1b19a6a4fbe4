use std::sync::Arc;

use warren_store::{EventLevel, NewEvent, Segment, Store};

use crate::world::World;

/// Reads before it writes, in four tasks over two handles: without the lock taken first, SQLite would refuse one of
/// two that upgrade, and either database would lose updates.
pub(crate) async fn many_writers_lose_no_update(world: World) {
    let job = world.job().await;
    let other = world.another().await;
    let mut writers = tokio::task::JoinSet::new();
    for store in [world.store.clone(), other.clone(), world.store.clone(), other] {
        writers.spawn(async move {
            for _ in 0..15 {
                store
                    .write(async |tx| {
                        assert!(tx.read().job(job).await?.is_some());
                        tx.add_planned(job, 1.0, false).await?;
                        tx.event(job, &NewEvent::new(EventLevel::Info, "step", "")).await
                    })
                    .await
                    .unwrap();
            }
        });
    }
    writers.join_all().await;
    let job = world.store.read().job(job).await.unwrap().unwrap();
    // Three were planned with the job.
    assert_eq!((job.progress_planned, job.sequence), (63.0, 61));
    let events = world.store.read().events_after(job.id, 0, 100).await.unwrap();
    assert_eq!(events.iter().map(|event| event.sequence).collect::<Vec<_>>(), (1..=61).collect::<Vec<_>>());
}

pub(crate) async fn a_write_can_be_spawned_and_borrow(world: World) {
    async fn rename(store: &Store, jobs: &[uuid::Uuid], language: &str) {
        let lines: Vec<&str> = language.lines().collect();
        store
            .write(async |tx| {
                for job in jobs {
                    tx.set_language(*job, lines[0]).await?;
                }
                Ok(())
            })
            .await
            .unwrap();
    }
    let store = Arc::new(world.store.clone());
    let jobs = vec![world.job().await, world.job().await];
    let spawned = {
        let (store, jobs) = (store.clone(), jobs.clone());
        tokio::spawn(async move { rename(&store, &jobs, "fr\nx").await })
    };
    spawned.await.unwrap();
    let rows = store.read().jobs_by_id(&jobs).await.unwrap();
    assert!(rows.iter().all(|job| job.language.as_deref() == Some("fr")));
}

pub(crate) async fn a_dropped_transaction_changes_nothing(world: World) {
    let job = world.job().await;
    let (reached, mut at) = tokio::sync::mpsc::channel::<()>(1);
    let store = world.store.clone();
    let hanging = tokio::spawn(async move {
        store
            .write(async |tx| {
                tx.set_language(job, "xx").await?;
                reached.send(()).await.ok();
                std::future::pending::<()>().await;
                Ok(())
            })
            .await
    });
    at.recv().await.unwrap();
    hanging.abort();
    assert!(hanging.await.unwrap_err().is_cancelled());
    // The writer is free again, and nothing of it is left.
    world.store.write(async |tx| tx.set_duration(job, 1.0).await).await.unwrap();
    let job = world.store.read().job(job).await.unwrap().unwrap();
    assert_eq!((job.language, job.duration_s), (None, 1.0));
}

pub(crate) async fn text_with_nul_and_numbers_that_are_none_are_stored(world: World) {
    let mut new = world.new_job();
    new.name = "a\0b".into();
    new.progress_planned = f64::NAN;
    let job = world.submit(new).await;
    let segment = Segment {
        task_ordinal: 0,
        idx: 0,
        start_s: f64::INFINITY,
        end_s: 1.0,
        text: "said\0 so".into(),
        avg_logprob: f64::NAN,
        no_speech_prob: 0.0,
    };
    let event = NewEvent::new(EventLevel::Info, "odd", "x\0y").with(serde_json::json!({ "k": "n\0ul" }));
    world
        .store
        .write(async |tx| {
            tx.replace_segments(job, 0, std::slice::from_ref(&segment)).await?;
            tx.audit("who\0", "verb", "subject", "detail").await?;
            tx.event(job, &event).await
        })
        .await
        .unwrap();
    assert_eq!(world.store.read().job(job).await.unwrap().unwrap().name, "a\u{fffd}b");
    let stored = world.store.read().segments(job).await.unwrap().remove(0);
    assert_eq!((stored.text.as_str(), stored.start_s, stored.avg_logprob), ("said\u{fffd} so", 0.0, 0.0));
    assert_eq!(world.store.read().newest_events(job, 1).await.unwrap()[0].event.fields, event.fields);
}
