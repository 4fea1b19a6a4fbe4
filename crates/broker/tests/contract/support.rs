//! A broker handle on an empty vhost, and the raw protocol beside it.

use std::{future::Future, time::Duration};

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    message::BasicGetMessage,
    options::{BasicGetOptions, BasicPublishOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use warren_broker::{Broker, BrokerSettings, Delivery, GroupHandler, Handler, Health, Letter};
use warren_clock::Clock;
use warren_fault::Fault;
use warren_jobs::TaskKind;
use warren_local::rabbitmq::{self, TestBroker};
use warren_messages::{
    envelope::Envelope,
    ids::{JobId, TaskId},
    routes::{self, Route},
    wire,
};
use warren_settings::Secret;

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) const PREPARE: Route<wire::Task> = routes::tasks(TaskKind::Prepare);

pub(crate) struct Lab {
    pub(crate) rabbit: TestBroker,
    pub(crate) broker: Broker,
    pub(crate) stopping: CancellationToken,
}

impl Lab {
    pub(crate) async fn new() -> Self {
        let lab = Self::unready();
        assert!(within("the broker gets ready", lab.broker.ready()).await);
        lab
    }

    pub(crate) fn unready() -> Self {
        let rabbit = rabbitmq::for_tests();
        let stopping = CancellationToken::new();
        let broker = Broker::start(settings(&rabbit), Clock::system(), "test", stopping.clone());
        Self { rabbit, broker, stopping }
    }

    /// A connection that knows nothing of Warren.
    pub(crate) async fn raw(&self) -> Raw {
        Raw::connect(&self.rabbit.amqp_url).await
    }

    pub(crate) fn consume<F, W>(&self, prefetch: u16, work: F) -> JoinHandle<()>
    where
        F: Fn(wire::Task, Delivery) -> W + Send + Sync + 'static,
        W: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        let (broker, stopping) = (self.broker.clone(), self.stopping.clone());
        tokio::spawn(async move { broker.consume(PREPARE, prefetch, Work(work), stopping).await })
    }

    /// Dead letters as the index sees them.
    pub(crate) fn letters(&self) -> mpsc::UnboundedReceiver<Letter> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (broker, stopping) = (self.broker.clone(), self.stopping.clone());
        tokio::spawn(async move { broker.consume_dead_index(8, Collect(sender), stopping).await });
        receiver
    }

    pub(crate) async fn publish_task(&self, number: u32) {
        let sent = self.broker.send(PREPARE, &Envelope::new(id(number), &task(number))).await;
        assert_eq!(sent, Ok(()));
    }

    pub(crate) async fn publish_command(&self, number: u32) {
        let sent = self.broker.send(routes::COMMANDS, &Envelope::new(id(number), &command(number))).await;
        assert_eq!(sent, Ok(()));
    }

    pub(crate) async fn stop(&self) {
        self.stopping.cancel();
        within("the broker closes", self.broker.closed()).await;
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stopping.cancel();
        // Fifteen quorum queues for each test would fill the node's memory.
        let _ = self.rabbit.spec.management("DELETE", &format!("/api/vhosts/{}", self.rabbit.vhost), None);
    }
}

pub(crate) fn settings(rabbit: &TestBroker) -> BrokerSettings {
    BrokerSettings {
        url: Secret::new(rabbit.amqp_url.clone()),
        management_url: rabbit.management_url.clone(),
        drain_s: 5,
        ..Default::default()
    }
}

pub(crate) struct Raw {
    _connection: Connection,
    pub(crate) channel: Channel,
}

impl Raw {
    pub(crate) async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("connected");
        let channel = connection.create_channel().await.expect("a channel");
        Self { _connection: connection, channel }
    }

    /// Messages that nobody holds.
    pub(crate) async fn ready(&self, queue: &str) -> u32 {
        let options = QueueDeclareOptions::durable().passive();
        self.channel.queue_declare(queue.into(), options, FieldTable::default()).await.expect("exists").message_count()
    }

    /// Waits until nobody holds so many. The broker gives back what a connection held a while after its end.
    pub(crate) async fn until_ready(&self, queue: &str, wanted: u32) {
        within(&format!("{wanted} messages are ready on {queue}"), async {
            while self.ready(queue).await != wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    pub(crate) async fn publish(&self, queue: &str, body: &[u8], properties: BasicProperties) {
        self.channel
            .basic_publish("".into(), queue.into(), BasicPublishOptions::default(), body, properties)
            .await
            .expect("published");
    }

    pub(crate) async fn get(&self, queue: &str) -> Option<BasicGetMessage> {
        self.channel.basic_get(queue.into(), BasicGetOptions::default()).await.expect("got")
    }
}

pub(crate) struct Work<F>(pub(crate) F);

impl<F, W> Handler<wire::Task> for Work<F>
where
    F: Fn(wire::Task, Delivery) -> W + Send + Sync + 'static,
    W: Future<Output = Result<(), Fault>> + Send + 'static,
{
    async fn handle(&self, message: wire::Task, delivery: Delivery) -> Result<(), Fault> {
        (self.0)(message, delivery).await
    }
}

pub(crate) struct Collect<T>(pub(crate) mpsc::UnboundedSender<T>);

impl<T: Clone + Send + Sync + 'static> GroupHandler<T> for Collect<T> {
    async fn handle(&self, group: &[T]) -> Result<(), Fault> {
        for item in group {
            let _ = self.0.send(item.clone());
        }
        Ok(())
    }
}

pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

pub(crate) async fn next<T>(what: &str, receiver: &mut mpsc::UnboundedReceiver<T>) -> T {
    within(what, receiver.recv()).await.unwrap_or_else(|| panic!("ended: {what}"))
}

pub(crate) async fn health(what: &str, broker: &Broker, wanted: impl FnMut(&Health) -> bool) -> Health {
    let mut health = broker.health();
    within(what, health.wait_for(wanted)).await.expect("the broker is there").clone()
}

pub(crate) fn id(number: u32) -> Uuid {
    Uuid::from_u128(u128::from(number) + 1)
}

pub(crate) fn task(number: u32) -> wire::Task {
    wire::Task {
        id: TaskId(id(number)).to_string(),
        job: JobId(id(number)).to_string(),
        dispatch: 1,
        deadline: None,
        work: Some(wire::task::Work::Prepare(wire::PrepareTask {
            media_key: format!("media/{number}"),
            media_name: "talk.mp3".to_owned(),
            size_bytes: 9,
            ..Default::default()
        })),
    }
}

/// The number that [`task`] was made with.
pub(crate) fn number(task: &wire::Task) -> u32 {
    let Some(wire::task::Work::Prepare(work)) = &task.work else { panic!("not ours: {task:?}") };
    work.media_key.trim_start_matches("media/").parse().expect("a number")
}

pub(crate) fn command(number: u32) -> wire::Command {
    let cancel = wire::CancelJob { job: JobId(id(number)).to_string(), reason: number.to_string() };
    wire::Command { actor: "test".to_owned(), command: Some(wire::command::Command::Cancel(cancel)) }
}

/// The number that [`command`] was made with.
pub(crate) fn commanded(command: &wire::Command) -> u32 {
    let Some(wire::command::Command::Cancel(cancel)) = &command.command else { panic!("not ours: {command:?}") };
    cancel.reason.parse().expect("a number")
}
