//! Declaring and publishing.

use lapin::{
    options::{QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use tokio_util::sync::CancellationToken;
use warren_broker::{Broker, Health, Outgoing, PublishError, topology};
use warren_clock::Clock;
use warren_messages::{
    envelope::{Envelope, headers},
    ids::JobId,
    routes, wire,
};

use crate::support::{Lab, PREPARE, health, id, settings, task, within};

#[tokio::test]
async fn declaring_twice_changes_nothing_and_matches_the_list() {
    let lab = Lab::new().await;
    let again = Broker::start(settings(&lab.rabbit), Clock::system(), "again", lab.stopping.clone());
    assert!(within("the second gets ready", again.ready()).await);
    let queues = lab.broker.queues().await.expect("the management API answers");
    assert_eq!(topology::differences(&queues), Vec::<String>::new());
    assert_eq!(queues.len(), topology::expected().queues.len());
}

#[tokio::test]
async fn a_queue_with_other_arguments_is_named_and_mending_it_is_enough() {
    let rabbit = warren_local::rabbitmq::for_tests();
    let raw = crate::support::Raw::connect(&rabbit.amqp_url).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(5));
    raw.channel.queue_declare("warren.dead".into(), QueueDeclareOptions::durable(), arguments).await.expect("declared");

    let stopping = CancellationToken::new();
    let broker = Broker::start(settings(&rabbit), Clock::system(), "test", stopping.clone());
    let lab = Lab { rabbit, broker, stopping };
    let Health::Connecting { error: Some(error) } =
        health("it fails", &lab.broker, |health| matches!(health, Health::Connecting { error: Some(_) })).await
    else {
        panic!("no error");
    };
    assert!(error.contains("queue warren.dead") && error.contains("x-delivery-limit"), "{error}");
    assert!(error.contains("1000000") && error.contains('5'), "{error}");

    raw.channel.queue_delete("warren.dead".into(), QueueDeleteOptions::default()).await.expect("deleted");
    assert!(within("it gets ready by itself", lab.broker.ready()).await);
}

#[tokio::test]
async fn each_of_many_unroutable_messages_is_an_error_and_no_other() {
    let lab = Lab::new().await;
    let message = |number: u32| Outgoing {
        exchange: routes::TASK_EXCHANGE.to_owned(),
        key: if number.is_multiple_of(3) { "nowhere".to_owned() } else { PREPARE.key.to_owned() },
        envelope: Envelope::new(id(number), &task(number)),
    };
    let messages: Vec<_> = (0..300).map(message).collect();
    let results = within("all are settled", lab.broker.publish_many(&messages)).await;
    for (number, (message, result)) in messages.iter().zip(&results).enumerate() {
        if message.key == "nowhere" {
            assert!(
                matches!(result, Err(PublishError::Unroutable { key, .. }) if key == "nowhere"),
                "{number}: {result:?}"
            );
        } else {
            assert_eq!(*result, Ok(()), "{number}");
        }
    }
    assert_eq!(lab.raw().await.ready(PREPARE.queue).await, 200);
}

#[tokio::test]
async fn a_message_that_ends_its_channel_takes_no_other_with_it() {
    let lab = Lab::new().await;
    let message = |number: u32| Outgoing {
        exchange: if number == 50 { "nowhere".to_owned() } else { routes::TASK_EXCHANGE.to_owned() },
        key: PREPARE.key.to_owned(),
        envelope: Envelope::new(id(number), &task(number)),
    };
    let mut changes = lab.broker.health();
    changes.mark_unchanged();
    let messages: Vec<_> = (0..100).map(message).collect();
    let results = within("all are settled", lab.broker.publish_many(&messages)).await;
    for (number, result) in results.iter().enumerate() {
        if number == 50 {
            assert!(matches!(result, Err(PublishError::Unroutable { .. })), "{result:?}");
        } else {
            assert_eq!(*result, Ok(()), "{number}");
        }
    }
    assert!(lab.raw().await.ready(PREPARE.queue).await >= 99, "some may be there twice");
    assert!(!changes.has_changed().expect("the broker is there"), "{:?}", changes.borrow());
}

#[tokio::test]
async fn a_full_queue_refuses_and_what_was_confirmed_is_there() {
    let lab = Lab::new().await;
    let raw = lab.raw().await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(3));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let options = QueueDeclareOptions::durable();
    raw.channel.queue_declare("small".into(), options, arguments).await.expect("declared");
    let (queue, exchange) = ("small".into(), routes::TASK_EXCHANGE.into());
    let bound =
        raw.channel.queue_bind(queue, exchange, "small".into(), QueueBindOptions::default(), FieldTable::default());
    bound.await.expect("bound");

    let (mut confirmed, mut refused) = (0, 0);
    for number in 0..12 {
        match lab.broker.publish(routes::TASK_EXCHANGE, "small", &Envelope::new(id(number), &task(number))).await {
            Ok(()) => confirmed += 1,
            Err(PublishError::Full) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 0, "{confirmed} confirmed");
    assert_eq!(raw.ready("small").await, confirmed);
    lab.publish_task(99).await;
}

#[tokio::test]
async fn only_listed_headers_travel() {
    let lab = Lab::new().await;
    let mut envelope = Envelope::new(id(1), &task(1));
    envelope.headers.insert("x-death".to_owned(), "made up".to_owned());
    envelope.headers.insert("x-colour".to_owned(), "green".to_owned());
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    envelope.headers.insert(headers::TRACEPARENT.to_owned(), trace.to_owned());
    assert_eq!(lab.broker.send(PREPARE, &envelope).await, Ok(()));

    let got = lab.raw().await.get(PREPARE.queue).await.expect("a message");
    let properties = &got.properties;
    assert_eq!(properties.kind().as_ref().map(|kind| kind.as_str()), Some("warren.v1.Task"));
    assert_eq!(properties.content_type().as_ref().map(|kind| kind.as_str()), Some("application/json"));
    assert_eq!(properties.message_id().as_ref().map(ToString::to_string), Some(id(1).to_string()));
    assert_eq!(*properties.delivery_mode(), Some(2));
    let names: Vec<_> =
        properties.headers().as_ref().expect("headers").inner().keys().map(|name| name.as_str()).collect();
    let mut expected =
        vec!["traceparent", "x-delivery-count", headers::DISPATCH, headers::FIRST_TS, headers::JOB, headers::TASK];
    expected.retain(|name| *name != "x-delivery-count" || names.contains(name));
    assert_eq!(names, expected);
}

#[tokio::test]
async fn a_queue_deleted_by_hand_is_declared_again() {
    let lab = Lab::new().await;
    let raw = lab.raw().await;
    raw.channel.queue_delete(PREPARE.queue.into(), QueueDeleteOptions::default()).await.expect("deleted");
    let envelope = Envelope::new(id(1), &task(1));
    let first = lab.broker.send(PREPARE, &envelope).await;
    assert!(matches!(first, Err(PublishError::Unroutable { .. })), "{first:?}");
    // Waits for the next connection by itself.
    assert_eq!(lab.broker.send(PREPARE, &envelope).await, Ok(()));
    assert_eq!(raw.ready(PREPARE.queue).await, 1);
}

#[tokio::test]
async fn hints_arrive_also_after_a_lost_connection() {
    let lab = Lab::new().await;
    let mut notices = lab.broker.subscribe_notices();
    for number in 1..3 {
        let notice = wire::Notice { job: JobId(id(number)).to_string(), ended: false };
        // A hint sent before the subscription is there is lost, as it may be.
        let heard = async {
            loop {
                lab.broker.notice(&notice).await;
                let wait = std::time::Duration::from_millis(100);
                if let Ok(Some(heard)) = tokio::time::timeout(wait, notices.next()).await
                    && heard == notice
                {
                    break;
                }
            }
        };
        within("a hint arrives", heard).await;
        close_connections(&lab).await;
    }
}

/// The management API learns of connections a little later than we do.
pub(crate) async fn close_connections(lab: &Lab) {
    let closed = async {
        while lab.rabbit.close_connections().expect("the management API answers") == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    within("connections are closed", closed).await;
}
