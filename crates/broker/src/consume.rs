//! Consuming tasks: each delivery has a handler of its own, and what the handler returns decides what becomes of it.

use std::{collections::VecDeque, future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{FutureExt as _, StreamExt as _};
use lapin::{
    Channel, Consumer,
    message::Delivery as Raw,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use warren_clock::UnixMillis;
use warren_fault::{Cause, Code, Fault};
use warren_jobs::retry::{RetryPolicy, Settlement, Tried, settle};
use warren_messages::{
    envelope::Message,
    routes::{self, Route},
};
use warren_telemetry::trace;

use crate::{
    Broker, Delay, Delivery,
    acks::Acks,
    delivery::decode,
    link::Link,
    settle::{Origin, count_delivery},
};

/// Deliveries of one copy after which it is published anew: lost connections must not use up the broker's limit of
/// [`crate::topology::TASK_DELIVERY_LIMIT`], which is a last net.
const RENEW_AFTER: u32 = 15;
/// A farewell to the broker that takes longer is skipped; it would redeliver in any case.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The work for one kind of message. It never sees a channel, an ack or a queue.
pub trait Handler<M>: Send + Sync + 'static {
    /// Does the work. `Ok` acks: the effect must be durable, e.g. published and confirmed. A fault decides between the
    /// retry ladder and a dead letter. A panic counts as a retryable fault and harms nobody else.
    fn handle(&self, message: M, delivery: Delivery) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Called before the message goes to the ladder, so that others can be told when it returns. A fault is logged
    /// and changes nothing.
    fn delayed(
        &self,
        _message: &M,
        _delivery: &Delivery,
        _delay: &Delay,
        _cause: &Cause,
    ) -> impl Future<Output = Result<(), Fault>> + Send {
        async { Ok(()) }
    }

    /// When waiting for the platform ends and the message becomes a dead letter.
    fn deadline(&self, _message: &M) -> Option<UnixMillis> {
        None
    }

    /// How patient to be.
    fn policy(&self) -> RetryPolicy {
        RetryPolicy::default()
    }
}

impl<M, H> Handler<M> for Arc<H>
where
    M: Send + Sync + 'static,
    H: Handler<M>,
{
    fn handle(&self, message: M, delivery: Delivery) -> impl Future<Output = Result<(), Fault>> + Send {
        H::handle(self, message, delivery)
    }

    fn delayed(
        &self,
        message: &M,
        delivery: &Delivery,
        delay: &Delay,
        cause: &Cause,
    ) -> impl Future<Output = Result<(), Fault>> + Send {
        H::delayed(self, message, delivery, delay, cause)
    }

    fn deadline(&self, message: &M) -> Option<UnixMillis> {
        H::deadline(self, message)
    }

    fn policy(&self) -> RetryPolicy {
        H::policy(self)
    }
}

impl Broker {
    /// Consumes a queue of tasks until `stopping` is cancelled, across any number of lost connections. Up to
    /// `prefetch` handlers run at once. After `stopping`, handlers in hand may finish within the drain time; what is
    /// left then is dropped, and its message goes back to the queue.
    ///
    /// # Panics
    /// When `route` is not a queue of tasks: only those have a way back from the retry ladder.
    pub async fn consume<M, H>(&self, route: Route<M>, prefetch: u16, handler: H, stopping: CancellationToken)
    where
        M: Message,
        H: Handler<M>,
    {
        self.consume_paced(route, watch::channel(prefetch).1, handler, stopping).await;
    }

    /// [`Broker::consume`] with as many handlers at once as `prefetch` says at the time. Each change costs a round trip,
    /// so it should be rare.
    ///
    /// # Panics
    /// As [`Broker::consume`].
    pub async fn consume_paced<M, H>(
        &self,
        route: Route<M>,
        prefetch: watch::Receiver<u16>,
        handler: H,
        stopping: CancellationToken,
    ) where
        M: Message,
        H: Handler<M>,
    {
        assert_eq!(route.exchange, routes::TASK_EXCHANGE, "only tasks have a retry ladder; use consume_group");
        let origin = Origin { queue: route.queue, exchange: route.exchange, key: route.key };
        let consuming = Arc::new(Consuming { broker: self.clone(), origin, handler });
        self.using(run(consuming, prefetch, stopping)).await;
    }
}

struct Consuming<H> {
    broker: Broker,
    origin: Origin,
    handler: H,
}

async fn run<M, H>(consuming: Arc<Consuming<H>>, mut prefetch: watch::Receiver<u16>, stopping: CancellationToken)
where
    M: Message,
    H: Handler<M>,
{
    let broker = &consuming.broker;
    let queue = consuming.origin.queue;
    let wanted = |prefetch: &mut watch::Receiver<u16>| (*prefetch.borrow_and_update()).max(1);
    let mut most = wanted(&mut prefetch);
    // Handlers of a lost generation may still run when their messages come again: they count, too.
    let mut running = JoinSet::new();
    let mut last = None;
    while let Some((link, mut subscription)) = subscribe(broker, queue, most, &stopping).await {
        // Deliveries of a subscription that was changed, and not yet taken in hand.
        let mut left = VecDeque::new();
        loop {
            if prefetch.has_changed().unwrap_or(false) {
                most = wanted(&mut prefetch);
                match link.unless_lost(subscription.resize(most)).await {
                    Some(Ok(delivered)) => left.extend(delivered),
                    Some(Err(error)) => link.lose(format!("consuming {queue}: {error}")),
                    None => {}
                }
            }
            let raw = match left.pop_front() {
                Some(raw) => Some(raw),
                None => tokio::select! {
                    biased;
                    () = stopping.cancelled() => break,
                    raw = subscription.next() => raw,
                    Some(_) = running.join_next() => continue,
                    Ok(()) = prefetch.changed() => {
                        prefetch.mark_changed();
                        continue;
                    }
                },
            };
            let Some(raw) = raw else { break };
            subscription.acks.taken(raw.delivery_tag);
            let room = async {
                broker.unblocked().await;
                while running.len() >= usize::from(most) {
                    running.join_next().await;
                }
            };
            tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                () = link.lost().cancelled() => break,
                () = room => {}
            }
            let (consuming, link, acks) = (consuming.clone(), link.clone(), subscription.acks.clone());
            running.spawn(async move {
                if consuming.process(&link, &raw, &acks).await {
                    acks.settled(raw.delivery_tag);
                }
            });
        }
        if stopping.is_cancelled() {
            subscription.cancel().await;
            last = Some(subscription);
            break;
        }
    }
    let drained = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(broker.settings().drain(), drained).await.is_err() {
        tracing::warn!(
            queue = consuming.origin.queue,
            "work in hand did not finish in time; it will be delivered again"
        );
        running.shutdown().await;
    }
    if let Some(subscription) = last {
        subscription.close().await;
    }
}

impl<H> Consuming<H> {
    /// Does what is to be done about one delivery. True when it is settled; else it comes again.
    async fn process<M: Message>(&self, link: &Arc<Link>, raw: &Raw, acks: &Acks) -> bool
    where
        H: Handler<M>,
    {
        let (broker, origin) = (&self.broker, self.origin);
        let delivery = Delivery::read(raw, origin.queue, broker.clock());
        if delivery.delivery_count >= RENEW_AFTER {
            return broker.renew(link, raw, origin).await;
        }
        let spent = delivery.attempt - 1;
        let message = match decode::<M>(raw) {
            Ok(message) => message,
            Err(cause) => {
                return broker.bury(link, raw, origin, spent, &cause).await;
            }
        };
        if let Some(by_hand) = delivery.by_hand {
            return broker.replay_by_hand(link, raw, origin, by_hand).await;
        }
        let result = self.handle(message, &delivery).await;
        let fault = match &result {
            Ok(()) => {
                let acked = acks.ack(raw.delivery_tag).await;
                count_delivery(origin.queue, if acked { "ack" } else { "requeue" });
                return acked;
            }
            Err(fault) => fault,
        };
        if link.is_lost() {
            count_delivery(origin.queue, "requeue");
            return false;
        }
        // Decoded again instead of copied before: faults are rare and messages are not.
        let message = decode::<M>(raw).ok();
        let deadline = message.as_ref().and_then(|message| self.handler.deadline(message));
        let past_deadline = deadline.is_some_and(|deadline| broker.clock().now() >= deadline);
        let tried = Tried { attempts: delivery.attempt, waits: delivery.waits, past_deadline };
        match settle(&result, &tried, &self.handler.policy(), broker.clock().jitter()) {
            Settlement::Ack => broker.ack(link, raw, false).await,
            Settlement::DeadLetter => {
                let spent = if matches!(fault, Fault::Retryable(_)) { delivery.attempt } else { spent };
                broker.bury(link, raw, origin, spent, fault.cause()).await
            }
            Settlement::Delay { seconds, spends_attempt } => {
                let until = broker.clock().now().plus(Duration::from_secs(seconds.into()));
                let delay = Delay { seconds, spends_attempt, until };
                if let Some(message) = &message {
                    self.announce(message, &delivery, &delay, fault.cause()).await;
                }
                let counts =
                    if spends_attempt { (delivery.attempt, 0) } else { (spent, delivery.waits.saturating_add(1)) };
                broker.delay(link, raw, origin, &delay, counts, fault).await
            }
        }
    }

    async fn handle<M>(&self, message: M, delivery: &Delivery) -> Result<(), Fault>
    where
        H: Handler<M>,
    {
        let span = tracing::info_span!(
            "handle",
            queue = delivery.queue,
            message = %delivery.message_id,
            attempt = delivery.attempt,
        );
        let producer = trace::extract(&delivery.headers);
        if delivery.attempt == 1 && !delivery.redelivered {
            producer.parent_of(&span);
        } else {
            producer.link_to(&span);
        }
        caught(|| self.handler.handle(message, delivery.clone()))
            .instrument(span)
            .await
            .unwrap_or_else(|panic| Err(Fault::Retryable(panic)))
    }

    async fn announce<M>(&self, message: &M, delivery: &Delivery, delay: &Delay, cause: &Cause)
    where
        H: Handler<M>,
    {
        match caught(|| self.handler.delayed(message, delivery, delay, cause)).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => tracing::warn!(queue = delivery.queue, %fault, "a retry could not be announced"),
            Err(panic) => tracing::error!(queue = delivery.queue, %panic, "announcing a retry panicked"),
        }
    }
}

/// Runs work that may panic; the panic becomes a cause.
pub(crate) async fn caught<T, F: Future<Output = T>>(work: impl FnOnce() -> F) -> Result<T, Cause> {
    // Handlers own what they touch or guard it; nothing half-changed is read again after a panic.
    // In a box: what wraps it is moved several times, and it is large.
    let result = AssertUnwindSafe(async { Box::pin(work()).await }).catch_unwind().await;
    result.map_err(|payload| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Cause::new(Code::Internal, format!("the handler panicked: {}", text.unwrap_or_else(|| "no text".to_owned())))
    })
}

/// Waits for a generation and subscribes on it; `None` when stopping or at the end.
pub(crate) async fn subscribe(
    broker: &Broker,
    queue: &'static str,
    prefetch: u16,
    stopping: &CancellationToken,
) -> Option<(Arc<Link>, Subscription)> {
    loop {
        let link = tokio::select! {
            biased;
            () = stopping.cancelled() => return None,
            link = broker.link() => link?,
        };
        match link.unless_lost(Subscription::open(&link, queue, prefetch)).await {
            Some(Ok(subscription)) => return Some((link, subscription)),
            Some(Err(error)) => link.lose(format!("consuming {queue}: {error}")),
            None => {}
        }
    }
}

/// A consumer on a channel of its own.
pub(crate) struct Subscription {
    link: Arc<Link>,
    queue: &'static str,
    channel: Channel,
    consumer: Consumer,
    pub(crate) acks: Acks,
}

impl Subscription {
    async fn open(link: &Arc<Link>, queue: &'static str, prefetch: u16) -> lapin::Result<Self> {
        let channel = link.consuming.create_channel().await?;
        let consumer = consumer(&channel, queue, prefetch).await?;
        let acks = Acks::of(link, &channel);
        Ok(Self { link: link.clone(), queue, channel, consumer, acks })
    }

    /// Subscribes anew with another prefetch. Returns what had been delivered and not been taken: it can be settled as
    /// before.
    async fn resize(&mut self, prefetch: u16) -> lapin::Result<Vec<Raw>> {
        self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default()).await?;
        let mut delivered = Vec::new();
        while let Some(Some(raw)) = self.consumer.next().now_or_never() {
            delivered.push(raw?);
        }
        self.consumer = consumer(&self.channel, self.queue, prefetch).await?;
        Ok(delivered)
    }

    /// The next delivery; `None` when the generation is lost.
    pub(crate) async fn next(&mut self) -> Option<Raw> {
        let link = self.link.clone();
        tokio::select! {
            biased;
            () = link.lost().cancelled() => None,
            raw = self.consumer.next() => self.accept(raw),
        }
    }

    /// A delivery that is here already.
    pub(crate) fn ready(&mut self) -> Option<Raw> {
        let raw = self.consumer.next().now_or_never()?;
        self.accept(raw)
    }

    fn accept(&self, raw: Option<lapin::Result<Raw>>) -> Option<Raw> {
        match raw {
            Some(Ok(raw)) => Some(raw),
            Some(Err(error)) => {
                self.link.lose(format!("consuming {}: {error}", self.queue));
                None
            }
            None => {
                self.link.lose(format!("the broker ended the subscription to {}", self.queue));
                None
            }
        }
    }

    /// No more deliveries; those in hand can still be acked.
    pub(crate) async fn cancel(&self) {
        let cancel = self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default());
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, cancel).await;
    }

    /// Gives what is not acked back to the queue.
    pub(crate) async fn close(&self) {
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.channel.close(200, "OK".into())).await;
    }
}

async fn consumer(channel: &Channel, queue: &'static str, prefetch: u16) -> lapin::Result<Consumer> {
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
    tracing::debug!(queue, prefetch, "consuming");
    Ok(consumer)
}
