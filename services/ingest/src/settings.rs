//! The settings of ingest. Every field has a documented default; see `--print-settings`.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use warren_blob::BlobSettings;
use warren_broker::BrokerSettings;
use warren_host::{DrainSettings, HttpSettings, ServiceSettings, ensure_loopback_or_auth};
use warren_settings::Validate;
use warren_store::StoreSettings;
use warren_telemetry::TelemetrySettings;

use crate::auth::AuthSettings;

/// All sections.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Health and metrics.
    pub http: HttpSettings,
    /// Logs, traces.
    pub telemetry: TelemetrySettings,
    /// What happens on SIGTERM.
    pub drain: DrainSettings,
    /// RabbitMQ.
    pub broker: BrokerSettings,
    /// The database.
    pub store: StoreSettings,
    /// Object storage.
    pub blob: BlobSettings,
    /// The door for callers.
    pub grpc: GrpcSettings,
    /// Who may call.
    pub auth: AuthSettings,
    /// What is refused.
    pub limits: LimitSettings,
    /// What is used when a caller names nothing.
    pub defaults: DefaultSettings,
}

/// Section `grpc`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcSettings {
    /// Address and port. Default 127.0.0.1:7070. Another machine can reach it only with `auth.keys` set.
    pub bind: SocketAddr,
}

impl Default for GrpcSettings {
    fn default() -> Self {
        Self { bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 7070)) }
    }
}

/// Section `limits`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// Largest recording in bytes. Default 8 GiB.
    pub upload_bytes: u64,
    /// Most texts in one embed job. Default 100 000.
    pub texts: usize,
    /// Most bytes of one text. Default 1 MiB.
    pub text_bytes: usize,
    /// Seconds that a caller may ask a job to run. Default 172 800 (two days).
    pub timeout_s: u32,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self { upload_bytes: 8 << 30, texts: 100_000, text_bytes: 1 << 20, timeout_s: 172_800 }
    }
}

/// Section `defaults`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DefaultSettings {
    /// Speech model. Default `base`: it knows about a hundred languages.
    pub speech_model: String,
    /// Embedding model. Default `all-MiniLM-L6-v2`.
    pub embedding_model: String,
}

impl Default for DefaultSettings {
    fn default() -> Self {
        Self { speech_model: "base".to_owned(), embedding_model: "all-MiniLM-L6-v2".to_owned() }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            http: HttpSettings::on(HttpSettings::INGEST),
            telemetry: TelemetrySettings::default(),
            drain: DrainSettings::default(),
            broker: BrokerSettings::default(),
            store: StoreSettings::default(),
            blob: BlobSettings::default(),
            grpc: GrpcSettings::default(),
            auth: AuthSettings::default(),
            limits: LimitSettings::default(),
            defaults: DefaultSettings::default(),
        }
    }
}

impl Validate for Settings {
    fn validate(&self) -> Result<(), String> {
        ensure_loopback_or_auth("grpc.bind", self.grpc.bind, !self.auth.keys.is_empty())?;
        for (index, key) in self.auth.keys.iter().enumerate() {
            if key.caller.is_empty() || key.key.expose().len() < 20 {
                return Err(format!("auth.keys[{index}]: needs a `caller` and a `key` of at least 20 characters"));
            }
        }
        Ok(())
    }
}

impl ServiceSettings for Settings {
    const ABOUT: &'static str = "The front door: takes recordings and texts in, submits jobs, answers for them, searches.";

    fn http(&self) -> &HttpSettings {
        &self.http
    }

    fn telemetry(&self) -> &TelemetrySettings {
        &self.telemetry
    }

    fn drain(&self) -> &DrainSettings {
        &self.drain
    }
}
