//! An S3 server over a folder: s3s-fs, made durable, on loopback.
//!
//! It is for one machine. Keys become paths, so only keys that Warren makes are served: no empty, `.` or `..` parts.

mod durable;

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use durable::Durable;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::{LocalError, Scratch, random_hex};

/// The region that clients sign for; any is accepted.
pub const REGION: &str = "us-east-1";

/// How long open requests may take after [`Server::stop`].
const STOP_GRACE: Duration = Duration::from_secs(10);

/// What a server serves, and to whom.
#[derive(Clone, Debug)]
pub struct S3Spec {
    /// Where to listen; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Made if it is not there.
    pub bucket: String,
    /// The only login's name.
    pub access_key: String,
    /// The only login's secret, used for signatures (SigV4) and never sent.
    pub secret_key: String,
}

/// A running server; stops, without waiting, when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Server {
    /// Serves the folder `root`, which is made if it is not there. Runs on the current tokio runtime.
    ///
    /// # Errors
    /// When the folder cannot be used or the address is taken.
    pub async fn start(root: &Path, spec: &S3Spec) -> Result<Self, LocalError> {
        let bucket = root.join(&spec.bucket);
        fs::create_dir_all(&bucket).map_err(LocalError::io(format!("make folder {}", bucket.display())))?;
        let files = FileSystem::new(root)
            .map_err(|error| LocalError::NotReady { part: "s3", why: format!("{}: {error:?}", root.display()) })?;
        let mut builder = S3ServiceBuilder::new(Durable::new(files, root));
        builder.set_auth(SimpleAuth::from_single(spec.access_key.clone(), spec.secret_key.clone()));
        let listening = format!("listen on {}", spec.bind);
        let listener = TcpListener::bind(spec.bind).await.map_err(LocalError::io(listening.clone()))?;
        let address = listener.local_addr().map_err(LocalError::io(listening))?;
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(serve(listener, builder.build(), stopped));
        Ok(Self { address, stop: Some(stop), serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address as a client's `endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Accepts nothing new, finishes what is open for at most 10 s, and ends.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        // An error would be a panic inside the server, which its task has reported.
        let _ = (&mut self.serving).await;
    }
}

async fn serve(listener: TcpListener, service: S3Service, mut stopped: oneshot::Receiver<()>) {
    let http = Builder::new(TokioExecutor::new());
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => break,
        };
        match accepted {
            Ok((socket, _)) => {
                let _ = socket.set_nodelay(true);
                let connection = http.serve_connection(TokioIo::new(socket), service.clone()).into_owned();
                let connection = graceful.watch(connection);
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "an S3 connection ended early");
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, usually: wait for some to be closed instead of spinning.
                tracing::warn!(%error, "cannot accept an S3 connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(STOP_GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("S3 requests were still open after {} s", STOP_GRACE.as_secs());
    }
}

/// A server of a test's own, with an empty bucket; its files go with it.
#[derive(Debug)]
pub struct TestS3 {
    /// The client's `endpoint`.
    pub endpoint: String,
    /// An empty bucket.
    pub bucket: String,
    /// The login's name.
    pub access_key: String,
    /// The login's secret.
    pub secret_key: String,
    /// The region to sign for.
    pub region: &'static str,
    /// The running server, to stop it in the middle of a test.
    pub server: Server,
    folder: Scratch,
}

impl TestS3 {
    /// The folder that holds the objects, to damage one.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Starts a server for one test on the test's own runtime.
///
/// # Panics
/// When it cannot be started, saying why.
pub async fn for_tests() -> TestS3 {
    let start = async || -> Result<TestS3, LocalError> {
        let folder = Scratch::new("s3").map_err(LocalError::io("make a temporary folder"))?;
        let spec = S3Spec {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            bucket: "warren".to_owned(),
            access_key: "warren".to_owned(),
            secret_key: random_hex(16),
        };
        let server = Server::start(folder.path(), &spec).await?;
        let S3Spec { bucket, access_key, secret_key, .. } = spec;
        Ok(TestS3 { endpoint: server.endpoint(), bucket, access_key, secret_key, region: REGION, server, folder })
    };
    start().await.unwrap_or_else(|error| panic!("this test needs an S3 server: {error}"))
}

/// Turns an error of the file system into one for a client.
fn internal(error: &io::Error) -> s3s::S3Error {
    s3s::S3Error::with_message(s3s::S3ErrorCode::InternalError, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http;

    const TIMEOUT: Duration = Duration::from_secs(10);

    #[tokio::test(flavor = "multi_thread")]
    async fn strangers_are_refused_and_a_stopped_server_is_gone() {
        let s3 = for_tests().await;
        let address = s3.server.address();
        let ask = move || http::get(address, "/warren?list-type=2", TIMEOUT);
        let answer = tokio::task::spawn_blocking(ask).await.unwrap().unwrap();
        assert_eq!(answer.status, 403, "{}", answer.body);
        s3.server.stop().await;
        assert!(tokio::task::spawn_blocking(ask).await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let s3 = for_tests().await;
        let spec = S3Spec {
            bind: s3.server.address(),
            bucket: s3.bucket.clone(),
            access_key: String::new(),
            secret_key: String::new(),
        };
        let error = Server::start(s3.folder(), &spec).await.unwrap_err().to_string();
        assert!(error.contains(&format!("listen on {}", spec.bind)), "{error}");
    }
}
