//! Messages that had their effect: the second delivery of one is noticed in the transaction of its effect.

use std::{collections::HashSet, time::Duration};

use crate::{Reads, StoreError, Tx, sql};

#[derive(Debug, sea_orm::FromQueryResult)]
struct MessageId {
    message_id: String,
}

impl Tx {
    /// True the first time that `consumer` meets the message.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn first_time(&self, message_id: &str, consumer: &str) -> Result<bool, StoreError> {
        Ok(!self.first_time_many(&[message_id], consumer).await?.is_empty())
    }

    /// Of a group of messages, those that `consumer` meets for the first time.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn first_time_many(&self, messages: &[&str], consumer: &str) -> Result<HashSet<String>, StoreError> {
        if messages.is_empty() {
            return Ok(HashSet::new());
        }
        // In one order for everybody, so that two groups that share messages wait for each other instead of deadlocking.
        // `WHERE true` keeps SQLite from reading ON CONFLICT as part of a join.
        let text = format!(
            "INSERT INTO inbox (message_id, consumer, at_ms) SELECT DISTINCT v.message_id, $2, CAST($3 AS BIGINT) FROM {}
             WHERE true ORDER BY 1 ON CONFLICT (message_id, consumer) DO NOTHING RETURNING message_id",
            sql::table(self.backend, 1, &[sql::Column::Text("message_id")])
        );
        let list = sql::list(messages.iter().map(|each| serde_json::json!({ "message_id": sql::text(each) })));
        let rows: Vec<MessageId> = self.read().all(text, [list, consumer.into(), self.now().0.into()]).await?;
        Ok(rows.into_iter().map(|row| row.message_id).collect())
    }

    /// Forgets messages met longer than `age` ago. Returns how many.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn purge_inbox(&self, age: Duration) -> Result<u64, StoreError> {
        let before = self.now().0.saturating_sub(age.as_millis() as i64);
        self.execute("DELETE FROM inbox WHERE at_ms < $1", [before.into()]).await
    }
}

impl Reads<'_> {
    /// True when `consumer` has met the message.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn has_met(&self, message_id: &str, consumer: &str) -> Result<bool, StoreError> {
        let text = "SELECT COUNT(*) AS n FROM inbox WHERE message_id = $1 AND consumer = $2";
        let found: Option<sql::Number> = self.one(text, [message_id.into(), consumer.into()]).await?;
        Ok(found.is_some_and(|found| found.n > 0))
    }
}
