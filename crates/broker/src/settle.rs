//! What happens to a message after its work: acked, moved to the retry ladder, or buried as a dead letter.
//!
//! Whatever replaces a message is confirmed before the message is acked. A crash in between makes a duplicate, never a
//! loss. All of it happens on the generation that the message came with.

use std::sync::Arc;

use lapin::{
    message::Delivery as Raw,
    options::{BasicAckOptions, BasicRejectOptions},
};
use uuid::Uuid;
use warren_clock::Reconnect;
use warren_fault::{Cause, Fault};
use warren_jobs::fingerprint::fingerprint;
use warren_messages::{
    envelope::{Envelope, headers as names},
    routes,
    wire::{Command, ReplayLetters, command},
};
use warren_telemetry::metrics;

use crate::{Broker, PublishError, delivery::parcel, headers, link::Link, publish::Parcel};

/// The actor of a replay that somebody began by moving a letter in RabbitMQ.
const BY_HAND: &str = "by hand";

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
        match raw.ack(BasicAckOptions { multiple }).await {
            Ok(true) => true,
            // `Ok(false)` means that the channel is gone: the message *will* come again.
            Ok(false) | Err(_) => {
                link.lose("an ack found its channel gone");
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
            Replaced::Yes => self.ack(link, raw, false).await,
            // The broker can still bury it, without our headers.
            Replaced::Refused => match raw.reject(BasicRejectOptions { requeue: false }).await {
                Ok(true) => true,
                Ok(false) | Err(_) => {
                    link.lose("a reject found its channel gone");
                    false
                }
            },
            Replaced::Lost => false,
        };
        settled(origin.queue, if buried { "dead" } else { "requeue" });
        buried
    }

    /// Puts the message on a rung of the ladder, from where it returns to its queue.
    pub(crate) async fn delay(
        &self,
        link: &Arc<Link>,
        raw: &Raw,
        origin: Origin,
        seconds: u32,
        spent: u32,
        fault: &Fault,
    ) {
        let cause = fault.cause();
        let mut parcel = parcel(raw);
        describe(&mut parcel, origin, cause);
        parcel.headers.insert(names::ATTEMPT.to_owned(), spent.to_string());
        metrics::RETRIES.one(&[("kind", origin.key), ("code", cause.code.as_str())]);
        let moved = self.move_to(link, raw, &routes::retry_rung(seconds), origin.key, parcel).await;
        settled(origin.queue, if moved { "delay" } else { "requeue" });
    }

    /// Somebody moved a letter here by hand. Its task is dead, so doing its work now would come to nothing: the leader is
    /// asked to replay it, which brings the task back first.
    pub(crate) async fn replay_by_hand(&self, link: &Arc<Link>, raw: &Raw, origin: Origin, letter: Uuid) -> bool {
        tracing::info!(queue = origin.queue, %letter, "a letter was moved by hand; asking for its replay");
        let replay =
            ReplayLetters { letters: vec![letter.to_string()], edited_body: raw.data.clone(), ..Default::default() };
        let command = Command { actor: BY_HAND.to_owned(), command: Some(command::Command::Replay(replay)) };
        let parcel = Parcel::from(&Envelope::new(self.new_id(), &command));
        let asked = self.move_to(link, raw, routes::COMMANDS.exchange, routes::COMMANDS.key, parcel).await;
        settled(origin.queue, if asked { "replay" } else { "requeue" });
        asked
    }

    /// Publishes the message to its own queue anew, which clears the broker's count of deliveries.
    pub(crate) async fn renew(&self, link: &Arc<Link>, raw: &Raw, origin: Origin) {
        let renewed = self.move_to(link, raw, origin.exchange, origin.key, parcel(raw)).await;
        settled(origin.queue, if renewed { "renewed" } else { "requeue" });
    }

    async fn move_to(&self, link: &Arc<Link>, raw: &Raw, exchange: &str, key: &str, parcel: Parcel) -> bool {
        let mut delays = Reconnect::new();
        loop {
            match self.replace(link, exchange, key, parcel.clone()).await {
                Replaced::Yes => return self.ack(link, raw, false).await,
                Replaced::Lost => return false,
                // A full queue empties; until then the message stays with us, unacked.
                Replaced::Refused => tokio::select! {
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
                    if matches!(error, PublishError::Rejected(_)) {
                        return Replaced::Refused;
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
    Refused,
    Lost,
}

pub(crate) fn settled(queue: &str, outcome: &str) {
    metrics::DELIVERIES.one(&[("queue", queue), ("outcome", outcome)]);
}

fn describe(parcel: &mut Parcel, origin: Origin, cause: &Cause) {
    let message: String = cause.message.chars().take(headers::MAX_CAUSE).collect();
    let print = fingerprint(cause.code.as_str(), origin.key, &cause.message);
    parcel.headers.insert(names::ERR_CLASS.to_owned(), cause.code.as_str().to_owned());
    parcel.headers.insert(names::ERR_CAUSE.to_owned(), message);
    parcel.headers.insert(names::ERR_FP.to_owned(), print);
}
