//! The service's settings. Every field has a documented default; see `--print-settings`.

use serde::{Deserialize, Serialize};
use warren_blob::BlobSettings;
use warren_broker::BrokerSettings;
use warren_host::{DrainSettings, HttpSettings, ServiceSettings};
use warren_inference::Device;
use warren_jobs::TaskKind;
use warren_leases::{LeaseSettings, WorkerIdentity};
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
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            http: HttpSettings::on(HttpSettings::BATCH_EMBEDDING),
            telemetry: TelemetrySettings::default(),
            drain: DrainSettings::default(),
            broker: BrokerSettings::default(),
            blob: BlobSettings::default(),
            models: ModelsSettings::default(),
            leases: LeaseSettings::default(),
            work: WorkSettings::default(),
        }
    }
}

impl Settings {
    /// Who this worker is, for the coordinator.
    pub(crate) fn identity(&self, pace: &Pace) -> WorkerIdentity {
        WorkerIdentity {
            service: "batch-embedding",
            kinds: vec![pace.takes(TaskKind::Embed)],
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
        Ok(())
    }
}

impl ServiceSettings for Settings {
    const ABOUT: &'static str = "Turns texts into unit vectors. Any number may run.";

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
        assert_refused("work.models_loaded", |settings: &mut Settings| settings.work.models_loaded = 0);
    }
}
