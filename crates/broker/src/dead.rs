//! Dead letters: taking them into the index, and out of `warren.dead` once they are back at work.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use lapin::{
    Channel,
    message::Delivery as Raw,
    options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use warren_fault::Cause;
use warren_messages::routes;

use crate::{
    Broker, ByHand, GroupHandler, Letter,
    group::{self, Intake},
    link::Link,
    settle::{Origin, count_delivery},
};

/// The scan ended early; running it again finishes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the scan of dead letters was interrupted: {why}")]
pub struct ScanError {
    /// Letters removed before.
    pub removed: BTreeSet<Uuid>,
    /// Why it ended.
    pub why: String,
}

/// Removes these letters from `warren.dead` and returns those that lay there. Whatever replaces them must be durable.
///
/// The queue is looked through once: each letter is taken without an ack, and all others are given back at the head of
/// the queue at the end. Scans of one process follow one another.
///
/// # Errors
/// [`ScanError`] with what was removed so far.
pub async fn remove(broker: &Broker, letters: &BTreeSet<Uuid>) -> Result<BTreeSet<Uuid>, ScanError> {
    broker.using(scan(broker, Looked::Remove(letters))).await.map(|scan| scan.removed)
}

/// What lies in `warren.dead`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lying {
    /// All letters.
    pub ids: BTreeSet<Uuid>,
    /// Those that were wanted, with what they hold.
    pub read: Vec<Letter>,
}

/// The letters that lie in `warren.dead`, each of them once: further copies of the same letter are removed. Looks
/// through the queue as [`remove`] does.
///
/// # Errors
/// [`ScanError`].
pub async fn lying(broker: &Broker, wanted: &BTreeSet<Uuid>) -> Result<Lying, ScanError> {
    broker.using(scan(broker, Looked::Read(wanted))).await.map(|scan| scan.lying)
}

/// What the queue is looked through for.
#[derive(Clone, Copy, Debug)]
enum Looked<'a> {
    Read(&'a BTreeSet<Uuid>),
    Remove(&'a BTreeSet<Uuid>),
}

#[derive(Debug, Default)]
struct Scan {
    removed: BTreeSet<Uuid>,
    lying: Lying,
}

async fn scan(broker: &Broker, looked: Looked<'_>) -> Result<Scan, ScanError> {
    let _alone = broker.shared.scans.lock().await;
    let mut scan = Scan::default();
    let opened = async {
        let link = broker.link_within(broker.settings().confirm_timeout()).await;
        let link = link.ok_or_else(|| "no connection to the broker".to_owned())?;
        let channel = link.unless_lost(link.consuming.create_channel()).await;
        let channel = channel.ok_or_else(lost)?.map_err(|error| error.to_string())?;
        Ok::<_, String>((link, channel))
    };
    let result = match opened.await {
        Ok((link, channel)) => {
            let result = link.unless_lost(look_through(&link, &channel, looked, &mut scan)).await;
            let result = result.unwrap_or_else(|| Err(lost()));
            // Gives the rest back. A failure means that the connection is gone, which gives it back as well.
            let _ = tokio::time::timeout(Duration::from_secs(5), channel.close(200, "OK".into())).await;
            result
        }
        Err(why) => Err(why),
    };
    match result {
        Ok(()) => Ok(scan),
        Err(why) => Err(ScanError { removed: scan.removed, why }),
    }
}

async fn look_through(link: &Link, channel: &Channel, looked: Looked<'_>, scan: &mut Scan) -> Result<(), String> {
    let said = |error: lapin::Error| error.to_string();
    let passive = QueueDeclareOptions::durable().passive();
    let queue = channel.queue_declare(routes::DEAD_QUEUE.into(), passive, FieldTable::default()).await.map_err(said)?;
    // As many as there are now: letters that arrive meanwhile wait for the next scan.
    for _ in 0..queue.message_count() {
        let got = channel.basic_get(routes::DEAD_QUEUE.into(), BasicGetOptions::default()).await.map_err(said)?;
        let Some(got) = got else { break };
        let letter = Letter::read(&got);
        match looked {
            Looked::Remove(letters) if letters.contains(&letter.id) => {
                ack(link, &got).await?;
                scan.removed.insert(letter.id);
            }
            // The first copy is in hand until the end, so that this one is not the last.
            _ if !scan.lying.ids.insert(letter.id) => ack(link, &got).await?,
            Looked::Read(letters) if letters.contains(&letter.id) => scan.lying.read.push(letter),
            _ => {}
        }
    }
    Ok(())
}

fn lost() -> String {
    "the connection was lost".to_owned()
}

/// Removes one from its queue. There may be no answer once the link is lost; callers guard against that as a whole.
pub(crate) async fn ack(link: &Link, raw: &Raw) -> Result<(), String> {
    if let Ok(true) = raw.ack(BasicAckOptions::default()).await {
        return Ok(());
    }
    link.lose("an ack found its channel gone");
    Err(lost())
}

impl Broker {
    /// Consumes copies of all dead letters, in groups of up to `max_group`, as [`Broker::consume_group`] does. A letter
    /// that the handler refuses for ever is logged and acked; the original is still on `warren.dead`.
    pub async fn consume_dead_index<H>(&self, max_group: u16, handler: H, stopping: CancellationToken)
    where
        H: GroupHandler<Letter>,
    {
        self.using(group::run(self.clone(), Letters, max_group, handler, stopping)).await;
    }
}

struct Letters;

impl Intake for Letters {
    type Item = Letter;

    fn queue(&self) -> &'static str {
        routes::DEAD_INDEX_QUEUE
    }

    fn read(&self, _broker: &Broker, raw: &Raw) -> Result<Letter, Cause> {
        Ok(Letter::read(raw))
    }

    fn by_hand(&self, _: &Letter) -> Option<(Origin, ByHand)> {
        None
    }

    async fn refuse(&self, broker: &Broker, link: &Arc<Link>, raw: &Raw, cause: &Cause) -> bool {
        let letter = Letter::read(raw).id;
        tracing::error!(%letter, %cause, "a dead letter cannot be indexed; it stays on warren.dead");
        count_delivery(routes::DEAD_INDEX_QUEUE, "dead");
        broker.ack(link, raw, false).await
    }
}
