//! Messages on their way to the broker: what waits goes out together on one channel, and its confirms come together.
//!
//! lapin 4.12 pairs returned messages with confirms by order, which is wrong as soon as the broker confirms several at
//! once: an unroutable message could pass for stored. The broker returns a message before it confirms it, though, so that
//! its return is with its own confirm or with one that came earlier. So a channel carries one batch at a time, all confirms
//! that are there are looked at before anybody is told, and what came back is told by its message id.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Channel, Confirmation, ErrorKind,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::timeout,
};

use crate::{
    link::{Link, lock},
    publish::Parcel,
};

/// Most messages that go out together.
const BATCH: usize = 64;
/// Batches under way at once. With more of them each is smaller and costs as much; with fewer, messages wait longer for
/// the confirms of others.
pub(crate) const CARRIERS: usize = 4;
/// A batch that takes longer no longer keeps others waiting.
const HURRY: Duration = Duration::from_secs(1);

/// A message that can go out.
#[derive(Debug)]
pub(crate) struct Posting {
    pub(crate) exchange: ShortString,
    pub(crate) key: ShortString,
    pub(crate) properties: BasicProperties,
    pub(crate) parcel: Arc<Parcel>,
    /// Not together with others, because one of them may be at fault.
    pub(crate) alone: bool,
    /// Its share of what may be in flight, held until the broker has settled it.
    pub(crate) permit: OwnedSemaphorePermit,
    /// Who waits for it. Dropped without a word when the generation is lost.
    pub(crate) receipt: oneshot::Sender<Receipt>,
}

/// Who waits for a message.
struct Waiting {
    parcel: Arc<Parcel>,
    receipt: oneshot::Sender<Receipt>,
}

/// What became of a message.
#[derive(Debug)]
pub(crate) enum Receipt {
    /// The broker has it.
    Stored,
    /// The queue is full.
    Full,
    /// No queue is bound.
    Returned,
    /// No confirm in time.
    Unknown,
    /// The channel broke, perhaps because of another message that went out with it.
    Failed(lapin::Error),
}

impl Receipt {
    /// Only the channel broke, and on one of its own a message that is not at fault goes out.
    pub(crate) fn blames_the_channel(&self) -> bool {
        let Self::Failed(error) = self else { return false };
        // The second is what lapin says of a channel that another message has ended.
        error.is_amqp_soft_error() || matches!(error.kind(), ErrorKind::InvalidChannelState(..))
    }
}

/// Messages that wait to go out, and how many batches are under way.
#[derive(Debug, Default)]
pub(crate) struct Post {
    waiting: VecDeque<Posting>,
    carriers: usize,
}

impl Post {
    fn next_batch(&mut self) -> Vec<Posting> {
        let count = match self.waiting.iter().position(|posting| posting.alone) {
            Some(0) => 1,
            Some(before) => before.min(BATCH),
            None => self.waiting.len().min(BATCH),
        };
        self.waiting.drain(..count).collect()
    }
}

impl Link {
    /// Has a message go out, together with others that wait. Its confirm may take as long as `patience`.
    pub(crate) fn post(self: &Arc<Self>, posting: Posting, patience: Duration) {
        let mut post = lock(&self.post);
        post.waiting.push_back(posting);
        if post.carriers == CARRIERS {
            return;
        }
        post.carriers += 1;
        let link = self.clone();
        tokio::spawn(async move {
            while let Some(batch) = link.next_batch() {
                link.unless_lost(carry(&link, batch, patience)).await;
            }
        });
    }

    fn next_batch(&self) -> Option<Vec<Posting>> {
        let mut post = lock(&self.post);
        let batch = post.next_batch();
        if batch.is_empty() {
            post.carriers -= 1;
            return None;
        }
        Some(batch)
    }

    /// A channel in confirm mode that carries nothing. `None` when this generation is lost.
    async fn confirmed_channel(self: &Arc<Self>) -> Option<lapin::Result<Channel>> {
        let idle = || lock(&self.idle).pop();
        if let Some(channel) = idle() {
            return Some(Ok(channel));
        }
        let opening = self.openings.clone().acquire_owned().await.expect("never closed");
        if let Some(channel) = idle() {
            return Some(Ok(channel));
        }
        let (sender, opened) = oneshot::channel();
        let link = self.clone();
        // While the broker is blocked it opens none, and a channel that is given up keeps its number, of which a connection
        // has some two thousand. So it is opened even if nobody waits any more, and is for the next batch then.
        tokio::spawn(async move {
            let _opening = opening;
            if let Some(channel) = link.unless_lost(open(&link)).await
                && let Err(Ok(unclaimed)) = sender.send(channel)
            {
                lock(&link.idle).push(unclaimed);
            }
        });
        opened.await.ok()
    }
}

async fn open(link: &Link) -> lapin::Result<Channel> {
    let channel = link.publishing.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

/// Publishes a batch and tells who waits for it.
async fn carry(link: &Arc<Link>, batch: Vec<Posting>, patience: Duration) {
    let channel = match timeout(patience, link.confirmed_channel()).await {
        Ok(Some(Ok(channel))) => channel,
        Ok(Some(Err(error))) => {
            for posting in batch {
                let _ = posting.receipt.send(Receipt::Failed(error.clone()));
            }
            return;
        }
        // Nothing was sent.
        Ok(None) | Err(_) => return,
    };
    let mut waiting = Vec::with_capacity(batch.len());
    let under_way = batch.into_iter().enumerate().map(|(index, posting)| {
        let Posting { exchange, key, properties, parcel, permit, receipt, alone: _ } = posting;
        waiting.push(Some(Waiting { parcel: parcel.clone(), receipt }));
        let channel = channel.clone();
        async move {
            let _permit = permit;
            (index, publish(&channel, exchange, key, properties, &parcel.body).await)
        }
    });
    let under_way = under_way.collect();
    let mut batch = Batch { channel, under_way, waiting, came_back: HashSet::new(), whole: true };
    batch.settle(patience.min(HURRY)).await;
    if batch.under_way.is_empty() {
        return batch.free_channel(link);
    }
    // The next batch does not wait for one that the broker is slow to confirm.
    let link = link.clone();
    tokio::spawn(async move {
        let slow = async {
            batch.settle(patience.saturating_sub(HURRY)).await;
            batch.give_up();
            // The broker reads nothing now, and what would come on top stays in the memory of this process.
            while link.publishing.status().blocked() && !batch.under_way.is_empty() {
                batch.settle(HURRY).await;
            }
            // What is still under way loses its channel and its permits: it is one queue that confirms nothing, and
            // messages to others must not wait for it.
            batch.free_channel(&link);
        };
        link.unless_lost(slow).await;
    });
}

async fn publish(
    channel: &Channel,
    exchange: ShortString,
    key: ShortString,
    properties: BasicProperties,
    body: &[u8],
) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    channel.basic_publish(exchange, key, options, body, properties).await?.await
}

/// Messages that went out on one channel.
struct Batch<F> {
    channel: Channel,
    /// Polled by one task, so that the numbers that lapin gives them are those that the broker counts.
    under_way: FuturesUnordered<F>,
    waiting: Vec<Option<Waiting>>,
    /// Message ids.
    came_back: HashSet<String>,
    /// The channel can carry another batch.
    whole: bool,
}

impl<F: Future<Output = (usize, lapin::Result<Confirmation>)>> Batch<F> {
    /// Waits until the broker has settled them, no longer than `patience`, and tells who waits for those that it has.
    async fn settle(&mut self, patience: Duration) {
        let mut settled = Vec::with_capacity(self.under_way.len());
        let all = async {
            while let Some(one) = self.under_way.next().await {
                settled.push(one);
            }
        };
        if timeout(patience, all).await.is_err() {
            // What came back may have come with any confirm that is here by now.
            while let Some(Some(one)) = self.under_way.next().now_or_never() {
                settled.push(one);
            }
        }
        self.came_back.extend(settled.iter().filter_map(|(_, confirmed)| came_back(confirmed)));
        for (index, confirmed) in settled {
            self.whole &= confirmed.is_ok();
            if let Some(waiting) = self.waiting.get_mut(index).and_then(Option::take) {
                let receipt = match confirmed {
                    Ok(_) if self.came_back.contains(&waiting.parcel.message_id) => Receipt::Returned,
                    Ok(Confirmation::Ack(_)) => Receipt::Stored,
                    Ok(Confirmation::Nack(_) | Confirmation::NotRequested) => Receipt::Full,
                    Err(error) => Receipt::Failed(error),
                };
                // Whoever waited may have gone.
                let _ = waiting.receipt.send(receipt);
            }
        }
    }

    /// The end: if all is settled, the channel can carry another batch.
    fn free_channel(self, link: &Link) {
        if self.whole && self.under_way.is_empty() {
            lock(&link.idle).push(self.channel);
        }
    }

    fn give_up(&mut self) {
        for waiting in self.waiting.drain(..).flatten() {
            let _ = waiting.receipt.send(Receipt::Unknown);
        }
    }
}

/// The id of a message that came back, with the confirm of any.
fn came_back(confirmed: &lapin::Result<Confirmation>) -> Option<String> {
    let (Ok(Confirmation::Ack(Some(message))) | Ok(Confirmation::Nack(Some(message)))) = confirmed else { return None };
    let id = message.delivery.properties.message_id().as_ref();
    Some(id.map_or_else(String::new, |id| id.as_str().to_owned()))
}
