//! From a real database to a real broker.

use std::time::{Duration, Instant};

use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use warren_broker::{Broker, BrokerSettings, GroupHandler, Received};
use warren_clock::{Clock, UnixMillis};
use warren_fault::Fault;
use warren_jobs::TaskKind;
use warren_local::{
    Scratch,
    rabbitmq::{self, Node, RabbitSpec, TestBroker},
};
use warren_messages::{
    ids::JobId,
    routes::{self, COMMANDS, Route},
    wire::{CancelJob, Command, Task, command},
};
use warren_relay::{Relay, sweep};
use warren_settings::Secret;
use warren_store::{NewOutbox, Store, StoreSettings, migrate};

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(90);
/// More than the relay keeps in memory.
const MANY: u32 = 5_000;
/// How long a confirm may take.
const CONFIRM_S: u64 = 8;
/// Takes one message.
const FULL: &str = "full";

struct World {
    rabbit: TestBroker,
    broker: Broker,
    store: Store,
    clock: Clock,
    relay: Relay,
    stopping: CancellationToken,
    _folder: Scratch,
}

impl World {
    async fn new() -> Self {
        Self::with(tokio::task::spawn_blocking(rabbitmq::for_tests).await.expect("RabbitMQ")).await
    }

    async fn with(rabbit: TestBroker) -> Self {
        let folder = Scratch::new("relay").expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("warren.sqlite").display());
        migrate::up(&url).await.expect("migrated");
        let (clock, stopping) = (Clock::manual(UnixMillis(1_700_000_000_000)), CancellationToken::new());
        let store = Store::open(&StoreSettings::at(url), clock.clone()).await.expect("opened");
        let url = Secret::new(rabbit.amqp_url.clone());
        let settings = BrokerSettings { url, confirm_timeout_s: CONFIRM_S, ..BrokerSettings::default() };
        let broker = Broker::start(settings, Clock::system(), "relay", stopping.clone());
        assert!(within("the broker gets ready", broker.ready()).await);
        let world = Self { rabbit, broker, store, clock, relay: Relay::new("test"), stopping, _folder: folder };
        world.full("PUT", Some(r#"{"arguments":{"x-max-length":1,"x-overflow":"reject-publish"}}"#));
        world
    }

    /// Declares or deletes the queue that gets full.
    fn full(&self, method: &str, body: Option<&str>) {
        let answer = self.rabbit.management(method, "queues", &format!("/{FULL}"), body).expect("an answer");
        assert!((200..300).contains(&answer.status), "{}", answer.body);
    }

    fn row(&self, number: u32) -> NewOutbox {
        let cancel = CancelJob { job: JobId(self.clock.new_id()).to_string(), reason: number.to_string() };
        let command = Command { actor: "test".to_owned(), command: Some(command::Command::Cancel(cancel)) };
        self.relay.row(COMMANDS, self.clock.new_id(), &command)
    }

    /// Writes them and hands them over.
    async fn write(&self, rows: &[NewOutbox]) {
        let tx = self.store.begin().await.expect("begun");
        tx.outbox_many(rows.to_vec()).await.expect("written");
        self.relay.committed(tx.commit_in_order().await.expect("committed").outbox);
    }

    /// Many messages for the queue that takes one.
    async fn write_too_many(&self) {
        let to_full = |number| NewOutbox { exchange: String::new(), routing_key: FULL.to_owned(), ..self.row(number) };
        self.write(&(0..MANY).map(to_full).collect::<Vec<_>>()).await;
    }

    async fn unsent(&self) -> u64 {
        self.store.read().unsent_count().await.expect("read")
    }

    /// Waits until no more than `most` messages are left. The database tells nobody when that is.
    async fn until_unsent(&self, what: &str, most: u64) {
        within(what, async {
            while self.unsent().await > most {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// The numbers of the commands that arrive.
    fn commands(&self) -> mpsc::UnboundedReceiver<u32> {
        let (sender, commands) = mpsc::unbounded_channel();
        let (broker, stopping) = (self.broker.clone(), self.stopping.clone());
        tokio::spawn(async move { broker.consume_group(COMMANDS, 8, Numbers(sender), stopping).await });
        commands
    }

    /// Starts the relay.
    fn relaying(&self) -> JoinHandle<()> {
        let (relay, store, broker) = (self.relay.clone(), self.store.clone(), self.broker.clone());
        let stopping = self.stopping.clone();
        tokio::spawn(async move { relay.run(&store, &broker, &stopping).await })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stopping.cancel();
        let _ = self.rabbit.spec.management("DELETE", &format!("/api/vhosts/{}", self.rabbit.vhost), None);
    }
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("it took too long until {what}"))
}

/// Passes the numbers of commands on.
struct Numbers(mpsc::UnboundedSender<u32>);

impl GroupHandler<Received<Command>> for Numbers {
    async fn handle(&self, group: &[Received<Command>]) -> Result<(), Fault> {
        for received in group {
            let Some(command::Command::Cancel(cancel)) = &received.message.command else { panic!("not ours") };
            let _ = self.0.send(cancel.reason.parse().expect("a number"));
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_keeps_back_only_its_own_messages() {
    let world = World::new().await;
    world.write_too_many().await;
    world.write(&[world.row(1)]).await;
    let (mut commands, relaying) = (world.commands(), world.relaying());
    assert_eq!(within("what is behind them arrives", commands.recv()).await, Some(1));

    world.write(&[world.row(2)]).await;
    assert_eq!(within("what comes later arrives", commands.recv()).await, Some(2));
    world.until_unsent("what arrived is noted", u64::from(MANY) - 1).await;
    assert_eq!(world.unsent().await, u64::from(MANY) - 1, "one had room");

    world.full("DELETE", None);
    world.full("PUT", Some("{}"));
    world.until_unsent("they go when there is room", 0).await;
    world.stopping.cancel();
    within("the relay stops", relaying).await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_confirms_nothing_keeps_others_waiting_once() {
    let folder = Scratch::new("relay-mute").expect("a folder");
    let spec = RabbitSpec::generate().expect("free ports");
    let mut node = Node::start(folder.path(), &spec).expect("RabbitMQ is installed");
    node.wait_ready(PATIENCE).expect("it gets ready");
    let world = World::with(TestBroker::of(&spec, "/")).await;
    let mute: Route<Task> = routes::tasks(TaskKind::Prepare);
    node.suspend_queue(mute.queue).expect("the broker does it");
    let to_mute = |number| {
        let (exchange, routing_key) = (mute.exchange.to_owned(), mute.key.to_owned());
        NewOutbox { exchange, routing_key, ..world.row(number) }
    };
    world.write(&(0..600).map(to_mute).collect::<Vec<_>>()).await;
    world.write(&[world.row(1)]).await;
    let (mut commands, relaying) = (world.commands(), world.relaying());
    assert_eq!(within("what is behind them arrives", commands.recv()).await, Some(1));

    let begun = Instant::now();
    let until = Duration::from_secs(2 * CONFIRM_S);
    let mut slowest = Duration::ZERO;
    while begun.elapsed() < until {
        let written = Instant::now();
        world.write(&[world.row(2)]).await;
        assert_eq!(within("what comes later arrives", commands.recv()).await, Some(2));
        slowest = slowest.max(written.elapsed());
    }
    assert!(slowest < Duration::from_secs(CONFIRM_S / 2), "{slowest:?}");
    node.resume_queue(mute.queue).expect("the broker does it");
    world.until_unsent("they go when it confirms", 0).await;
    world.stopping.cancel();
    within("the relay stops", relaying).await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_handed_over_goes_out_all_the_same() {
    let world = World::new().await;
    let relaying = world.relaying();
    let row = world.row(1);
    world.store.write(async |tx| tx.outbox(&row).await).await.expect("written");
    let age = Duration::from_secs(6);
    world.clock.advance(age);
    within("it goes, while others come and go", async {
        while !world.store.read().unsent_older_than(age / 2, &[], 1).await.expect("read").is_empty() {
            world.write(&[world.row(2)]).await;
        }
    })
    .await;
    world.stopping.cancel();
    within("the relay stops", relaying).await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_process_left_goes_out_behind_a_full_queue_too() {
    let world = World::new().await;
    let alive = Relay::new("alive");
    let sweep = async || within("it is swept", sweep(&alive, &world.store, &world.broker)).await;
    world.write_too_many().await;
    world.write(&[world.row(1), world.row(2)]).await;
    assert_eq!(sweep().await, Ok(0), "their own process may live");
    world.clock.advance(Duration::from_secs(6));
    assert_eq!(sweep().await, Ok(3), "two, and the one with room");
    assert_eq!(world.unsent().await, u64::from(MANY) - 1);
    assert_eq!(sweep().await, Ok(0));
}
