//! Consuming in groups, for the coordinator: one transaction and one ack for many messages.
//!
//! Trouble of the store is not a message's fault, so the group waits, unacked, until the store is back. Only a message
//! that fails for ever by itself becomes a dead letter, and its neighbours do not suffer from it.

use std::{future::Future, marker::PhantomData, sync::Arc, time::Duration};

use lapin::message::Delivery as Raw;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use warren_clock::Reconnect;
use warren_fault::{Cause, Fault};
use warren_messages::{
    envelope::Message,
    routes::{COMMANDS, Route},
};

use crate::{
    Broker, ByHand, Delivery, Received,
    consume::{Subscription, caught, subscribe},
    delivery::decode,
    link::Link,
    settle::{Origin, count_delivery},
};

/// So many messages in one group are a crowd: the next ones are on their way.
const CROWD: usize = 8;
/// How long the group after a crowd waits for more. A transaction for many costs little more than one for a few, and
/// whoever comes alone waits for nobody.
const GATHER: Duration = Duration::from_millis(10);
/// Panics over one message before it becomes a dead letter; a first one may have had another cause.
const MAX_PANICS: u32 = 3;

/// Work for a group of messages at once.
pub trait GroupHandler<T>: Send + Sync + 'static {
    /// Takes all of the group in one transaction, or nothing of it. May see a message again after a lost connection.
    ///
    /// `Retryable` and `RetryLater` leave the group unacked and call again later, for ever; `Permanent` for a group of
    /// several calls again for each message alone; for one message it makes a dead letter.
    fn handle(&self, group: &[T]) -> impl Future<Output = Result<(), Fault>> + Send;
}

impl<T, H> GroupHandler<T> for Arc<H>
where
    T: Send + Sync + 'static,
    H: GroupHandler<T>,
{
    fn handle(&self, group: &[T]) -> impl Future<Output = Result<(), Fault>> + Send {
        H::handle(self, group)
    }
}

impl Broker {
    /// Consumes a queue in groups of whatever is there, up to `max_group`, in order, until `stopping` is cancelled.
    /// Returns after the group in hand was finished, or given up after the drain time; what is not acked by then has
    /// gone back to the queue.
    pub async fn consume_group<M, H>(&self, route: Route<M>, max_group: u16, handler: H, stopping: CancellationToken)
    where
        M: Message,
        H: GroupHandler<Received<M>>,
    {
        let origin = Origin { queue: route.queue, exchange: route.exchange, key: route.key };
        let intake = Messages { origin, message: PhantomData };
        self.using(run(self.clone(), intake, max_group, handler, stopping)).await;
    }
}

/// How raw deliveries become what a handler takes.
pub(crate) trait Intake: Send + Sync + 'static {
    type Item: Send + Sync + 'static;

    fn queue(&self) -> &'static str;

    fn read(&self, broker: &Broker, raw: &Raw) -> Result<Self::Item, Cause>;

    /// Where the message belongs and the letter that it is, if somebody moved it there by hand.
    fn by_hand(&self, item: &Self::Item) -> Option<(Origin, ByHand)>;

    /// Settles a message that can never be handled. False when the generation was lost.
    fn refuse(&self, broker: &Broker, link: &Arc<Link>, raw: &Raw, cause: &Cause) -> impl Future<Output = bool> + Send;
}

struct Messages<M> {
    origin: Origin,
    message: PhantomData<fn() -> M>,
}

impl<M: Message> Intake for Messages<M> {
    type Item = Received<M>;

    fn queue(&self) -> &'static str {
        self.origin.queue
    }

    fn read(&self, broker: &Broker, raw: &Raw) -> Result<Received<M>, Cause> {
        let delivery = Delivery::read(raw, self.origin.queue, broker.clock());
        decode(raw).map(|message| Received { message, delivery })
    }

    fn by_hand(&self, item: &Received<M>) -> Option<(Origin, ByHand)> {
        let by_hand = item.delivery.by_hand?;
        // A command is carried out, whoever wrote it.
        let asked = self.origin.queue != COMMANDS.queue || by_hand != ByHand::Unmarked;
        asked.then_some((self.origin, by_hand))
    }

    async fn refuse(&self, broker: &Broker, link: &Arc<Link>, raw: &Raw, cause: &Cause) -> bool {
        broker.bury(link, raw, self.origin, 0, cause).await
    }
}

pub(crate) async fn run<I, H>(broker: Broker, intake: I, max_group: u16, handler: H, stopping: CancellationToken)
where
    I: Intake,
    H: GroupHandler<I::Item>,
{
    let max_group = max_group.max(1);
    let groups = Groups { broker, intake, handler, stopping };
    // Twice as much as one group, so that the next one arrives while this one is written.
    let prefetch = max_group.saturating_mul(2);
    while let Some((link, mut subscription)) =
        subscribe(&groups.broker, groups.intake.queue(), prefetch, &groups.stopping).await
    {
        let mut before = 0;
        loop {
            let first = tokio::select! {
                biased;
                () = groups.stopping.cancelled() => break,
                raw = subscription.next() => raw,
            };
            let Some(first) = first else { break };
            let gather = if before >= CROWD { GATHER } else { Duration::ZERO };
            let Some((raws, items)) = groups.form(&link, first, &mut subscription, max_group, gather).await else {
                break;
            };
            before = raws.len();
            if !groups.settle(&link, &raws, &items).await {
                break;
            }
        }
        if groups.stopping.is_cancelled() {
            subscription.cancel().await;
            subscription.close().await;
            return;
        }
    }
}

struct Groups<I, H> {
    broker: Broker,
    intake: I,
    handler: H,
    stopping: CancellationToken,
}

enum Outcome {
    Done,
    Offends(Cause),
    /// The generation is lost or we are stopping: the messages come again.
    GivenUp,
}

impl<I, H> Groups<I, H>
where
    I: Intake,
    H: GroupHandler<I::Item>,
{
    /// Forms a group of what is there and what comes within `gather`. `None` when the subscription is of no more use.
    async fn form(
        &self,
        link: &Arc<Link>,
        first: Raw,
        subscription: &mut Subscription,
        max_group: u16,
        gather: Duration,
    ) -> Option<(Vec<Raw>, Vec<I::Item>)> {
        let until = Instant::now() + gather;
        let (mut raws, mut items) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(raw) = next {
            match self.intake.read(&self.broker, &raw) {
                Ok(item) => {
                    if let Some((origin, by_hand)) = self.intake.by_hand(&item) {
                        if !self.broker.replay_by_hand(link, &raw, origin, by_hand).await {
                            return None;
                        }
                    } else {
                        raws.push(raw);
                        items.push(item);
                    }
                }
                Err(cause) => {
                    if !self.intake.refuse(&self.broker, link, &raw, &cause).await {
                        return None;
                    }
                }
            }
            if raws.len() >= usize::from(max_group) {
                break;
            }
            next = subscription.ready();
            if next.is_none() && Instant::now() < until {
                next = tokio::select! {
                    biased;
                    () = self.stopping.cancelled() => None,
                    raw = subscription.next() => raw,
                    () = sleep_until(until) => None,
                };
            }
        }
        Some((raws, items))
    }

    /// Handles and settles a group. False when the subscription is of no more use.
    async fn settle(&self, link: &Arc<Link>, raws: &[Raw], items: &[I::Item]) -> bool {
        let Some(last) = raws.last() else { return !link.is_lost() };
        match self.handle(link, items).await {
            // Everything before it on this channel was settled earlier or belongs to this group.
            Outcome::Done => self.acked(link, last, true, raws.len()).await,
            Outcome::GivenUp => false,
            Outcome::Offends(cause) if raws.len() == 1 => self.intake.refuse(&self.broker, link, last, &cause).await,
            Outcome::Offends(_) => self.one_by_one(link, raws, items).await,
        }
    }

    async fn one_by_one(&self, link: &Arc<Link>, raws: &[Raw], items: &[I::Item]) -> bool {
        for (raw, item) in raws.iter().zip(items) {
            let settled = match self.handle(link, std::slice::from_ref(item)).await {
                Outcome::Done => self.acked(link, raw, false, 1).await,
                Outcome::Offends(cause) => self.intake.refuse(&self.broker, link, raw, &cause).await,
                Outcome::GivenUp => false,
            };
            if !settled {
                return false;
            }
        }
        true
    }

    async fn acked(&self, link: &Link, raw: &Raw, multiple: bool, messages: usize) -> bool {
        let acked = self.broker.ack(link, raw, multiple).await;
        for _ in 0..messages {
            count_delivery(self.intake.queue(), if acked { "ack" } else { "requeue" });
        }
        acked
    }

    /// Calls the handler until it takes the group or says that it never will.
    async fn handle(&self, link: &Link, group: &[I::Item]) -> Outcome {
        let mut delays = Reconnect::new();
        let mut panics = 0;
        loop {
            let result = tokio::select! {
                biased;
                result = caught(|| self.handler.handle(group)) => result,
                () = self.out_of_time() => return Outcome::GivenUp,
            };
            let (wait, cause) = match result {
                Ok(Ok(())) => return Outcome::Done,
                Ok(Err(Fault::Permanent(cause))) => return Outcome::Offends(cause),
                Ok(Err(Fault::RetryLater { cause, wait: Some(wait) })) => (wait.min(Duration::from_secs(60)), cause),
                Ok(Err(Fault::RetryLater { cause, wait: None } | Fault::Retryable(cause))) => {
                    (delays.next_delay(), cause)
                }
                Err(panic) => {
                    panics += 1;
                    if group.len() > 1 || panics >= MAX_PANICS {
                        return Outcome::Offends(panic);
                    }
                    (delays.next_delay(), panic)
                }
            };
            tracing::warn!(queue = self.intake.queue(), messages = group.len(), %cause, retry_in = ?wait, "not consuming");
            tokio::select! {
                biased;
                () = link.lost().cancelled() => return Outcome::GivenUp,
                () = self.stopping.cancelled() => return Outcome::GivenUp,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn out_of_time(&self) {
        self.stopping.cancelled().await;
        tokio::time::sleep(self.broker.settings().drain()).await;
    }
}
