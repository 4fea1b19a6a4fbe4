//! Section `telemetry` of a service's settings.

use serde::{Deserialize, Serialize};

/// How a process is observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetrySettings {
    /// What to log: a level, or levels by module as in `info,warren_broker=debug`. Default `info`.
    pub log: String,
    /// Shape of log lines on stderr: `json`, `text`, or `auto` (text on a terminal, else json). Default `auto`.
    pub format: LogFormat,
    /// Where to send traces by OTLP over gRPC, e.g. `http://127.0.0.1:4317`. Default: nowhere.
    pub otlp_endpoint: Option<String>,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self { log: "info".to_owned(), format: LogFormat::Auto, otlp_endpoint: None }
    }
}

/// Shape of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}
