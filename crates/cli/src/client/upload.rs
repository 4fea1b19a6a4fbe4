//! Sending a recording, with the bytes sent shown while they go.

use std::{path::Path, sync::Arc};

use futures::{Stream, StreamExt as _};
use tokio::{fs::File, io::AsyncReadExt as _};
use warren_messages::wire::{
    MediaObject, UploadHeader, UploadRequest, media_client::MediaClient, upload_request::Part,
};

use crate::{
    client::{Server, Source},
    error::CliError,
};

/// Bytes in one message.
const CHUNK: usize = 256 << 10;

/// Uploads a recording. A broken connection starts over: nothing of a broken upload is kept.
///
/// # Errors
/// When the file cannot be read, the server refuses it, or stays away.
pub(crate) async fn upload(
    server: &Server,
    source: &Source,
    sent: Arc<dyn Fn(u64) + Send + Sync>,
) -> Result<MediaObject, CliError> {
    let Source { name, path, .. } = source;
    let mut trouble = server.trouble();
    loop {
        let file = open(path).await?;
        let size = file.metadata().await.map_err(CliError::file(path.display().to_string()))?.len();
        let header = UploadHeader { name: name.clone(), sha256: String::new(), size_bytes: size as i64 };
        let first = UploadRequest { part: Some(Part::Header(header)) };
        let body = futures::stream::iter([first]).chain(chunks(file, Arc::clone(&sent)));
        match MediaClient::new(server.transport()).upload(body).await {
            Ok(stored) => return Ok(stored.into_inner()),
            Err(status) => trouble.wait(status).await?,
        }
    }
}

async fn open(path: &Path) -> Result<File, CliError> {
    let what = path.display().to_string();
    let file = File::open(path).await.map_err(CliError::file(what.clone()))?;
    let metadata = file.metadata().await.map_err(CliError::file(what.clone()))?;
    if metadata.is_dir() {
        return Err(CliError::Usage(format!("{what}: is a folder; name the recordings in it")));
    }
    Ok(file)
}

/// The file in chunks. A read error ends the stream; the size in the header then tells the server that it is short.
fn chunks(file: File, sent: Arc<dyn Fn(u64) + Send + Sync>) -> impl Stream<Item = UploadRequest> + Send + 'static {
    futures::stream::unfold((file, sent, 0_u64), |(mut file, sent, total)| async move {
        let mut chunk = vec![0; CHUNK];
        let read = file.read(&mut chunk).await.ok().filter(|read| *read > 0)?;
        chunk.truncate(read);
        let total = total + read as u64;
        sent(total);
        Some((UploadRequest { part: Some(Part::Chunk(chunk.into())) }, (file, sent, total)))
    })
}
