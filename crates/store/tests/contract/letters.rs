use std::{collections::BTreeMap, time::Duration};

use warren_store::{LetterFilter, LetterState, NewLetter};

use crate::world::World;

fn letter(id: &str, class: &str) -> NewLetter {
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

    let ids = ["l1".to_owned(), "l2".to_owned()];
    let begun = store.write(async |tx| tx.begin_replay(&ids, &[LetterState::Dead]).await).await.unwrap();
    assert_eq!(begun.iter().map(|each| (each.id.as_str(), each.generation)).collect::<Vec<_>>(), [("l1", 1)]);
    let again = store.write(async |tx| tx.begin_replay(&ids, &[LetterState::Dead]).await).await.unwrap();
    assert!(again.is_empty());
    let moved = async |from, to| store.write(async |tx| tx.set_letter_state("l1", from, to).await).await.unwrap();
    assert!(!moved(LetterState::Dead, LetterState::Discarded).await);
    assert!(moved(LetterState::Replaying, LetterState::Replayed).await);
    assert_eq!(store.read().letter("l1").await.unwrap().unwrap().replays, 1);
    world.clock.advance(Duration::from_secs(1));
    let now = world.clock.now();
    assert_eq!(store.write(async |tx| tx.purge_letters(now).await).await.unwrap(), 1);
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
            tx.set_letter_state("gone", LetterState::Dead, LetterState::Discarded).await
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
