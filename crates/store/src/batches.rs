//! How many inputs a device has room for at once, as far as that was found out the hard way.

use std::time::Duration;

use crate::{Reads, StoreError, Tx, sql};

/// How long it is believed: memory that somebody else had may be free again.
const BELIEVED: Duration = Duration::from_secs(7 * 24 * 3600);

/// A batch size that was found to fit where more did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sea_orm::FromQueryResult)]
pub struct SafeBatch {
    /// Characters of the longest input, rounded up to a power of two; 0 where all are of one length.
    pub length: i64,
    /// Inputs.
    pub most: i64,
}

impl Tx {
    /// Remembers a batch size; what was known before for inputs of this length is replaced.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn learn_batch(&self, device: &str, model: &str, batch: SafeBatch) -> Result<(), StoreError> {
        let text = "INSERT INTO safe_batch (device, model, length, most, at_ms) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (device, model, length) DO UPDATE SET most = excluded.most, at_ms = excluded.at_ms";
        let values = [
            sql::text(device).into(),
            sql::text(model).into(),
            batch.length.into(),
            batch.most.into(),
            self.now().0.into(),
        ];
        self.execute(text, values).await?;
        Ok(())
    }
}

impl Reads<'_> {
    /// What is known of a model on a device, by length. Older than a week, it is not believed any more.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn safe_batches(
        &self,
        device: &str,
        model: &str,
        now: warren_clock::UnixMillis,
    ) -> Result<Vec<SafeBatch>, StoreError> {
        let text =
            "SELECT length, most FROM safe_batch WHERE device = $1 AND model = $2 AND at_ms > $3 ORDER BY length";
        let since = now.0.saturating_sub(BELIEVED.as_millis() as i64);
        self.all(text, [sql::text(device).into(), sql::text(model).into(), since.into()]).await
    }
}
