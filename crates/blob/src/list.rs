//! Listing, for whoever sweeps.

use crate::{BlobError, Blobs, Prefix, blobs::size};

/// An object found by [`Blobs::pages`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name as the store has it; [`Key::parse`](crate::Key::parse) fails for what Warren did not write.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// When it was written, in milliseconds since 1970 by the clock of the storage; 0 when that is not told.
    pub modified_ms: i64,
}

/// A listing, some hundred objects at a time. Objects may come and go meanwhile.
#[derive(Debug)]
pub struct Pages<'a> {
    blobs: &'a Blobs,
    prefix: Prefix,
    /// `None` before the first page.
    place: Option<String>,
    ended: bool,
}

impl Pages<'_> {
    /// The next objects, in the order of their names; `None` at the end.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`]; the next call asks for the same page.
    pub async fn next(&mut self) -> Result<Option<Vec<Listed>>, BlobError> {
        if self.ended {
            return Ok(None);
        }
        let Blobs { client, bucket, .. } = self.blobs;
        let request = client.list_objects_v2().bucket(bucket).prefix(self.prefix.as_str());
        let page = request.set_continuation_token(self.place.clone()).send().await;
        let page = page.map_err(|error| BlobError::unavailable(&error))?;
        self.place = page.next_continuation_token().map(str::to_owned);
        self.ended = self.place.is_none() || page.is_truncated() != Some(true);
        let listed = page.contents().iter().map(|object| Listed {
            name: object.key().unwrap_or_default().to_owned(),
            size: size(object.size()),
            modified_ms: object.last_modified().and_then(|at| at.to_millis().ok()).unwrap_or(0),
        });
        Ok(Some(listed.collect()))
    }
}

impl Blobs {
    /// All objects under `prefix`, for whoever need not have them all at once.
    pub fn pages(&self, prefix: Prefix) -> Pages<'_> {
        Pages { blobs: self, prefix, place: None, ended: false }
    }

    /// All objects under `prefix`, in the order of their names.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`].
    pub async fn list(&self, prefix: Prefix) -> Result<Vec<Listed>, BlobError> {
        let (mut pages, mut found) = (self.pages(prefix), Vec::new());
        while let Some(page) = pages.next().await? {
            found.extend(page);
        }
        Ok(found)
    }
}
