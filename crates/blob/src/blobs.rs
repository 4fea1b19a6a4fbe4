//! The handle that services hold.

use aws_sdk_s3::Client;

use crate::{BlobError, BlobSettings, Key, client::client, error::HttpStatus as _};

/// Objects in one bucket. Cheap to clone; connections are opened when needed and shared.
#[derive(Clone, Debug)]
pub struct Blobs {
    pub(crate) client: Client,
    pub(crate) bucket: String,
}

/// What was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Bytes.
    pub size: u64,
    /// Lower-case hexadecimal sha256 of the bytes.
    pub sha256: String,
}

/// What a store knows about an object without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes.
    pub size: u64,
}

impl Blobs {
    /// A handle on the bucket named in `settings`. Opens no connection, so it works while the store is away.
    pub fn connect(settings: &BlobSettings) -> Self {
        Self { client: client(settings), bucket: settings.bucket.clone() }
    }

    /// Makes the bucket unless it is there.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`] when the store is away or refuses.
    pub async fn ensure_bucket(&self) -> Result<(), BlobError> {
        match self.client.head_bucket().bucket(&self.bucket).send().await {
            Ok(_) => return Ok(()),
            Err(error) if error.status() == Some(404) => {}
            Err(error) => return Err(BlobError::unavailable(&error)),
        }
        match self.client.create_bucket().bucket(&self.bucket).send().await {
            Ok(_) => Ok(()),
            // Another process was faster.
            Err(error) if error.status() == Some(409) => Ok(()),
            Err(error) => Err(BlobError::unavailable(&error)),
        }
    }

    /// Asks whether the store answers and the bucket is there; for readiness.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`] says what is wrong.
    pub async fn ping(&self) -> Result<(), BlobError> {
        match self.client.head_bucket().bucket(&self.bucket).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.status() == Some(404) => {
                Err(BlobError::Unavailable(format!("bucket `{}` does not exist", self.bucket)))
            }
            Err(error) => Err(BlobError::unavailable(&error)),
        }
    }

    /// Size of an object, or `None` when there is none.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`].
    pub async fn head(&self, key: &Key) -> Result<Option<Head>, BlobError> {
        match self.client.head_object().bucket(&self.bucket).key(key.as_str()).send().await {
            Ok(found) => Ok(Some(Head { size: size(found.content_length()) })),
            Err(error) => match BlobError::about(key, &error) {
                BlobError::Missing(_) => Ok(None),
                other => Err(other),
            },
        }
    }

    /// Deletes an object. One that is not there counts as deleted.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`].
    pub async fn delete(&self, key: &Key) -> Result<(), BlobError> {
        match self.client.delete_object().bucket(&self.bucket).key(key.as_str()).send().await {
            Ok(_) => Ok(()),
            Err(error) => match BlobError::about(key, &error) {
                BlobError::Missing(_) => Ok(()),
                other => Err(other),
            },
        }
    }
}

pub(crate) fn size(length: Option<i64>) -> u64 {
    length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0)
}
