//! Messages that are published if and only if the transaction that wrote them was committed. A row is one that the broker
//! has not confirmed.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use sea_orm::Value;
use serde_json::json;
use warren_clock::UnixMillis;

use crate::{Reads, StoreError, Tx, entity::outbox, sql};

/// A message to publish after the commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOutbox {
    /// Exchange.
    pub exchange: String,
    /// Routing key.
    pub routing_key: String,
    /// Full name of the message's type.
    pub kind: String,
    /// The same on every publish; consumers dedupe by it.
    pub message_id: String,
    /// The body as it travels.
    pub body: Vec<u8>,
    /// Headers as they travel.
    pub headers: BTreeMap<String, String>,
    /// Process that publishes it right after the commit.
    pub relay: String,
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    /// Exchange.
    pub exchange: String,
    /// Routing key.
    pub routing_key: String,
}

impl NewOutbox {
    /// Where it goes.
    pub fn destination(&self) -> Destination {
        Destination { exchange: self.exchange.clone(), routing_key: self.routing_key.clone() }
    }
}

/// A message that was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// In order of insertion.
    pub id: i64,
    /// The message.
    pub message: NewOutbox,
    /// When it was written.
    pub created: UnixMillis,
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct Written {
    id: i64,
    message_id: String,
}

impl Tx {
    /// Writes one message. [`Tx::commit_in_order`] returns it, for whoever publishes it at once.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn outbox(&self, message: &NewOutbox) -> Result<(), StoreError> {
        self.outbox_many(vec![message.clone()]).await
    }

    /// Writes a group of messages, to be published in this order.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn outbox_many(&self, messages: Vec<NewOutbox>) -> Result<(), StoreError> {
        use sql::Column::{Bytes, Int, Text};
        let now = self.now();
        let columns = [
            Int("place"),
            Text("exchange"),
            Text("routing_key"),
            Text("kind"),
            Text("message_id"),
            Bytes("body"),
            Text("headers"),
            Text("relay"),
        ];
        let text = format!(
            "INSERT INTO outbox (exchange, routing_key, kind, message_id, body, headers, relay, created_ms)
             SELECT v.exchange, v.routing_key, v.kind, v.message_id, v.body, v.headers, v.relay, CAST($2 AS BIGINT)
             FROM {} WHERE true ORDER BY v.place RETURNING id, message_id",
            sql::table(self.backend, 1, &columns)
        );
        let mut messages = messages.into_iter().peekable();
        while messages.peek().is_some() {
            let group: Vec<_> = messages.by_ref().take(500).collect();
            let list = sql::list(group.iter().enumerate().map(|(place, message)| {
                json!({
                    "place": place, "exchange": message.exchange, "routing_key": message.routing_key,
                    "kind": message.kind, "message_id": message.message_id, "body": sql::bytes(&message.body),
                    "headers": write_headers(&message.headers), "relay": message.relay,
                })
            }));
            let written: Vec<Written> = self.read().all(text.as_str(), [list, now.0.into()]).await?;
            // Not promised to be in the order of the group.
            let ids: HashMap<_, _> = written.into_iter().map(|row| (row.message_id, row.id)).collect();
            let rows = group
                .into_iter()
                .filter_map(|message| Some(OutboxRow { id: *ids.get(&message.message_id)?, message, created: now }));
            self.outbox.lock().expect("no panic while it is locked").extend(rows);
        }
        Ok(())
    }

    /// Forgets messages that the broker confirmed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn forget_outbox(&self, ids: &[i64]) -> Result<(), StoreError> {
        let these = sql::is_one_of_these(self.backend, "id", 1, sql::Column::Int("id"));
        let text = format!("DELETE FROM outbox WHERE {these}");
        self.execute(text, [sql::list(ids.iter().map(|id| serde_json::json!({ "id": id })))]).await?;
        Ok(())
    }
}

impl Reads<'_> {
    /// Messages that `relay` still has to publish, oldest first, without those to the destinations in `but`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn unsent(&self, relay: &str, but: &[Destination], limit: u64) -> Result<Vec<OutboxRow>, StoreError> {
        self.unsent_where("relay = $1", vec![relay.into()], but, limit).await
    }

    /// Messages of `relay` to one destination that are not published, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn unsent_to(&self, relay: &str, to: &Destination, limit: u64) -> Result<Vec<OutboxRow>, StoreError> {
        let values = [relay, &to.exchange, &to.routing_key].map(Value::from).to_vec();
        self.unsent_where("relay = $1 AND exchange = $2 AND routing_key = $3", values, &[], limit).await
    }

    /// Messages of any relay that were written longer than `age` ago and are not published, oldest first, without those
    /// to the destinations in `but`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn unsent_older_than(
        &self,
        age: Duration,
        but: &[Destination],
        limit: u64,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        self.unsent_where("created_ms < $1", vec![self.before(age)], but, limit).await
    }

    /// The same, without those of the relay `own`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn unsent_of_others(
        &self,
        own: &str,
        age: Duration,
        but: &[Destination],
        limit: u64,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        self.unsent_where("created_ms < $1 AND relay <> $2", vec![self.before(age), own.into()], but, limit).await
    }

    fn before(&self, age: Duration) -> Value {
        self.clock.now().0.saturating_sub(age.as_millis() as i64).into()
    }

    async fn unsent_where(
        &self,
        condition: &str,
        mut values: Vec<Value>,
        but: &[Destination],
        limit: u64,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        let columns = [sql::Column::Text("exchange"), sql::Column::Text("routing_key")];
        let list = values.len() as u32 + 1;
        let most = list + 1;
        let text = format!(
            "SELECT * FROM outbox WHERE {condition} AND (exchange, routing_key) NOT IN \
             (SELECT v.exchange, v.routing_key FROM {}) ORDER BY id LIMIT ${most}",
            sql::table(self.backend, list, &columns)
        );
        let but = but.iter().map(|to| serde_json::json!({ "exchange": to.exchange, "routing_key": to.routing_key }));
        values.extend([sql::list(but), (limit as i64).into()]);
        read(self.all(text, values).await?)
    }

    /// When the oldest message that is not published was written.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn oldest_unsent(&self) -> Result<Option<UnixMillis>, StoreError> {
        let text = "SELECT created_ms AS n FROM outbox ORDER BY id LIMIT 1";
        let found: Option<sql::Number> = self.one(text, []).await?;
        Ok(found.map(|found| UnixMillis(found.n)))
    }

    /// How many messages are not published.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn unsent_count(&self) -> Result<u64, StoreError> {
        let found: Option<sql::Number> = self.one("SELECT COUNT(*) AS n FROM outbox", []).await?;
        Ok(found.map_or(0, |found| found.n as u64))
    }
}

pub(crate) fn write_headers(headers: &BTreeMap<String, String>) -> String {
    serde_json::json!(headers).to_string()
}

pub(crate) fn read_headers(column: &str, text: &str) -> Result<BTreeMap<String, String>, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::corrupt(format!("{column}: {error}")))
}

fn read(rows: Vec<outbox::Model>) -> Result<Vec<OutboxRow>, StoreError> {
    rows.into_iter()
        .map(|row| {
            let message = NewOutbox {
                exchange: row.exchange,
                routing_key: row.routing_key,
                kind: row.kind,
                message_id: row.message_id,
                body: row.body,
                headers: read_headers("outbox.headers", &row.headers)?,
                relay: row.relay,
            };
            Ok(OutboxRow { id: row.id, message, created: UnixMillis(row.created_ms) })
        })
        .collect()
}
