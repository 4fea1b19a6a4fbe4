//! A dead letter as it lies on `warren.dead`: the message unchanged, and why it died.

use std::collections::BTreeMap;

use lapin::{
    message::Delivery as Raw,
    types::{AMQPValue, FieldTable},
};
use uuid::Uuid;
use warren_messages::envelope::headers as names;

use crate::headers;

/// One entry of the broker's own record of deaths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Death {
    /// Queue it died on.
    pub queue: String,
    /// `rejected`, `expired`, `maxlen` or `delivery_limit`.
    pub reason: String,
    /// Times it died there for this reason.
    pub count: i64,
    /// Exchange it had been published to.
    pub exchange: String,
    /// Routing keys it had been published with.
    pub keys: Vec<String>,
    /// First death, Unix seconds.
    pub time_s: i64,
}

/// A dead letter. Any body is possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The same in `warren.dead` and `warren.dead.index`, and each time it is read.
    pub id: Uuid,
    /// Queue that the message was on; empty when nobody noted it.
    pub queue: String,
    /// Routing key on `warren.dlx`: a task kind or the name of a queue.
    pub key: String,
    /// Full name of the message type; empty when the sender gave none.
    pub kind: String,
    /// Content type as sent.
    pub content_type: String,
    /// Message id as sent.
    pub message_id: Option<String>,
    /// Body as sent.
    pub body: Vec<u8>,
    /// All headers as text.
    pub headers: BTreeMap<String, String>,
    /// Error code, or the broker's reason when the broker made the letter.
    pub class: String,
    /// The cause in words; empty when the broker made the letter.
    pub cause: String,
    /// The broker's record, newest first; empty when Warren made the letter.
    pub deaths: Vec<Death>,
}

impl Letter {
    pub(crate) fn read(raw: &Raw) -> Self {
        let table = raw.properties.headers().as_ref();
        let headers = headers::texts(table);
        let deaths = table.map(deaths).unwrap_or_default();
        let text = |name: &str| headers.get(name).cloned();
        let property = |value: &Option<lapin::types::ShortString>| value.as_ref().map(ToString::to_string);
        let message_id = property(raw.properties.message_id()).filter(|id| !id.is_empty());
        // Letters of ours have no record of the broker. Where there is one, the broker made this letter, and our
        // headers tell of an earlier death.
        let ours = deaths.is_empty();
        let newest = deaths.first().cloned().unwrap_or_default();
        let queue = if ours { text(names::SOURCE).unwrap_or_default() } else { newest.queue.clone() };
        let class = text(names::ERR_CLASS).filter(|_| ours).unwrap_or_else(|| newest.reason.clone());
        let cause = text(names::ERR_CAUSE).filter(|_| ours).unwrap_or_default();
        let id = text(names::LETTER).filter(|_| ours).and_then(|id| Uuid::try_parse(&id).ok()).unwrap_or_else(|| {
            let header = |name: &str| text(name).unwrap_or_default();
            let identity = message_id.as_ref().map_or(raw.data.as_slice(), |id| id.as_bytes());
            headers::derived_id(&[
                identity,
                header(names::DISPATCH).as_bytes(),
                header(names::ATTEMPT).as_bytes(),
                queue.as_bytes(),
                newest.reason.as_bytes(),
                &newest.time_s.to_be_bytes(),
                &newest.count.to_be_bytes(),
            ])
        });
        Self {
            id,
            queue,
            key: raw.routing_key.to_string(),
            kind: property(raw.properties.kind()).unwrap_or_default(),
            content_type: property(raw.properties.content_type()).unwrap_or_default(),
            message_id,
            body: raw.data.clone(),
            headers,
            class,
            cause,
            deaths,
        }
    }
}

fn deaths(table: &FieldTable) -> Vec<Death> {
    let Some(AMQPValue::FieldArray(entries)) = headers::get(table, headers::X_DEATH) else { return Vec::new() };
    let entries = entries.as_slice().iter().filter_map(|entry| match entry {
        AMQPValue::FieldTable(entry) => Some(entry),
        _ => None,
    });
    entries
        .map(|entry| {
            let text = |name: &str| headers::get(entry, name).map(headers::text).unwrap_or_default();
            let number = |name: &str| headers::get(entry, name).and_then(headers::integer).unwrap_or(0);
            let keys = match headers::get(entry, "routing-keys") {
                Some(AMQPValue::FieldArray(keys)) => keys.as_slice().iter().map(headers::text).collect(),
                _ => Vec::new(),
            };
            Death {
                queue: text("queue"),
                reason: text("reason"),
                count: number("count"),
                exchange: text("exchange"),
                keys,
                time_s: number("time"),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use lapin::{BasicProperties, types::FieldArray};

    use super::*;

    fn raw(headers: FieldTable) -> Raw {
        let mut raw = Raw::mock(1, "warren.dlx".into(), "embed".into(), false, b"\xff\x00".to_vec());
        raw.properties = BasicProperties::default().with_headers(headers);
        raw
    }

    fn our_headers() -> FieldTable {
        let id = Uuid::from_u128(9).to_string();
        headers::table(&BTreeMap::from([
            (names::LETTER.to_owned(), id),
            (names::SOURCE.to_owned(), "warren.task.embed".to_owned()),
            (names::ERR_CLASS.to_owned(), "Internal".to_owned()),
            (names::ERR_CAUSE.to_owned(), "it broke".to_owned()),
        ]))
    }

    fn death(reason: &str) -> AMQPValue {
        let mut death = FieldTable::default();
        death.insert("queue".into(), AMQPValue::LongString("warren.task.embed".into()));
        death.insert("reason".into(), AMQPValue::LongString(reason.into()));
        death.insert("count".into(), AMQPValue::LongLongInt(1));
        death.insert("time".into(), AMQPValue::Timestamp(1_700_000_000));
        let mut deaths = FieldArray::default();
        deaths.push(AMQPValue::FieldTable(death));
        AMQPValue::FieldArray(deaths)
    }

    #[test]
    fn our_letters_say_why() {
        let letter = Letter::read(&raw(our_headers()));
        assert_eq!(letter.id, Uuid::from_u128(9));
        assert_eq!((letter.class.as_str(), letter.cause.as_str()), ("Internal", "it broke"));
        assert_eq!(letter.queue, "warren.task.embed");
    }

    #[test]
    fn the_brokers_letters_have_a_lasting_id_of_their_own() {
        let mut headers = our_headers();
        headers.insert(headers::X_DEATH.into(), death("delivery_limit"));
        let letter = Letter::read(&raw(headers.clone()));
        assert_ne!(letter.id, Uuid::from_u128(9), "that is the letter it was replayed from");
        assert_eq!(letter.id, Letter::read(&raw(headers)).id);
        assert_eq!((letter.class.as_str(), letter.cause.as_str()), ("delivery_limit", ""));
        assert_eq!(letter.deaths[0].time_s, 1_700_000_000);
    }

    #[test]
    fn a_bare_body_is_a_letter_too() {
        let letter = Letter::read(&raw(FieldTable::default()));
        assert_eq!((letter.queue.as_str(), letter.body.as_slice()), ("", &b"\xff\x00"[..]));
    }
}
