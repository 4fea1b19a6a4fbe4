//! Uploads: checked by their first bytes, then streamed to object storage.

use std::{fmt, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::stream;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};
use warren_audio::{HEAD_BYTES, declared_seconds, sniff};
use warren_blob::{BlobError, Key, Stored};
use warren_fault::Code;
use warren_messages::{
    from_millis,
    ids::MediaId,
    wire::{self, MediaObject, UploadHeader, UploadRequest, media_server, upload_request::Part},
};
use warren_store::{Media as Row, StoreError};
use warren_telemetry::metrics;

use crate::{
    accept::Patience,
    auth::caller,
    kept::Unkept,
    parts::Parts,
    pressure::room,
    settings::LimitSettings,
    status::{differs, full, invalid, of_blob, of_fault, of_store, pressed, refused},
    uploads::{Pace, STALL},
};

/// Most bytes of one chunk.
const MAX_CHUNK: usize = 1 << 20;
/// Most characters of a name.
const MAX_NAME: usize = 500;
/// Longest wait for other uploads to end.
const WAIT: Duration = Duration::from_secs(30);

/// Service `warren.v1.Media`.
pub(crate) struct Media(pub(crate) Parts);

#[tonic::async_trait]
impl media_server::Media for Media {
    async fn upload(&self, request: Request<Streaming<UploadRequest>>) -> Result<Response<MediaObject>, Status> {
        let parts = &self.0;
        let caller = caller(&request)?;
        parts.admit().await?;
        // Until there is room, nothing of the body is read.
        let limits = &parts.settings.limits;
        let _place = tokio::time::timeout(WAIT, parts.uploads.place(&caller.name)).await.map_err(|_| {
            full(format!(
                "{} uploads run already, or {} of yours; try again",
                limits.uploads, limits.uploads_per_caller
            ))
        })?;

        let pace = Pace::new(limits.upload_bytes_per_s);
        let mut incoming = Incoming { requests: request.into_inner(), pace, broken: None };
        let header = incoming.header().await?;
        check(&header, limits)?;
        let announced = u64::try_from(header.size_bytes).unwrap_or(0);
        room(limits, announced).map_err(|full| pressed(Code::InsufficientDisk, full))?;
        let head = incoming.head().await?;
        let container = sniff(&head[..head.len().min(HEAD_BYTES)])
            .map_err(|stranger| of_fault(&stranger.fault(called(&header.name))))?;

        check_length(&header, &head, limits)?;

        let id = parts.clock.new_id();
        let key = Key::media(id);
        let unkept = Unkept::new(&parts.blobs, &key);
        let stored = incoming.store(parts, &key, head).await?;
        compare(&header, &stored)?;
        let media = Row {
            id,
            caller: caller.name,
            name: header.name.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect(),
            container: container.as_str().to_owned(),
            size_bytes: i64::try_from(stored.size).unwrap_or(i64::MAX),
            sha256: stored.sha256,
            blob_key: key.to_string(),
            created: parts.clock.now(),
        };
        // From here on a row may name it, whatever the answer to the commit: without one, the sweeper deletes it.
        unkept.keep();
        insert(parts, &media).await?;
        metrics::UPLOADED_BYTES.add(stored.size as f64, &[]);
        Ok(Response::new(shown(media)))
    }
}

fn check(header: &UploadHeader, limits: &LimitSettings) -> Result<(), Status> {
    if header.name.chars().count() > MAX_NAME {
        return Err(invalid("header.name", format!("must have at most {MAX_NAME} characters")));
    }
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if !header.sha256.is_empty() && (header.sha256.len() != 64 || !header.sha256.bytes().all(digit)) {
        return Err(invalid("header.sha256", "must be 64 lower-case hexadecimal digits, or empty"));
    }
    match u64::try_from(header.size_bytes) {
        Err(_) => Err(invalid("header.size_bytes", "must not be negative; 0 means unknown")),
        Ok(size) if size > limits.upload_bytes => Err(too_large("header.size_bytes", limits)),
        Ok(_) => Ok(()),
    }
}

/// Its own header says how long it is: then the rest need not come.
fn check_length(header: &UploadHeader, head: &[u8], limits: &LimitSettings) -> Result<(), Status> {
    // Without its size, a header that claims too much cannot be told from a long recording.
    let Some(size) = u64::try_from(header.size_bytes).ok().filter(|size| *size > 0) else { return Ok(()) };
    let Some(seconds) = declared_seconds(&head[..head.len().min(HEAD_BYTES)], size) else { return Ok(()) };
    if seconds <= f64::from(limits.audio_s) {
        return Ok(());
    }
    let problem = format!("{} lasts {seconds:.0} s, {} are allowed; cut it", called(&header.name), limits.audio_s);
    Err(refused("chunk", Code::InputTooLong, problem))
}

fn too_large(field: &str, limits: &LimitSettings) -> Status {
    refused(field, Code::InputTooLarge, format!("a recording may have at most {} bytes", limits.upload_bytes))
}

fn compare(header: &UploadHeader, stored: &Stored) -> Result<(), Status> {
    if header.size_bytes > 0 && u64::try_from(header.size_bytes) != Ok(stored.size) {
        let problem = format!("{} bytes were announced and {} arrived; upload again", header.size_bytes, stored.size);
        return Err(differs("header.size_bytes", problem));
    }
    if !header.sha256.is_empty() && header.sha256 != stored.sha256 {
        return Err(differs("header.sha256", format!("what arrived has {}; upload again", stored.sha256)));
    }
    Ok(())
}

async fn insert(parts: &Parts, media: &Row) -> Result<(), Status> {
    let mut patience = Patience::default();
    loop {
        let outcome = insert_once(parts, media).await;
        let Some(wait) = patience.after(&outcome) else { return outcome.map_err(|error| of_store(&error)) };
        tokio::time::sleep(wait).await;
    }
}

async fn insert_once(parts: &Parts, media: &Row) -> Result<(), StoreError> {
    let tx = parts.store.begin().await?;
    tx.insert_media(media).await?;
    tx.commit().await
}

fn shown(media: Row) -> MediaObject {
    wire::MediaObject {
        id: MediaId(media.id).to_string(),
        name: media.name,
        size_bytes: media.size_bytes,
        sha256: media.sha256,
        container: media.container,
        created_at: Some(from_millis(media.created.0)),
    }
}

/// What a caller sends.
struct Incoming {
    requests: Streaming<UploadRequest>,
    pace: Pace,
    /// Why the stream ended early.
    broken: Option<Status>,
}

/// The stream broke; the reason is in [`Incoming::broken`].
#[derive(Debug)]
struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the caller's stream ended early")
    }
}

impl Incoming {
    async fn next(&mut self) -> Result<Option<Part>, Status> {
        let (patience, begun) = (self.pace.patience(), Instant::now());
        let stalled = || {
            Status::deadline_exceeded(if patience == STALL {
                format!("nothing came for {} s; upload again", STALL.as_secs())
            } else {
                "this upload is slower than limits.upload_bytes_per_s; upload again over a faster connection".to_owned()
            })
        };
        let request = tokio::time::timeout(patience, self.requests.message()).await.map_err(|_| stalled())??;
        let Some(request) = request else { return Ok(None) };
        let part = request.part.ok_or_else(|| invalid("part", "is required: a `header` first, then `chunk`s"))?;
        let bytes = if let Part::Chunk(chunk) = &part { chunk.len() } else { 0 };
        self.pace.came(bytes, begun.elapsed());
        Ok(Some(part))
    }

    async fn header(&mut self) -> Result<UploadHeader, Status> {
        match self.next().await? {
            Some(Part::Header(header)) => Ok(header),
            Some(Part::Chunk(_)) => Err(invalid("header", "must be the first message; a chunk came before it")),
            None => Err(invalid("header", "is required; nothing was sent")),
        }
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, Status> {
        match self.next().await? {
            Some(Part::Chunk(chunk)) if chunk.len() <= MAX_CHUNK => Ok(Some(chunk)),
            Some(Part::Chunk(chunk)) => {
                Err(invalid("chunk", format!("has {} bytes, {MAX_CHUNK} are allowed; send smaller ones", chunk.len())))
            }
            Some(Part::Header(_)) => Err(invalid("header", "must come once, before the chunks")),
            None => Ok(None),
        }
    }

    /// At least the bytes that tell what it is, or all there are.
    async fn head(&mut self) -> Result<Bytes, Status> {
        let mut head = BytesMut::new();
        while head.len() < HEAD_BYTES {
            let Some(chunk) = self.chunk().await? else { break };
            head.extend_from_slice(&chunk);
        }
        Ok(head.freeze())
    }

    /// Stores the head and everything after it. Reads no faster than object storage takes it.
    async fn store(&mut self, parts: &Parts, key: &Key, head: Bytes) -> Result<Stored, Status> {
        let limits = &parts.settings.limits;
        let bytes = stream::unfold((Some(head), &mut *self), |(head, incoming)| async move {
            if let Some(head) = head {
                return Some((Ok(head), (None, incoming)));
            }
            match incoming.chunk().await {
                Ok(chunk) => chunk.map(|chunk| (Ok(chunk), (None, incoming))),
                Err(status) => {
                    incoming.broken = Some(status);
                    Some((Err(Broken), (None, incoming)))
                }
            }
        });
        let stored = parts.blobs.put_stream(key, bytes, limits.upload_bytes).await;
        match (stored, self.broken.take()) {
            (Ok(stored), _) => Ok(stored),
            (Err(_), Some(broken)) => Err(broken),
            (Err(BlobError::TooLarge { .. }), None) => Err(too_large("chunk", limits)),
            (Err(error), None) => Err(of_blob(&error)),
        }
    }
}

/// What a recording without a name is called.
fn called(name: &str) -> &str {
    if name.is_empty() { "the recording" } else { name }
}

#[cfg(test)]
mod tests {
    use tonic::Code as Grpc;

    use super::*;

    fn header(sha256: &str, size_bytes: i64) -> UploadHeader {
        UploadHeader { name: "talk.mp3".to_owned(), sha256: sha256.to_owned(), size_bytes }
    }

    #[test]
    fn headers_are_checked_before_a_byte_is_read() {
        let limits = LimitSettings { upload_bytes: 100, ..LimitSettings::default() };
        assert!(check(&header(&"0a".repeat(32), 100), &limits).is_ok());
        for (wrong, field) in [
            (header("", 101), "header.size_bytes"),
            (header("", -1), "header.size_bytes"),
            (header(&"0A".repeat(32), 0), "header.sha256"),
            (header("abc", 0), "header.sha256"),
            (UploadHeader { name: "x".repeat(501), ..header("", 0) }, "header.name"),
        ] {
            let status = check(&wrong, &limits).expect_err(field);
            assert_eq!(status.code(), Grpc::InvalidArgument);
            assert!(status.message().starts_with(field), "{status}");
        }
    }

    #[test]
    fn what_arrived_must_be_what_was_announced() {
        let stored = Stored { size: 5, sha256: "0a".repeat(32) };
        assert!(compare(&header(&stored.sha256, 5), &stored).is_ok());
        for wrong in [header("", 6), header(&"0b".repeat(32), 0)] {
            assert_eq!(compare(&wrong, &stored).expect_err("differs").code(), Grpc::DataLoss);
        }
    }
}
