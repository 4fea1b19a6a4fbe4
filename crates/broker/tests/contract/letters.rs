//! Dead letters: the index and the scan.

use std::{collections::BTreeMap, time::Duration};

use lapin::options::BasicRejectOptions;
use tokio::sync::mpsc;
use uuid::Uuid;
use warren_broker::{
    Letter, PublishError,
    dead::{self, Decision},
};
use warren_fault::{Code, Fault};
use warren_messages::{envelope::headers, routes};

use crate::support::{Lab, PREPARE, id, next, number, task, within};

/// Letters of tasks `0..count`, in order of arrival.
async fn bury(lab: &Lab, count: u32) -> Vec<Letter> {
    let mut index = lab.letters();
    let stop = lab.stopping.child_token();
    let (broker, stopping) = (lab.broker.clone(), stop.clone());
    let handler = crate::support::Work(|_, _| async { Err(Fault::permanent(Code::BlobMissing, "gone")) });
    let consumer = tokio::spawn(async move { broker.consume(PREPARE, 1, handler, stopping).await });
    let mut letters = Vec::new();
    for number in 0..count {
        lab.publish_task(number).await;
        letters.push(next("a letter", &mut index).await);
    }
    stop.cancel();
    consumer.await.expect("no panic");
    letters
}

fn replay(letter: &Letter, message_id: Uuid) -> Decision {
    let mut headers = letter.headers.clone();
    headers.insert(headers::REPLAY_OF.to_owned(), letter.id.to_string());
    let (exchange, key, body) = (routes::TASK_EXCHANGE.to_owned(), letter.key.clone(), letter.body.clone());
    Decision::Replay { exchange, key, body, headers, message_id }
}

#[tokio::test]
async fn a_scan_replays_exactly_the_selected() {
    let lab = Lab::new().await;
    let letters = bury(&lab, 6).await;
    let mut seen = Vec::new();
    let report = dead::scan(&lab.broker, Duration::ZERO, |letter| {
        seen.push(letter.id);
        match letters.iter().position(|known| known.id == letter.id) {
            Some(1) => replay(letter, id(101)),
            Some(4) => replay(letter, id(104)),
            Some(2) => Decision::Drop,
            _ => Decision::Leave,
        }
    })
    .await
    .expect("scanned");
    assert_eq!(seen, letters.iter().map(|letter| letter.id).collect::<Vec<_>>(), "the index has the same ids");
    assert_eq!(
        (report.seen, report.replayed, report.dropped),
        (6, vec![letters[1].id, letters[4].id], vec![letters[2].id])
    );

    let (sender, mut runs) = mpsc::unbounded_channel();
    lab.consume(1, move |task, delivery| {
        let _ = sender.send((number(&task), delivery));
        async { Ok(()) }
    });
    for wanted in [1, 4] {
        let (number, delivery) = next("a replayed task", &mut runs).await;
        assert_eq!((number, delivery.message_id), (wanted, id(100 + wanted)));
        assert_eq!(delivery.headers[headers::REPLAY_OF], letters[wanted as usize].id.to_string());
        assert!(!delivery.headers.contains_key(headers::LETTER), "it is no letter any more");
    }
    let mut left = Vec::new();
    let report = dead::scan(&lab.broker, Duration::ZERO, |letter| {
        left.push(letter.id);
        Decision::Leave
    })
    .await
    .expect("scanned");
    assert_eq!(left, [letters[0].id, letters[3].id, letters[5].id]);
    assert_eq!(report.seen, 3);
    assert!(runs.try_recv().is_err(), "nothing else was replayed");
}

#[tokio::test]
async fn a_letter_that_cannot_be_replayed_stays() {
    let lab = Lab::new().await;
    let letters = bury(&lab, 2).await;
    let report = dead::scan(&lab.broker, Duration::ZERO, |letter| Decision::Replay {
        exchange: routes::TASK_EXCHANGE.to_owned(),
        key: if letter.id == letters[0].id { "nowhere".to_owned() } else { "x".repeat(300) },
        body: letter.body.clone(),
        headers: BTreeMap::new(),
        message_id: id(9),
    })
    .await
    .expect("scanned");
    assert_eq!((report.seen, report.replayed.len(), report.refused.len()), (2, 0, 2));
    assert!(matches!(report.refused[0], (_, PublishError::Unroutable { .. })));
    assert!(matches!(report.refused[1], (_, PublishError::Rejected(_))));
    assert_eq!(lab.raw().await.ready(routes::DEAD_QUEUE).await, 2);
}

#[tokio::test]
async fn letters_of_the_broker_are_indexed_as_well() {
    let lab = Lab::new().await;
    let mut index = lab.letters();
    lab.publish_task(1).await;
    let got = lab.raw().await;
    let message = got.get(PREPARE.queue).await.expect("the task");
    message.reject(BasicRejectOptions { requeue: false }).await.expect("rejected");
    let letter = next("a letter", &mut index).await;
    assert_eq!(
        (letter.queue.as_str(), letter.key.as_str(), letter.class.as_str()),
        (PREPARE.queue, PREPARE.key, "rejected")
    );
    assert_eq!((letter.deaths[0].exchange.as_str(), letter.deaths[0].count), (routes::TASK_EXCHANGE, 1));
    assert_eq!(letter.headers[headers::TASK], task(1).id);
    // The broker writes to the two queues one after the other.
    let found = async {
        let mut found = Vec::new();
        while found.is_empty() {
            let look = |letter: &Letter| {
                found.push(letter.id);
                Decision::Leave
            };
            dead::scan(&lab.broker, Duration::ZERO, look).await.expect("scanned");
        }
        found
    };
    assert_eq!(within("it is on the other queue too", found).await, [letter.id]);
}
