//! Requests to a server on this machine: health pages and RabbitMQ's management API. One request per connection, no
//! TLS, no redirects.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

/// A server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body as text; bytes that are not UTF-8 are replaced.
    pub body: String,
}

/// Sends one request and reads the whole answer.
///
/// `login` becomes HTTP basic authentication, `body` is sent as JSON.
///
/// # Errors
/// When nothing answers within `timeout`, or not in HTTP.
pub fn request(
    server: SocketAddr,
    method: &str,
    path: &str,
    login: Option<(&str, &str)>,
    body: Option<&str>,
    timeout: Duration,
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    // HTTP/1.0: the answer ends with the connection and is never chunked.
    let mut head = format!("{method} {path} HTTP/1.0\r\nHost: {server}\r\nConnection: close\r\n");
    if let Some((user, password)) = login {
        let encoded = BASE64_STANDARD.encode(format!("{user}:{password}"));
        head.push_str(&format!("Authorization: Basic {encoded}\r\n"));
    }
    let body = body.unwrap_or_default();
    head.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(head.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    parse(&String::from_utf8_lossy(&bytes))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{server} does not answer in HTTP")))
}

/// `GET path` without a login.
///
/// # Errors
/// As [`request`].
pub fn get(server: SocketAddr, path: &str, timeout: Duration) -> io::Result<Answer> {
    request(server, "GET", path, None, None, timeout)
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split_whitespace().nth(1)?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_read() {
        let answer = parse("HTTP/1.1 503 Service Unavailable\r\nServer: x\r\n\r\n{\"status\":\"down\"}");
        assert_eq!(answer, Some(Answer { status: 503, body: "{\"status\":\"down\"}".to_owned() }));
    }

    #[test]
    fn other_protocols_are_refused() {
        assert_eq!(parse("AMQP\0\0\x09\x01"), None);
        assert_eq!(parse(""), None);
    }
}
