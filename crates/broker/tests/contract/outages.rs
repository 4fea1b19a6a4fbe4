//! A broker that dies, and one that takes no messages.

use std::{
    collections::BTreeSet,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use warren_broker::{Broker, BrokerSettings, Health, PublishError};
use warren_clock::Clock;
use warren_local::{
    Scratch,
    rabbitmq::{Node, RabbitSpec},
};
use warren_messages::{envelope::Envelope, routes};
use warren_settings::Secret;

use crate::support::{PREPARE, Raw, Work, health, id, next, number, task, within};

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
    let _node = start(folder.path(), &spec);
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

    set_memory_limit(folder.path(), &spec, "0.00001");
    assert_eq!(send(2).await, Err(PublishError::Unknown(Duration::from_secs(2))));
    health("it says so", &broker, |health| matches!(health, Health::Blocked { .. })).await;
    // A blocked connection sends no heartbeats; it must not be taken for dead.
    let mut changes = broker.health();
    changes.mark_unchanged();
    assert!(tokio::time::timeout(Duration::from_secs(7), changes.changed()).await.is_err(), "{:?}", changes.borrow());
    gate.add_permits(1);
    term.cancel();
    within("the consumer ends", consumer).await.expect("no panic");
    assert_eq!(Raw::connect(&spec.amqp_url()).await.ready(PREPARE.queue).await, 0, "the first was acked");

    set_memory_limit(folder.path(), &spec, "0.9");
    health("it recovers", &broker, |health| *health == Health::Ready).await;
    assert_eq!(send(3).await, Ok(()));
    stopping.cancel();
    within("the broker closes", broker.closed()).await;
}

fn set_memory_limit(folder: &Path, spec: &RabbitSpec, share: &str) {
    let set = Command::new("/usr/lib/rabbitmq/bin/rabbitmqctl")
        .args(["-q", "-n", "warren@localhost", "set_vm_memory_high_watermark", share])
        .env("HOME", folder.join("home"))
        .env("LANG", "C.UTF-8")
        .env("RABBITMQ_CONF_ENV_FILE", folder.join("env.conf"))
        .env("ERL_EPMD_PORT", spec.epmd_port.to_string())
        .output()
        .expect("rabbitmqctl runs");
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
}
