use std::time::Duration;

use warren_jobs::{JobState, TaskKind};
use warren_store::{EventLevel, Lease, NewEvent, SafeBatch, StoreError, Worker};

use crate::world::World;

const TTL: Duration = Duration::from_secs(3_600);

pub(crate) async fn one_leads_and_the_next_has_a_higher_term(world: World) {
    let (one, two) = (&world.store, world.another().await);
    assert_eq!(one.read().leader().await.unwrap(), None);
    let (a, b) = tokio::join!(one.try_lead("a", "http://a", TTL), two.try_lead("b", "http://b", TTL));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert!(a.is_some() != b.is_some(), "{a:?} {b:?}");
    let (first, holder) = if let Some(term) = a { (term, "a") } else { (b.unwrap(), "b") };
    let leader = one.read().leader().await.unwrap().unwrap();
    assert_eq!((leader.term, leader.holder.as_str(), leader.address), (first, holder, format!("http://{holder}")));
    assert!(leader.expires > one.read().database_now().await.unwrap());
    assert_eq!(two.try_lead("c", "", TTL).await.unwrap(), None);

    assert!(one.renew(first, TTL).await.unwrap());
    // The same process, started again: it takes over from itself.
    let second = two.try_lead(holder, "", TTL).await.unwrap().unwrap();
    assert!(second > first);
    assert!(!one.renew(first, TTL).await.unwrap());
    assert!(!one.resign(first).await.unwrap());
    assert!(two.resign(second).await.unwrap());
    assert!(!two.renew(second, TTL).await.unwrap());
    let third = one.try_lead("c", "", Duration::ZERO).await.unwrap().unwrap();
    assert!(third > second);
    assert!(two.try_lead("d", "", TTL).await.unwrap().unwrap() > third, "the third had expired");
}

pub(crate) async fn a_stale_terms_write_is_refused(world: World) {
    let (store, job) = (&world.store, world.job().await);
    let old = store.try_lead("a", "", TTL).await.unwrap().unwrap();
    let event = NewEvent::new(EventLevel::Info, "job.running", "");
    let run = async |term| {
        let tx = store.begin_as_leader(term).await?;
        let moved = tx.set_job_state(job, JobState::Queued, JobState::Running, &event).await?;
        tx.commit().await.map(|()| moved)
    };
    let other = world.another().await;
    let new = other.try_lead("a", "", TTL).await.unwrap().unwrap();
    assert!(matches!(run(old).await, Err(StoreError::TermLost)));
    assert_eq!(store.read().job(job).await.unwrap().unwrap().state, JobState::Queued);
    assert_eq!(run(new).await.unwrap(), Some(2));

    assert!(other.renew(new, Duration::ZERO).await.unwrap());
    assert!(matches!(run(new).await, Err(StoreError::TermLost)), "expired");
}

pub(crate) async fn a_new_term_waits_for_the_writes_of_the_old_one(world: World) {
    let (store, job) = (&world.store, world.job().await);
    let old = store.try_lead("a", "", TTL).await.unwrap().unwrap();
    let tx = store.begin_as_leader(old).await.unwrap();
    tx.set_language(job, "de").await.unwrap();
    let other = world.another().await;
    let mut taking = tokio::spawn(async move { other.try_lead("a", "", TTL).await });
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut taking).await.is_err(), "it took over too early");
    tx.commit().await.unwrap();
    let new = taking.await.unwrap().unwrap().unwrap();
    assert!(new > old);
    assert!(matches!(store.begin_as_leader(old).await, Err(StoreError::TermLost)));
    assert_eq!(store.read().job(job).await.unwrap().unwrap().language.as_deref(), Some("de"));
    drop(store.begin_as_leader(new).await.unwrap());
    assert!(store.renew(new, TTL).await.unwrap(), "a dropped transaction holds nothing");
}

fn lease(world: &World, fence: i64) -> Lease {
    let now = world.clock.now();
    Lease {
        id: world.clock.new_id(),
        device: "cpu".into(),
        model: "tiny.en".into(),
        worker: "transcription-1".into(),
        boot: "b1".into(),
        slot: 0,
        wait: 7,
        fence,
        state: "granted".into(),
        memory_bytes: 1 << 20,
        granted: now,
        expires: now.plus(Duration::from_secs(15)),
    }
}

pub(crate) async fn fences_only_grow(world: World) {
    let (one, two) = (world.store.clone(), world.another().await);
    one.write(async |tx| tx.upsert_device("cpu", 1 << 30, 4).await).await.unwrap();
    for fence in [3, 9, 4] {
        let lease = lease(&world, fence);
        one.write(async |tx| tx.grant_lease(&lease).await).await.unwrap();
    }
    one.write(async |tx| tx.upsert_device("cpu", 2 << 30, 1).await).await.unwrap();
    let device = two.read().devices().await.unwrap().remove(0);
    assert_eq!((device.last_fence, device.memory_bytes, device.max_concurrent), (9, 2 << 30, 1));
}

pub(crate) async fn leases_are_known_by_id_and_fence(world: World) {
    let store = &world.store;
    let (one, two) = (lease(&world, 1), lease(&world, 2));
    store
        .write(async |tx| {
            tx.grant_lease(&one).await?;
            tx.grant_lease(&one).await?;
            tx.grant_lease(&two).await
        })
        .await
        .unwrap();
    let other = lease(&world, 2);
    let taken = store.write(async |tx| tx.grant_lease(&other).await).await;
    assert!(matches!(taken, Err(StoreError::Conflict { .. })));
    assert!(!store.write(async |tx| tx.set_lease_state(two.id, 1, "draining").await).await.unwrap());
    assert!(store.write(async |tx| tx.set_lease_state(two.id, 2, "draining").await).await.unwrap());
    let known = store.read().leases().await.unwrap();
    assert_eq!(known, [one.clone(), Lease { state: "draining".into(), ..two.clone() }]);
    assert!(!store.write(async |tx| tx.delete_lease(one.id, 2).await).await.unwrap());
    assert!(store.write(async |tx| tx.delete_lease(one.id, 1).await).await.unwrap());
    assert_eq!(store.read().leases().await.unwrap().len(), 1);
}

pub(crate) async fn workers_are_upserted_and_lost(world: World) {
    let store = &world.store;
    let worker = |id: &str, boot: &str| Worker {
        id: id.into(),
        boot: boot.into(),
        service: "transcription".into(),
        takes: vec![(TaskKind::Prepare, 2), (TaskKind::Transcribe, 16)],
        version: "0.1.0".into(),
        live: true,
        heartbeat: world.clock.now(),
        running: "[]".into(),
        trouble: "rabbitmq: refused".into(),
        last_error: None,
    };
    let group = [worker("t1", "b1"), worker("t2", "b1"), worker("t1", "b2")];
    store.write(async |tx| tx.upsert_workers(&group).await).await.unwrap();
    assert_eq!(store.read().workers().await.unwrap(), [worker("t1", "b2"), worker("t2", "b1")]);
    // What went wrong outlives what the worker says of itself.
    store.write(async |tx| tx.worker_error("t1", "InputInvalid: no audio").await).await.unwrap();
    store.write(async |tx| tx.upsert_workers(&group).await).await.unwrap();
    let error = store.read().workers().await.unwrap().remove(0).last_error.unwrap();
    assert_eq!((error.message.as_str(), error.at), ("InputInvalid: no audio", world.clock.now()));
    assert!(!store.write(async |tx| tx.mark_worker_lost("t1", "b1").await).await.unwrap());
    assert!(store.write(async |tx| tx.mark_worker_lost("t1", "b2").await).await.unwrap());
    world.clock.advance(Duration::from_secs(9));
    let silent = async |seconds| {
        store.write(async |tx| tx.mark_silent_workers_lost(Duration::from_secs(seconds)).await).await.unwrap()
    };
    assert_eq!(silent(10).await, []);
    let lost = silent(8).await;
    assert_eq!(lost.iter().map(|worker| worker.id.as_str()).collect::<Vec<_>>(), ["t2"]);
    assert!(store.read().workers().await.unwrap().iter().all(|worker| !worker.live));
    let purge =
        async |seconds| store.write(async |tx| tx.purge_workers(Duration::from_secs(seconds)).await).await.unwrap();
    assert_eq!((purge(10).await, purge(8).await), (0, 2));

    store.write(async |tx| tx.upsert_workers(&[worker("t3", "b1")]).await).await.unwrap();
    for (boot, left) in [("b2", 1), ("b1", 0)] {
        store.write(async |tx| tx.forget_worker("t3", boot).await).await.unwrap();
        assert_eq!(store.read().workers().await.unwrap().len(), left);
    }
}

pub(crate) async fn what_fitted_is_remembered_for_a_week(world: World) {
    let (store, job) = (&world.store, world.job().await);
    let batch = |length, most| SafeBatch { length, most };
    let tx = store.begin().await.unwrap();
    for (model, learned) in [("m", batch(64, 8)), ("m", batch(0, 2)), ("m", batch(64, 4)), ("n", batch(64, 1))] {
        tx.learn_batch("cpu", model, learned).await.unwrap();
    }
    for bytes in [5, 9, 7] {
        tx.raise_peak_memory(job, bytes).await.unwrap();
    }
    let now = tx.now();
    tx.commit().await.unwrap();
    let known = store.read().safe_batches("cpu", "m", now).await.unwrap();
    assert_eq!(known, [batch(0, 2), batch(64, 4)]);
    assert_eq!(store.read().safe_batches("cuda:0", "m", now).await.unwrap(), []);
    let later = now.plus(Duration::from_secs(8 * 24 * 3_600));
    assert_eq!(store.read().safe_batches("cpu", "m", later).await.unwrap(), []);
    assert_eq!(store.read().job(job).await.unwrap().unwrap().peak_memory_bytes, 9);
}
