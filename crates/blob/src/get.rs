//! Reading whole objects and ranges into memory, never more than asked for.

use aws_sdk_s3::primitives::ByteStream;
use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};

use crate::{BlobError, Blobs, Key, blobs::size, error::HttpStatus as _};

impl Blobs {
    /// The whole object.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`] when it has more than `max` bytes, [`BlobError::Missing`], [`BlobError::Unavailable`].
    pub async fn get_bytes(&self, key: &Key, max: u64) -> Result<Bytes, BlobError> {
        let request = self.client.get_object().bucket(&self.bucket).key(key.as_str());
        let found = request.send().await.map_err(|error| BlobError::about(key, &error))?;
        let announced = size(found.content_length());
        if announced > max {
            return Err(BlobError::TooLarge { key: key.clone(), limit: max });
        }
        collect(key, found.body, announced, max).await
    }

    /// The whole object, refused unless its sha256 (hexadecimal) is the expected one.
    ///
    /// # Errors
    /// [`BlobError::Damaged`], and those of [`Self::get_bytes`].
    pub async fn get_checked(&self, key: &Key, sha256: &str, max: u64) -> Result<Bytes, BlobError> {
        let bytes = self.get_bytes(key, max).await?;
        let found = hex::encode(Sha256::digest(&bytes));
        if !found.eq_ignore_ascii_case(sha256) {
            return Err(BlobError::Damaged { key: key.clone(), reason: format!("sha256 is {found}, not {sha256}") });
        }
        Ok(bytes)
    }

    /// Up to `len` bytes from byte `first`; fewer only at the end of the object.
    ///
    /// # Errors
    /// [`BlobError::OutOfRange`] when the object has no byte `first`, [`BlobError::Missing`], [`BlobError::Unavailable`].
    pub async fn get_range(&self, key: &Key, first: u64, len: u64) -> Result<Bytes, BlobError> {
        if len == 0 {
            return Ok(Bytes::new());
        }
        let last = first.saturating_add(len - 1);
        let request = self.client.get_object().bucket(&self.bucket).key(key.as_str());
        let found = match request.range(format!("bytes={first}-{last}")).send().await {
            Ok(found) => found,
            Err(error) if error.status() == Some(416) => {
                return Err(BlobError::OutOfRange { key: key.clone(), first });
            }
            Err(error) => return Err(BlobError::about(key, &error)),
        };
        let announced = size(found.content_length());
        collect(key, found.body, announced, len).await
    }
}

async fn collect(key: &Key, mut body: ByteStream, announced: u64, max: u64) -> Result<Bytes, BlobError> {
    let broke_off = |why: String| BlobError::Unavailable(format!("reading {key} broke off: {why}"));
    let mut bytes = BytesMut::with_capacity(usize::try_from(announced.min(max)).unwrap_or(0));
    while let Some(block) = body.next().await {
        let block = block.map_err(|error| broke_off(error.to_string()))?;
        if (bytes.len() + block.len()) as u64 > max {
            return Err(BlobError::TooLarge { key: key.clone(), limit: max });
        }
        bytes.extend_from_slice(&block);
    }
    if (bytes.len() as u64) < announced {
        return Err(broke_off(format!("{} of {announced} bytes came", bytes.len())));
    }
    Ok(bytes.freeze())
}
