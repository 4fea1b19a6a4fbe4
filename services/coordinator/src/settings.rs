//! The coordinator's settings. Every field has a documented default; see `--print-settings`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use warren_blob::BlobSettings;
use warren_broker::BrokerSettings;
use warren_host::{DrainSettings, HttpSettings, ServiceSettings};
use warren_jobs::retry::RetryPolicy;
use warren_settings::Validate;
use warren_store::StoreSettings;
use warren_telemetry::TelemetrySettings;

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
    /// The database.
    pub store: StoreSettings,
    /// Object storage.
    pub blob: BlobSettings,
    /// The door for workers.
    pub grpc: GrpcSettings,
    /// Who leads.
    pub leader: LeaderSettings,
    /// How work is cut.
    pub release: ReleaseSettings,
    /// When jobs are given up.
    pub reaper: ReaperSettings,
    /// The devices that are leased, e.g. `[[devices]] name = "cuda:0"`.
    pub devices: Vec<DeviceSettings>,
}

/// Where workers reach this coordinator.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct GrpcSettings {
    /// Address and port. Default 127.0.0.1:7071. Workers are trusted: keep it inside the cluster's network.
    pub bind: SocketAddr,
    /// What other coordinators and workers should dial, e.g. `http://coordinator-0:7071`. Empty: the bind address.
    pub advertise: String,
}

impl GrpcSettings {
    /// The address that workers are sent to when this coordinator leads.
    pub(crate) fn address(&self) -> String {
        if self.advertise.is_empty() { format!("http://{}", self.bind) } else { self.advertise.clone() }
    }
}

impl Default for GrpcSettings {
    fn default() -> Self {
        Self { bind: SocketAddr::from(([127, 0, 0, 1], 7071)), advertise: String::new() }
    }
}

/// Timing of the leader row. A hand-over takes at most `ttl_ms` + `poll_ms`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LeaderSettings {
    /// Name of this coordinator. Default `coordinator`; must differ between coordinators.
    pub name: String,
    /// Milliseconds that a term lasts without renewal. Default 5 000.
    pub ttl_ms: u64,
    /// Milliseconds between renewals. Default 1 000.
    pub renew_ms: u64,
    /// Milliseconds without a renewal after which the leader steps down by itself. Default 3 000.
    pub step_down_ms: u64,
    /// Milliseconds between the looks of a standby. Default 1 000.
    pub poll_ms: u64,
}

impl Default for LeaderSettings {
    fn default() -> Self {
        Self { name: "coordinator".to_owned(), ttl_ms: 5_000, renew_ms: 1_000, step_down_ms: 3_000, poll_ms: 1_000 }
    }
}

/// How large a task is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ReleaseSettings {
    /// Seconds of audio that a transcribe task aims at, at most 120. Default 60. One task is the longest that a short
    /// job waits behind a long one, so it should take no more than 15 s on the slowest worker.
    pub task_audio_s: u32,
    /// Texts in an embed task, at most 256. Default 64.
    pub task_texts: u32,
}

impl Default for ReleaseSettings {
    fn default() -> Self {
        Self { task_audio_s: 60, task_texts: 64 }
    }
}

/// When what does not end by itself is ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ReaperSettings {
    /// Seconds between rounds. Default 60.
    pub interval_s: u64,
    /// Seconds that a job may run, unless its own `timeout_s` is longer. Default 21 600.
    pub timeout_s: u64,
    /// Seconds that a worker may be silent before the tasks it ran count as lost. Default 20.
    pub worker_lost_s: u64,
    /// Workers that may be lost while they run a task before it is dead as `WorkerLost`. Default 8.
    pub max_losses: u32,
}

impl Default for ReaperSettings {
    fn default() -> Self {
        Self { interval_s: 60, timeout_s: 21_600, worker_lost_s: 20, max_losses: RetryPolicy::default().max_losses }
    }
}

/// One device that workers share.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DeviceSettings {
    /// `cpu`, `cuda:0`, `east/cuda:0`, … as workers name it.
    pub name: String,
    /// Leases at once. Default: 1 for CUDA, the number of cores for the CPU.
    pub max_concurrent: u32,
    /// Memory that models and batches may use together, in MiB. 0: measured (half of the machine's for the CPU).
    pub memory_mib: u64,
}

impl DeviceSettings {
    /// The machine's processors.
    pub(crate) fn cpu() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { name: "cpu".to_owned(), max_concurrent: u32::try_from(cores).unwrap_or(u32::MAX), memory_mib: 0 }
    }
}

impl Default for DeviceSettings {
    fn default() -> Self {
        Self { name: String::new(), max_concurrent: 1, memory_mib: 0 }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            http: HttpSettings::on(HttpSettings::COORDINATOR),
            telemetry: TelemetrySettings::default(),
            drain: DrainSettings::default(),
            broker: BrokerSettings::default(),
            store: StoreSettings::default(),
            blob: BlobSettings::default(),
            grpc: GrpcSettings::default(),
            leader: LeaderSettings::default(),
            release: ReleaseSettings::default(),
            reaper: ReaperSettings::default(),
            devices: vec![DeviceSettings::cpu()],
        }
    }
}

impl Validate for Settings {
    fn validate(&self) -> Result<(), String> {
        self.broker.validate()?;
        self.store.validate()?;
        self.blob.validate()?;
        let leader = &self.leader;
        if leader.renew_ms == 0 || leader.poll_ms == 0 {
            return Err("leader: renew_ms and poll_ms must be at least 1".to_owned());
        }
        if !(leader.renew_ms < leader.step_down_ms && leader.step_down_ms < leader.ttl_ms) {
            return Err("leader: renew_ms < step_down_ms < ttl_ms must hold, or two could lead".to_owned());
        }
        if !(1..=120).contains(&self.release.task_audio_s) {
            return Err("release.task_audio_s: must be 1 to 120".to_owned());
        }
        if !(1..=256).contains(&self.release.task_texts) {
            return Err("release.task_texts: must be 1 to 256".to_owned());
        }
        if self.reaper.interval_s == 0 || self.reaper.timeout_s == 0 {
            return Err("reaper: interval_s and timeout_s must be at least 1".to_owned());
        }
        if self.reaper.max_losses == 0 {
            return Err("reaper.max_losses: must be at least 1".to_owned());
        }
        // Workers report every 2 s.
        if self.reaper.worker_lost_s < 5 {
            return Err("reaper.worker_lost_s: must be at least 5".to_owned());
        }
        if self.devices.iter().any(|device| device.name.is_empty() || device.max_concurrent == 0) {
            return Err("devices: each needs a name and max_concurrent of at least 1".to_owned());
        }
        Ok(())
    }
}

impl ServiceSettings for Settings {
    const ABOUT: &'static str =
        "Plans jobs into tasks, releases them fairly, leases devices, records results. Any number may run; one leads.";

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
    use warren_settings::{
        Secret,
        testing::{assert_defaults, assert_refused},
    };

    use super::*;

    #[test]
    fn the_defaults_are_valid_and_survive_a_file() {
        assert_defaults::<Settings>();
    }

    #[test]
    fn mistakes_are_named() {
        type Mistake = fn(&mut Settings);
        let wrong: [(&str, Mistake); 6] = [
            ("broker.url", |settings| settings.broker.url = Secret::new("http://somewhere".to_owned())),
            ("store.url", |settings| settings.store = StoreSettings::at("mysql://somewhere")),
            ("blob.bucket", |settings| settings.blob.bucket.clear()),
            ("renew_ms", |settings| settings.leader.renew_ms = 0),
            ("interval_s", |settings| settings.reaper.interval_s = 0),
            ("devices", |settings| settings.devices.push(DeviceSettings::default())),
        ];
        for (key, mistake) in wrong {
            assert_refused(key, mistake);
        }
    }
}
