//! An object as a file: `Read + Seek` for decoders, which are blocking code.

use std::io::{self, Read, Seek, SeekFrom};

use bytes::Bytes;
use tokio::{runtime::Handle, task::JoinHandle};

use crate::{BlobError, Blobs, Key};

/// Bytes fetched in one request, 2 MiB. A reader holds at most three such blocks.
pub const BLOCK_BYTES: u64 = 2 * 1024 * 1024;

/// Reads an object block by block. While one block is being used, the next is already on its way; a seek costs one
/// request, and stepping back over the border of two blocks costs none.
///
/// Use it only on a thread that may block, never inside a future. Errors carry the [`BlobError`]: see
/// [`BlobError::behind`].
#[derive(Debug)]
pub struct BlobReader {
    blobs: Blobs,
    key: Key,
    runtime: Handle,
    size: u64,
    position: u64,
    /// Most recently used first.
    held: [Option<Block>; 2],
    coming: Option<Coming>,
}

#[derive(Debug)]
struct Block {
    number: u64,
    bytes: Bytes,
}

#[derive(Debug)]
struct Coming {
    number: u64,
    bytes: JoinHandle<Result<Bytes, BlobError>>,
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.bytes.abort();
    }
}

impl Blobs {
    /// Opens an object for a blocking reader. `runtime` runs the requests.
    ///
    /// # Errors
    /// [`BlobError::Missing`], [`BlobError::Unavailable`].
    pub async fn open_reader(&self, key: &Key, runtime: Handle) -> Result<BlobReader, BlobError> {
        let head = self.head(key).await?.ok_or_else(|| BlobError::Missing(key.clone()))?;
        Ok(BlobReader {
            blobs: self.clone(),
            key: key.clone(),
            runtime,
            size: head.size,
            position: 0,
            held: [None, None],
            coming: None,
        })
    }
}

impl BlobReader {
    /// Bytes of the whole object.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The object's name.
    pub fn key(&self) -> &Key {
        &self.key
    }

    fn block(&mut self, number: u64) -> Result<Bytes, BlobError> {
        if let Some(place) = self.held.iter().position(|held| held.as_ref().is_some_and(|b| b.number == number)) {
            self.held[..=place].rotate_right(1);
        } else {
            let in_order = self.held[0].as_ref().map_or(number == 0, |last| last.number + 1 == number);
            let bytes = match self.coming.take() {
                Some(mut coming) if coming.number == number => {
                    self.runtime.block_on(&mut coming.bytes).unwrap_or_else(|error| {
                        Err(BlobError::Unavailable(format!("reading {} was stopped: {error}", self.key)))
                    })?
                }
                _ => self.runtime.block_on(fetch(self.blobs.clone(), self.key.clone(), self.size, number))?,
            };
            self.held.rotate_right(1);
            self.held[0] = Some(Block { number, bytes });
            let next = number + 1;
            if in_order && next * BLOCK_BYTES < self.size {
                let request = fetch(self.blobs.clone(), self.key.clone(), self.size, next);
                self.coming = Some(Coming { number: next, bytes: self.runtime.spawn(request) });
            }
        }
        Ok(self.held[0].as_ref().map(|block| block.bytes.clone()).unwrap_or_default())
    }
}

async fn fetch(blobs: Blobs, key: Key, size: u64, number: u64) -> Result<Bytes, BlobError> {
    let first = number * BLOCK_BYTES;
    let wanted = BLOCK_BYTES.min(size.saturating_sub(first));
    let bytes = blobs.get_range(&key, first, wanted).await?;
    if bytes.len() as u64 != wanted {
        let reason = format!("{} of {wanted} bytes at {first}: it was replaced while it was read", bytes.len());
        return Err(BlobError::Damaged { key, reason });
    }
    Ok(bytes)
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.position >= self.size {
            return Ok(0);
        }
        let block = self.block(self.position / BLOCK_BYTES).map_err(BlobError::into_io)?;
        // Less than a block, so it fits any usize.
        let from = (self.position % BLOCK_BYTES) as usize;
        let ready = block.get(from..).unwrap_or_default();
        let count = ready.len().min(buffer.len());
        buffer[..count].copy_from_slice(&ready[..count]);
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for BlobReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position =
            target.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "seek before the first byte"))?;
        Ok(self.position)
    }
}
