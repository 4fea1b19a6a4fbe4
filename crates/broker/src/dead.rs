//! Dead letters: taking them into the index, and moving them back to work.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

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
    Broker, GroupHandler, Letter, PublishError,
    group::{self, Intake},
    link::Link,
    publish::Parcel,
    settle::settled,
};

/// What the scan does with a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing; it stays where it is.
    Leave,
    /// Publishes it again and then removes it. Type and content type stay as they were.
    Replay {
        /// Exchange.
        exchange: String,
        /// Routing key.
        key: String,
        /// Body, edited or not.
        body: Vec<u8>,
        /// Headers; only whitelisted ones travel. `x-warren-attempt` and `x-warren-first-ts` go on from the letter unless
        /// they are taken out.
        headers: BTreeMap<String, String>,
        /// Must differ from that of the dead message, and be the same when the replay is repeated.
        message_id: Uuid,
    },
    /// Removes it.
    Drop,
}

/// What a scan did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanReport {
    /// Letters looked at.
    pub seen: usize,
    /// Letters that were confirmed on their queue and removed.
    pub replayed: Vec<Uuid>,
    /// Letters removed.
    pub dropped: Vec<Uuid>,
    /// Letters that should have been replayed but were refused; they are where they were.
    pub refused: Vec<(Uuid, PublishError)>,
}

/// The scan ended early. Running the same scan again finishes it; a letter may then be replayed twice under the same
/// message id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the scan of dead letters was interrupted: {why}")]
pub struct ScanError {
    /// What was done before.
    pub report: ScanReport,
    /// Why it ended.
    pub why: String,
}

/// Looks at each letter on `warren.dead` once and does what `decide` says, waiting `pace` between replays.
///
/// Letters are taken without an ack and given back at the head of the queue at the end. A replay is confirmed before its
/// letter is acked: a crash makes a duplicate, never a loss. Scans of one process follow one another.
///
/// # Errors
/// [`ScanError`] with what was done so far.
pub async fn scan(
    broker: &Broker,
    pace: Duration,
    decide: impl FnMut(&Letter) -> Decision + Send,
) -> Result<ScanReport, ScanError> {
    broker.using(scan_alone(broker, pace, decide)).await
}

async fn scan_alone(
    broker: &Broker,
    pace: Duration,
    decide: impl FnMut(&Letter) -> Decision + Send,
) -> Result<ScanReport, ScanError> {
    let _alone = broker.shared.scans.lock().await;
    let mut report = ScanReport::default();
    let opened = async {
        let link = broker.link_within(broker.settings().confirm_timeout()).await;
        let link = link.ok_or_else(|| PublishError::Disconnected.to_string())?;
        let channel = link.consuming.create_channel().await.map_err(|error| error.to_string())?;
        Ok::<_, String>((link, channel))
    };
    let result = match opened.await {
        Ok((link, channel)) => {
            let result = look_at_all(broker, &link, &channel, pace, decide, &mut report).await;
            // Gives the rest back. A failure means that the connection is gone, which gives it back as well.
            let _ = tokio::time::timeout(Duration::from_secs(5), channel.close(200, "OK".into())).await;
            result
        }
        Err(why) => Err(why),
    };
    match result {
        Ok(()) => Ok(report),
        Err(why) => Err(ScanError { report, why }),
    }
}

async fn look_at_all(
    broker: &Broker,
    link: &Arc<Link>,
    channel: &Channel,
    pace: Duration,
    mut decide: impl FnMut(&Letter) -> Decision + Send,
    report: &mut ScanReport,
) -> Result<(), String> {
    let said = |error: lapin::Error| error.to_string();
    let passive = QueueDeclareOptions::durable().passive();
    let queue = channel.queue_declare(routes::DEAD_QUEUE.into(), passive, FieldTable::default()).await.map_err(said)?;
    // As many as there are now: letters that arrive meanwhile, perhaps from this very replay, wait for the next scan.
    for _ in 0..queue.message_count() {
        let got = channel.basic_get(routes::DEAD_QUEUE.into(), BasicGetOptions::default()).await.map_err(said)?;
        let Some(got) = got else { break };
        let letter = Letter::read(&got);
        report.seen += 1;
        match decide(&letter) {
            Decision::Leave => {}
            Decision::Drop => {
                ack(link, &got).await?;
                report.dropped.push(letter.id);
            }
            Decision::Replay { exchange, key, body, headers, message_id } => {
                if !report.replayed.is_empty() {
                    tokio::time::sleep(pace).await;
                }
                let (kind, content_type) = (letter.kind, letter.content_type);
                let parcel = Parcel { message_id: message_id.to_string(), kind, content_type, body, headers };
                match broker.publish_on(link, &exchange, &key, parcel).await {
                    Ok(()) => {
                        ack(link, &got).await?;
                        report.replayed.push(letter.id);
                    }
                    Err(error @ (PublishError::Unroutable { .. } | PublishError::Rejected(_))) => {
                        report.refused.push((letter.id, error));
                    }
                    Err(error @ (PublishError::Unknown(_) | PublishError::Disconnected)) => {
                        return Err(error.to_string());
                    }
                }
            }
        }
    }
    Ok(())
}

async fn ack(link: &Link, raw: &Raw) -> Result<(), String> {
    match raw.ack(BasicAckOptions::default()).await {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => {
            link.lose("an ack found its channel gone");
            Err("the connection was lost".to_owned())
        }
    }
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

    fn read(&self, _broker: &Broker, _link: &Arc<Link>, raw: &Raw) -> Result<Letter, Cause> {
        Ok(Letter::read(raw))
    }

    async fn refuse(&self, broker: &Broker, link: &Arc<Link>, raw: &Raw, cause: &Cause) -> bool {
        let letter = Letter::read(raw).id;
        tracing::error!(%letter, %cause, "a dead letter cannot be indexed; it stays on warren.dead");
        settled(routes::DEAD_INDEX_QUEUE, "dead");
        broker.ack(link, raw, false).await
    }
}
