//! Writing: small objects in one request, streams in parts, with bounded memory.

use std::fmt::Display;

use aws_sdk_s3::{
    Client,
    primitives::ByteStream,
    types::{CompletedMultipartUpload, CompletedPart},
};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use sha2::{Digest as _, Sha256};

use crate::{BlobError, Blobs, Key, Stored};

/// Bytes of one part of a large upload, and with it the memory that an upload takes. 8 MiB; the store's limit of 10 000
/// parts then allows objects of 78 GiB.
pub const PART_BYTES: usize = 8 * 1024 * 1024;

impl Blobs {
    /// Stores `bytes` under `key`, replacing what was there.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`].
    pub async fn put_bytes(&self, key: &Key, bytes: Bytes) -> Result<Stored, BlobError> {
        let stored = Stored { size: bytes.len() as u64, sha256: hex::encode(Sha256::digest(&bytes)) };
        self.put_whole(key, bytes).await?;
        Ok(stored)
    }

    /// Stores a stream under `key` while it comes in, in parts of [`PART_BYTES`]; at most two parts are in memory.
    ///
    /// Nothing is stored, and no parts are left behind, when the stream fails, the limit is passed, or the returned
    /// future is dropped.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`] beyond `limit` bytes, [`BlobError::Source`] when the stream fails,
    /// [`BlobError::Unavailable`] when the store does.
    pub async fn put_stream<S, E>(&self, key: &Key, stream: S, limit: u64) -> Result<Stored, BlobError>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: Display,
    {
        let mut stream = std::pin::pin!(stream);
        let mut hasher = Sha256::new();
        let mut size = 0_u64;
        let mut part = BytesMut::new();
        let mut upload: Option<Upload> = None;
        while let Some(block) = stream.next().await {
            let mut block = block.map_err(|error| BlobError::Source(error.to_string()))?;
            size += block.len() as u64;
            if size > limit {
                return Err(BlobError::TooLarge { key: key.clone(), limit });
            }
            hasher.update(&block);
            while part.len() + block.len() > PART_BYTES {
                part.extend_from_slice(&block.split_to(PART_BYTES - part.len()));
                let upload = match &mut upload {
                    Some(upload) => upload,
                    none => none.insert(Upload::begin(self, key).await?),
                };
                upload.send(part.split().freeze()).await?;
            }
            part.extend_from_slice(&block);
        }
        match upload {
            None => self.put_whole(key, part.freeze()).await?,
            Some(mut upload) => {
                upload.send(part.freeze()).await?;
                upload.complete().await?;
            }
        }
        Ok(Stored { size, sha256: hex::encode(hasher.finalize()) })
    }

    async fn put_whole(&self, key: &Key, bytes: Bytes) -> Result<(), BlobError> {
        let request = self.client.put_object().bucket(&self.bucket).key(key.as_str());
        request.body(ByteStream::from(bytes)).send().await.map_err(|error| BlobError::unavailable(&error))?;
        Ok(())
    }
}

/// A multipart upload that removes its parts unless it is completed.
struct Upload {
    client: Client,
    bucket: String,
    key: Key,
    id: Option<String>,
    parts: Vec<CompletedPart>,
}

impl Upload {
    async fn begin(blobs: &Blobs, key: &Key) -> Result<Self, BlobError> {
        let request = blobs.client.create_multipart_upload().bucket(&blobs.bucket).key(key.as_str());
        let begun = request.send().await.map_err(|error| BlobError::unavailable(&error))?;
        let id = begun.upload_id.ok_or_else(|| BlobError::Unavailable("it gave no id for an upload".to_owned()))?;
        Ok(Self {
            client: blobs.client.clone(),
            bucket: blobs.bucket.clone(),
            key: key.clone(),
            id: Some(id),
            parts: Vec::new(),
        })
    }

    async fn send(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        let number = i32::try_from(self.parts.len() + 1).unwrap_or(i32::MAX);
        let request =
            self.client.upload_part().bucket(&self.bucket).key(self.key.as_str()).set_upload_id(self.id.clone());
        let sent = request.part_number(number).body(ByteStream::from(bytes)).send().await;
        let sent = sent.map_err(|error| BlobError::unavailable(&error))?;
        self.parts.push(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).build());
        Ok(())
    }

    async fn complete(mut self) -> Result<(), BlobError> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(std::mem::take(&mut self.parts))).build();
        let request = self.client.complete_multipart_upload().bucket(&self.bucket).key(self.key.as_str());
        let request = request.set_upload_id(self.id.clone()).multipart_upload(parts);
        request.send().await.map_err(|error| BlobError::unavailable(&error))?;
        self.id = None;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current()) else { return };
        let request = self.client.abort_multipart_upload().bucket(&self.bucket).key(self.key.as_str()).upload_id(id);
        let key = self.key.clone();
        runtime.spawn(async move {
            if let Err(error) = request.send().await {
                let error = BlobError::unavailable(&error);
                tracing::warn!(blob.key = %key, %error, "the parts of an upload that broke off are left behind");
            }
        });
    }
}
