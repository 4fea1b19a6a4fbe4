//! Dead letters: the index, the scan, and letters that somebody moves by hand.

use std::collections::BTreeSet;

use lapin::{
    BasicProperties,
    options::{BasicAckOptions, BasicRejectOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::sync::mpsc;
use uuid::Uuid;
use warren_broker::{Letter, dead};
use warren_fault::{Code, Fault};
use warren_messages::{
    envelope::{Envelope, headers},
    routes,
    wire::{self, command},
};
use warren_telemetry::metrics::render;

use crate::support::{Collect, Lab, PREPARE, id, next, number, task, within};

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

async fn lying(lab: &Lab) -> BTreeSet<Uuid> {
    dead::lying(&lab.broker, &BTreeSet::new()).await.expect("scanned").ids
}

#[tokio::test]
async fn exactly_the_named_letters_are_removed() {
    let lab = Lab::new().await;
    let letters: Vec<Uuid> = bury(&lab, 6).await.iter().map(|letter| letter.id).collect();
    assert!(!render().contains("warren_dead_letters_made_total"), "whoever indexes them counts them");
    let wanted = BTreeSet::from([letters[1], letters[4], id(99)]);
    let removed = dead::remove(&lab.broker, &wanted).await.expect("scanned");
    assert_eq!(removed, BTreeSet::from([letters[1], letters[4]]), "the index has the same ids; the third is nowhere");
    // The broker gives back what a scan held a little after it.
    let raw = lab.raw().await;
    within("four are left", async { while raw.ready(routes::DEAD_QUEUE).await != 4 {} }).await;
    let stay: BTreeSet<Uuid> = letters.iter().copied().filter(|id| !wanted.contains(id)).collect();
    let found = async { while lying(&lab).await != stay {} };
    within("the others are seen where they lie", found).await;
    assert_eq!(dead::remove(&lab.broker, &wanted).await, Ok(BTreeSet::new()));
    let (rest, mut stayed) = (letters.into_iter().collect(), BTreeSet::new());
    let all = async {
        while stayed.len() < 4 {
            stayed.extend(dead::remove(&lab.broker, &rest).await.expect("scanned"));
        }
    };
    within("the others to be found where they were", all).await;
    assert!(stayed.is_disjoint(&removed));
}

#[tokio::test]
async fn one_copy_of_each_letter_is_kept_and_can_be_read() {
    let lab = Lab::new().await;
    let letters = bury(&lab, 2).await;
    let raw = lab.raw().await;
    let got = raw.get(routes::DEAD_QUEUE).await.expect("a letter");
    for _ in 0..2 {
        raw.publish(routes::DEAD_QUEUE, &got.data, got.properties.clone()).await;
    }
    got.ack(BasicAckOptions::default()).await.expect("acked");
    let there = async { while raw.ready(routes::DEAD_QUEUE).await != 3 {} };
    within("three messages to lie there", there).await;
    let all: BTreeSet<Uuid> = letters.iter().map(|letter| letter.id).collect();
    assert_eq!(lying(&lab).await, all);
    // The broker gives back what a scan held a little after it.
    let left = async { while raw.ready(routes::DEAD_QUEUE).await != 2 {} };
    within("one copy of each to be left", left).await;
    let wanted = BTreeSet::from([letters[0].id, id(99)]);
    let found = dead::lying(&lab.broker, &wanted).await.expect("scanned");
    let read: Vec<_> = found.read.iter().map(|letter| (letter.id, &letter.body)).collect();
    assert_eq!((found.ids, read), (all.clone(), vec![(letters[0].id, &letters[0].body)]));
    let found = async { while lying(&lab).await != all {} };
    within("both to lie there still", found).await;
}

/// Takes the first letter from `warren.dead` and publishes it to `queue`, as RabbitMQ's "Move messages" does.
async fn move_by_hand(lab: &Lab, queue: &str) {
    let raw = lab.raw().await;
    let got = raw.get(routes::DEAD_QUEUE).await.expect("a letter");
    raw.publish(queue, &got.data, got.properties.clone()).await;
    got.ack(BasicAckOptions::default()).await.expect("acked");
}

#[tokio::test]
async fn a_letter_moved_by_hand_is_replayed_instead_of_done() {
    let lab = Lab::new().await;
    let letter = bury(&lab, 1).await.remove(0);
    let (sender, mut commands) = mpsc::unbounded_channel();
    let (broker, stopping) = (lab.broker.clone(), lab.stopping.clone());
    tokio::spawn(async move { broker.consume_group(routes::COMMANDS, 8, Collect(sender), stopping).await });
    let (ran, mut runs) = mpsc::unbounded_channel();
    lab.consume(1, move |task, _| {
        let _ = ran.send(number(&task));
        async { Ok(()) }
    });
    move_by_hand(&lab, PREPARE.queue).await;
    let asked = next("a command", &mut commands).await.message;
    assert_eq!(asked.actor, "by hand");
    let Some(command::Command::Replay(replay)) = asked.command else { panic!("{asked:?}") };
    assert_eq!((replay.letters, replay.edited_body), (vec![letter.id.to_string()], letter.body));
    // What comes after it is work as usual.
    lab.publish_task(7).await;
    assert_eq!(next("a run", &mut runs).await, 7);
    assert!(runs.try_recv().is_err());
}

#[tokio::test]
async fn a_report_moved_by_hand_is_replayed_as_well() {
    let lab = Lab::new().await;
    let report = wire::TaskReport {
        task: task(1).id,
        job: task(1).job,
        dispatch: 1,
        report: Some(wire::task_report::Report::PreparedAll(wire::PreparedAll::default())),
        ..Default::default()
    };
    let (letter, envelope) = (id(5), Envelope::new(id(1), &report));
    let mut table = FieldTable::default();
    table.insert(headers::LETTER.into(), AMQPValue::LongString(letter.to_string().into()));
    lab.raw()
        .await
        .publish(routes::REPORTS.queue, &envelope.body, BasicProperties::default().with_headers(table))
        .await;
    lab.broker.send(routes::REPORTS, &Envelope::new(id(2), &report)).await.expect("sent");
    let (sender, mut commands) = mpsc::unbounded_channel();
    let (broker, stopping) = (lab.broker.clone(), lab.stopping.clone());
    tokio::spawn(async move { broker.consume_group(routes::COMMANDS, 8, Collect(sender), stopping).await });
    let (sender, mut reports) = mpsc::unbounded_channel();
    let (broker, stopping) = (lab.broker.clone(), lab.stopping.clone());
    tokio::spawn(async move { broker.consume_group(routes::REPORTS, 8, Collect(sender), stopping).await });
    let asked = next("a command", &mut commands).await.message;
    assert!(matches!(asked.command, Some(command::Command::Replay(replay)) if replay.letters == [letter.to_string()]));
    assert_eq!(next("the other report", &mut reports).await.delivery.message_id, id(2));
    assert!(reports.try_recv().is_err());
}

#[tokio::test]
async fn a_body_published_without_headers_is_put_before_the_leader() {
    let lab = Lab::new().await;
    let (sender, mut commands) = mpsc::unbounded_channel();
    let (broker, stopping) = (lab.broker.clone(), lab.stopping.clone());
    tokio::spawn(async move { broker.consume_group(routes::COMMANDS, 8, Collect(sender), stopping).await });
    lab.consume(1, |task, _| async move { panic!("{task:?} is not its worker's to do") });
    let body = serde_json::to_vec(&task(3)).expect("JSON");
    lab.raw().await.publish(PREPARE.queue, &body, BasicProperties::default()).await;
    let asked = next("a command", &mut commands).await.message;
    let Some(command::Command::Replay(replay)) = asked.command else { panic!("{asked:?}") };
    assert_eq!((asked.actor.as_str(), replay.queue.as_str()), ("by hand", PREPARE.queue));
    assert_eq!((replay.letters, replay.edited_body), (Vec::new(), body));
    assert!(lab.raw().await.get(routes::DEAD_QUEUE).await.is_none());
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
    let wanted = BTreeSet::from([letter.id]);
    let found = async { while dead::remove(&lab.broker, &wanted).await.expect("scanned").is_empty() {} };
    within("it is on the other queue too, under the same id", found).await;
}
