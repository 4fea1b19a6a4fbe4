//! The service's settings. Every field has a documented default; see `--print-settings`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use warren_blob::BlobSettings;
use warren_broker::BrokerSettings;
use warren_host::{DrainSettings, HttpSettings, ServiceSettings};
use warren_inference::Device;
use warren_jobs::TaskKind;
use warren_leases::{LeaseSettings, Takes, WorkerIdentity};
use warren_models::ModelsSettings;
use warren_settings::Validate;
use warren_telemetry::TelemetrySettings;
use warren_worker::{Pace, WorkSettings};

/// All sections.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// Health and metrics.
    pub http: HttpSettings,
    /// Logs, traces.
    pub telemetry: TelemetrySettings,
    /// What happens on SIGTERM.
    pub drain: DrainSettings,
    /// RabbitMQ.
    pub broker: BrokerSettings,
    /// Object storage.
    pub blob: BlobSettings,
    /// Weights.
    pub models: ModelsSettings,
    /// The coordinator and the device.
    pub leases: LeaseSettings,
    /// How much is done at once.
    pub work: WorkSettings,
    /// Decoding.
    pub prepare: PrepareSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            http: HttpSettings::on(HttpSettings::TRANSCRIPTION),
            telemetry: TelemetrySettings::default(),
            drain: DrainSettings::default(),
            broker: BrokerSettings::default(),
            blob: BlobSettings::default(),
            models: ModelsSettings::default(),
            leases: LeaseSettings::default(),
            work: WorkSettings::default(),
            prepare: PrepareSettings::default(),
        }
    }
}

/// Section `prepare`: decoding recordings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PrepareSettings {
    /// Recordings decoded at once. Each takes up to 100 MB: three parts of ten minutes. Default 2.
    pub slots: u16,
    /// Longest recording, in seconds of audio. Default 172 800 (48 hours).
    pub max_seconds: f64,
    /// Folder for the copy of a recording that only ffmpeg can read; the copy has no name and goes with the process.
    /// Default: the system's folder for temporary files. It needs room for the largest upload.
    pub scratch: PathBuf,
    /// MB that a copy has to leave free there; where it cannot, the recording waits. Default 64.
    pub keep_free_mb: u64,
    /// The ffmpeg program. Default `ffmpeg`, found through `PATH`.
    pub ffmpeg: PathBuf,
}

impl Default for PrepareSettings {
    fn default() -> Self {
        let options = warren_audio::DecodeOptions::default();
        Self {
            slots: 2,
            max_seconds: options.limits.max_seconds,
            scratch: options.scratch,
            keep_free_mb: options.limits.keep_free / 1_000_000,
            ffmpeg: options.ffmpeg,
        }
    }
}

impl Settings {
    /// Who this worker is, for the coordinator.
    pub(crate) fn identity(&self, pace: &Pace) -> WorkerIdentity {
        WorkerIdentity {
            service: "transcription",
            kinds: vec![Takes::fixed(TaskKind::Prepare, self.prepare.slots), pace.takes(TaskKind::Transcribe)],
            slots: pace.slots().into(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

impl Validate for Settings {
    fn validate(&self) -> Result<(), String> {
        self.broker.validate()?;
        self.blob.validate()?;
        self.models.validate()?;
        self.leases.validate()?;
        self.work.validate()?;
        self.leases.local_device().parse::<Device>().map_err(|error| format!("leases.device: {error}"))?;
        if self.prepare.slots == 0 {
            return Err("prepare.slots: must be at least 1".to_owned());
        }
        if self.prepare.keep_free_mb > u64::MAX / 1_000_000 {
            return Err("prepare.keep_free_mb: more than any disk has".to_owned());
        }
        if !(self.prepare.max_seconds.is_finite() && self.prepare.max_seconds > 0.0) {
            return Err("prepare.max_seconds: must be more than 0".to_owned());
        }
        Ok(())
    }
}

impl ServiceSettings for Settings {
    const ABOUT: &'static str = "Decodes recordings, cuts them into windows of speech, and turns windows into text. \
                                 Any number may run.";

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

#[cfg(test)]
mod tests {
    use warren_settings::testing::{assert_defaults, assert_refused};

    use super::*;

    #[test]
    fn the_defaults_are_valid_and_survive_a_file() {
        assert_defaults::<Settings>();
    }

    #[test]
    fn mistakes_are_named() {
        assert_refused("leases.device", |settings: &mut Settings| settings.leases.device = "gpu".to_owned());
        assert_refused("prepare.max_seconds", |settings: &mut Settings| settings.prepare.max_seconds = f64::NAN);
    }
}
