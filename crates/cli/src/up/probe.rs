//! Whether a part can be used yet.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use warren_local::{http, rabbitmq::RabbitSpec};

/// Longer than any answer takes on a busy machine; nothing waits for it when the part is not there.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How to find out.
#[derive(Clone, Debug)]
pub(super) enum Probe {
    /// `/health/ready` on this loopback port.
    Health(u16),
    /// The management API says whether the broker listens.
    RabbitMq(RabbitSpec),
    /// This loopback port is open.
    Open(u16),
}

impl Probe {
    /// `Err` with the reason while the part is not ready. Blocks.
    pub(super) fn check(&self) -> Result<(), String> {
        let loopback = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match self {
            Self::Health(port) => match http::get(loopback(*port), "/health/ready", TIMEOUT) {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(shorten(&answer.body)),
                Err(error) => Err(format!("no answer on port {port}: {error}")),
            },
            Self::RabbitMq(spec) if spec.is_ready() => Ok(()),
            Self::RabbitMq(spec) => Err(format!("not accepting connections on port {} yet", spec.amqp_port)),
            Self::Open(port) => TcpStream::connect_timeout(&loopback(*port), TIMEOUT)
                .map(drop)
                .map_err(|error| format!("port {port}: {error}")),
        }
    }
}

fn shorten(body: &str) -> String {
    const MOST: usize = 300;
    let body = body.trim();
    match body.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &body[..end]),
        None => body.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_port_is_not_ready() {
        let port = warren_local::ports::free(1).unwrap()[0];
        assert!(Probe::Open(port).check().unwrap_err().contains(&port.to_string()));
        assert!(Probe::Health(port).check().unwrap_err().contains("no answer"));
    }

    #[test]
    fn reasons_are_short() {
        assert_eq!(shorten(" {\"down\":[]} "), "{\"down\":[]}");
        assert_eq!(shorten(&"ä".repeat(1000)).chars().count(), 301);
    }
}
