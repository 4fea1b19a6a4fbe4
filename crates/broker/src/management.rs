//! Small reads of RabbitMQ's management API. Plain HTTP only; it is asked on loopback or inside a private network.

use std::{pin::Pin, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{
    Request,
    body::{Body as _, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

use crate::{Broker, BrokerSettings};

const TIMEOUT: Duration = Duration::from_secs(10);
/// The page for some dozen queues is a few kilobytes.
const MAX_BODY: usize = 16 << 20;

/// A queue as the broker sees it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct QueueState {
    /// Name.
    pub name: String,
    /// All messages: ready, unacked, and those waiting to be dead-lettered, which AMQP's own count leaves out.
    /// 0 during the broker's first seconds.
    #[serde(default)]
    pub messages: u64,
    /// Messages that wait for a consumer.
    #[serde(default)]
    pub messages_ready: u64,
    /// Messages in consumers' hands.
    #[serde(default)]
    pub messages_unacknowledged: u64,
    /// Consumers.
    #[serde(default)]
    pub consumers: u64,
    /// Arguments it was declared with.
    #[serde(default)]
    pub arguments: serde_json::Map<String, serde_json::Value>,
}

/// The management API gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ManagementError {
    /// `broker.management_url` is empty.
    #[error("broker.management_url is empty, so queues cannot be counted")]
    Off,
    /// The URL cannot be used.
    #[error("broker.management_url: {0}")]
    Url(String),
    /// It is out of reach.
    #[error("the management API does not answer: {0}")]
    Unavailable(String),
    /// It refused.
    #[error("the management API answered {0}; is the user tagged `monitoring`?")]
    Refused(u16),
    /// The answer is not what RabbitMQ 3.10 to 4.x send.
    #[error("the management API's answer cannot be read: {0}")]
    Unreadable(String),
}

impl Broker {
    /// All queues of the virtual host. Counts are up to five seconds old.
    ///
    /// # Errors
    /// [`ManagementError`].
    pub async fn queues(&self) -> Result<Vec<QueueState>, ManagementError> {
        queues(self.settings()).await
    }
}

/// All queues of the virtual host that `broker.url` names. Counts are up to five seconds old.
///
/// # Errors
/// [`ManagementError`].
pub async fn queues(settings: &BrokerSettings) -> Result<Vec<QueueState>, ManagementError> {
    if settings.management_url.is_empty() {
        return Err(ManagementError::Off);
    }
    let uri = settings.uri().map_err(ManagementError::Url)?;
    let vhost = percent_encode(&uri.vhost);
    let columns = "name,messages,messages_ready,messages_unacknowledged,consumers,arguments";
    let path = format!("/api/queues/{vhost}?disable_stats=false&columns={columns}");
    let credentials =
        STANDARD.encode(format!("{}:{}", uri.authority.userinfo.username, uri.authority.userinfo.password));
    let body = tokio::time::timeout(TIMEOUT, get(&settings.management_url, &path, &credentials))
        .await
        .map_err(|_| ManagementError::Unavailable(format!("nothing within {TIMEOUT:?}")))??;
    serde_json::from_slice(&body).map_err(|error| ManagementError::Unreadable(error.to_string()))
}

async fn get(url: &str, path: &str, credentials: &str) -> Result<Vec<u8>, ManagementError> {
    let away = |error: &dyn std::fmt::Display| ManagementError::Unavailable(error.to_string());
    let rest = url.strip_prefix("http://").ok_or_else(|| ManagementError::Url("must start with http://".to_owned()))?;
    let (authority, prefix) = rest.trim_end_matches('/').split_once('/').unwrap_or((rest.trim_end_matches('/'), ""));
    let address = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };

    let stream = TcpStream::connect(&address).await.map_err(|error| away(&error))?;
    let (mut sender, connection) =
        http1::handshake::<_, String>(TokioIo::new(stream)).await.map_err(|error| away(&error))?;
    let request = Request::get(format!("{prefix}{path}"))
        .header(header::HOST, authority)
        .header(header::AUTHORIZATION, format!("Basic {credentials}"))
        .header(header::CONNECTION, "close")
        .body(String::new())
        .map_err(|error| ManagementError::Url(error.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| away(&error))?;
        if !response.status().is_success() {
            return Err(ManagementError::Refused(response.status().as_u16()));
        }
        collect(response.into_body()).await
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    // The connection has to be driven while the answer is read; it may end first.
    tokio::select! {
        biased;
        body = &mut exchange => body,
        _ = &mut connection => exchange.await,
    }
}

async fn collect(mut body: Incoming) -> Result<Vec<u8>, ManagementError> {
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|error| ManagementError::Unavailable(error.to_string()))?;
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > MAX_BODY {
                return Err(ManagementError::Unreadable("it is too long".to_owned()));
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_virtual_host_is_encoded() {
        assert_eq!(percent_encode("/"), "%2F");
        assert_eq!(percent_encode("a b-1"), "a%20b-1");
    }

    #[tokio::test]
    async fn without_a_url_it_says_so() {
        let settings = BrokerSettings { management_url: String::new(), ..Default::default() };
        assert!(matches!(queues(&settings).await, Err(ManagementError::Off)));
    }
}
