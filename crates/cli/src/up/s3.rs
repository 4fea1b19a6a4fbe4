//! `warren s3`: the private S3 server as a process of its own.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use warren_local::s3::{S3Spec, Server};

use super::{
    UpError,
    folder::{Folder, write_file},
    stack::Stack,
};

/// The file that `warren s3 --config FILE` reads.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct S3File {
    /// The folder with buckets and objects.
    root: PathBuf,
    /// Where to listen.
    bind: SocketAddr,
    bucket: String,
    access_key: String,
    secret_key: String,
}

pub(super) fn write_settings(folder: &Folder, stack: &Stack) -> Result<(), UpError> {
    let login = &stack.s3;
    let file = S3File {
        root: folder.s3(),
        bind: SocketAddr::from((Ipv4Addr::LOCALHOST, stack.port("s3"))),
        bucket: login.bucket.clone(),
        access_key: login.access_key.clone(),
        secret_key: login.secret_key.clone(),
    };
    let path = folder.settings("s3");
    let text = toml::to_string(&file).map_err(|error| UpError::Usage(format!("{}: {error}", path.display())))?;
    write_file(&path, &format!("# Written by warren up at every start.\n{text}"))
}

/// Serves until `stopping` is cancelled.
///
/// # Errors
/// When the file cannot be read, the folder cannot be used or the port is taken.
pub(crate) async fn serve_s3(config: &Path, stopping: CancellationToken) -> Result<(), UpError> {
    let text = fs::read_to_string(config).map_err(UpError::io(format!("read {}", config.display())))?;
    let file: S3File =
        toml::from_str(&text).map_err(|error| UpError::Usage(format!("{}: {error}", config.display())))?;
    let S3File { root, bind, bucket, access_key, secret_key } = file;
    let server = Server::start(&root, &S3Spec { bind, bucket, access_key, secret_key }).await?;
    println!("serving {} on {}", root.display(), server.endpoint());
    stopping.cancelled().await;
    server.stop().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::options::PortWishes;

    #[tokio::test]
    async fn the_written_file_can_be_served() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(&dir.path().join("a b")).unwrap();
        let mut stack = Stack::generate().unwrap();
        stack.choose_ports(&PortWishes::default(), false).unwrap();
        write_settings(&folder, &stack).unwrap();
        let stopping = CancellationToken::new();
        stopping.cancel();
        serve_s3(&folder.settings("s3"), stopping).await.unwrap();
        assert!(folder.s3().join("warren").is_dir());
    }
}
