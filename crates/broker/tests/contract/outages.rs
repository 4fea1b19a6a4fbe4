//! A broker that dies, and one that takes no messages.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use lapin::BasicProperties;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use warren_broker::{Broker, BrokerSettings, Health, Outgoing, PublishError};
use warren_clock::Clock;
use warren_jobs::TaskKind;
use warren_local::{
    Scratch,
    rabbitmq::{self, Node, RabbitSpec},
};
use warren_messages::{
    envelope::Envelope,
    routes::{self, Route},
    wire::{self, Task},
};
use warren_settings::Secret;

use crate::support::{Collect, PREPARE, Raw, Work, health, id, next, number, task, within};

fn start(folder: &Path, spec: &RabbitSpec) -> Node {
    let mut node = Node::start(folder, spec).expect("RabbitMQ is installed");
    node.wait_ready(Duration::from_secs(60)).expect("it gets ready");
    node
}

fn connect(spec: &RabbitSpec, confirm_timeout_s: u64) -> (Broker, CancellationToken) {
    let stopping = CancellationToken::new();
    let settings = BrokerSettings {
        url: Secret::new(spec.amqp_url()),
        management_url: spec.management_url(),
        confirm_timeout_s,
        heartbeat_s: 2,
        drain_s: 5,
        ..Default::default()
    };
    (Broker::start(settings, Clock::system(), "test", stopping.clone()), stopping)
}

#[tokio::test]
async fn a_killed_broker_loses_nothing_that_was_confirmed() {
    let folder = Scratch::new("broker-kill").expect("a folder");
    let spec = RabbitSpec::generate().expect("free ports");
    // Before the node is there: starting never fails.
    let (broker, stopping) = connect(&spec, 15);
    health("it says why", &broker, |health| matches!(health, Health::Connecting { error: Some(_) })).await;
    let node = start(folder.path(), &spec);
    assert!(within("it gets ready", broker.ready()).await);

    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let (sender, mut progress) = mpsc::unbounded_channel();
    let handled = seen.clone();
    let handler = Work(move |task, _| {
        let (handled, sender) = (handled.clone(), sender.clone());
        async move {
            handled.lock().expect("not poisoned").insert(number(&task));
            let _ = sender.send(());
            Ok(())
        }
    });
    let consumer = {
        let (broker, stopping) = (broker.clone(), stopping.clone());
        tokio::spawn(async move { broker.consume(PREPARE, 4, handler, stopping).await })
    };
    let publisher = {
        let broker = broker.clone();
        tokio::spawn(async move {
            for number in 0..600 {
                let envelope = Envelope::new(id(number), &task(number));
                while broker.send(PREPARE, &envelope).await.is_err() {}
            }
        })
    };
    for _ in 0..100 {
        next("some are handled", &mut progress).await;
    }
    node.kill();
    health("it notices", &broker, |health| matches!(health, Health::Connecting { .. })).await;
    let node = start(folder.path(), &spec);
    within("all is published", publisher).await.expect("no panic");
    while seen.lock().expect("not poisoned").len() < 600 {
        next("the rest is handled", &mut progress).await;
    }
    stopping.cancel();
    within("the consumer ends", consumer).await.expect("no panic");
    within("the broker closes", broker.closed()).await;
    let raw = Raw::connect(&spec.amqp_url()).await;
    assert_eq!(raw.ready(routes::DEAD_QUEUE).await, 0);
    drop(node);
}

#[tokio::test]
async fn a_broker_short_of_memory_still_takes_acks() {
    let folder = Scratch::new("broker-alarm").expect("a folder");
    let spec = RabbitSpec::generate().expect("free ports");
    let node = start(folder.path(), &spec);
    // Whoever waits in vain for a channel while the broker opens none must not use one up each time.
    rabbitmq::control(node.pid(), &["eval", "application:set_env(rabbit, channel_max, 7)."])
        .expect("the broker takes it");
    let (broker, stopping) = connect(&spec, 2);
    assert!(within("it gets ready", broker.ready()).await);

    let (sender, mut started) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let open = gate.clone();
    let handler = Work(move |task, _| {
        let (open, sender) = (open.clone(), sender.clone());
        async move {
            let _ = sender.send(number(&task));
            open.acquire().await.expect("open").forget();
            Ok(())
        }
    });
    let term = stopping.child_token();
    let consumer = {
        let (broker, term) = (broker.clone(), term.clone());
        tokio::spawn(async move { broker.consume(PREPARE, 1, handler, term).await })
    };
    let send = async |number: u32| broker.send(PREPARE, &Envelope::new(id(number), &task(number))).await;
    assert_eq!(send(1).await, Ok(()));
    assert_eq!(next("it starts", &mut started).await, 1);

    let memory_limit = |share: &str| {
        rabbitmq::control(node.pid(), &["set_vm_memory_high_watermark", share]).expect("the broker takes it");
    };
    memory_limit("0.00001");
    assert_eq!(send(2).await, Err(PublishError::Unknown(Duration::from_secs(2))));
    health("it says so", &broker, |health| matches!(health, Health::Blocked { .. })).await;
    // A blocked connection sends no heartbeats; it must not be taken for dead.
    let mut changes = broker.health();
    changes.mark_unchanged();
    let insisting = async {
        for round in 1..=8 {
            let messages: Vec<_> = (0..8).map(|number| outgoing(100 * round + number, PREPARE)).collect();
            let results = broker.publish_many(&messages).await;
            assert!(results.iter().all(Result::is_err), "{results:?}");
        }
    };
    within("nothing goes out", insisting).await;
    assert!(!changes.has_changed().expect("the broker is there"), "{:?}", changes.borrow());
    gate.add_permits(1);
    term.cancel();
    within("the consumer ends", consumer).await.expect("no panic");
    assert_eq!(Raw::connect(&spec.amqp_url()).await.ready(PREPARE.queue).await, 0, "the first was acked");

    memory_limit("0.9");
    health("it recovers", &broker, |health| *health == Health::Ready).await;
    assert_eq!(send(3).await, Ok(()));
    stopping.cancel();
    within("the broker closes", broker.closed()).await;
}

#[tokio::test]
async fn a_queue_that_confirms_nothing_keeps_no_other_waiting() {
    let folder = Scratch::new("broker-mute").expect("a folder");
    let spec = RabbitSpec::generate().expect("free ports");
    let node = start(folder.path(), &spec);
    let (broker, stopping) = connect(&spec, 2);
    assert!(within("it gets ready", broker.ready()).await);

    node.suspend_queue(PREPARE.queue).expect("the broker does it");
    // More than may be in flight.
    let messages: Vec<_> = (0..300).map(|number| outgoing(number, PREPARE)).collect();
    let results = within("all get an answer", broker.publish_many(&messages)).await;
    assert!(results.iter().all(Result::is_err), "{results:?}");
    for number in 300..310 {
        let to_others = outgoing(number, routes::tasks(TaskKind::Embed));
        assert_eq!(within("others go out", broker.publish_many(&[to_others])).await, [Ok(())]);
    }
    node.resume_queue(PREPARE.queue).expect("the broker does it");
    let sent = async { while broker.publish_many(&[outgoing(1, PREPARE)]).await != [Ok(())] {} };
    within("it confirms again", sent).await;
    stopping.cancel();
    within("the broker closes", broker.closed()).await;
}

fn outgoing(number: u32, route: Route<Task>) -> Outgoing {
    let envelope = Envelope::new(id(number), &task(number));
    Outgoing { exchange: route.exchange.to_owned(), key: route.key.to_owned(), envelope }
}

#[tokio::test]
async fn a_message_too_large_to_be_moved_is_left_to_the_broker_and_the_next_one_is_handled() {
    let folder = Scratch::new("broker-large").expect("a folder");
    let spec = RabbitSpec::generate().expect("free ports");
    let node = start(folder.path(), &spec);
    let most = "persistent_term:put(max_message_size, 60000), application:set_env(rabbit, max_message_size, 60000).";
    rabbitmq::control(node.pid(), &["eval", most]).expect("the broker takes it");
    let (broker, stopping) = connect(&spec, 15);
    assert!(within("it gets ready", broker.ready()).await);

    let report = |worker: &str| wire::TaskReport {
        task: task(1).id,
        job: task(1).job,
        dispatch: 1,
        worker: worker.to_owned(),
        report: Some(wire::task_report::Report::PreparedAll(wire::PreparedAll::default())),
        ..Default::default()
    };
    // Without Warren's headers it belongs to the leader, in whose command it takes a third more.
    let large = serde_json::to_vec(&report(&"x".repeat(50_000))).expect("JSON");
    let raw = Raw::connect(&spec.amqp_url()).await;
    raw.publish(routes::REPORTS.queue, &large, BasicProperties::default()).await;
    raw.until_ready(routes::REPORTS.queue, 1).await;
    assert_eq!(broker.send(routes::REPORTS, &Envelope::new(id(2), &report("next"))).await, Ok(()));

    let (sender, mut reports) = mpsc::unbounded_channel();
    let (consuming, term) = (broker.clone(), stopping.clone());
    tokio::spawn(async move { consuming.consume_group(routes::REPORTS, 8, Collect(sender), term).await });
    assert_eq!(next("the next report", &mut reports).await.message.worker, "next");
    raw.until_ready(routes::DEAD_QUEUE, 1).await;
    assert_eq!(raw.get(routes::DEAD_QUEUE).await.expect("the letter").data, large);
    stopping.cancel();
    within("the broker closes", broker.closed()).await;
}
