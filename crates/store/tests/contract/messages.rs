use std::{collections::BTreeMap, time::Duration};

use warren_store::{NewOutbox, StoreError};

use crate::world::World;

fn message(n: usize, relay: &str) -> NewOutbox {
    NewOutbox {
        exchange: "warren.task".into(),
        routing_key: "embed".into(),
        kind: "warren.v1.Task".into(),
        message_id: format!("m{n}"),
        body: vec![0, 159, 146, n as u8],
        headers: BTreeMap::from([("x-warren-task".into(), format!("t{n}"))]),
        relay: relay.into(),
    }
}

pub(crate) async fn the_outbox_survives_and_is_relayed(world: World) {
    let store = &world.store;
    let group: Vec<_> = (0..4).map(|n| message(n, "c1")).collect();
    store.write(async |tx| tx.outbox_many(group.to_vec()).await).await.unwrap();
    let lost: Result<(), _> = store
        .write(async |tx| {
            tx.outbox(&message(9, "c1")).await?;
            Err(StoreError::Conflict { reason: "changed its mind".into() })
        })
        .await;
    assert!(matches!(lost, Err(StoreError::Conflict { .. })));
    store.write(async |tx| tx.outbox(&message(4, "c2")).await).await.unwrap();
    store.close().await.unwrap();

    // The process ended before it published anything.
    let store = world.another().await;
    let unsent = store.read().unsent("c1", &[], 3).await.unwrap();
    assert_eq!(unsent.iter().map(|row| row.message.clone()).collect::<Vec<_>>(), group[..3]);
    let age = Duration::from_secs(5);
    assert!(store.read().unsent_older_than(age, &[], 9).await.unwrap().is_empty());
    world.clock.advance(age + Duration::from_millis(1));
    assert_eq!(store.read().unsent_older_than(age, &[], 9).await.unwrap().len(), 5);
    assert_eq!(store.read().unsent_of_others("c1", age, &[], 9).await.unwrap().len(), 1);

    let ids: Vec<_> = unsent.iter().map(|row| row.id).collect();
    store.write(async |tx| tx.forget_outbox(&ids).await).await.unwrap();
    assert_eq!(store.read().unsent("c1", &[], 9).await.unwrap().len(), 1);
    assert_eq!(store.read().oldest_unsent().await.unwrap(), Some(unsent[0].created));
    assert_eq!(store.read().unsent_count().await.unwrap(), 2);
}

pub(crate) async fn messages_behind_a_full_queue_are_found(world: World) {
    let store = &world.store;
    let to = |n: usize, key: &str| NewOutbox { routing_key: key.into(), ..message(n, "c1") };
    let group = [to(0, "full"), to(1, "full"), to(2, "embed"), to(3, "prepare"), to(4, "embed")];
    store.write(async |tx| tx.outbox_many(group.to_vec()).await).await.unwrap();
    world.clock.advance(Duration::from_millis(2));
    let full = [group[0].destination()];
    for (but, limit, expected) in [
        (&[][..], 3, vec![0, 1, 2]),
        (&full, 2, vec![2, 3]),
        (&full, 9, vec![2, 3, 4]),
        (&[group[0].destination(), group[2].destination()], 9, vec![3]),
    ] {
        let expected: Vec<_> = expected.into_iter().map(|n: usize| group[n].clone()).collect();
        for found in [
            store.read().unsent("c1", but, limit).await.unwrap(),
            store.read().unsent_older_than(Duration::from_millis(1), but, limit).await.unwrap(),
        ] {
            assert_eq!(found.into_iter().map(|row| row.message).collect::<Vec<_>>(), expected);
        }
    }
    let embed = group[2].destination();
    for (relay, limit, expected) in
        [("c1", 1, &group[2..3]), ("c1", 9, &[group[2].clone(), group[4].clone()]), ("c2", 9, &[])]
    {
        let found = store.read().unsent_to(relay, &embed, limit).await.unwrap();
        assert_eq!(found.into_iter().map(|row| row.message).collect::<Vec<_>>(), expected);
    }
}

pub(crate) async fn a_message_has_its_effect_once(world: World) {
    let store = &world.store;
    let first =
        async |id: &str, consumer: &str| store.write(async |tx| tx.first_time(id, consumer).await).await.unwrap();
    assert!(first("a", "results").await);
    assert!(!first("a", "results").await);
    assert!(first("a", "commands").await);
    let group = ["b", "a", "c", "b"];
    let mut new: Vec<_> =
        store.write(async |tx| tx.first_time_many(&group, "results").await).await.unwrap().into_iter().collect();
    new.sort_unstable();
    assert_eq!(new, ["b", "c"]);
    assert!(store.read().has_met("c", "results").await.unwrap());
    assert!(!store.read().has_met("c", "commands").await.unwrap());
    world.clock.advance(Duration::from_secs(60));
    assert!(first("d", "results").await);
    assert_eq!(store.write(async |tx| tx.purge_inbox(Duration::from_secs(30)).await).await.unwrap(), 4);
    assert!(store.read().has_met("d", "results").await.unwrap());
}
