//! AMQP header tables to and from text.

use std::collections::BTreeMap;

use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use warren_messages::{envelope::headers, routes};

/// `x-death` as text; only on dead letters, where the broker does not act on it.
pub(crate) const DEATHS: &str = "x-warren-deaths";
/// Written by the broker.
pub(crate) const X_DEATH: &str = "x-death";
/// Written by the broker: deliveries before this one.
pub(crate) const DELIVERY_COUNT: &str = "x-delivery-count";
/// Most characters of a cause in a header.
pub(crate) const MAX_CAUSE: usize = 2000;

/// Most bytes of a header that travels: all of them together must fit into one frame, or the broker ends the connection.
const MAX_BYTES: usize = 8_000;

/// Every header as text. Tables and lists become something readable, so that no header is lost to the index. The
/// character NUL, which PostgreSQL cannot hold, is replaced.
pub(crate) fn texts(table: Option<&FieldTable>) -> BTreeMap<String, String> {
    table.map_or_else(BTreeMap::new, |table| {
        let plain = |value: &AMQPValue| text(value).replace('\0', "\u{fffd}");
        table.inner().iter().map(|(name, value)| (name.to_string(), plain(value))).collect()
    })
}

/// What may travel to `exchange`: the whitelist. A received `x-death` must never be among it, because a broker before
/// 4.0 counts on it and drops the message as a cycle.
pub(crate) fn kept(mut all: BTreeMap<String, String>, exchange: &str) -> BTreeMap<String, String> {
    let dead = exchange == routes::DEAD_EXCHANGE;
    all.retain(|name, _| match name.as_str() {
        // They describe one death and would make the next one look like it.
        headers::LETTER | headers::SOURCE | DEATHS => dead,
        name => headers::KEPT.contains(&name),
    });
    for value in all.values_mut() {
        value.truncate(value.floor_char_boundary(MAX_BYTES));
    }
    all
}

pub(crate) fn table(texts: &BTreeMap<String, String>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in texts {
        if let Ok(name) = ShortString::try_new(name.as_str()) {
            table.insert(name, AMQPValue::LongString(LongString::from(value.as_bytes())));
        }
    }
    table
}

pub(crate) fn text(value: &AMQPValue) -> String {
    match value {
        AMQPValue::Boolean(value) => value.to_string(),
        AMQPValue::ShortShortInt(value) => value.to_string(),
        AMQPValue::ShortShortUInt(value) => value.to_string(),
        AMQPValue::ShortInt(value) => value.to_string(),
        AMQPValue::ShortUInt(value) => value.to_string(),
        AMQPValue::LongInt(value) => value.to_string(),
        AMQPValue::LongUInt(value) => value.to_string(),
        AMQPValue::LongLongInt(value) => value.to_string(),
        AMQPValue::Float(value) => value.to_string(),
        AMQPValue::Double(value) => value.to_string(),
        AMQPValue::DecimalValue(value) => format!("{}e-{}", value.value, value.scale),
        AMQPValue::ShortString(value) => value.to_string(),
        AMQPValue::LongString(value) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
        AMQPValue::Timestamp(value) => value.to_string(),
        AMQPValue::ByteArray(value) => hex::encode(value.as_slice()),
        AMQPValue::Void => String::new(),
        AMQPValue::FieldArray(values) => {
            let values: Vec<_> = values.as_slice().iter().map(text).collect();
            format!("[{}]", values.join(", "))
        }
        AMQPValue::FieldTable(table) => {
            let fields: Vec<_> = table.inner().iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

pub(crate) fn integer(value: &AMQPValue) -> Option<i64> {
    text(value).parse().ok()
}

pub(crate) fn get<'a>(table: &'a FieldTable, name: &str) -> Option<&'a AMQPValue> {
    table.inner().get(name)
}

/// The same id for the same content, for messages that came without one of ours.
pub(crate) fn derived_id(parts: &[&[u8]]) -> Uuid {
    let mut hash = Sha256::new();
    for part in parts {
        // Lengths keep ("ab", "c") and ("a", "bc") apart.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> BTreeMap<String, String> {
        [headers::TASK, headers::LETTER, headers::ATTEMPT, X_DEATH, DEATHS, DELIVERY_COUNT, "x-first-death-queue"]
            .into_iter()
            .map(|name| (name.to_owned(), "1".to_owned()))
            .collect()
    }

    #[test]
    fn x_death_never_travels() {
        let task = kept(all(), routes::TASK_EXCHANGE);
        assert_eq!(task.keys().map(String::as_str).collect::<Vec<_>>(), [headers::ATTEMPT, headers::TASK]);
        let dead = kept(all(), routes::DEAD_EXCHANGE);
        assert!(dead.contains_key(headers::LETTER) && dead.contains_key(DEATHS));
        assert!(!dead.contains_key(X_DEATH) && !dead.contains_key(DELIVERY_COUNT));
    }

    #[test]
    fn whoever_sends_a_huge_header_breaks_no_connection() {
        let all = headers::KEPT.iter().map(|name| ((*name).to_owned(), "é".repeat(60_000))).collect();
        let dead = kept(all, routes::DEAD_EXCHANGE);
        assert_eq!(dead.len(), headers::KEPT.len());
        assert!(dead.values().all(|value| value.len() <= MAX_BYTES && value.starts_with('é')));
        assert!(dead.values().map(String::len).sum::<usize>() + MAX_BYTES < 128 << 10, "with the record of deaths");
    }

    #[test]
    fn any_header_has_a_text() {
        let mut inner = FieldTable::default();
        inner.insert("queue".into(), AMQPValue::LongString("a".into()));
        inner.insert("count".into(), AMQPValue::LongLongInt(3));
        let mut array = lapin::types::FieldArray::default();
        array.push(AMQPValue::FieldTable(inner));
        assert_eq!(text(&AMQPValue::FieldArray(array)), "[{count=3, queue=a}]");
        assert_eq!(text(&AMQPValue::LongString(LongString::from(&b"\xff"[..]))), "\u{fffd}");
    }

    #[test]
    fn derived_ids_depend_on_every_part() {
        assert_eq!(derived_id(&[b"a", b"b"]), derived_id(&[b"a", b"b"]));
        assert_ne!(derived_id(&[b"ab", b"c"]), derived_id(&[b"a", b"bc"]));
    }
}
