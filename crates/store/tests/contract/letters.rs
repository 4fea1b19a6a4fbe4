use std::{collections::BTreeMap, time::Duration};

use warren_store::{
    LetterFilter, LetterState, NewLetter, NewReplay, PutBack, ReplayCounts, ReplayLetterState, ReplayState,
};

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
        replay_of: None,
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
    let begin = async |id| store.write(async |tx| tx.begin_replay(id).await).await.unwrap();
    assert_eq!((begin("l1").await, begin("l1").await, begin("nobody's").await), (Some(1), None, None));
    assert_eq!(store.read().leaving_letters().await.unwrap(), ["l1"]);
    let ids = ["l1".to_owned(), "l2".to_owned()];
    let end = async || store.write(async |tx| tx.letters_left(&ids).await).await.unwrap();
    assert_eq!((end().await, end().await), (1, 0));
    let known = store.read().letter("l1").await.unwrap().unwrap();
    assert_eq!((known.state, known.replays), (LetterState::Replayed, 1));
    assert_eq!(store.read().letter("l2").await.unwrap().unwrap().state, LetterState::Dead);
    assert!(store.read().leaving_letters().await.unwrap().is_empty());
}

pub(crate) async fn a_letter_that_nobody_needs_leaves_the_queue(world: World) {
    let store = &world.store;
    store.write(async |tx| tx.insert_letter(&letter("l1", "WorkerLost")).await).await.unwrap();
    let void = async || store.write(async |tx| tx.void_letter("l1", "its task is done").await).await.unwrap();
    assert_eq!((void().await, void().await), (true, false));
    let replay = store.write(async |tx| tx.begin_replay("l1").await).await.unwrap();
    assert_eq!(replay, None, "there is nothing to do again");
    assert_eq!(store.read().leaving_letters().await.unwrap(), ["l1"]);
    let left = async || store.write(async |tx| tx.letters_left(&["l1".to_owned()]).await).await.unwrap();
    assert_eq!((left().await, left().await), (1, 0));
    assert!(store.read().leaving_letters().await.unwrap().is_empty());
    let known = store.read().letter("l1").await.unwrap().unwrap();
    assert_eq!((known.state, known.reason.as_deref()), (LetterState::Void, Some("its task is done")));
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
            tx.begin_replay("gone").await?;
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

pub(crate) async fn a_thousand_letters_of_three_causes_are_three_groups(world: World) {
    let store = &world.store;
    let (job, first) = (world.clock.new_id(), world.clock.now());
    for (class, count) in [("WorkerLost", 600), ("malformed", 300), ("Internal", 100)] {
        let letters: Vec<NewLetter> =
            (0..count).map(|n| NewLetter { job_id: Some(job), ..letter(&format!("{class} {n:03}"), class) }).collect();
        store
            .write(async |tx| {
                for letter in &letters {
                    tx.insert_letter(letter).await?;
                }
                Ok(())
            })
            .await
            .unwrap();
        world.clock.advance(Duration::from_secs(1));
    }
    let all = LetterFilter::default();
    let groups = store.read().letter_groups(&all, 500).await.unwrap();
    let found: Vec<_> = groups.iter().map(|group| (group.class.as_str(), group.letters, group.jobs)).collect();
    assert_eq!(found, [("WorkerLost", 600, 1), ("malformed", 300, 1), ("Internal", 100, 1)]);
    let group = &groups[0];
    assert_eq!((group.fingerprint.as_str(), group.cause.as_str(), group.parked), ("WorkerLost-1", "why", 0));
    assert_eq!((group.queue.as_str(), group.kind.as_str()), ("warren.task.embed", "warren.v1.Task"));
    assert_eq!((group.first_seen, group.last_seen), (first, first));
    assert_eq!(store.read().letter_groups(&all, 1).await.unwrap().len(), 1);

    let later = LetterFilter { since: Some(first.plus(Duration::from_secs(1))), ..LetterFilter::default() };
    let earlier = LetterFilter { before: later.since, ..LetterFilter::default() };
    assert_eq!(store.read().count_letters(&later).await.unwrap(), 400);
    assert_eq!(store.read().count_letters(&earlier).await.unwrap(), 600);
    let queue = LetterFilter { queue: Some("warren.job".into()), ..LetterFilter::default() };
    assert_eq!(store.read().count_letters(&queue).await.unwrap(), 0);
    let oldest = store.read().oldest_letters(&later, 2).await.unwrap();
    assert_eq!(
        oldest.iter().map(|letter| letter.letter.id.as_str()).collect::<Vec<_>>(),
        ["malformed 000", "malformed 001"]
    );
    let counts = store.read().letter_counts().await.unwrap();
    assert_eq!((counts.len(), counts[0].letters, counts[0].bytes, counts[0].oldest), (3, 600, 600 * 10, first));
    assert_eq!(store.read().letters_in_queue().await.unwrap(), 1_000);
}

pub(crate) async fn a_letter_that_comes_back_twice_is_parked(world: World) {
    let store = &world.store;
    let insert = async |letter: &NewLetter| store.write(async |tx| tx.insert_letter(letter).await).await.unwrap();
    let replay = async |id: &str| store.write(async |tx| tx.begin_replay(id).await).await.unwrap();
    let known = async |id: &str| store.read().letter(id).await.unwrap().unwrap();
    let task = world.clock.new_id();
    let of = |id: &str| NewLetter { task_id: Some(task), ..letter(id, "Internal") };
    insert(&of("l1")).await;
    replay("l1").await;
    insert(&NewLetter { replay_of: Some("l1".into()), ..of("l2") }).await;
    assert_eq!((known("l2").await.state, known("l2").await.replays), (LetterState::Dead, 1));
    replay("l2").await;
    insert(&of("l3")).await;
    let third = known("l3").await;
    assert_eq!((third.state, third.replays, third.letter.replay_of.as_deref()), (LetterState::Parked, 2, Some("l2")));
    assert_eq!(store.read().came_back("l2").await.unwrap(), [third]);
    assert_eq!(replay("l3").await, Some(1), "who means this one may");
    insert(&letter("other", "Internal")).await;
    assert_eq!(known("other").await.replays, 0);
}

pub(crate) async fn a_replay_goes_on_where_it_was(world: World) {
    let store = &world.store;
    for id in ["l1", "l2", "l3"] {
        store.write(async |tx| tx.insert_letter(&letter(id, "Internal")).await).await.unwrap();
    }
    let new = NewReplay {
        id: "ada r1".into(),
        actor: "ada".into(),
        reason: "mended".into(),
        rate: 0.5,
        canary: 1,
        forced: true,
        from_index: true,
        edited_body: Some(b"{}".to_vec()),
    };
    let letters = ["l3", "l1", "gone"].map(str::to_owned);
    let insert = async || store.write(async |tx| tx.insert_replay(&new, &letters).await).await.unwrap();
    assert_eq!((insert().await, insert().await), (true, false));
    let known = store.read().replay("ada r1").await.unwrap().unwrap();
    assert_eq!((&known.asked, known.state, known.created), (&new, ReplayState::Running, world.clock.now()));
    assert_eq!(store.read().running_replays().await.unwrap(), [known]);
    assert_eq!(store.read().waiting_letters("ada r1", 2).await.unwrap(), [(0, "l3".into()), (1, "l1".into())]);
    store
        .write(async |tx| {
            tx.begin_replay("l3").await?;
            tx.replay_letter_done("ada r1", 0, None).await?;
            tx.replay_letter_done("ada r1", 2, Some("there is no such letter")).await?;
            tx.insert_letter(&NewLetter { replay_of: Some("l3".into()), ..letter("l4", "Internal") }).await
        })
        .await
        .unwrap();
    let counts = store.read().replay_counts("ada r1").await.unwrap();
    assert_eq!(counts, ReplayCounts { waiting: 1, sent: 1, back: 1 });
    let told = store.read().replay_letters("ada r1").await.unwrap();
    let states: Vec<_> = told.iter().map(|one| (one.letter.as_str(), one.state, one.came_back.as_deref())).collect();
    assert_eq!(
        states,
        [
            ("l3", ReplayLetterState::Sent, Some("l4")),
            ("l1", ReplayLetterState::Waiting, None),
            ("gone", ReplayLetterState::Refused, None)
        ]
    );
    assert_eq!(
        (told[2].refused.as_deref(), told[0].queue.as_str()),
        (Some("there is no such letter"), "warren.task.embed")
    );
    let end = async || store.write(async |tx| tx.end_replay("ada r1", Some("enough")).await).await.unwrap();
    assert_eq!((end().await, end().await), (true, false));
    let ended = store.read().replay("ada r1").await.unwrap().unwrap();
    assert_eq!((ended.state, ended.stopped.as_deref()), (ReplayState::Stopped, Some("enough")));
    assert!(store.read().running_replays().await.unwrap().is_empty());
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(store.write(async |tx| tx.purge_replays(Duration::from_secs(30)).await).await.unwrap(), 1);
    assert!(store.read().replay_letters("ada r1").await.unwrap().is_empty());
}

pub(crate) async fn letters_are_purged_discarded_and_put_back(world: World) {
    let store = &world.store;
    for id in ["l1", "l2"] {
        store.write(async |tx| tx.insert_letter(&letter(id, "Internal")).await).await.unwrap();
    }
    let known = async |id: &str| store.read().letter(id).await.unwrap().unwrap();
    let ids = ["l1".to_owned()];
    let purge = async || store.write(async |tx| tx.letters_purged(&ids).await).await.unwrap();
    assert_eq!((purge().await, purge().await), (vec!["l1".to_owned()], Vec::new()));
    assert_eq!(known("l1").await.stays(false).map(|why| why.contains("index")), Some(true));
    assert_eq!(known("l1").await.stays(true), None);
    let lying = store.read().letters_lying(world.clock.now().plus(Duration::from_secs(1))).await.unwrap();
    assert_eq!((lying, store.read().letters_in_queue().await.unwrap()), (vec!["l2".to_owned()], 1));
    store.write(async |tx| tx.begin_replay("l1").await).await.unwrap();
    assert_eq!(known("l1").await.state, LetterState::Replayed, "there is nothing to take out");

    let discard = async || store.write(async |tx| tx.discard_letter("l2", "no use").await).await.unwrap();
    assert_eq!((discard().await, discard().await), (true, false));
    let put_back = async |new: &NewLetter| store.write(async |tx| tx.put_letter_back(new, 0).await).await.unwrap();
    let second = known("l2").await;
    assert_eq!(
        (second.stays(true), put_back(&second.letter).await),
        (Some("it was discarded: no use".into()), PutBack::Leaving)
    );
    store.write(async |tx| tx.letters_left(&["l2".to_owned()]).await).await.unwrap();
    assert_eq!(put_back(&second.letter).await, PutBack::Publish);
    assert_eq!((known("l2").await.state, known("l2").await.reason), (LetterState::Dead, None));
    assert_eq!(put_back(&letter("l3", "Internal")).await, PutBack::Publish);
    assert_eq!(put_back(&known("l1").await.letter).await, PutBack::Refused(LetterState::Replayed));
}

pub(crate) async fn letters_that_lie_there_after_all_leave_or_are_dead_again(world: World) {
    let store = &world.store;
    for id in ["purged", "discarded", "dead"] {
        store.write(async |tx| tx.insert_letter(&letter(id, "Internal")).await).await.unwrap();
    }
    let gone = ["purged".to_owned(), "discarded".to_owned()];
    store.write(async |tx| tx.discard_letter("discarded", "no use").await).await.unwrap();
    store.write(async |tx| tx.letters_purged(&gone).await).await.unwrap();
    store.write(async |tx| tx.letters_left(&gone).await).await.unwrap();
    assert_eq!(store.read().letters_in_queue().await.unwrap(), 1);

    let ids = ["purged", "discarded", "dead", "stranger"].map(str::to_owned);
    assert_eq!(store.read().known_letters(&ids).await.unwrap().len(), 3);
    let found = async || store.write(async |tx| tx.letters_found(&ids).await).await.unwrap();
    assert_eq!((found().await, found().await), (vec!["purged".to_owned()], Vec::new()));
    assert_eq!(store.read().letter("purged").await.unwrap().unwrap().state, LetterState::Dead);
    assert_eq!(store.read().leaving_letters().await.unwrap(), ["discarded"]);
    assert_eq!(store.read().letters_in_queue().await.unwrap(), 3);
}
