//! Consuming tasks: decoding, the ladder, dead letters, panics, draining.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lapin::{BasicProperties, options::BasicNackOptions};
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};
use warren_broker::{Delay, Delivery, GroupHandler, Handler, Received};
use warren_fault::{Cause, Code, Fault};
use warren_jobs::{TaskKind, retry::RetryPolicy};
use warren_messages::{
    envelope::{Envelope, Message as _, headers},
    routes, wire,
};

use crate::{
    publishing::close_connections,
    support::{Lab, PREPARE, id, next, number, task, within},
};

#[tokio::test]
async fn what_cannot_be_decoded_becomes_one_letter_and_the_next_message_is_handled() {
    let lab = Lab::new().await;
    let mut letters = lab.letters();
    let (sender, mut handled) = mpsc::unbounded_channel();
    for kind in TaskKind::ALL {
        let (broker, stopping, sender) = (lab.broker.clone(), lab.stopping.clone(), sender.clone());
        let handler = crate::support::Work(move |task: wire::Task, _| {
            let _ = sender.send(task.id);
            async { Ok(()) }
        });
        tokio::spawn(async move { broker.consume(routes::tasks(*kind), 2, handler, stopping).await });
    }
    let (broker, stopping) = (lab.broker.clone(), lab.stopping.clone());
    let commands = Tell(sender.clone());
    tokio::spawn(async move { broker.consume_group(routes::COMMANDS, 8, commands, stopping).await });
    let (broker, stopping) = (lab.broker.clone(), lab.stopping.clone());
    let reports = Tell(sender);
    tokio::spawn(async move { broker.consume_group(routes::REPORTS, 8, reports, stopping).await });

    let plain = BasicProperties::default;
    let garbage = vec![b'x'; 1 << 20];
    let good = serde_json::to_vec(&task(1)).expect("JSON");
    let bad: [(&[u8], BasicProperties); 6] = [
        (b"not json", plain()),
        (b"", plain()),
        (b"\xff\xfe{}", plain()),
        (&garbage, plain()),
        (&good, plain().with_content_type("text/plain".into())),
        (&good, plain().with_type("warren.v1.Unheard".into())),
    ];
    let raw = lab.raw().await;
    let tasks = TaskKind::ALL.iter().map(|kind| routes::tasks(*kind).queue);
    let queues: Vec<_> = tasks.chain([routes::COMMANDS.queue, routes::REPORTS.queue]).collect();
    let mut ids = BTreeSet::new();
    for queue in &queues {
        for (body, properties) in &bad {
            raw.publish(queue, body, properties.clone()).await;
            let letter = next("a letter", &mut letters).await;
            assert_eq!((letter.queue.as_str(), letter.class.as_str()), (*queue, "Malformed"), "{:?}", letter.cause);
            assert!(letter.body == *body, "the body is unchanged");
            assert!(!letter.cause.is_empty() && letter.headers.contains_key(headers::ERR_FP));
            ids.insert(letter.id);
        }
    }
    assert_eq!(ids.len(), queues.len() * bad.len());
    assert_eq!(raw.ready(routes::DEAD_QUEUE).await as usize, ids.len());

    for kind in TaskKind::ALL {
        let sent = lab.broker.send(routes::tasks(*kind), &Envelope::new(id(7), &task(7))).await;
        assert_eq!(sent, Ok(()));
        assert_eq!(next("a good task", &mut handled).await, task(7).id);
    }
    lab.publish_command(8).await;
    assert_eq!(next("a good command", &mut handled).await, "warren.v1.Command");
    let report = wire::TaskReport {
        task: task(1).id,
        job: task(1).job,
        report: Some(wire::task_report::Report::PreparedAll(wire::PreparedAll::default())),
        ..Default::default()
    };
    assert_eq!(lab.broker.send(routes::REPORTS, &Envelope::new(id(9), &report)).await, Ok(()));
    assert_eq!(next("a good report", &mut handled).await, "warren.v1.TaskReport");
    assert_eq!(raw.ready(routes::DEAD_QUEUE).await as usize, ids.len(), "no further letter");
}

struct Tell(mpsc::UnboundedSender<String>);

impl<M: warren_messages::envelope::Message> GroupHandler<Received<M>> for Tell {
    async fn handle(&self, group: &[Received<M>]) -> Result<(), Fault> {
        group.iter().for_each(|_| drop(self.0.send(M::TYPE.to_owned())));
        Ok(())
    }
}

/// First the platform is away, then the work fails, then it succeeds.
struct Troubled {
    runs: mpsc::UnboundedSender<(Instant, Delivery)>,
    delays: mpsc::UnboundedSender<(String, Delay, Cause)>,
    count: AtomicUsize,
}

impl Handler<wire::Task> for Troubled {
    async fn handle(&self, _task: wire::Task, delivery: Delivery) -> Result<(), Fault> {
        let _ = self.runs.send((Instant::now(), delivery));
        match self.count.fetch_add(1, Ordering::SeqCst) {
            0 => Err(Fault::RetryLater {
                cause: Cause::new(Code::LeaseNotGranted, "cpu is busy"),
                wait: Some(Duration::from_secs(1)),
            }),
            1 => Err(Fault::retryable(Code::Internal, "pipe closed")),
            _ => Ok(()),
        }
    }

    async fn delayed(&self, task: &wire::Task, _: &Delivery, delay: &Delay, cause: &Cause) -> Result<(), Fault> {
        let _ = self.delays.send((task.id.clone(), *delay, cause.clone()));
        Err(Fault::retryable(Code::Internal, "an announcement that fails changes nothing"))
    }
}

#[tokio::test]
async fn the_ladder_keeps_the_route_and_counts_only_attempts() {
    let lab = Lab::new().await;
    let (runs, mut ran) = mpsc::unbounded_channel();
    let (delays, mut delayed) = mpsc::unbounded_channel();
    let handler = Arc::new(Troubled { runs, delays, count: AtomicUsize::new(0) });
    let (broker, stopping) = (lab.broker.clone(), lab.stopping.clone());
    let consumer = tokio::spawn(async move { broker.consume(PREPARE, 1, handler, stopping).await });
    lab.publish_task(5).await;

    let (first_at, first) = next("the first run", &mut ran).await;
    assert_eq!((first.attempt, first.delivery_count), (1, 0));
    let (told, delay, cause) = next("the first delay", &mut delayed).await;
    assert_eq!((told, delay.seconds, delay.spends_attempt), (task(5).id, 5, false));
    assert_eq!(cause.code, Code::LeaseNotGranted);

    let (second_at, second) = next("the second run", &mut ran).await;
    let waited = second_at - first_at;
    assert!((4.9..7.0).contains(&waited.as_secs_f64()), "{waited:?}");
    assert_eq!((second.attempt, second.message_id), (1, first.message_id));
    assert_eq!(second.first_seen, first.first_seen);
    assert_eq!(second.headers[headers::ERR_CLASS], "LeaseNotGranted");
    assert_eq!(second.headers[headers::ERR_CAUSE], "cpu is busy");
    let (_, delay, _) = next("the second delay", &mut delayed).await;
    assert!(delay.spends_attempt);

    let (_, third) = next("the third run", &mut ran).await;
    assert_eq!(third.attempt, 2);
    assert_eq!(third.headers[headers::ERR_CLASS], "Internal");
    lab.stop().await;
    within("the consumer ends", consumer).await.expect("no panic");
    let raw = lab.raw().await;
    for queue in [PREPARE.queue, routes::DEAD_QUEUE, "warren.retry.005s"] {
        assert_eq!(raw.ready(queue).await, 0, "{queue}");
    }
}

#[tokio::test]
async fn a_permanent_fault_becomes_a_letter_that_says_all() {
    let lab = Lab::new().await;
    let mut letters = lab.letters();
    let long = "ü".repeat(3000);
    let cause = long.clone();
    lab.consume(1, move |_, _| {
        let fault = Fault::permanent(Code::BlobMissing, cause.clone());
        async { Err(fault) }
    });
    lab.publish_task(3).await;
    let letter = next("a letter", &mut letters).await;
    assert_eq!((letter.queue.as_str(), letter.key.as_str()), (PREPARE.queue, PREPARE.key));
    assert_eq!((letter.class.as_str(), letter.cause.as_str()), ("BlobMissing", &long[..4000]));
    assert_eq!(letter.kind, wire::Task::TYPE);
    assert_eq!(letter.message_id, Some(id(3).to_string()));
    assert_eq!(letter.body, Envelope::new(id(3), &task(3)).body);
    assert_eq!(letter.headers[headers::TASK], task(3).id);
    assert_eq!(letter.headers[headers::ATTEMPT], "0");
    assert_eq!(letter.headers[headers::ERR_FP].len(), 12);
}

/// Panics over task 13, once.
struct Clumsy(mpsc::UnboundedSender<u32>);

impl Handler<wire::Task> for Clumsy {
    async fn handle(&self, task: wire::Task, _: Delivery) -> Result<(), Fault> {
        assert_ne!(number(&task), 13, "unlucky");
        let _ = self.0.send(number(&task));
        Ok(())
    }

    fn policy(&self) -> RetryPolicy {
        RetryPolicy { max_attempts: 1, ..Default::default() }
    }
}

#[tokio::test]
async fn a_panic_harms_only_its_own_message() {
    let lab = Lab::new().await;
    let mut letters = lab.letters();
    let (sender, mut handled) = mpsc::unbounded_channel();
    let (broker, stopping) = (lab.broker.clone(), lab.stopping.clone());
    tokio::spawn(async move { broker.consume(PREPARE, 4, Clumsy(sender), stopping).await });
    for number in 10..20 {
        lab.publish_task(number).await;
    }
    let letter = next("a letter", &mut letters).await;
    assert_eq!(letter.class, "Internal");
    assert!(letter.cause.contains("panicked") && letter.cause.contains("unlucky"), "{}", letter.cause);
    assert_eq!(letter.headers[headers::ATTEMPT], "1");
    let mut rest = BTreeSet::new();
    while rest.len() < 9 {
        rest.insert(next("the others", &mut handled).await);
    }
    assert!(!rest.contains(&13));
}

#[tokio::test]
async fn as_many_handlers_run_at_once_as_asked_for_and_stopping_lets_them_finish() {
    let lab = Lab::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let (sender, mut started) = mpsc::unbounded_channel();
    let open = gate.clone();
    let consumer = lab.consume(3, move |task, _| {
        let (open, sender) = (open.clone(), sender.clone());
        async move {
            let _ = sender.send(number(&task));
            open.acquire().await.expect("open").forget();
            Ok(())
        }
    });
    for number in 0..5 {
        lab.publish_task(number).await;
    }
    for _ in 0..3 {
        next("three start", &mut started).await;
    }
    assert!(started.try_recv().is_err(), "a fourth started");
    lab.stopping.cancel();
    gate.add_permits(3);
    within("the consumer ends", consumer).await.expect("no panic");
    within("the broker closes", lab.broker.closed()).await;
    // Three were acked, two never started.
    lab.raw().await.until_ready(PREPARE.queue, 2).await;
}

#[tokio::test]
async fn what_does_not_finish_in_time_goes_back() {
    let lab = Lab::new().await;
    let (sender, mut started) = mpsc::unbounded_channel();
    let consumer = lab.consume(1, move |_, _| {
        let _ = sender.send(());
        std::future::pending()
    });
    lab.publish_task(1).await;
    next("it starts", &mut started).await;
    lab.stopping.cancel();
    within("the consumer ends", consumer).await.expect("no panic");
    within("the broker closes", lab.broker.closed()).await;
    lab.raw().await.until_ready(PREPARE.queue, 1).await;
}

#[tokio::test]
async fn lost_deliveries_do_not_use_up_the_brokers_limit() {
    let lab = Lab::new().await;
    lab.publish_task(1).await;
    let raw = lab.raw().await;
    for _ in 0..15 {
        let got = raw.get(PREPARE.queue).await.expect("the message");
        got.nack(BasicNackOptions { requeue: true, ..Default::default() }).await.expect("nacked");
    }
    let (sender, mut runs) = mpsc::unbounded_channel();
    lab.consume(1, move |_, delivery| {
        let _ = sender.send(delivery);
        async { Ok(()) }
    });
    let delivery = next("it is handled", &mut runs).await;
    assert_eq!((delivery.delivery_count, delivery.redelivered, delivery.message_id), (0, false, id(1)));
}

#[tokio::test]
async fn lost_connections_lose_no_message() {
    let lab = Lab::new().await;
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let (sender, mut progress) = mpsc::unbounded_channel();
    let handled = seen.clone();
    let consumer = lab.consume(4, move |task, _| {
        let (handled, sender) = (handled.clone(), sender.clone());
        async move {
            let count = {
                let mut handled = handled.lock().expect("not poisoned");
                handled.insert(number(&task));
                handled.len()
            };
            let _ = sender.send(count);
            Ok(())
        }
    });
    let publisher = {
        let broker = lab.broker.clone();
        tokio::spawn(async move {
            for number in 0..300 {
                let envelope = Envelope::new(id(number), &task(number));
                while broker.send(PREPARE, &envelope).await.is_err() {}
            }
        })
    };
    for at in [40, 120, 200] {
        while next("progress", &mut progress).await < at {}
        close_connections(&lab).await;
    }
    within("all is published", publisher).await.expect("no panic");
    while seen.lock().expect("not poisoned").len() < 300 {
        next("the rest", &mut progress).await;
    }
    lab.stop().await;
    within("the consumer ends", consumer).await.expect("no panic");
    assert_eq!(lab.raw().await.ready(routes::DEAD_QUEUE).await, 0);
}

#[tokio::test]
async fn commands_have_no_ladder() {
    let lab = Lab::new().await;
    let (broker, stopping) = (lab.broker.clone(), lab.stopping.clone());
    let refused = tokio::spawn(async move { broker.consume(routes::COMMANDS, 1, Never, stopping).await });
    assert!(refused.await.expect_err("it panics").is_panic());
}

struct Never;

impl Handler<wire::Command> for Never {
    async fn handle(&self, _: wire::Command, _: Delivery) -> Result<(), Fault> {
        Ok(())
    }
}
