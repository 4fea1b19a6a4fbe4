//! What happens to a message after its work: acked, moved to the retry ladder, or buried as a dead letter.
//!
//! Whatever replaces a message is confirmed before the message is acked. A crash in between makes a duplicate, never a
//! loss. All of it happens on the generation that the message came with.

use std::sync::Arc;

use lapin::{
    message::Delivery as Raw,
    options::{BasicAckOptions, BasicRejectOptions},
};
use warren_clock::Reconnect;
use warren_fault::{Cause, Fault};
use warren_jobs::fingerprint::fingerprint;
use warren_messages::{
    envelope::{Envelope, headers as names},
    replay::BY_HAND,
    routes,
    wire::{Command, ReplayLetters, command},
};
use warren_telemetry::metrics;

use crate::{Broker, ByHand, Delay, PublishError, delivery::parcel, headers, link::Link, publish::Parcel};

/// Where a message came from, and how it is published to the same queue again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) queue: &'static str,
    pub(crate) exchange: &'static str,
    pub(crate) key: &'static str,
}

impl Broker {
    /// Acks one message, or all up to it.
    pub(crate) async fn ack(&self, link: &Link, raw: &Raw, multiple: bool) -> bool {
        match link.unless_lost(raw.ack(BasicAckOptions { multiple })).await {
            Some(Ok(true)) => true,
            // `Ok(false)` means that the channel is gone: the message *will* come again.
            Some(Ok(false) | Err(_)) | None => {
                link.lose("an ack found its channel gone");
                false
            }
        }
    }

    /// Has the broker bury the message itself, without our headers.
    async fn reject(&self, link: &Link, raw: &Raw) -> bool {
        match link.unless_lost(raw.reject(BasicRejectOptions { requeue: false })).await {
            Some(Ok(true)) => true,
            Some(Ok(false) | Err(_)) | None => {
                link.lose("a reject found its channel gone");
                false
            }
        }
    }

    /// Makes a dead letter of the message: its body unchanged, the cause in the headers. False when the generation was
    /// lost; the message then comes again.
    pub(crate) async fn bury(&self, link: &Arc<Link>, raw: &Raw, origin: Origin, spent: u32, cause: &Cause) -> bool {
        let mut parcel = parcel(raw);
        if let Some(deaths) = parcel.headers.get(headers::X_DEATH).cloned() {
            parcel.headers.insert(headers::DEATHS.to_owned(), deaths);
        }
        describe(&mut parcel, origin, cause);
        let letter = self.new_id();
        parcel.headers.insert(names::LETTER.to_owned(), letter.to_string());
        parcel.headers.insert(names::SOURCE.to_owned(), origin.queue.to_owned());
        parcel.headers.insert(names::ATTEMPT.to_owned(), spent.to_string());
        tracing::error!(queue = origin.queue, %letter, code = %cause.code, cause = %cause.message, "dead letter");
        let buried = match self.replace(link, routes::DEAD_EXCHANGE, origin.key, parcel).await {
            Replaced::Yes => {
                warren_drills::passing("broker.letter-published");
                self.ack(link, raw, false).await
            }
            Replaced::Full | Replaced::Refused => self.reject(link, raw).await,
            Replaced::Lost => false,
        };
        count_delivery(origin.queue, if buried { "dead" } else { "requeue" });
        buried
    }

    /// Puts the message on a rung of the ladder, from where it returns to its queue.
    pub(crate) async fn delay(
        &self,
        link: &Arc<Link>,
        raw: &Raw,
        origin: Origin,
        delay: &Delay,
        (spent, waits): (u32, u32),
        fault: &Fault,
    ) -> bool {
        let cause = fault.cause();
        let mut parcel = parcel(raw);
        describe(&mut parcel, origin, cause);
        parcel.headers.insert(names::ATTEMPT.to_owned(), spent.to_string());
        parcel.headers.insert(names::WAITS.to_owned(), waits.to_string());
        metrics::RETRIES.one(&[("kind", origin.key), ("code", cause.code.as_str())]);
        let moved = self.move_to(link, raw, &routes::retry_rung(delay.seconds), origin.key, parcel).await;
        count_delivery(origin.queue, if moved { "delay" } else { "requeue" });
        moved
    }

    /// Somebody put a message here by hand. If it is a letter, its task is dead, and doing its work now would come to
    /// nothing: the leader is asked to replay it, which brings the task back first.
    pub(crate) async fn replay_by_hand(&self, link: &Arc<Link>, raw: &Raw, origin: Origin, by_hand: ByHand) -> bool {
        tracing::info!(queue = origin.queue, ?by_hand, "a message was put here by hand; asking for its replay");
        let letters = match by_hand {
            ByHand::Letter(letter) => vec![letter.to_string()],
            ByHand::Unmarked => Vec::new(),
        };
        let replay = ReplayLetters {
            letters,
            edited_body: raw.data.clone(),
            from_index: true,
            queue: origin.queue.to_owned(),
            ..Default::default()
        };
        let command = Command { actor: BY_HAND.to_owned(), command: Some(command::Command::Replay(replay)) };
        let parcel = Parcel::from(&Envelope::new(self.new_id(), &command));
        let asked = self.move_to(link, raw, routes::COMMANDS.exchange, routes::COMMANDS.key, parcel).await;
        count_delivery(origin.queue, if asked { "replay" } else { "requeue" });
        asked
    }

    /// Publishes the message to its own queue anew, which clears the broker's count of deliveries.
    pub(crate) async fn renew(&self, link: &Arc<Link>, raw: &Raw, origin: Origin) -> bool {
        let renewed = self.move_to(link, raw, origin.exchange, origin.key, parcel(raw)).await;
        count_delivery(origin.queue, if renewed { "renewed" } else { "requeue" });
        renewed
    }

    async fn move_to(&self, link: &Arc<Link>, raw: &Raw, exchange: &str, key: &str, parcel: Parcel) -> bool {
        let mut delays = Reconnect::new();
        loop {
            match self.replace(link, exchange, key, parcel.clone()).await {
                Replaced::Yes => {
                    warren_drills::passing("broker.message-moved");
                    return self.ack(link, raw, false).await;
                }
                Replaced::Lost => return false,
                // What the broker took once, it does not take in this form, and trying it again would keep back all others.
                Replaced::Refused => return self.reject(link, raw).await,
                // A full queue empties; until then the message stays with us, unacked.
                Replaced::Full => tokio::select! {
                    () = link.lost().cancelled() => return false,
                    () = tokio::time::sleep(delays.next_delay()) => {}
                },
            }
        }
    }

    async fn replace(&self, link: &Arc<Link>, exchange: &str, key: &str, parcel: Parcel) -> Replaced {
        let mut delays = Reconnect::new();
        loop {
            match self.publish_on(link, exchange, key, parcel.clone()).await {
                Ok(()) => return Replaced::Yes,
                Err(error) => {
                    tracing::warn!(exchange, key, %error, "a message could not be moved");
                    match error {
                        PublishError::Full => return Replaced::Full,
                        PublishError::Rejected(_) => return Replaced::Refused,
                        _ => {}
                    }
                }
            }
            tokio::select! {
                () = link.lost().cancelled() => return Replaced::Lost,
                () = tokio::time::sleep(delays.next_delay()) => {}
            }
        }
    }
}

enum Replaced {
    Yes,
    /// The queue is full.
    Full,
    /// The broker does not take this message.
    Refused,
    Lost,
}

pub(crate) fn count_delivery(queue: &str, outcome: &str) {
    metrics::DELIVERIES.one(&[("queue", queue), ("outcome", outcome)]);
}

fn describe(parcel: &mut Parcel, origin: Origin, cause: &Cause) {
    let message: String = cause.message.chars().take(headers::MAX_CAUSE).collect();
    let print = fingerprint(cause.code.as_str(), origin.key, &cause.message);
    parcel.headers.insert(names::ERR_CLASS.to_owned(), cause.code.as_str().to_owned());
    parcel.headers.insert(names::ERR_CAUSE.to_owned(), message);
    parcel.headers.insert(names::ERR_FP.to_owned(), print);
}
