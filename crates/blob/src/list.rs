//! Listing, for whoever sweeps.

use crate::{BlobError, Blobs, Prefix, blobs::size};

/// An object found by [`Blobs::list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name as the store has it; [`Key::parse`](crate::Key::parse) fails for what Warren did not write.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// When it was written, in milliseconds since 1970 by the clock of the storage; 0 when that is not told.
    pub modified_ms: i64,
}

impl Blobs {
    /// All objects under `prefix`, in the order of their names.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`].
    pub async fn list(&self, prefix: Prefix) -> Result<Vec<Listed>, BlobError> {
        let mut found = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix.as_str());
            let page = request.set_continuation_token(next.take()).send().await;
            let page = page.map_err(|error| BlobError::unavailable(&error))?;
            for object in page.contents() {
                let name = object.key().unwrap_or_default().to_owned();
                let modified = object.last_modified().and_then(|at| at.to_millis().ok());
                found.push(Listed { name, size: size(object.size()), modified_ms: modified.unwrap_or(0) });
            }
            next = page.next_continuation_token().map(str::to_owned);
            if next.is_none() || page.is_truncated() != Some(true) {
                return Ok(found);
            }
        }
    }
}
