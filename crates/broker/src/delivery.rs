//! What a handler knows about the delivery in its hands.

use std::collections::BTreeMap;

use lapin::message::Delivery as Raw;
use uuid::Uuid;
use warren_clock::{Clock, UnixMillis};
use warren_fault::{Cause, Code};
use warren_messages::envelope::{self, CONTENT_TYPE, Message};

use crate::{Letter, headers, publish::Parcel};

/// One delivery of a message.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The queue it came from.
    pub queue: &'static str,
    /// Identity for deduplication. Derived from the content when the sender gave none that is a UUID.
    pub message_id: Uuid,
    /// Number of this attempt: 1 on the first run. Deliveries lost with a connection do not count.
    pub attempt: u32,
    /// Stays on the retry ladder since the last attempt.
    pub waits: u32,
    /// Deliveries of this copy before this one, as the broker counts them.
    pub delivery_count: u32,
    /// The broker handed this copy out before.
    pub redelivered: bool,
    /// First publish of the message, across retries.
    pub first_seen: UnixMillis,
    /// All headers as text, `traceparent` included.
    pub headers: BTreeMap<String, String>,
    /// Somebody put the message here by hand.
    pub by_hand: Option<ByHand>,
}

/// A message that somebody put on a queue in RabbitMQ's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByHand {
    /// Moved from `warren.dead` with its headers: it is this letter.
    Letter(Uuid),
    /// Published without Warren's headers.
    Unmarked,
}

impl Delivery {
    pub(crate) fn read(raw: &Raw, queue: &'static str, clock: &Clock) -> Self {
        let headers = headers::texts(raw.properties.headers().as_ref());
        let number = |name: &str| headers.get(name).and_then(|text| text.parse::<i64>().ok());
        let count = |name: &str| number(name).and_then(|value| u32::try_from(value).ok()).unwrap_or(0);
        Self {
            queue,
            message_id: message_id(raw),
            attempt: count(envelope::headers::ATTEMPT).saturating_add(1),
            waits: count(envelope::headers::WAITS),
            delivery_count: count(headers::DELIVERY_COUNT),
            redelivered: raw.redelivered,
            first_seen: number(envelope::headers::FIRST_TS).map_or_else(|| clock.now(), UnixMillis),
            by_hand: by_hand(raw, queue, &headers),
            headers,
        }
    }
}

/// Only letters carry these headers: whatever Warren publishes to a work queue has lost them, and a stay on the ladder
/// leaves a record of the rung. Whatever Warren publishes says when that was.
fn by_hand(raw: &Raw, queue: &str, headers: &BTreeMap<String, String>) -> Option<ByHand> {
    if headers.contains_key(envelope::headers::LETTER) || headers.contains_key(headers::X_DEATH) {
        let letter = Letter::read(raw);
        let died_here = letter.deaths.iter().any(|death| death.queue == queue);
        return (letter.deaths.is_empty() || died_here).then_some(ByHand::Letter(letter.id));
    }
    (!headers.contains_key(envelope::headers::FIRST_TS)).then_some(ByHand::Unmarked)
}

/// A decoded message and its delivery, one of a group.
#[derive(Clone, Debug)]
pub struct Received<M> {
    /// The message.
    pub message: M,
    /// How it came.
    pub delivery: Delivery,
}

/// A stay on the retry ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// Seconds until the message is on its queue again.
    pub seconds: u32,
    /// False when a part of the platform was away.
    pub spends_attempt: bool,
    /// About when it is back.
    pub until: UnixMillis,
}

/// Decodes a body; the content type, if given, must be ours.
pub(crate) fn decode<M: Message>(raw: &Raw) -> Result<M, Cause> {
    if let Some(given) = raw.properties.content_type() {
        let essence = given.as_str().split(';').next().unwrap_or_default().trim();
        if !essence.is_empty() && !essence.eq_ignore_ascii_case(CONTENT_TYPE) {
            return Err(Cause::new(Code::Malformed, format!("content-type is `{given}`, not `{CONTENT_TYPE}`")));
        }
    }
    envelope::decode(raw.properties.kind().as_ref().map(|kind| kind.as_str()), &raw.data)
}

/// The message as it came, ready to be passed on; only whitelisted headers will travel.
pub(crate) fn parcel(raw: &Raw) -> Parcel {
    let text = |value: &Option<lapin::types::ShortString>| value.as_ref().map(ToString::to_string).unwrap_or_default();
    Parcel {
        message_id: message_id_text(raw).unwrap_or_else(|| message_id(raw).to_string()),
        kind: text(raw.properties.kind()),
        content_type: text(raw.properties.content_type()),
        body: raw.data.clone(),
        headers: headers::texts(raw.properties.headers().as_ref()),
    }
}

fn message_id_text(raw: &Raw) -> Option<String> {
    raw.properties.message_id().as_ref().map(ToString::to_string).filter(|id| !id.is_empty())
}

fn message_id(raw: &Raw) -> Uuid {
    match message_id_text(raw) {
        Some(text) => Uuid::try_parse(&text).unwrap_or_else(|_| headers::derived_id(&[text.as_bytes()])),
        None => {
            // The time keeps two equal messages apart that were published by hand.
            let time = raw.properties.timestamp().unwrap_or(0).to_be_bytes();
            headers::derived_id(&[&raw.data, &time])
        }
    }
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;
    use warren_messages::wire::Command;

    use super::*;

    fn raw(properties: BasicProperties) -> Raw {
        let mut raw = Raw::mock(1, "".into(), "".into(), false, b"{}".to_vec());
        raw.properties = properties;
        raw
    }

    #[test]
    fn a_foreign_content_type_is_malformed() {
        for given in ["text/plain", "application/jsonp"] {
            let cause = decode::<Command>(&raw(BasicProperties::default().with_content_type(given.into())))
                .expect_err("not ours");
            assert!(cause.code == Code::Malformed && cause.message.contains(given), "{cause}");
        }
        let ours = raw(BasicProperties::default().with_content_type("application/json; charset=utf-8".into()));
        let cause = decode::<Command>(&ours).expect_err("an empty command");
        assert!(!cause.message.contains("content-type"), "{cause}");
    }

    #[test]
    fn a_message_without_an_id_has_the_same_one_each_time() {
        let plain = raw(BasicProperties::default());
        assert_eq!(message_id(&plain), message_id(&plain));
        assert_ne!(message_id(&plain), message_id(&raw(BasicProperties::default().with_timestamp(7))));
        let named = raw(BasicProperties::default().with_message_id("order 66".into()));
        assert_eq!(parcel(&named).message_id, "order 66");
    }
}
