//! Acks of one channel: those that come close together go out as one.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use lapin::{Channel, options::BasicAckOptions, types::DeliveryTag};
use tokio::{sync::oneshot, task::yield_now};

use crate::link::{Link, lock};

/// Acks the deliveries of one channel. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Acks {
    link: Arc<Link>,
    channel: Channel,
    inner: Arc<Mutex<Inner>>,
}

/// The broker numbers the deliveries of a channel from 1 on.
#[derive(Debug, Default)]
struct Inner {
    /// Neither settled nor about to be.
    in_hand: BTreeSet<DeliveryTag>,
    /// Not acked yet.
    waiting: Vec<(DeliveryTag, oneshot::Sender<bool>)>,
    sending: bool,
}

/// What goes to the broker for a group.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// This one and all before it.
    up_to: Option<DeliveryTag>,
    /// Others after it, which something unsettled comes before.
    single: Vec<DeliveryTag>,
}

impl Inner {
    /// The acks of a group. The one for several must be of a delivery that was not acked before.
    fn plan(&mut self, group: &[DeliveryTag]) -> Plan {
        for tag in group {
            self.in_hand.remove(tag);
        }
        let first = self.in_hand.first().copied().unwrap_or(DeliveryTag::MAX);
        let (covered, single): (Vec<_>, Vec<_>) = group.iter().copied().partition(|tag| *tag < first);
        Plan { up_to: covered.into_iter().max(), single }
    }
}

impl Acks {
    /// For a channel of this generation.
    pub(crate) fn of(link: &Arc<Link>, channel: &Channel) -> Self {
        Self { link: link.clone(), channel: channel.clone(), inner: Arc::default() }
    }

    /// A delivery is taken in hand; in the order in which they come, and before the next one is.
    pub(crate) fn taken(&self, tag: DeliveryTag) {
        lock(&self.inner).in_hand.insert(tag);
    }

    /// Acks a delivery. False when the generation is lost: it *will* come again.
    pub(crate) async fn ack(&self, tag: DeliveryTag) -> bool {
        let (sender, acked) = oneshot::channel();
        let send = {
            let mut inner = lock(&self.inner);
            inner.waiting.push((tag, sender));
            !std::mem::replace(&mut inner.sending, true)
        };
        if send {
            tokio::spawn(self.clone().send());
        }
        acked.await.unwrap_or(false)
    }

    /// The delivery was settled in another way.
    pub(crate) fn settled(&self, tag: DeliveryTag) {
        lock(&self.inner).in_hand.remove(&tag);
    }

    async fn send(self) {
        loop {
            // What ends at the same time joins.
            yield_now().await;
            let (group, plan) = {
                let mut inner = lock(&self.inner);
                let group = std::mem::take(&mut inner.waiting);
                if group.is_empty() {
                    inner.sending = false;
                    return;
                }
                let tags: Vec<_> = group.iter().map(|(tag, _)| *tag).collect();
                (group, inner.plan(&tags))
            };
            let acked = matches!(self.link.unless_lost(self.carry_out(plan)).await, Some(Ok(())));
            if !acked {
                self.link.lose("an ack found its channel gone");
            }
            for (_, waiting) in group {
                // Whoever waited may have gone.
                let _ = waiting.send(acked);
            }
        }
    }

    async fn carry_out(&self, plan: Plan) -> lapin::Result<()> {
        if let Some(tag) = plan.up_to {
            self.channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
        }
        for tag in plan.single {
            self.channel.basic_ack(tag, BasicAckOptions { multiple: false }).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_ack_never_covers_what_is_not_settled() {
        let mut inner = Inner { in_hand: (1..=11).collect(), ..Inner::default() };
        let plan = |up_to, single: &[u64]| Plan { up_to, single: single.to_vec() };
        assert_eq!(inner.plan(&[2, 4]), plan(None, &[2, 4]), "1 is at work");
        assert_eq!(inner.plan(&[5, 1]), plan(Some(1), &[5]), "1 alone is new; 2 was acked; 3 is at work");
        inner.in_hand.remove(&3);
        assert_eq!(inner.plan(&[7, 6]), plan(Some(7), &[]), "3 was moved elsewhere, 4 and 5 were acked");
        assert_eq!(inner.plan(&[9]), plan(None, &[9]));
        assert_eq!(inner.plan(&[8]), plan(Some(8), &[]));
        assert_eq!(inner.plan(&[11, 10]), plan(Some(11), &[]));
        assert!(inner.in_hand.is_empty(), "nothing is kept of what is behind");
    }
}
