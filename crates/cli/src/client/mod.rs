//! The connection to a server, which may be away for a while.

mod followed;
mod source;
mod submit;
mod upload;
mod watch;

use std::{path::PathBuf, time::Duration};

use clap::Args;
pub(crate) use followed::Followed;
pub(crate) use source::Source;
pub(crate) use submit::{Terms, carry_out};
use tokio::time::Instant;
use tonic::{
    Code, Request, Status,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;
pub(crate) use upload::upload;
use warren_clock::Reconnect;
pub(crate) use watch::watch;

use crate::{error::CliError, up};

/// How long a server may be away before a command gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Largest answer: a transcript of many hours.
pub(crate) const MAX_ANSWER: usize = 64 << 20;

/// Which server to talk to.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Target {
    /// Folder of the local stack. Default: the one that `warren up` uses.
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Unless --data is given: a server somewhere else, e.g. http://warren.example:7070.
    #[arg(long, global = true, value_name = "URL", env = "WARREN_SERVER")]
    pub server: Option<String>,
    /// API key for it.
    #[arg(long, global = true, value_name = "KEY", env = "WARREN_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// The jobs that this command waits for.
    #[arg(skip)]
    pub followed: Followed,
}

/// Adds the API key to every call.
#[derive(Clone, Debug)]
pub(crate) struct Key(Option<MetadataValue<tonic::metadata::Ascii>>);

impl Interceptor for Key {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("authorization", key.clone());
        }
        Ok(request)
    }
}

/// What generated clients are made from.
pub(crate) type Transport = InterceptedService<Channel, Key>;

/// A server. Cheap to clone; connects when used, and again after losses.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    transport: Transport,
    address: String,
    target: Target,
}

impl Target {
    /// The folder of the local stack.
    pub(crate) fn folder(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(up::default_data_dir)
    }

    /// The server. Opens no connection yet.
    ///
    /// # Errors
    /// When there is no local stack, or the address or key is no such thing.
    pub(crate) fn server(&self) -> Result<Server, CliError> {
        let address = match (&self.data, &self.server) {
            (None, Some(address)) => address.clone(),
            _ => up::endpoints(&self.folder())?.grpc.url,
        };
        let endpoint = Endpoint::from_shared(address.clone())
            .map_err(|error| CliError::Usage(format!("--server {address}: {error}; write it as http://HOST:PORT")))?
            .connect_timeout(Duration::from_secs(5))
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10));
        let key = self
            .api_key
            .as_ref()
            .map(|key| format!("Bearer {key}").parse())
            .transpose()
            .map_err(|_| CliError::Usage("--api-key: has characters that a key cannot have".to_owned()))?;
        let transport = InterceptedService::new(endpoint.connect_lazy(), Key(key));
        Ok(Server { transport, address, target: self.clone() })
    }

    /// `warren REST` for the same server, to be pasted into a shell. The API key is left out: it is a secret.
    pub(crate) fn command(&self, rest: &str) -> String {
        match (&self.data, &self.server) {
            (Some(data), _) => format!("warren --data {} {rest}", quoted(&data.to_string_lossy())),
            (None, Some(server)) => format!("warren --server {} {rest}", quoted(server)),
            (None, None) => format!("warren {rest}"),
        }
    }

    /// What to do about a server that does not answer.
    fn advice(&self) -> String {
        match (&self.data, &self.server) {
            (None, Some(_)) => "is it running, and is this its address?".to_owned(),
            _ => format!("is it running? See: {}", self.command("ps")),
        }
    }
}

/// A word of a shell's command line.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

impl Server {
    /// For a generated client.
    pub(crate) fn transport(&self) -> Transport {
        self.transport.clone()
    }

    /// Calls until the server answers; a server that is away is given a minute.
    ///
    /// # Errors
    /// What the server refused, or [`CliError::OutOfReach`].
    pub(crate) async fn call<T>(&self, call: impl AsyncFn(Transport) -> Result<T, Status>) -> Result<T, CliError> {
        let mut trouble = self.trouble();
        loop {
            match call(self.transport()).await {
                Ok(answer) => return Ok(answer),
                Err(status) => trouble.wait(status).await?,
            }
        }
    }

    /// Patience with this server, for streams.
    pub(crate) fn trouble(&self) -> Trouble {
        let (address, advice) = (self.address.clone(), self.target.advice());
        Trouble { address, advice, reconnect: Reconnect::new(), since: None }
    }

    /// The jobs that this command waits for.
    pub(crate) fn followed(&self) -> &Followed {
        &self.target.followed
    }

    /// See [`Target::command`].
    pub(crate) fn command(&self, rest: &str) -> String {
        self.target.command(rest)
    }
}

/// Waits between attempts, and gives up after a minute without any success.
#[derive(Debug)]
pub(crate) struct Trouble {
    address: String,
    advice: String,
    reconnect: Reconnect,
    since: Option<Instant>,
}

impl Trouble {
    /// It worked: the minute starts over.
    pub(crate) fn over(&mut self) {
        self.reconnect.reset();
        self.since = None;
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The refusal itself, when trying again cannot help; [`CliError::OutOfReach`] when the minute is over.
    pub(crate) async fn wait(&mut self, status: Status) -> Result<(), CliError> {
        let pressed = is_pressed(&status);
        if !pressed && !is_away(&status) {
            return Err(status.into());
        }
        let first = self.since.is_none();
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= PATIENCE {
            if pressed {
                return Err(status.into());
            }
            let message = status.message();
            return Err(CliError::OutOfReach(format!(
                "no answer from {} for {} s: {message}; {}",
                self.address,
                PATIENCE.as_secs(),
                self.advice
            )));
        }
        if first {
            let what = if pressed { "takes nothing new" } else { "does not answer" };
            eprintln!("{} {what} ({}); trying for a minute", self.address, status.message());
        }
        tokio::time::sleep(self.reconnect.next_delay()).await;
        Ok(())
    }
}

/// The server has no room now, and says when to come back.
fn is_pressed(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted && status.get_details_retry_info().is_some()
}

fn is_away(status: &Status) -> bool {
    // A connection that breaks in mid-call shows as Unknown or Cancelled with the transport's error as its source.
    let broken = std::error::Error::source(status).is_some() || status.message().contains("h2 protocol error");
    matches!(status.code(), Code::Unavailable)
        || (broken && matches!(status.code(), Code::Unknown | Code::Cancelled | Code::Internal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_the_same_server_and_can_be_pasted() {
        let server = Some("http://there:7070".to_owned());
        let plain = Target::default();
        let remote = Target { server: server.clone(), api_key: Some("secret".to_owned()), ..Target::default() };
        let local = Target { data: Some("/srv/my stack's".into()), server, ..Target::default() };
        assert_eq!(plain.command("dlq list"), "warren dlq list");
        assert_eq!(remote.command("watch job_1"), "warren --server http://there:7070 watch job_1");
        assert_eq!(local.command("ps"), r"warren --data '/srv/my stack'\''s' ps", "--data goes before --server");
        assert!(local.advice().contains(&local.command("ps")));
        assert!(!remote.advice().contains("warren"), "`warren ps` tells of stacks on this machine");
    }
}
