//! The sections that every service has.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use warren_telemetry::TelemetrySettings;

/// Where the process shell finds its own sections in a service's settings.
pub trait ServiceSettings {
    /// What the service does, for `--help`.
    const ABOUT: &'static str;

    /// Section `http`.
    fn http(&self) -> &HttpSettings;

    /// Section `telemetry`.
    fn telemetry(&self) -> &TelemetrySettings;

    /// Section `drain`.
    fn drain(&self) -> &DrainSettings;
}

/// Section `http`: health, readiness and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// Address and port of `/health`, `/health/ready` and `/metrics`; port 0 takes any free one. Default: loopback,
    /// port 8080 for ingest, 8081 coordinator, 8082 transcription, 8083 batch-embedding. Behind probes of another
    /// host, bind `0.0.0.0`.
    pub bind: SocketAddr,
}

impl HttpSettings {
    /// Port of ingest.
    pub const INGEST: u16 = 8080;
    /// Port of the coordinator.
    pub const COORDINATOR: u16 = 8081;
    /// Port of transcription.
    pub const TRANSCRIPTION: u16 = 8082;
    /// Port of batch-embedding.
    pub const BATCH_EMBEDDING: u16 = 8083;

    /// Loopback with this port.
    pub fn on(port: u16) -> Self {
        Self { bind: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) }
    }
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self::on(0)
    }
}

/// Section `drain`: how a process stops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DrainSettings {
    /// Seconds from the first SIGTERM or SIGINT until the process ends; messages in hand are abandoned 5 s before (and
    /// delivered again). A second signal ends it at once. Default 30; keep it under the orchestrator's own limit.
    pub grace_s: u64,
}

impl Default for DrainSettings {
    fn default() -> Self {
        Self { grace_s: 30 }
    }
}

/// Refuses to open a door that callers can reach from other hosts and that asks nobody who they are.
///
/// # Errors
/// A sentence that names `key`, e.g. `grpc.bind`, and what to do.
pub fn ensure_loopback_or_auth(key: &str, bind: SocketAddr, has_auth: bool) -> Result<(), String> {
    if bind.ip().is_loopback() || has_auth {
        Ok(())
    } else {
        Err(format!("{key}: {bind} can be reached from other hosts; set auth.keys, or bind 127.0.0.1"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_door_needs_keys() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        for (bind, has_auth, allowed) in [
            ("127.0.0.1:8080", false, true),
            ("[::1]:8080", false, true),
            ("0.0.0.0:8080", false, false),
            ("[::]:8080", false, false),
            ("10.1.2.3:8080", true, true),
        ] {
            assert_eq!(ensure_loopback_or_auth("http.bind", at(bind), has_auth).is_ok(), allowed, "{bind}");
        }
    }
}
