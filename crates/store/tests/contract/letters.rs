use std::{collections::BTreeMap, time::Duration};

use warren_store::{LetterFilter, LetterState, NewLetter};

use crate::world::World;

pub(crate) fn letter(id: &str, class: &str) -> NewLetter {
    NewLetter {
        id: id.into(),
        queue: "warren.task.embed".into(),
        kind: "warren.v1.Task".into(),
        class: class.into(),
        cause: "why".into(),
        fingerprint: format!("{class}-1"),
        job_id: None,
        task_id: None,
        dispatch: Some(3),
        body: b"\0not json\xff".to_vec(),
        content_type: "application/json".into(),
        headers: BTreeMap::from([("a".into(), "b".into())]),
    }
}

pub(crate) async fn a_letter_is_indexed_once_and_replayed(world: World) {
    let store = &world.store;
    let found = letter("l1", "malformed");
    let first = world.clock.now();
    assert!(store.write(async |tx| tx.insert_letter(&found).await).await.unwrap());
    world.clock.advance(Duration::from_secs(1));
    assert!(!store.write(async |tx| tx.insert_letter(&found).await).await.unwrap());
    let known = store.read().letter("l1").await.unwrap().unwrap();
    assert_eq!((known.letter, known.state, known.first_seen), (found, LetterState::Dead, first));
    assert_eq!((known.last_seen, known.generation), (world.clock.now(), 0));

    store.write(async |tx| tx.insert_letter(&letter("l2", "malformed")).await).await.unwrap();
    let begin = async |id| store.write(async |tx| tx.begin_replay(id, Some("ada r1")).await).await.unwrap();
    assert_eq!((begin("l1").await, begin("l1").await, begin("nobody's").await), (Some(1), None, None));
    assert_eq!(store.read().leaving_letters().await.unwrap(), ["l1"]);
    let ids = ["l1".to_owned(), "l2".to_owned()];
    let end = async || store.write(async |tx| tx.letters_left(&ids).await).await.unwrap();
    assert_eq!((end().await, end().await), (1, 0));
    let known = store.read().letter("l1").await.unwrap().unwrap();
    assert_eq!((known.state, known.replays), (LetterState::Replayed, 1));
    assert_eq!(store.read().letter("l2").await.unwrap().unwrap().state, LetterState::Dead);
    assert!(store.read().leaving_letters().await.unwrap().is_empty());
    let of = async |request: &str| {
        let filter =
            LetterFilter { states: Vec::new(), replay_request: Some(request.into()), ..LetterFilter::default() };
        store.read().letters(&filter, None, 9).await.unwrap().letters
    };
    assert_eq!(of("ada r1").await, [known]);
    assert!(of("ada r2").await.is_empty());
}

pub(crate) async fn a_letter_that_nobody_needs_leaves_the_queue(world: World) {
    let store = &world.store;
    store.write(async |tx| tx.insert_letter(&letter("l1", "WorkerLost")).await).await.unwrap();
    let void = async || store.write(async |tx| tx.void_letter("l1", "its task is done").await).await.unwrap();
    assert_eq!((void().await, void().await), (true, false));
    let replay = store.write(async |tx| tx.begin_replay("l1", None).await).await.unwrap();
    assert_eq!(replay, None, "there is nothing to do again");
    assert_eq!(store.read().leaving_letters().await.unwrap(), ["l1"]);
    let left = async || store.write(async |tx| tx.letters_left(&["l1".to_owned()]).await).await.unwrap();
    assert_eq!((left().await, left().await), (1, 0));
    assert!(store.read().leaving_letters().await.unwrap().is_empty());
    let known = store.read().letter("l1").await.unwrap().unwrap();
    assert_eq!((known.state, known.void_reason.as_deref()), (LetterState::Void, Some("its task is done")));
    assert_eq!(known.replays, 0);
}

pub(crate) async fn letters_are_paged_with_a_total(world: World) {
    let store = &world.store;
    let job = world.clock.new_id();
    store
        .write(async |tx| {
            for n in 0..5 {
                tx.insert_letter(&NewLetter { job_id: Some(job), ..letter(&format!("l{n}"), "WorkerLost") }).await?;
            }
            tx.insert_letter(&letter("m", "malformed")).await?;
            tx.insert_letter(&NewLetter { job_id: Some(job), ..letter("gone", "WorkerLost") }).await?;
            tx.begin_replay("gone", None).await?;
            tx.letters_left(&["gone".to_owned()]).await
        })
        .await
        .unwrap();
    let filter = LetterFilter { class: Some("WorkerLost".into()), job: Some(job), ..LetterFilter::default() };
    let first = store.read().letters(&filter, None, 3).await.unwrap();
    assert_eq!((first.total, first.letters.len()), (5, 3));
    let rest = store.read().letters(&filter, first.letters.last().map(|l| l.page_key()).as_ref(), 3).await.unwrap();
    assert_eq!(rest.total, 5);
    let ids: Vec<_> = first.letters.iter().chain(&rest.letters).map(|letter| letter.letter.id.as_str()).collect();
    assert_eq!(ids, ["l4", "l3", "l2", "l1", "l0"]);
    let alike = LetterFilter { fingerprint: Some("malformed-1".into()), ..LetterFilter::default() };
    assert_eq!(store.read().letters(&alike, None, 9).await.unwrap().total, 1);
    let all = LetterFilter { states: Vec::new(), ..LetterFilter::default() };
    assert_eq!(store.read().letters(&all, None, 9).await.unwrap().total, 7);
}
